"""Convolutions that compute in float16 against PyTorch, on fibers, and what the assembler makes of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bottlenecks import activated
from convolutions import KINDS, Kind
from cuda_network import kernel_source
from gpu_kernels import check_default, check_every_point, kernel_arrays
from torch.nn import functional as F

from enet_tvm.compiler.cuda.machine_code import Operation, read_machine_code
from enet_tvm.compiler.cuda.nvrtc import compile_to_ptx
from enet_tvm.compiler.cuda.ptxas import assembled
from enet_tvm.compiler.cuda.tools import CudaTools
from enet_tvm.compiler.kernels.gpu.conv2d_halves import GpuHalf2Conv2DTemplate, GpuMatrixConv2DTemplate
from enet_tvm.compiler.kernels.gpu.tile import GpuUnit, HalfUnit
from enet_tvm.compiler.ops import FusedConv2D, Layout

PAIRS = GpuUnit(2, 128)
DEEP = HalfUnit(114, 255, 1024, 128, 33, matrix_depth=16)
SHALLOW = replace(DEEP, multiprocessors=2, matrix_depth=8)
BOTH = [(GpuHalf2Conv2DTemplate, PAIRS), (GpuMatrixConv2DTemplate, DEEP)]


def convolution(kind: Kind, channels: tuple[int, int], size: tuple[int, int], batch: int = 1, **more: Any) -> FusedConv2D:
    shapes = (batch, channels[0], *size), (batch, channels[1], *kind.output(*size))
    return FusedConv2D(*shapes, kind.kernel, kind.strides, kind.padding, kind.dilation, **more)


class ConvolutionCall:
    """Small whole numbers, whose sums float16 has, and what PyTorch makes of them."""

    def __init__(self, spec: FusedConv2D) -> None:
        rng = np.random.default_rng(5)
        outputs, inputs = spec.out_shape[1], spec.data_shape[1]

        def small(*shape: int) -> np.ndarray:
            return rng.integers(-1, 2, shape).astype(np.float32)

        data, weight, bias = small(*spec.data_shape), small(outputs, inputs, *spec.kernel), small(outputs)
        self.arguments = [data, weight, bias]
        x, w, b = map(torch.from_numpy, self.arguments)
        y = F.conv2d(x, w, b, spec.strides, spec.padding, spec.dilation)
        for activation in (spec.inner_activation, spec.activation):
            slope = None
            if activation == "prelu":
                slope = rng.choice(np.array([0, 1], np.float32), outputs)
                self.arguments.append(slope)
            y = activated(y, activation, slope)
        self.expected = {"out": y.numpy()}

    def arrays(self, template: Any, point: Any) -> dict[str, np.ndarray]:
        return kernel_arrays(template, point, self.arguments, self.expected, np.nan)


PLAIN = convolution(KINDS["1x5"], (32, 32), (5, 14), activation="prelu")
SPECS = {
    "1x5": PLAIN,
    "3x3 stride 2, odd sizes": convolution(KINDS["3x3 stride 2"], (16, 32), (9, 13), activation="relu"),
    "1x1, three pictures": convolution(KINDS["1x1"], (32, 16), (3, 7), 3, inner_activation="prelu", activation="prelu"),
    "3x3 dilation 4": convolution(KINDS["3x3 dilation 4"], (16, 64), (8, 12)),
    "4x3 uneven": convolution(KINDS["4x3 uneven"], (48, 16), (9, 14), activation="prelu"),
}


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize(("kind", "unit"), [*BOTH, pytest.param(BOTH[1][0], SHALLOW, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", SPECS)
def test_every_kind(tmp_path: Path, name: str, kind: type[GpuHalf2Conv2DTemplate], unit: GpuUnit):
    spec = SPECS[name]
    assert kind.covers(spec, unit)
    counts = check_default(kind.of(spec, unit), ConvolutionCall(spec), tmp_path)
    assert counts.shared
    assert not counts.conflicts


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "unit"), BOTH)
def test_every_point(tmp_path: Path, kind: type[GpuHalf2Conv2DTemplate], unit: GpuUnit):
    spec = convolution(KINDS["1x5"], (16, 16), (4, 12), activation="prelu")
    check_every_point(kind.of(spec, unit), ConvolutionCall(spec), tmp_path, 2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arch", "kind", "unit", "operation"),
    [
        ("sm_53", *BOTH[0], Operation.HALF2_FMA),
        pytest.param("sm_60", *BOTH[0], Operation.HALF2_FMA, marks=pytest.mark.slow),
        pytest.param("sm_75", BOTH[1][0], SHALLOW, Operation.MATRIX, marks=pytest.mark.slow),
        ("sm_90", *BOTH[1], Operation.MATRIX),
    ],
)
def test_what_the_assembler_makes_of_it(tools: CudaTools, arch: str, kind: Any, unit: Any, operation: Operation):
    """All products of the hot loops are of pairs or of matrices, and they are the convolution's; nothing is spilled."""
    template = kind.of(convolution(KINDS["1x5"], (32, 32), (45, 80), activation="prelu"), unit)
    made = assembled(compile_to_ptx(kernel_source(template.kernel(template.default)), arch, tools), arch, tools)
    assert made.resources[0].spill_bytes == 0
    code = read_machine_code(made.cubins, arch)["main_kernel"]
    (loop,) = code.hot_loops
    assert loop.products == sum(each.products for each in loop.instructions if each.operation is operation) > 0


@pytest.mark.parametrize(("kind", "unit"), BOTH)
def test_what_it_does_not_cover(kind: type[GpuHalf2Conv2DTemplate], unit: GpuUnit):
    assert kind.covers(PLAIN, unit)
    assert not GpuMatrixConv2DTemplate.covers(PLAIN, PAIRS)
    doubled = (1, 32, 10, 28)
    for other in (
        convolution(KINDS["1x5"], (3, 13), (5, 14)),
        replace(PLAIN, residual="add", residual_channels=32),
        replace(PLAIN, argmax=True),
        replace(PLAIN, out_layout=Layout(4)),
        replace(PLAIN, transposed=True, out_shape=doubled, kernel=(2, 2), strides=(2, 2), padding=(0, 0)),
    ):
        assert not kind.covers(other, unit)
