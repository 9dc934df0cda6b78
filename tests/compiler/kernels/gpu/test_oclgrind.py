"""The GPU's templates as OpenCL in Oclgrind: PyTorch's numbers, and nobody's access in the way of another's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import tvm
from bottlenecks import BottleneckCall, bottleneck
from cuda_network import launch_extents
from gpu_targets import GPU_TARGETS
from initial_downsamplers import DownsamplerCall, downsampler
from oclgrind import Oclgrind, oclgrind
from torch.nn import functional as F
from tvm.tirx.script.builder import ir as T
from whole_numbers import initial_block, whole

from enet_tvm.compiler.debian_packages import UnavailableError
from enet_tvm.compiler.kernels.common.building import prim_func
from enet_tvm.compiler.kernels.gpu.bottleneck import GpuBottleneckTemplate
from enet_tvm.compiler.kernels.gpu.bottleneck_doubling import GpuUpsamplingBottleneckTemplate
from enet_tvm.compiler.kernels.gpu.bottleneck_head import GpuLastBottleneckTemplate
from enet_tvm.compiler.kernels.gpu.bottleneck_tile import has_idle_rows
from enet_tvm.compiler.kernels.gpu.building import for_threads
from enet_tvm.compiler.kernels.gpu.conv2d import convolution_tile, gpu_conv2d, pack_gpu_vector, pack_gpu_weight
from enet_tvm.compiler.kernels.gpu.initial_downsampler import GpuInitialDownsamplerTemplate
from enet_tvm.compiler.kernels.gpu.pooling import gpu_max_pool2d_with_window, gpu_max_unpool2d
from enet_tvm.compiler.kernels.gpu.tile import GpuUnit
from enet_tvm.compiler.kernels.gpu.transposed import gpu_conv2d_transpose, pack_transposed_weight
from enet_tvm.compiler.ops import FusedBottleneck, FusedConv2D
from enet_tvm.targets import load_target

pytestmark = [pytest.mark.emulated, pytest.mark.slow]
UNIT = GpuUnit(1, 80)


@pytest.fixture(scope="module")
def simulator() -> Oclgrind:
    try:
        return oclgrind()
    except UnavailableError as error:
        pytest.skip(f"no Oclgrind: {error}")


def opencl(kernel: tvm.tirx.PrimFunc) -> str:
    target = tvm.target.Target({"kind": "opencl"}, host="llvm")
    with target:
        module = tvm.compile(tvm.IRModule({"main": kernel.with_attr("global_symbol", "main")}), target)
    return module.mod.imports[0].inspect_source()


@pytest.fixture
def run(simulator: Oclgrind, tmp_path: Path) -> Callable[..., dict[str, np.ndarray]]:
    """Makes ``run(kernel, data=..., out=...)`` what is in ``out`` and ``window`` after a launch without fault."""

    def launch(kernel: tvm.tirx.PrimFunc, outputs: tuple[str, ...] = ("out",), **arrays: np.ndarray) -> dict[str, np.ndarray]:
        grid, block = launch_extents(kernel)
        results, faults = simulator.launch(opencl(kernel), "main_kernel", grid, block, arrays, outputs, tmp_path)
        assert not faults, faults[:2000]
        return results

    return launch


@pytest.mark.parametrize("transposed", [False, True])
def test_convolutions(run, transposed: bool):
    """Eleven channels, which no tile divides, and a plane that no block does."""
    rng = np.random.default_rng(1)
    out_shape = (1, 11, 10, 14) if transposed else (1, 11, 5, 7)
    strides = (2, 2) if transposed else (1, 1)
    attrs = FusedConv2D((1, 6, 5, 7), out_shape, (3, 3), strides, (1, 1), (1, 1), transposed, activation="prelu")
    tile = convolution_tile(attrs, UNIT)
    data, bias, slope = whole(rng, 1, 6, 5, 7), whole(rng, 11), whole(rng, 11) / 4
    weight = whole(rng, *((6, 11) if transposed else (11, 6)), 3, 3)
    x, w, b = (torch.from_numpy(a) for a in (data, weight, bias))
    if transposed:
        kernel, packed = gpu_conv2d_transpose(attrs, tile), pack_transposed_weight(weight, attrs, tile)
        expected = F.conv_transpose2d(x, w, b, 2, 1, 1)
    else:
        kernel, packed = gpu_conv2d(attrs, tile), pack_gpu_weight(weight, tile)
        expected = F.conv2d(x, w, b, padding=1)
    vectors = {"bias": pack_gpu_vector(bias, tile), "slope": pack_gpu_vector(slope, tile)}
    results = run(kernel, data=data, weight=packed, **vectors, out=np.zeros(out_shape, np.float32))
    np.testing.assert_array_equal(results["out"], F.prelu(expected, torch.from_numpy(slope)).numpy())


def test_the_initial_block(run):
    kernel, arrays, expected = initial_block()
    np.testing.assert_array_equal(run(kernel, **arrays)["out"], expected)


def test_pooling_and_back(run):
    x = whole(np.random.default_rng(4), 1, 3, 7, 8)
    maxima, places = F.max_pool2d(torch.from_numpy(x), 2, return_indices=True)
    out, window = np.zeros((1, 3, 3, 4), np.float32), np.zeros((1, 3, 3, 4), np.uint8)
    pooled = run(gpu_max_pool2d_with_window((1, 3, 7, 8)), ("out", "window"), data=x, out=out, window=window)
    np.testing.assert_array_equal(pooled["out"], maxima.numpy())
    np.testing.assert_array_equal(pooled["window"], (places // 8 % 2 * 2 + places % 8 % 2).numpy())
    back = gpu_max_unpool2d((1, 3, 3, 4), (7, 8))
    spread = run(back, data=pooled["out"], window=pooled["window"], out=np.zeros((1, 3, 7, 8), np.float32))
    np.testing.assert_array_equal(spread["out"], F.max_unpool2d(maxima, places, 2, output_size=(7, 8)).numpy())


@pytest.mark.parametrize("shared", [1, 2], ids=["a thread a tile", "shared tiles"])
@pytest.mark.parametrize(
    "spec",
    [
        bottleneck((8, 16, 8), (4, 8)),
        bottleneck((8, 16, 8), (4, 8), cells=True, pooled=True, kept=False),
        bottleneck((8, 16, 8), (4, 8), beside=16, kept=False),
    ],
    ids=["plain", "before downsampling", "before upsampling"],
)
def test_bottlenecks(run, shared: int, spec: FusedBottleneck):
    """Registers live across barriers, and those are in loops."""
    template, call = GpuBottleneckTemplate.of(spec, UNIT), BottleneckCall(spec)
    point = next(point for point in template.points() if point.chunk == 8 * shared)
    results = run(template.kernel(point), tuple(spec.outputs), **call.arrays(template, point, 0))
    for name, expected in call.expected.items():
        np.testing.assert_array_equal(results[name], expected)


def test_the_launch_that_each_gpu_takes_first(run):
    """Of the same bottleneck, by the figures of a GPU of every architecture: those that differ."""
    spec = bottleneck((8, 16, 8), (4, 8))
    gpus = [gpu for target in GPU_TARGETS if (gpu := load_target(target).gpu) is not None]
    assert len(gpus) == len(GPU_TARGETS)
    templates = {GpuBottleneckTemplate.of(spec, GpuUnit.of(gpu)) for gpu in gpus}
    template, call = GpuBottleneckTemplate.of(spec, UNIT), BottleneckCall(spec)
    for point in sorted({each.default for each in templates}, key=str):
        results = run(template.kernel(point), tuple(spec.outputs), **call.arrays(template, point, 0))
        for name, expected in call.expected.items():
            np.testing.assert_array_equal(results[name], expected, err_msg=str(point))


def test_a_bottleneck_that_upsamples(run):
    spec = bottleneck((4, 16, 4), (8, 16), doubling=3, residual="unpool", activation="relu")
    template, call = GpuUpsamplingBottleneckTemplate.of(spec, UNIT), BottleneckCall(spec)
    results = run(template.kernel(template.default), tuple(spec.outputs), **call.arrays(template, template.default, 0))
    for name, expected in call.expected.items():
        np.testing.assert_array_equal(results[name], expected)


@pytest.mark.parametrize("argmax", [False, True], ids=["logits", "labels"])
def test_the_last_bottleneck(run, argmax: bool):
    """Of four rows of threads, one has a part of the first convolution."""
    spec = bottleneck((4, 16, 5), (4, 16), head=True, argmax=argmax, activation="relu", kept=False)
    template, call = GpuLastBottleneckTemplate.of(spec, GpuUnit(1, 128)), BottleneckCall(spec)
    assert has_idle_rows(spec, template.default)
    results = run(template.kernel(template.default), tuple(spec.outputs), **call.arrays(template, template.default, 0))
    for name, expected in call.expected.items():
        np.testing.assert_array_equal(results[name], expected)


def test_an_initial_block_that_is_downsampled(run):
    spec = downsampler((1, 3, 12, 32), 13, 16)
    template, call = GpuInitialDownsamplerTemplate.of(spec, UNIT), DownsamplerCall(spec)
    point = template.default
    results = run(template.kernel(point), tuple(call.expected), **call.arrays(template, point, 0))
    for name, expected in call.expected.items():
        np.testing.assert_array_equal(results[name], expected)


def test_a_removed_barrier_is_found(simulator: Oclgrind, tmp_path: Path):
    """Each of the two that the kernel needs: before the reads, and before what they read is overwritten."""

    def body(data, out):
        with for_threads((2, 1, 1), (64, 1)) as (block, _, _picture, lane, _y):
            shared = T.alloc_buffer((64,), "float32", scope="shared", layout=None)
            T.buffer_store(shared, data[block * 64 + lane], [lane])
            T.buffer_store(out, shared[63 - lane], [block * 64 + lane])
            T.buffer_store(shared, data[block * 64 + lane] + T.float32(1), [lane])
            T.buffer_store(out, out[block * 64 + lane] + shared[63 - lane], [block * 64 + lane])

    source = opencl(prim_func({"data": ((128,), "float32"), "out": ((128,), "float32")}, body))
    barrier = "barrier(CLK_LOCAL_MEM_FENCE);"
    pieces = source.split(barrier)
    assert len(pieces) == 4
    data = np.arange(128, dtype=np.float32)
    arrays = {"data": data, "out": np.zeros(128, np.float32)}
    results, faults = simulator.launch(source, "main_kernel", (2, 1, 1), (64, 1, 1), arrays, ["out"], tmp_path)
    assert not faults
    np.testing.assert_array_equal(results["out"], 2 * data.reshape(2, 64)[:, ::-1].ravel() + 1)
    for missing in range(3):
        broken = "".join(piece + (barrier if i not in (missing, 3) else "") for i, piece in enumerate(pieces))
        _, faults = simulator.launch(broken, "main_kernel", (2, 1, 1), (64, 1, 1), arrays, ["out"], tmp_path)
        assert "Uninitialized" in faults if missing == 0 else "data race" in faults
