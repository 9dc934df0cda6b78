"""Small vocabulary for building ``PrimFunc`` s with TVM's IR builder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import tvm
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script.builder import ir as T

Arguments = dict[str, tuple[tuple[int, ...], str]]


def prim_func(arguments: Arguments, body: Callable[..., None]) -> tvm.tirx.PrimFunc:
    """Build a scheduled, side-effect-free kernel.

    Parameters
    ----------
    arguments : dict
        Name -> (shape, dtype) of each buffer, inputs before outputs.
    body : callable
        Emits the statements; takes the buffers.
    """
    with IRBuilder() as builder:
        with T.prim_func(s_tir=True, private=True):
            buffers = [
                T.arg(name, T.buffer(shape, dtype, layout=None, buffer_name=name)) for name, (shape, dtype) in arguments.items()
            ]
            # Opaque (8) to TVM's own fusion: a template has taken what belongs to it already.
            T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True, "op_pattern": 8})
            body(*buffers)
    return builder.get()


def registers(shape: tuple[int, ...], name: str) -> Any:
    """Return a buffer that LLVM keeps in registers: every index into it must be constant once loops are unrolled."""
    return T.alloc_buffer(shape, "float32", scope="local", layout=None)


@contextmanager
def for_rows(count: int, rows: int) -> Iterator[tuple[Any, Any]]:
    """Loop in parallel over the rows of `count` pictures, yielding (picture, row)."""
    if count == 1:
        with T.parallel(rows) as row:
            yield 0, row
    else:
        with T.parallel(count * rows) as index:
            yield T.floordiv(index, rows), T.floormod(index, rows)


@contextmanager
def for_tile(*extents: int, lanes: int) -> Iterator[tuple[Any, ...]]:
    """Loop over a register tile: unrolled in every dimension but the last, which is one vector."""
    if not extents:
        with T.vectorized(lanes) as lane:
            yield (lane,)
        return
    with T.unroll(extents[0]) as index, for_tile(*extents[1:], lanes=lanes) as rest:
        yield (index, *rest)


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


def write_edges(buffer: Any, leading: tuple[Any, ...], width: int, pad: int, lanes: int) -> None:
    """Zero the `pad` columns at either end of a row of `width` pixels."""
    if pad:
        with T.serial(pad) as column, T.vectorized(lanes) as lane:
            T.buffer_store(buffer, T.float32(0), [*leading, column, lane])
            T.buffer_store(buffer, T.float32(0), [*leading, width + pad + column, lane])


def activated(value: Any, activation: str, slope: Any) -> Any:
    """Return `value` after the activation; `slope` is called for a PReLU only."""
    zero = T.float32(0)
    if activation == "relu":
        return T.max(value, zero)
    if activation == "prelu":
        return T.Select(value > zero, value, value * slope())
    return value
