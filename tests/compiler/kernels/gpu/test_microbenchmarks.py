"""What the microbenchmarks compute, on fibers, and that their machine code does the work that their times are divided by."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from cuda_network import launch_extents, run_kernel

from enet_tvm.compiler.cuda.device_compiler import kernel_ptx
from enet_tvm.compiler.cuda.machine_code import LOADS, Operation, read_machine_code
from enet_tvm.compiler.cuda.multiprocessor import multiprocessor_of
from enet_tvm.compiler.cuda.ptxas import assembled
from enet_tvm.compiler.cuda.tools import CudaTools
from enet_tvm.compiler.kernels.gpu.microbenchmarks import (
    SUMS,
    THREADS,
    UNROLLED,
    Benchmark,
    copies,
    loads,
    microbenchmarks,
    multiply_adds,
    reads,
    shared_reads,
)
from enet_tvm.targets import load_target

RANDOM = np.random.default_rng(0)


def run(benchmark: Benchmark, x: np.ndarray, count: int, folder: Path) -> np.ndarray:
    dtype = "float32" if x.dtype == np.float32 else "int32"
    return run_kernel(benchmark.kernel, folder, x=x, out=np.zeros(count, dtype))["out"]


def test_multiply_adds(tmp_path: Path):
    x = np.array([0.5, 0.25, *RANDOM.standard_normal(SUMS)], np.float32)
    out = run(multiply_adds(2, 3), x, 2 * THREADS, tmp_path)
    sums = x[2:]
    for _ in range(3 * UNROLLED):
        sums = sums * x[0] + x[1]
    np.testing.assert_allclose(out, np.full(2 * THREADS, sums.sum()), rtol=1e-6)


def test_copies(tmp_path: Path):
    x = RANDOM.standard_normal(4096).astype(np.float32)
    np.testing.assert_array_equal(run(copies(4096), x, 4096, tmp_path), x)


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize(("count", "stride"), [(2048, 32), (32768, 1024)], ids=["in L1", "in L2"])
def test_reads(tmp_path: Path, count: int, stride: int):
    """Every thread reads from its own place on, and from the beginning after the end."""
    x = RANDOM.standard_normal(count).astype(np.float32)
    out = run(reads(3, count, stride, 2), x, 3 * THREADS, tmp_path)
    block, thread = np.divmod(np.arange(3 * THREADS), THREADS)
    starts = block * (count // 4) + 4 * thread
    steps = stride * np.arange(2 * UNROLLED)
    places = (starts[:, None, None] + steps[:, None] + np.arange(4)) % count
    np.testing.assert_allclose(out, x[places].sum((1, 2)), rtol=1e-4, atol=1e-4)


def test_shared_reads(tmp_path: Path):
    x = RANDOM.standard_normal(2048).astype(np.float32)
    out = run(shared_reads(2, 2), x, 2 * THREADS, tmp_path)
    places = (4 * np.arange(THREADS)[:, None, None] + 32 * np.arange(2 * UNROLLED)[:, None] + np.arange(4)) % 2048
    np.testing.assert_allclose(out, np.tile(x[places].sum((1, 2)), 2), rtol=1e-4, atol=1e-4)


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize(("count", "step"), [(4, 0), (1024, 96)], ids=["from one to another", "with steps"])
def test_loads(tmp_path: Path, count: int, step: int):
    x = RANDOM.integers(0, 4, count).astype(np.int32)
    out = run(loads(count, 2, step), x, 32, tmp_path)
    place = int(x[0])
    for _ in range(2 * UNROLLED):
        place = int(x[place]) if step == 0 else (place + int(x[place]) + step) % count
    np.testing.assert_array_equal(out, np.full(32, place))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["jetson-tx1", "gtx-1080", "rtx-2080", "rtx-3090", "h100"])
def test_the_assembler_leaves_nothing_out(tools: CudaTools, name: str):
    """What a loop does for each turn of 16 steps, and nothing but it: no spills, and loads as wide as they can be."""
    target = load_target(name)
    assert target.gpu is not None
    arch, one = target.gpu.arch, multiprocessor_of(target.gpu.arch)
    assert one is not None
    for figure, benchmark in microbenchmarks(target.gpu.multiprocessors, one).items():
        made = assembled(kernel_ptx(benchmark.kernel, target.to_tvm(), arch), arch, tools)
        (resources,) = made.resources
        assert resources.spill_bytes == resources.stack_bytes == 0
        assert resources.registers <= 64, "there is to be room for 32 warps of 65536 registers"
        code = read_machine_code(made.cubins, arch)[resources.name]
        (blocks, *_), (threads, *_) = launch_extents(benchmark.kernel)
        if figure == "dram":
            assert [each.width for each in code.instructions if each.width] == [16, 16]
            assert benchmark.work == blocks * threads * 32
            continue
        (loop,) = code.loops
        loaded = [each for each in loop.instructions if each.operation in LOADS]
        if figure == "fma":
            assert loop.counts[Operation.FMA] == UNROLLED * SUMS
            assert len(loop.instructions) < 1.1 * UNROLLED * SUMS
        elif figure in ("l2", "l1", "shared"):
            assert len(loaded) == UNROLLED
            assert {each.width for each in loaded} == {16}
            # Four schedulers issue an instruction each in a clock: fewer clocks than the bytes take at the rate to be found.
            assert len(loop.instructions) / 4 < loop.loaded_bytes * 32 / 128
            assert benchmark.work % (blocks * threads * UNROLLED * 16) == 0
        else:
            assert threads == 32
            assert blocks == 1
            assert len(loaded) % UNROLLED == 0
            assert benchmark.work % len(loaded) == 0
