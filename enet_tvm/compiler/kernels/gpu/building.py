"""Small vocabulary for kernels of a GPU, beside that of `building`.

What the threads of a block read together, weights and the pixels around them, goes through the read-only cache. Shared memory
is for what they tell each other: written before a barrier, read after it. In all kernels but those of bottlenecks no register
lives across. So they are also correct with their threads run one after the other, up to the barrier and then from there on:
this is how `emulation` lets a machine without a GPU compute with them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import tvm
from tvm.tirx.script.builder import ir as T

WARP = 32
"""Threads that run in step: neighbouring ones read neighbouring pixels, so that their loads are one transaction."""

VECTOR = 4
"""float32 values that one load of a thread moves at most."""


@contextmanager
def for_threads(blocks: tuple[int, int, int], threads: tuple[int, int]) -> Iterator[tuple[Any, Any, Any, Any, Any]]:
    """Bind a launch: yields block indices x, y and z, and thread indices x and y."""
    with (
        T.thread_binding(blocks[2], thread="blockIdx.z") as bz,
        T.thread_binding(blocks[1], thread="blockIdx.y") as by,
        T.thread_binding(blocks[0], thread="blockIdx.x") as bx,
        T.thread_binding(threads[1], thread="threadIdx.y") as ty,
        T.thread_binding(threads[0], thread="threadIdx.x") as tx,
    ):
        yield bx, by, bz, tx, ty


@contextmanager
def for_each(*extents: int) -> Iterator[tuple[Any, ...]]:
    """Loop over a register tile, all unrolled: an array in registers needs constant indices."""
    if not extents:
        yield ()
        return
    with T.unroll(extents[0]) as index, for_each(*extents[1:]) as rest:
        yield (index, *rest)


@contextmanager
def for_vector(width: int) -> Iterator[Any]:
    """Emit one access for `width` neighbours, yielding which of them; a plain one for a single value."""
    if width == 1:
        yield 0
        return
    with T.vectorized(width) as lane:
        yield lane


def private(shape: tuple[int, ...], dtype: str = "float32") -> Any:
    """Return an array of a thread's own, which the compiler keeps in registers."""
    return T.alloc_buffer(shape, dtype, scope="local", layout=None)


def shared(shape: tuple[int, ...], dtype: str = "float32") -> Any:
    """Return an array that the threads of a block share."""
    return T.alloc_buffer(shape, dtype, scope="shared", layout=None)


def barrier() -> None:
    """Emit a barrier of all threads of a block."""
    T.evaluate(T.tvm_storage_sync("shared"))


@contextmanager
def if_all(*conditions: Any) -> Iterator[None]:
    """Emit a test of those conditions that are not known to hold (None), or none at all."""
    wanted = [condition for condition in conditions if condition is not None]
    if not wanted:
        yield
        return
    with T.If(both(*wanted)), T.Then():
        yield


def both(*conditions: Any) -> Any:
    """Return the conjunction of one or more conditions."""
    return conditions[0] if len(conditions) == 1 else tvm.tirx.all(*conditions)


def copy_vectors(target: Any, count: int, source: Any, leading: list[Any], start: Any) -> None:
    """Copy `count` neighbours of a buffer's last dimension into ``target[0:count]``, in as wide loads as divide them."""
    width = next(w for w in (VECTOR, 2, 1) if count % w == 0)
    for first in range(0, count, width):
        if width == 1:
            T.buffer_store(target, source[(*leading, start + first)], [first])
            continue
        with T.vectorized(width) as lane:
            T.buffer_store(target, source[(*leading, start + first + lane)], [first + lane])


def padded_vector(values: np.ndarray, count: int) -> np.ndarray:
    """Return a vector lengthened with zeros, for channels that only fill the last tile up."""
    return np.concatenate([values, np.zeros(count - values.size, values.dtype)])
