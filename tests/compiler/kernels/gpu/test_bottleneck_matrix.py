"""Bottlenecks that multiply matrices of float16 against PyTorch, on fibers with PTX's fragments, and their machine code."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bottlenecks import BottleneckCall, bottleneck
from cuda_fibers import compile_fibers
from cuda_network import block_accesses, kernel_source, launch_extents
from gpu_kernels import check_default
from warp_accesses import traffic

from enet_tvm.compiler.cuda.machine_code import Operation, read_machine_code
from enet_tvm.compiler.cuda.nvrtc import compile_to_ptx
from enet_tvm.compiler.cuda.ptxas import assembled
from enet_tvm.compiler.cuda.tools import CudaTools
from enet_tvm.compiler.kernels.gpu.bottleneck_matrix import GpuMatrixBottleneckTemplate, pack_matrix_weight
from enet_tvm.compiler.kernels.gpu.geometry import geometry_of
from enet_tvm.compiler.kernels.gpu.tile import GpuUnit, HalfUnit

DEEP = HalfUnit(114, 255, 1024, 128, 33, matrix_depth=16)
SHALLOW = replace(DEEP, multiprocessors=2, matrix_depth=8)
KINDS = {
    "3x3": bottleneck((16, 64, 16), (10, 14)),
    "32 channels, dilated": bottleneck((32, 128, 32), (9, 20), dilation=2),
    "four channels at the end": bottleneck((16, 64, 4), (8, 12), residual="pad"),
    "unpooled": bottleneck((16, 64, 16), (8, 12), kernel=None, residual="unpool", activation="relu"),
    "5x1": bottleneck((16, 64, 16), (12, 11), kernel=(5, 1)),
    "1x5": bottleneck((16, 32, 32), (4, 16), kernel=(1, 5)),
    "a second output": bottleneck((16, 64, 4), (8, 12), beside=16, kept=False),
    "a second, wide output": bottleneck((32, 128, 16), (8, 12), beside=64, kept=False, dilation=4),
    "without an end, three pictures of odd sizes": bottleneck((16, 32, 0), (7, 9), batch=3),
}


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("unit", [DEEP, pytest.param(SHALLOW, marks=pytest.mark.slow)], ids=["deep", "shallow"])
@pytest.mark.parametrize("name", KINDS)
def test_every_kind(tmp_path: Path, name: str, unit: HalfUnit):
    """Whole numbers that float16 has: equal to PyTorch's; and no two threads in need of a bank."""
    spec = KINDS[name]
    assert GpuMatrixBottleneckTemplate.covers(spec, unit)
    counts = check_default(GpuMatrixBottleneckTemplate.of(spec, unit), BottleneckCall(spec, small=True), tmp_path)
    assert counts.shared
    assert not counts.conflicts


@pytest.mark.slow
@pytest.mark.parametrize("name", ["3x3", "unpooled"])
def test_every_point(tmp_path: Path, name: str):
    spec = KINDS[name]
    template, call = GpuMatrixBottleneckTemplate.of(spec, DEEP), BottleneckCall(spec, small=True)
    points = template.points()
    assert len(set(points)) == len(points) > 4
    kernels = {f"point{i}": template.kernel(point) for i, point in enumerate(points)}
    program = compile_fibers(kernel_source(kernels), tmp_path)
    for seed, ((kernel_name, kernel), point) in enumerate(zip(kernels.items(), points, strict=True)):
        after = program.launch(f"{kernel_name}_kernel", *launch_extents(kernel), call.arrays(template, point), seed=seed)
        for output, expected in call.expected.items():
            np.testing.assert_array_equal(after[output], expected, err_msg=str(point))
        assert not traffic(block_accesses(program, kernel_name, kernel)).conflicts


@pytest.mark.slow
@pytest.mark.parametrize("arch", ["sm_75", "sm_86", "sm_90"])
def test_what_the_assembler_makes_of_it(tools: CudaTools, arch: str):
    """As many products of matrices as there are tiles, in the loop of the convolution and after it; nothing is spilled."""
    spec = bottleneck((32, 128, 32), (45, 80))
    template = GpuMatrixBottleneckTemplate.of(spec, DEEP if arch != "sm_75" else replace(DEEP, matrix_depth=8))
    point = template.default
    kernel = template.kernel(point)
    made = assembled(compile_to_ptx(kernel_source(kernel), arch, tools), arch, tools)
    assert made.resources[0].spill_bytes == 0
    code = read_machine_code(made.cubins, arch)["main_kernel"]
    convolving, reducing = code.hot_loops
    assert convolving.counts[Operation.MATRIX] > 0
    # The products of all threads, those in loops as often as they turn, are the bottleneck's.
    geometry = geometry_of(kernel)
    counted = sum(each.products for each in code.instructions) + 8 * convolving.products + reducing.products
    assert counted == geometry.multiply_adds
    pixels = geometry.blocks * point.block_pixels
    assert counted * geometry.threads * geometry.blocks == spec.multiply_adds // (45 * 80) * pixels
    assert code.counts[Operation.HALF2_FMA] < 8


def test_weights_lie_as_a_warp_takes_them():
    """Thread 4 x 5 + 2 has rows 5 and 13; its pairs are of inputs 2 and 10, then 6 and 14."""
    weight = np.arange(20 * 32 * 2, dtype=np.float32).reshape(20, 32, 2, 1)
    packed = pack_matrix_weight(weight)
    assert packed.shape == (2, 1, 2, 2, 32, 4)
    pairs = np.ascontiguousarray(packed[1, 0, 1, 0, 22]).view(np.float16).reshape(4, 2)
    expected = [[weight[row, 16 + k, 1, 0], weight[row, 24 + k, 1, 0]] for k in (2, 6) for row in (5, 13)]
    np.testing.assert_array_equal(pairs, np.array(expected, np.float16))
    assert not packed[:, :, :, 1, 16:].any()  # There is no row 20 and beyond.


def test_what_it_does_not_cover():
    covered = KINDS["3x3"]
    assert GpuMatrixBottleneckTemplate.covers(covered, DEEP)
    assert not GpuMatrixBottleneckTemplate.covers(covered, replace(DEEP, matrix_depth=0))
    assert not GpuMatrixBottleneckTemplate.covers(covered, GpuUnit(114))
    assert covered.reduce is not None
    for other in (
        bottleneck((8, 32, 8), (8, 12)),
        bottleneck((16, 40, 8), (8, 12)),
        bottleneck((16, 64, 16), (8, 12), pooled=True),
        bottleneck((16, 64, 16), (8, 12), cells=True),
        replace(covered, reduce=replace(covered.reduce, argmax=True)),
        replace(covered, beside=bottleneck((16, 64, 16), (10, 14)).conv),
        replace(covered, reduce=replace(covered.reduce, residual="add", residual_channels=16)),
    ):
        assert not GpuMatrixBottleneckTemplate.covers(other, DEEP)
