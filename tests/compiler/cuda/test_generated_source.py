"""The CUDA C++ that NVRTC is given, on fibers: right numbers after TVM's code generator, too, and no access out of order.

The tests of the templates run their TensorIR through LLVM. What only the code generator for CUDA makes of it, such as vectors
of two and four values and their epilogue, is looked at here.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from convolutions import KINDS
from cuda_fibers import KernelFaultError, compile_fibers
from cuda_network import kernel_source, launch_extents, run_kernel
from torch.nn import functional as F
from tvm.tirx.script.builder import ir as T
from whole_numbers import initial_block, whole

from enet_tvm.compiler.dataflow import constant, constant_value
from enet_tvm.compiler.kernels.common.building import prim_func
from enet_tvm.compiler.kernels.gpu.building import for_threads
from enet_tvm.compiler.kernels.gpu.conv2d import convolution_tile, gpu_conv2d, pack_gpu_vector, pack_gpu_weight
from enet_tvm.compiler.kernels.gpu.pooling import gpu_max_pool2d_with_window, gpu_max_unpool2d
from enet_tvm.compiler.kernels.gpu.templates import gpu_templates
from enet_tvm.compiler.kernels.gpu.tile import GpuUnit
from enet_tvm.compiler.kernels.gpu.transposed import gpu_conv2d_transpose, pack_transposed_weight
from enet_tvm.compiler.ops import FusedConv2D

UNIT = GpuUnit(1, 80)
ROOMY = GpuUnit(132, 255)


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., dict[str, np.ndarray]]:
    """Makes ``run(kernel, data=..., out=...)`` the arrays after a launch."""
    return lambda kernel, **arrays: run_kernel(kernel, tmp_path, **arrays)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["1x1", "3x3 dilation 4", "2x2 stride 2", "5x1", "transposed 3x3"])
def test_every_point(tmp_path: Path, name: str):
    """Each launch that a template offers, of one convolution whose channels and pixels none divides."""
    kind, rng = KINDS[name], np.random.default_rng(0)
    shape, out_shape = (1, 5, 9, 11), (1, 13, *kind.output(9, 11))
    added = {} if kind.transposed else {"residual": "add", "residual_channels": 13}
    spec = FusedConv2D(
        shape, out_shape, kind.kernel, kind.strides, kind.padding, kind.dilation, kind.transposed, activation="prelu", **added
    )
    data, bias, slope, shortcut = whole(rng, *shape), whole(rng, 13), whole(rng, 13) / 4, whole(rng, *out_shape)
    weight = whole(rng, *((5, 13) if kind.transposed else (13, 5)), *kind.kernel)
    x, w, b = (torch.from_numpy(a) for a in (data, weight, bias))
    convolved = (
        F.conv_transpose2d(x, w, b, kind.strides, kind.padding, kind.output_padding)
        if kind.transposed
        else F.conv2d(x, w, b, kind.strides, kind.padding, kind.dilation)
    )
    if added:
        convolved += torch.from_numpy(shortcut)
    expected = F.prelu(convolved, torch.from_numpy(slope)).numpy()
    arguments = [*map(constant, (data, weight, bias, slope, shortcut)[: 5 if added else 4])]
    template = gpu_templates(ROOMY).find(spec)
    points = template.points()
    kernels = {f"point{i}": template.kernel(point) for i, point in enumerate(points)}
    program = compile_fibers(kernel_source(kernels), tmp_path)
    for (kernel_name, kernel), point in zip(kernels.items(), points, strict=True):
        operands = template.operands(point, arguments, None, None)
        arrays = [*map(constant_value, operands), np.full(out_shape, np.nan, np.float32)]
        given = dict(zip((parameter.name for parameter in kernel.params), arrays, strict=True))
        after = program.launch(f"{kernel_name}_kernel", *launch_extents(kernel), given)
        np.testing.assert_array_equal(after["out"], expected, err_msg=str(point))


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("transposed", [False, True])
def test_convolutions(run, transposed: bool):
    """Eleven channels, which no tile divides, and a plane that no block does."""
    rng = np.random.default_rng(1)
    out_shape = (1, 11, 10, 14) if transposed else (1, 11, 5, 7)
    attrs = FusedConv2D(
        (1, 6, 5, 7), out_shape, (3, 3), *([((2, 2)), (1, 1), (1, 1), True] if transposed else [(1, 1), (1, 1), (1, 1)]),
        activation="prelu",
    )  # fmt: skip
    data, bias, slope = whole(rng, 1, 6, 5, 7), whole(rng, 11), whole(rng, 11) / 4
    weight = whole(rng, *((6, 11) if transposed else (11, 6)), 3, 3)
    x, w, b = (torch.from_numpy(a) for a in (data, weight, bias))
    if transposed:
        tile = convolution_tile(attrs, UNIT)
        kernel, packed = gpu_conv2d_transpose(attrs, tile), pack_transposed_weight(weight, attrs, tile)
        expected = F.conv_transpose2d(x, w, b, 2, 1, 1)
    else:
        tile = convolution_tile(attrs, UNIT)
        kernel, packed = gpu_conv2d(attrs, tile), pack_gpu_weight(weight, tile)
        expected = F.conv2d(x, w, b, padding=1)
    arrays = run(
        kernel,
        data=data,
        weight=packed,
        bias=pack_gpu_vector(bias, tile),
        slope=pack_gpu_vector(slope, tile),
        out=np.full(out_shape, np.nan, np.float32),
    )
    np.testing.assert_array_equal(arrays["out"], F.prelu(expected, torch.from_numpy(slope)).numpy())


def test_unpooling_in_an_epilogue(run):
    rng = np.random.default_rng(2)
    attrs = FusedConv2D(
        (1, 4, 6, 8), (1, 16, 6, 8), (1, 1), (1, 1), (0, 0), (1, 1), activation="relu", residual="unpool", residual_channels=16
    )
    tile = convolution_tile(attrs, UNIT)
    data, weight, bias = whole(rng, 1, 4, 6, 8), whole(rng, 16, 4, 1, 1), whole(rng, 16)
    pooled = torch.from_numpy(rng.permutation(16 * 48).astype(np.float32)).reshape(1, 16, 6, 8)
    maxima, places = F.max_pool2d(pooled, 2, return_indices=True)
    expected = F.conv2d(*(torch.from_numpy(a) for a in (data, weight, bias))) + F.max_unpool2d(maxima, places, 2)
    arrays = run(
        gpu_conv2d(attrs, tile),
        data=data,
        weight=pack_gpu_weight(weight, tile),
        bias=pack_gpu_vector(bias, tile),
        residual=maxima.numpy(),
        window=(places // 8 % 2 * 2 + places % 2).numpy().astype(np.uint8),
        out=np.full((1, 16, 6, 8), np.nan, np.float32),
    )
    np.testing.assert_array_equal(arrays["out"], torch.relu(expected).numpy())


def test_the_initial_block(run):
    kernel, arrays, expected = initial_block()
    np.testing.assert_array_equal(run(kernel, **arrays)["out"], expected)


def test_pooling_and_back(run):
    x = whole(np.random.default_rng(4), 1, 3, 7, 8)
    maxima, places = F.max_pool2d(torch.from_numpy(x), 2, return_indices=True)
    out, window = np.zeros((1, 3, 3, 4), np.float32), np.full((1, 3, 3, 4), 9, np.uint8)
    arrays = run(gpu_max_pool2d_with_window((1, 3, 7, 8)), data=x, out=out, window=window)
    np.testing.assert_array_equal(arrays["out"], maxima.numpy())
    np.testing.assert_array_equal(arrays["window"], (places // 8 % 2 * 2 + places % 8 % 2).numpy())
    spread = np.full((1, 3, 7, 8), np.nan, np.float32)
    back = run(gpu_max_unpool2d((1, 3, 3, 4), (7, 8)), data=arrays["out"], window=arrays["window"], out=spread)
    np.testing.assert_array_equal(back["out"], F.max_unpool2d(maxima, places, 2, output_size=(7, 8)).numpy())


def test_barriers_of_shared_memory(tmp_path: Path):
    """Those that TVM puts in are enough, and none is too many."""

    def body(data, out):
        with for_threads((2, 1, 1), (64, 1)) as (block, _, _picture, lane, _y):
            shared = T.alloc_buffer((64,), "float32", scope="shared", layout=None)
            with T.serial(3) as turn:
                T.buffer_store(shared, data[block * 64 + lane] + T.cast(turn, "float32"), [lane])
                T.buffer_store(out, shared[63 - lane], [block * 64 + lane])

    kernel = prim_func({"data": ((128,), "float32"), "out": ((128,), "float32")}, body)
    source, data = kernel_source(kernel), np.arange(128, dtype=np.float32)
    arrays = {"data": data, "out": np.full(128, np.nan, np.float32)}
    after = compile_fibers(source, tmp_path).launch("main_kernel", *launch_extents(kernel), arrays)
    np.testing.assert_array_equal(after["out"], data.reshape(2, 64)[:, ::-1].ravel() + 2)
    pieces = source.split("__syncthreads();")
    assert len(pieces) == 3
    for missing in range(2):
        broken = "".join(piece + ("__syncthreads();" if i not in (missing, 2) else "") for i, piece in enumerate(pieces))
        with pytest.raises(KernelFaultError, match="shared"):
            compile_fibers(broken, tmp_path).launch("main_kernel", *launch_extents(kernel), arrays)
