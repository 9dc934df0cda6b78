"""Bottlenecks that compute in pairs of float16 against PyTorch, on fibers, and what the assembler makes of them."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bottlenecks import BottleneckCall, bottleneck
from cuda_fibers import compile_fibers
from cuda_network import kernel_source, launch_extents
from gpu_kernels import check_default, check_every_point

from enet_tvm.compiler.cuda.device_compiler import kernel_ptx
from enet_tvm.compiler.cuda.machine_code import Operation, read_machine_code
from enet_tvm.compiler.cuda.nvrtc import compile_to_ptx
from enet_tvm.compiler.cuda.ptxas import assembled
from enet_tvm.compiler.cuda.tools import CudaTools
from enet_tvm.compiler.kernels.gpu.bottleneck_half2 import GpuHalf2BottleneckTemplate, divides
from enet_tvm.compiler.kernels.gpu.geometry import geometry_of
from enet_tvm.compiler.kernels.gpu.half_arithmetic import LONGEST_CHAIN
from enet_tvm.compiler.kernels.gpu.half_storage import with_half_storage
from enet_tvm.compiler.kernels.gpu.tile import GpuUnit
from enet_tvm.compiler.ops import FusedBottleneck
from enet_tvm.targets import load_target

SMALL, LARGE = GpuUnit(2, 128), GpuUnit(114, 255, 1024, 128, 33)
PLAIN = bottleneck((16, 64, 16), (10, 14))
KINDS = {
    "3x3": PLAIN,
    "before downsampling": bottleneck((16, 64, 32), (12, 24), cells=True, pooled=True, kept=False),
    "unpooled": bottleneck((16, 64, 16), (8, 12), residual="unpool", activation="relu"),
    "wider than the picture": bottleneck((8, 16, 8), (6, 10), dilation=16),
    "four channels at the end": bottleneck((16, 64, 4), (8, 12)),
    "5x1": bottleneck((16, 64, 16), (12, 11), kernel=(5, 1)),
    "padded": bottleneck((16, 64, 16), (8, 12), residual="pad"),
    "no shortcut": bottleneck((8, 24, 8), (8, 12), residual="none"),
    "without an end": bottleneck((4, 16, 0), (8, 12)),
    "without a beginning": bottleneck((16, 64, 16), (8, 12), kernel=None, residual="unpool", activation="relu"),
    "more inputs than a chain": bottleneck((48, 96, 48), (4, 16)),
    "2x2 alone, a tile shared": bottleneck((8, 16, 8), (8, 16), cells=True, residual="none"),
    "pooled alone": bottleneck((8, 16, 0), (8, 16), pooled=True),
    "a second output": bottleneck((16, 64, 4), (8, 12), beside=16, kept=False),
    "a second output, tiles shared": bottleneck((32, 128, 16), (8, 12), beside=64, kept=False, dilation=4),
    "three pictures of odd sizes": bottleneck((16, 32, 16), (7, 9), batch=3),
}


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("unit", [SMALL, pytest.param(LARGE, marks=pytest.mark.slow)], ids=["small", "large"])
@pytest.mark.parametrize("name", KINDS)
def test_every_kind(tmp_path: Path, name: str, unit: GpuUnit):
    """Sums of whole numbers that float16 has: equal to PyTorch's."""
    spec = KINDS[name]
    assert GpuHalf2BottleneckTemplate.covers(spec, unit)
    call = BottleneckCall(spec, small=True)
    counts = check_default(GpuHalf2BottleneckTemplate.of(spec, unit), call, tmp_path)
    assert all(np.abs(expected).max() < 2048 for expected in call.expected.values())
    assert counts.shared
    assert not counts.conflicts


