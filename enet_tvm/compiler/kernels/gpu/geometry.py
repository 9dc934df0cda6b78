"""Threads of a kernel, and what each of them multiplies and adds, read from its TensorIR."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import tvm
import tvm_ffi
from tvm import s_tir, tirx

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
    found = _Walk(kernel)
    found.visit(kernel.body, (), 1)
    nests = [(tuple(found.turns[var] for var in loops), count) for loops, count in found.nests.items()]
    grid = {tag: extent for tag, extent in found.threads.items() if tag.startswith(_GRID)}
    return Geometry(
        blocks=math.prod(grid.values()),
        threads=math.prod(extent for tag, extent in found.threads.items() if tag not in grid),
        multiply_adds=sum(found.nests.values()),
        loops=max(nests, key=lambda nest: nest[1], default=((), 0))[0],
        nests=tuple(nests),
        tensor_bytes=sum(map(_bytes, kernel.params)),
        block_bytes=sum(
            _bytes(tensor) * math.prod(extent for tag, extent in grid.items() if tag not in tags)
            for tensor, tags in found.tags.items()
        ),
    )


_GRID = "blockIdx"
"""How the tags of a launch's blocks begin; those of threads begin otherwise."""


class _Walk:
    """What is found in a kernel when each of its statements is looked at once.

    Attributes
    ----------
    threads : dict
        Extents of grid and block, by tag.
    nests : dict
        Products in each nest of loops, by their variables, so that two beside each other are two, also where they turn equally
        often.
    turns : dict
        Turns of each loop that is not unrolled, by its variable.
    tags : dict
        Tags of the grid on which the indices depend by which each argument is read and written.
    """

    def __init__(self, kernel: tirx.PrimFunc) -> None:
        self.threads: dict[str, int] = {}
        self.nests: dict[tuple[tirx.Var, ...], int] = {}
        self.turns: dict[tirx.Var, int] = {}
        self.tags: dict[tirx.Var, set[str]] = {parameter: set() for parameter in kernel.params}
        self._tags_of: dict[tirx.Var, set[str]] = {}

    def visit(self, node: Any, loops: tuple[tirx.Var, ...], turns: int) -> None:
        """Look at a statement inside these loops, which is executed so many times."""
        if isinstance(node, tirx.For):
            self._visit_loop(node, loops, turns)
        elif isinstance(node, tirx.SeqStmt):
            for each in node.seq:
                self.visit(each, loops, turns)
        elif isinstance(node, tirx.IfThenElse):
            self._look_at(node.condition)
            for part in (node.then_case, node.else_case):
                if part is not None:
                    self.visit(part, loops, turns)
        elif isinstance(node, s_tir.SBlockRealize):
            for var, value in zip(node.block.iter_vars, node.iter_values, strict=True):
                self._tags_of[var.var] = self._depends_on(value)
            self._look_at(node.predicate)
            self.visit(node.block.body, loops, turns)
        elif (body := getattr(node, "body", None)) is not None:
            self.visit(body, loops, turns)
        else:
            if isinstance(node, tirx.Bind):
                self._tags_of[node.var] = self._depends_on(node.value)
            elif isinstance(node, tirx.BufferStore | tirx.Evaluate) and (count := _products(node)) > 0:
                self.nests[loops] = self.nests.get(loops, 0) + turns * count
            self._look_at(node)

    def _visit_loop(self, loop: tirx.For, loops: tuple[tirx.Var, ...], turns: int) -> None:
        extent = int(loop.extent)
        if loop.thread_binding is not None:
            tag = str(loop.thread_binding.thread_tag)
            self.threads[tag] = extent
            self._tags_of[loop.loop_var] = {tag}
        elif loop.kind == tirx.ForKind.SERIAL:
            self.turns[loop.loop_var] = extent
            loops, turns = (*loops, loop.loop_var), turns * extent
        else:
            turns *= extent
        self.visit(loop.body, loops, turns)

    def _look_at(self, node: Any) -> None:
        """Note the accesses in a statement or an expression."""
        visitors = (
            (tvm.ir.TensorLoad, lambda load: self._note(load.source, load.indices)),
            (tirx.BufferStore, lambda store: self._note(store.buffer, store.indices)),
        )
        tvm_ffi.structural_walk(node, visitors, order="pre")

    def _note(self, tensor: tirx.Var, indices: Any) -> None:
        if tensor in self.tags:
            self.tags[tensor] |= self._depends_on(indices)

    def _depends_on(self, expression: Any) -> set[str]:
        """Return the tags of the grid, and of threads, on which an expression depends."""
        tags: set[str] = set()
        tvm_ffi.structural_walk(expression, (tirx.Var, lambda var: tags.update(self._tags_of.get(var, ()))))
        return tags


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
