"""Small vocabulary for building ``PrimFunc`` s with TVM's IR builder."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import tvm
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script.builder import ir as T

from enet_tvm.compiler.kernels.common.elements import calls, splat, vector, with_definitions, zeros
from enet_tvm.compiler.kernels.common.llvm_functions import Isa

Arguments = dict[str, tuple[tuple[int, ...], str]]


def prim_func(arguments: Arguments, body: Callable[..., None], isa: Isa = "x86") -> tvm.tirx.PrimFunc:
    """Build a scheduled, side-effect-free kernel.

    Parameters
    ----------
    arguments : dict
        Name -> (shape, dtype) of each buffer, inputs before outputs.
    body : callable
        Function of the buffers that emits the statements.
    isa : {"x86", "aarch64"}
        Instruction set whose dot products the statements may use.
    """
    with calls() as names, IRBuilder() as builder:
        with T.prim_func(s_tir=True, private=True):
            buffers = [
                T.arg(name, T.buffer(shape, dtype, layout=None, buffer_name=name)) for name, (shape, dtype) in arguments.items()
            ]
            # Opaque (8) to TVM's own fusion: a template has taken what belongs to it already.
            T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True, "op_pattern": 8})
            body(*buffers)
    return with_definitions(builder.get(), names, isa)


class Registers:
    """Vectors that LLVM keeps in registers, addressed by numbers that are known while the kernel is built.

    Each is a buffer of its own, and not of scope "local": for a CPU, TVM puts such buffers on the heap, and those of more than
    1 KiB. There whatever is in registers would be stored too, although nothing reads it: as many stores as the kernel's own.

    Parameters
    ----------
    shape : tuple of int
        Extents of the grid of vectors, in which each has its place.
    lanes : int
        Elements of a vector.
    dtype : str
        Type of an element.
    """

    def __init__(self, shape: tuple[int, ...], lanes: int, dtype: str = "float32") -> None:
        self._index = vector(0, lanes)
        self._buffers = {place: T.alloc_buffer((lanes,), dtype, layout=None) for place in tile_places(*shape)}

    def __getitem__(self, place: tuple[int, ...]) -> Any:
        return self._buffers[place][self._index]

    def __setitem__(self, place: tuple[int, ...], value: Any) -> None:
        T.buffer_store(self._buffers[place], value, [self._index])


@contextmanager
def for_rows(count: int, rows: int) -> Iterator[tuple[Any, Any]]:
    """Loop in parallel over the rows of `count` pictures, yielding (picture, row)."""
    if count == 1:
        with T.parallel(rows) as row:
            yield 0, row
    else:
        with T.parallel(count * rows) as index:
            yield T.floordiv(index, rows), T.floormod(index, rows)


def tile_places(*extents: int) -> Iterator[tuple[int, ...]]:
    """Yield the places of a register tile, the last dimension fastest: what is emitted for each is unrolled."""
    return itertools.product(*map(range, extents))


def tile_start(index: Any, size: int, total: int) -> Any:
    """Return where tile `index` of a row starts: the last one is moved left until it fits."""
    return index * size if total % size == 0 else T.min(index * size, total - size)


@contextmanager
def if_inside(row: Any, rows: int, *, may_be_outside: bool) -> Iterator[None]:
    """Emit a test that `row` is one of `rows`, or none where it cannot be outside."""
    if not may_be_outside:
        yield
        return
    with T.If(tvm.tirx.all(row >= 0, row < rows)), T.Then():
        yield


def activated(value: Any, activation: str, slope: Any, lanes: int = 1, zero: Any = None, *, masks: bool = True) -> Any:
    """Return a vector after the activation.

    Parameters
    ----------
    value : PrimExpr
        The vector.
    activation : {"none", "relu", "prelu"}
        Activation to apply.
    slope : callable
        Function that returns the slopes of a PReLU, called for that only; of float16, what they are beyond 1.
    lanes : int
        Elements of the vector.
    zero : PrimExpr, optional
        Vector that stands for 0 among the values, if not 0 itself; it stands for it in the result too.
    masks : bool
        Whether comparing and multiplying what is below 0 is one instruction each, as on x86; on ARM a third has to select.
    """
    dtype = str(value.ty.dtype).partition("x")[0]
    halves, nothing = dtype == "float16", zeros(dtype, lanes)
    if activation == "relu":
        return T.max(value, nothing if zero is None else zero)
    if activation != "prelu":
        return value
    if halves:
        # A minimum and a multiply-add. The slopes are rounded as numbers near 1 are, which costs less than storing the result.
        return value + T.min(value, nothing) * slope()
    if zero is None and not masks:
        # As for float16; that the slopes are the same for all pixels of a tile makes the subtraction rare.
        return value + T.min(value, nothing) * (slope() - splat(tvm.tirx.const(1, dtype), lanes))
    # In this order x86 multiplies under a mask, and selects nothing.
    if zero is None:
        return T.Select(value < nothing, value * slope(), value)
    # One multiplication and addition: the second half is the same for all pixels of a tile.
    return T.Select(value < zero, value * slope() + (zero - zero * slope()), value)