@pytest.mark.slow
def test_every_point(tmp_path: Path):
    """Also those at which several threads share a tile of a convolution, and sum a part of its input channels each."""
    spec = bottleneck((8, 16, 8), (6, 8))
    points = check_every_point(GpuHalf2BottleneckTemplate.of(spec, LARGE), BottleneckCall(spec, small=True), tmp_path, 1)
    assert {point.chunk // 8 for point in points} == {1, 2}


def test_sums_are_rounded_as_float16_but_not_added_up_in_it(tmp_path: Path):
    """64 products of 1 and 65: beyond 2048 float16 has even numbers only, and 32 products of 65 are 2080."""
    spec = bottleneck((64, 64, 0), (4, 8), kernel=None, residual="none", activation="none")
    template = GpuHalf2BottleneckTemplate(replace(spec, pooled=True, kept=True), SMALL)
    point = template.default
    arrays = {}
    for parameter in template.kernel(point).params:
        arrays[str(parameter.name)] = np.zeros([int(n) for n in parameter.ty.shape], str(parameter.ty.dtype))
    arrays["data"][:] = 1
    arrays["expand_weight"][:] = int(np.float16(65).view(np.uint16)) * 0x10001
    kernel = template.kernel(point)
    program = compile_fibers(kernel_source(kernel), tmp_path)
    (value,) = np.unique(program.launch("main_kernel", *launch_extents(kernel), arrays)["out"])
    # 1 to 31 products are exact, and 32 are 2080; a sum of all in float16 would have been rounded on the way.
    assert LONGEST_CHAIN == 32
    assert value == 64 * 65


def test_halves_that_are_loaded_stay_halves(tmp_path: Path):
    """With tensors of float16 nothing is converted before it is multiplied, and results are the same."""
    template = GpuHalf2BottleneckTemplate.of(PLAIN, SMALL)
    point, call = template.default, BottleneckCall(PLAIN, small=True)
    kernel = template.kernel(point)
    names = [str(parameter.name) for parameter in kernel.params]
    short = with_half_storage(kernel, [names.index("data"), names.index("out")])
    source = kernel_source(short)
    assert re.search(r"= enet_pack_halves\(data_ptr\[", source)
    assert "(float)data_ptr" not in source
    arrays = call.arrays(template, point)
    for name in ("data", "out"):
        arrays[name] = arrays[name].astype(np.float16)
    after = compile_fibers(source, tmp_path).launch("main_kernel", *launch_extents(short), arrays)
    for output, expected in call.expected.items():
        np.testing.assert_array_equal(after[output], expected)


@pytest.mark.slow
@pytest.mark.parametrize("arch", ["sm_53", "sm_60", "sm_62", "sm_70"])
def test_what_the_assembler_makes_of_it(tools: CudaTools, arch: str):
    """Each product of two channels is one instruction, and so is nothing else in the loops; no register is spilled."""
    template = GpuHalf2BottleneckTemplate.of(bottleneck((32, 128, 32), (45, 80)), SMALL)
    point = template.default
    kernel = template.kernel(point)
    ptx = compile_to_ptx(kernel_source(kernel), arch, tools)
    assert "fma.rn.f16x2" in ptx
    made = assembled(ptx, arch, tools)
    assert made.resources[0].spill_bytes == 0
    code = read_machine_code(made.cubins, arch)["main_kernel"]
    assert len(code.hot_loops) == 3
    for loop in code.hot_loops:
        # No product is of float32, no half is brought to its place by an instruction of its own, and few move addresses on.
        assert loop.counts[Operation.HALF2_FMA] == loop.products / 2 >= point.sums
        assert loop.counts[Operation.OTHER] + loop.counts[Operation.CONVERSION] < 0.2 * loop.counts[Operation.HALF2_FMA]
    # Two products for each pair, in three parts of the kernel; the chains of `conv` and `reduce` are loops themselves.
    geometry = geometry_of(kernel)
    assert geometry.multiply_adds * geometry.threads * geometry.blocks >= template.spec.multiply_adds
    assert len(geometry.nests) == len(code.hot_loops)


def test_the_compiler_finds_the_functions_of_a_kernel_alone(tools: CudaTools):
    """Also where the headers are left out that take it longest."""
    kernel = GpuHalf2BottleneckTemplate.of(bottleneck((8, 16, 0), (4, 8)), SMALL)
    target = load_target("jetson-tx1")
    assert "fma.rn.f16x2" in kernel_ptx(kernel.kernel(kernel.default), target.to_tvm(), "sm_53")


def test_what_it_does_not_cover():
    assert GpuHalf2BottleneckTemplate.covers(PLAIN, SMALL)
    odd: FusedBottleneck = bottleneck((3, 12, 3), (8, 12))
    assert not GpuHalf2BottleneckTemplate.covers(odd, SMALL)
    template = GpuHalf2BottleneckTemplate.of(PLAIN, LARGE)
    assert all(divides(PLAIN, point) for point in template.points())
    assert all(point.channels % 2 == 0 for point in template.points())
