"""Threads of a kernel, and what each of them multiplies and adds, read from its TensorIR."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import tvm
import tvm_ffi
from tvm import tirx

from enet_tvm.compiler.kernels.gpu.half_arithmetic import PRODUCTS, called


@dataclass(frozen=True)
class Geometry:
    """The launch of a kernel.

    Attributes
    ----------
    blocks : int
        Blocks of the launch.
    threads : int
        Threads of a block.
    multiply_adds : int
        Products that each thread adds to a sum, those of channels and pixels that are no one's included.
    loops : tuple of int
        Turns of the loops around most of them that are not unrolled, the outermost first.
    nests : tuple of (tuple of int, int)
        Turns of the loops around each part of them, and their number, in the order of the kernel.
    tensor_bytes : int
        Bytes of all arguments: what the kernel must at least read and write.
    block_bytes : int
        Bytes that its blocks read and write, each for itself. A block has the part of an argument that its place in the grid
        says, and all of it where no index depends on the place. Pixels that the windows of two blocks share count once.
    """

    blocks: int
    threads: int
    multiply_adds: int
    loops: tuple[int, ...]
    nests: tuple[tuple[tuple[int, ...], int], ...] = ()
    tensor_bytes: int = 0
    block_bytes: int = 0


def geometry_of(kernel: tirx.PrimFunc) -> Geometry:
    """Return the launch of a kernel whose loops all have known numbers of turns."""
    extents: dict[str, int] = {}
    # By the loops themselves: two beside each other are two nests, also where they turn equally often.
    nests: dict[tuple[tirx.Var, ...], int] = {}
    extent_of: dict[tirx.Var, int] = {}

    def visit(node: Any, loops: tuple[tirx.Var, ...], turns: int) -> None:
        if isinstance(node, tirx.For):
            extent = int(node.extent)
            if node.thread_binding is not None:
                extents[str(node.thread_binding.thread_tag)] = extent
                visit(node.body, loops, turns)
            elif node.kind == tirx.ForKind.SERIAL:
                extent_of[node.loop_var] = extent
                visit(node.body, (*loops, node.loop_var), turns * extent)
            else:
                visit(node.body, loops, turns * extent)
        elif isinstance(node, tirx.BufferStore | tirx.Evaluate):
            if (count := _products(node)) > 0:
                nests[loops] = nests.get(loops, 0) + turns * count
        elif isinstance(node, tirx.SeqStmt):
            for each in node.seq:
                visit(each, loops, turns)
        else:
            for part in ("body", "block", "then_case", "else_case"):
                if (inside := getattr(node, part, None)) is not None:
                    visit(inside, loops, turns)

    visit(kernel.body, (), 1)
    turning = [(tuple(extent_of[var] for var in loops), count) for loops, count in nests.items()]
    return Geometry(
        blocks=math.prod(extent for tag, extent in extents.items() if tag.startswith("blockIdx")),
        threads=math.prod(extent for tag, extent in extents.items() if tag.startswith("threadIdx")),
        multiply_adds=sum(nests.values()),
        loops=max(turning, key=lambda nest: nest[1], default=((), 0))[0],
        nests=tuple(turning),
        tensor_bytes=sum(map(_bytes, kernel.params)),
        block_bytes=_block_bytes(kernel),
    )


def _block_bytes(kernel: tirx.PrimFunc) -> int:
    grid: dict[tirx.Var, int] = {}
    places: dict[tirx.Var, set[tirx.Var]] = {parameter: set() for parameter in kernel.params}

    def loop(node: tirx.For) -> None:
        if node.thread_binding is not None and str(node.thread_binding.thread_tag).startswith("blockIdx"):
            grid[node.loop_var] = int(node.extent)

    def access(tensor: tirx.Var, indices: Any) -> None:
        if tensor in places:
            tvm_ffi.structural_walk(indices, (tirx.Var, places[tensor].add))

    visitors = (
        (tirx.For, loop),
        (tvm.ir.TensorLoad, lambda node: access(node.source, node.indices)),
        (tirx.BufferStore, lambda node: access(node.buffer, node.indices)),
    )
    tvm_ffi.structural_walk(kernel.body, visitors, order="pre")
    return sum(
        _bytes(tensor) * math.prod(extent for place, extent in grid.items() if place not in variables)
        for tensor, variables in places.items()
    )


def _bytes(tensor: tirx.Var) -> int:
    return math.prod(map(int, tensor.ty.shape)) * np.dtype(str(tensor.ty.dtype)).itemsize


def _products(node: tirx.BufferStore | tirx.Evaluate) -> int:
    """Return how many products a statement adds to sums of a thread."""
    if name := called(node.value):
        return PRODUCTS.get(name, 0)
    return int(isinstance(node, tirx.BufferStore) and _accumulates(node))


def _accumulates(store: tirx.BufferStore) -> bool:
    """Whether a store adds a product to what is there."""
    value = store.value
    if not (isinstance(value, tirx.Add) and isinstance(value.b, tirx.Mul)):
        return False
    return bool(tvm_ffi.structural_equal(value.a, tirx.BufferLoad(store.buffer, store.indices)))
