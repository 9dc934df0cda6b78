"""Kernels that keep one part of a GPU busy and nothing else, by whose times the model of it is calibrated.

Each is made so that the figure it is named for binds it: sums that nothing waits for, copies and reads of as much memory as one
level of it holds and the level before it does not, and chains of loads each of which needs the one before it. Their loops are
unrolled, so that counting and branching is a small part of what they do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tvm
from tvm.tirx.script.builder import ir as T

from enet_tvm.compiler.cuda.multiprocessor import Multiprocessor
from enet_tvm.compiler.kernels.common.building import prim_func
from enet_tvm.compiler.kernels.gpu.building import VECTOR, WARP, barrier, copy_vectors, for_each, for_threads, private, shared

THREADS = 256
"""Threads of a block of those kernels that need all of a multiprocessor."""

SUMS = 8
"""Sums of a thread, none of which waits for another."""

UNROLLED = 16
"""Steps of a loop that are unrolled."""

_FLOAT = 4
_STEP = 1021 * WARP
"""Integers between two loads of a chain through memory: a prime number of cache lines, so that it comes to all of them."""
_BLOCKS = 4
"""Blocks for each multiprocessor: 32 warps, as many as each of them has room for."""


@dataclass(frozen=True)
class Benchmark:
    """A kernel and what one launch of it does.

    Attributes
    ----------
    kernel : tvm.tirx.PrimFunc
        Kernel that takes an input and an output.
    work : int
        Multiply-adds of all threads, bytes moved, or loads one after the other: what its time is divided by.
    """

    kernel: tvm.tirx.PrimFunc
    work: int


def microbenchmarks(multiprocessors: int, one: Multiprocessor) -> dict[str, Benchmark]:
    """Return the kernels for a GPU by the figures that they fix.

    Parameters
    ----------
    multiprocessors : int
        Multiprocessors that it has.
    one : Multiprocessor
        What each of them is thought to do, which says how much memory its caches hold.

    Returns
    -------
    dict of str to Benchmark
        ``fma`` (multiply-adds), ``dram``, ``l2``, ``l1`` and ``shared`` (bytes), ``latency``, ``step`` and ``memory_latency``
        (loads); ``step`` is the last in memory that L1 holds, for what its steps add to the latency of the loads.
    """
    blocks = _BLOCKS * multiprocessors
    large = multiprocessors > 16
    # What L1 holds and L2 does not: L2 has a quarter of a megabyte on the smallest GPUs, 72 on the largest.
    beyond_l1, beyond_l2 = (2**18 if one.unified else 2**15), (2**26 if large else 2**23)
    return {
        "fma": multiply_adds(blocks, 2048),
        "dram": copies(beyond_l2),
        "l2": reads(blocks, beyond_l1, THREADS * VECTOR, 64),
        "l1": reads(blocks, 2**11, WARP, 256),
        "shared": shared_reads(blocks, 256),
        "latency": loads(4, 1024, 0),
        "step": loads(2**10, 1024, _STEP),
        "memory_latency": loads(beyond_l2, beyond_l2 // 64 // UNROLLED, _STEP),
    }


def multiply_adds(blocks: int, turns: int) -> Benchmark:
    """Return `SUMS` sums in each thread: each is multiplied by one value and added to by another, time and again.

    The input holds both values, then what the sums begin with; each thread writes all its sums added up.
    """

    def body(x: Any, out: Any) -> None:
        with for_threads((blocks, 1, 1), (THREADS, 1)) as (block, _, _, thread, _):
            sums, factors = private((SUMS,)), private((2,))
            with for_each(2) as (i,):
                T.buffer_store(factors, x[i], [i])
            with for_each(SUMS) as (i,):
                T.buffer_store(sums, x[2 + i], [i])
            with T.serial(turns), for_each(UNROLLED, SUMS) as (_, i):
                T.buffer_store(sums, sums[i] * factors[0] + factors[1], [i])
            _store_sum(out, sums, SUMS, block * THREADS + thread)

    kernel = prim_func({"x": ((2 + SUMS,), "float32"), "out": ((blocks * THREADS,), "float32")}, body)
    return Benchmark(kernel, blocks * THREADS * turns * UNROLLED * SUMS)


def copies(count: int) -> Benchmark:
    """Return a copy of so many floats, four by each thread."""

    def body(x: Any, out: Any) -> None:
        with (
            for_threads((count // (THREADS * VECTOR), 1, 1), (THREADS, 1)) as (block, _, _, thread, _),
            T.vectorized(VECTOR) as i,
        ):
            place = (block * THREADS + thread) * VECTOR + i
            T.buffer_store(out, x[place], [place])

    return Benchmark(prim_func({"x": ((count,), "float32"), "out": ((count,), "float32")}, body), 2 * _FLOAT * count)


def reads(blocks: int, count: int, stride: int, turns: int) -> Benchmark:
    """Return reads of so many floats by every block, one block after the other beginning further on; each thread adds its up.

    A step reads four floats for each thread of the block, neighbours for neighbours, and the next one those `stride` floats
    further on; after the last floats come the first. No step of a turn reads what another one has read: a compiler would leave
    it out.
    """

    def body(x: Any, out: Any) -> None:
        with for_threads((blocks, 1, 1), (THREADS, 1)) as (block, _, _, thread, _):
            start = block * (count // _BLOCKS) + thread * VECTOR
            _store_sum(out, _read(x, count, start, stride, turns), VECTOR, block * THREADS + thread)

    kernel = prim_func({"x": ((count,), "float32"), "out": ((blocks * THREADS,), "float32")}, body)
    return Benchmark(kernel, blocks * THREADS * turns * UNROLLED * VECTOR * _FLOAT)


def shared_reads(blocks: int, turns: int) -> Benchmark:
    """Return reads of shared memory, which every block first fills; otherwise they are those of `reads`."""
    count = THREADS * VECTOR * 2

    def body(x: Any, out: Any) -> None:
        with for_threads((blocks, 1, 1), (THREADS, 1)) as (block, _, _, thread, _):
            kept = shared((count,))
            with for_each(2 * VECTOR) as (i,):
                T.buffer_store(kept, x[thread + i * THREADS], [thread + i * THREADS])
            barrier()
            _store_sum(out, _read(kept, count, thread * VECTOR, WARP, turns), VECTOR, block * THREADS + thread)

    kernel = prim_func({"x": ((count,), "float32"), "out": ((blocks * THREADS,), "float32")}, body)
    return Benchmark(kernel, blocks * THREADS * turns * UNROLLED * VECTOR * _FLOAT)


def loads(count: int, turns: int, step: int) -> Benchmark:
    """Return a chain of loads by one warp: each says, with a step added, where the next is.

    Parameters
    ----------
    count : int
        Integers that it walks through, a power of two; their values are from 0 to 3.
    turns : int
        Turns of its loop, of `UNROLLED` loads each.
    step : int
        Integers from one place to the next; 0 for places 0 to 3 alone, whose values lead from one to another.
    """

    def body(x: Any, out: Any) -> None:
        with for_threads((1, 1, 1), (WARP, 1)) as (_, _, _, thread, _):
            place = private((1,), "int32")
            T.buffer_store(place, x[0], [0])
            with T.serial(turns), T.unroll(UNROLLED):
                found = x[place[0]] if step == 0 else T.bitwise_and(place[0] + x[place[0]] + step, count - 1)
                T.buffer_store(place, found, [0])
            T.buffer_store(out, place[0], [thread])

    return Benchmark(prim_func({"x": ((count,), "int32"), "out": ((WARP,), "int32")}, body), turns * UNROLLED)


def _read(source: Any, count: int, start: Any, stride: int, turns: int) -> Any:
    """Emit the loop of `reads` from a place on, and return the four sums of a thread."""
    sums, read = private((VECTOR,)), private((VECTOR,))
    with for_each(VECTOR) as (i,):
        T.buffer_store(sums, T.float32(0), [i])
    with T.serial(turns) as turn, T.unroll(UNROLLED) as step:
        place = T.bitwise_and(start + (turn * UNROLLED + step) * stride, count - 1)
        copy_vectors(read, VECTOR, source, [], place)
        with for_each(VECTOR) as (i,):
            T.buffer_store(sums, sums[i] + read[i], [i])
    return sums


def _store_sum(out: Any, sums: Any, count: int, place: Any) -> None:
    total = sums[0]
    for i in range(1, count):
        total = total + sums[i]
    T.buffer_store(out, total, [place])
