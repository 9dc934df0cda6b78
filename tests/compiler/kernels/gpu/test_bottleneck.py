"""Bottlenecks in one kernel against PyTorch, on fibers that look at every access: whole numbers, so that results are equal."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from cuda_network import block_accesses, kernel_source, launch_extents
from cuda_fibers import FiberProgram, compile_fibers
from torch.nn import functional as F
from warp_accesses import traffic
from whole_numbers import whole

from enet_tvm.compiler.dataflow import constant, constant_value
from enet_tvm.compiler.kernels.common.codes import TensorCodes
from enet_tvm.compiler.kernels.gpu.bottleneck import GpuBottleneckTemplate
from enet_tvm.compiler.kernels.gpu.bottleneck_tile import BottleneckTile, bytes_per_fma
from enet_tvm.compiler.kernels.gpu.tile import BYTES_PER_FMA, GpuUnit
from enet_tvm.compiler.ops import FusedBottleneck, FusedConv2D, Layout
from enet_tvm.compiler.quantisation.codes import IDENTITY
from enet_tvm.targets import load_target
from enet_tvm.targets.loading import known_targets

SMALL, LARGE = GpuUnit(2, 128), GpuUnit(132, 255, 1024, 128, 33)
GPUS = [spec for spec in map(load_target, known_targets()) if spec.gpu is not None]


def bottleneck(
    channels: tuple[int, int, int],
    size: tuple[int, int],
    *,
    kernel: tuple[int, int] | None = (3, 3),
    dilation: int = 1,
    residual: str = "add",
    batch: int = 1,
    activation: str = "prelu",
) -> FusedBottleneck:
    """Return a bottleneck of narrow, wide and again narrow channels; without a kernel or channels at the end, without these."""
    narrow, wide, last = channels

    def part(inputs: int, outputs: int, kernel: tuple[int, int] = (1, 1), **more: object) -> FusedConv2D:
        padding = (kernel[0] // 2 * dilation, kernel[1] // 2 * dilation)
        spread = (1, 1) if kernel == (1, 1) else (dilation, dilation)
        shapes = (batch, inputs, *size), (batch, outputs, *size)
        return FusedConv2D(*shapes, kernel, (1, 1), padding, spread, activation=activation, **more)

    added = {"none": 0, "pad": wide // 2, "add": wide, "unpool": wide}[residual]
    inner = "none" if residual == "none" else activation
    expand = part(narrow, wide, inner_activation=inner, residual=residual, residual_channels=added)
    return FusedBottleneck(expand, kernel and part(narrow, narrow, kernel), part(wide, last) if last else None)


def activated(value: torch.Tensor, activation: str, slope: np.ndarray | None) -> torch.Tensor:
    if activation == "relu":
        return torch.relu(value)
    return value if slope is None else F.prelu(value, torch.from_numpy(slope))


class Case:
    """Arguments of a call, and what PyTorch makes of them."""

    def __init__(self, spec: FusedBottleneck, seed: int = 0) -> None:
        self.spec = spec
        rng = np.random.default_rng(seed)
        self.data = whole(rng, *spec.data_shape)
        self.arguments = [self.data]
        self.shortcut: dict[str, np.ndarray] = {}
        x = torch.from_numpy(self.data)
        results = []
        for part in spec.convolutions:
            x = self._convolve(part, x, rng)
            results.append(x.numpy())
        self.expected = {"out": results[-1 if spec.reduce is None else -2]}
        if spec.reduce is not None:
            self.expected["reduced"] = results[-1]

    def _convolve(self, part: FusedConv2D, x: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
        channels = part.out_shape[1]
        # Few weights are not zero, so that sums stay small enough to be exact one convolution after the other.
        weight = whole(rng, channels, part.data_shape[1], *part.kernel) * (rng.random((channels, part.data_shape[1], 1, 1)) < 0.2)
        weight, bias = weight.astype(np.float32), whole(rng, channels)
        self.arguments += [weight, bias]
        x = F.conv2d(x, torch.from_numpy(weight), torch.from_numpy(bias), part.strides, part.padding, part.dilation)
        x = activated(x, part.inner_activation, self._slope(part.inner_activation, channels, rng))
        slope = self._slope(part.activation, channels, rng)
        if part.residual == "unpool":
            pooled = torch.from_numpy(rng.permutation(x.numel()).astype(np.float32) % 64).reshape(x.shape)
            maxima, places = F.max_pool2d(pooled, 2, return_indices=True)
            x = x + F.max_unpool2d(maxima, places, 2, output_size=x.shape[2:])
            width = x.shape[3]
            window = (places // width % 2 * 2 + places % width % 2).numpy().astype(np.uint8)
            self.arguments += [maxima.numpy(), window]
        elif part.residual != "none":
            residual = whole(rng, x.shape[0], part.residual_channels, *x.shape[2:])
            self.arguments.append(residual)
            x[:, : part.residual_channels] += torch.from_numpy(residual)
        return activated(x, part.activation, slope)

    def _slope(self, activation: str, channels: int, rng: np.random.Generator) -> np.ndarray | None:
        if activation != "prelu":
            return None
        slope = rng.choice(np.array([0, 0.5, 1, 2], np.float32), channels)
        self.arguments.append(slope)
        return slope

    def holds(self, template: GpuBottleneckTemplate, point: BottleneckTile, folder: Path, seed: int = 0) -> FiberProgram:
        """Fail unless the kernel at a point writes what PyTorch computes."""
        kernel = template.kernel(point)
        operands = template.operands(point, [constant(each) for each in self.arguments], TensorCodes([], {}), IDENTITY)
        unwritten = [np.full_like(self.expected[name], np.nan) for name in ("reduced", "out") if name in self.expected]
        values = [*map(constant_value, operands), *unwritten]
        names = [str(parameter.name) for parameter in kernel.params]
        for name, parameter, value in zip(names, kernel.params, values, strict=True):
            assert tuple(int(n) for n in parameter.ty.shape) == value.shape, name
        program = compile_fibers(kernel_source(kernel), folder)
        arrays = dict(zip(names, values, strict=True))
        after = program.launch("main_kernel", *launch_extents(kernel), arrays, seed=seed)
        for name, expected in self.expected.items():
            np.testing.assert_array_equal(after[name], expected)
        return program


KINDS = {
    "3x3": bottleneck((16, 64, 16), (10, 14)),
    "dilated": bottleneck((16, 32, 16), (9, 20), dilation=4),
    "wider than the picture": bottleneck((8, 16, 8), (6, 10), dilation=16),
    "5x1": bottleneck((16, 64, 16), (12, 11), kernel=(5, 1)),
    "1x5": bottleneck((16, 64, 16), (12, 10), kernel=(1, 5)),
    "ReLU": bottleneck((16, 64, 4), (8, 12), activation="relu"),
    "padded": bottleneck((16, 64, 16), (8, 12), residual="pad"),
    "no shortcut": bottleneck((8, 24, 8), (8, 12), residual="none"),
    "unpooled": bottleneck((16, 64, 16), (8, 12), residual="unpool", activation="relu"),
    "without an end": bottleneck((4, 16, 0), (8, 12)),
    "without a beginning": bottleneck((16, 64, 16), (8, 12), kernel=None, residual="unpool", activation="relu"),
    "three pictures of odd sizes": bottleneck((16, 64, 16), (7, 9), batch=3),
}


@pytest.mark.parametrize("unit", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("name", KINDS)
def test_every_kind(tmp_path: Path, name: str, unit: GpuUnit):
    spec = KINDS[name]
    assert GpuBottleneckTemplate.covers(spec, unit)
    template = GpuBottleneckTemplate.of(spec, unit)
    program = Case(spec).holds(template, template.default, tmp_path)
    counts = traffic(block_accesses(program, "main", template.kernel(template.default)))
    assert counts.shared
    assert not counts.conflicts


def test_threads_that_share_a_tile(tmp_path: Path):
    """A convolution of fewer channels than the threads of a block compute together, at each number of them for one tile."""
    spec = bottleneck((16, 64, 16), (6, 8))
    template = GpuBottleneckTemplate.of(spec, SMALL)
    points = {(point.rows * point.channels // 16): point for point in reversed(template.points()) if point.channels == 4}
    assert set(points) == {1, 2, 4}
    for seed, point in enumerate(points.values()):
        Case(spec, seed).holds(template, point, tmp_path, seed)
    # The same again with another number of channels at the end.
    template = GpuBottleneckTemplate.of(bottleneck((16, 64, 4), (6, 8)), LARGE)
    point = next(point for point in template.points() if point.chunk == 16)
    Case(template.spec).holds(template, point, tmp_path)


@pytest.mark.parametrize("target", GPUS, ids=lambda target: target.name)
@pytest.mark.parametrize(
    "spec",
    [
        bottleneck((16, 64, 16), (90, 160)),
        bottleneck((32, 128, 32), (45, 80)),
        bottleneck((32, 128, 16), (45, 80), dilation=16),
        bottleneck((16, 64, 4), (90, 160)),
        bottleneck((4, 16, 0), (180, 320)),
    ],
    ids=lambda spec: spec.kernel_name,
)
def test_the_bottlenecks_of_enet(target, spec: FusedBottleneck):
    """At 640x360 on every GPU: a tile that loads no more than its share, and enough blocks for its multiprocessors."""
    unit = GpuUnit.of(target.gpu)
    tile = GpuBottleneckTemplate.of(spec, unit).default
    assert bytes_per_fma(tile) <= BYTES_PER_FMA
    pixels = spec.expand.out_shape[2] * spec.expand.out_shape[3]
    assert -(-pixels // tile.block_pixels) >= min(unit.multiprocessors, pixels // 32) * 0.6
    assert 64 <= tile.threads <= 256


def test_what_it_does_not_cover():
    covered = bottleneck((16, 64, 16), (8, 12))
    assert GpuBottleneckTemplate.covers(covered, SMALL)
    odd = bottleneck((5, 15, 5), (8, 12))
    conv, expand = covered.conv, covered.expand
    assert conv is not None
    assert covered.reduce is not None
    wide = bottleneck((512, 1024, 512), (8, 12))
    for other in (
        odd,
        wide,
        FusedBottleneck(expand),
        replace(covered, conv=replace(conv, transposed=True)),
        replace(covered, conv=replace(conv, residual="add", residual_channels=16)),
        replace(covered, expand=replace(expand, kernel=(3, 3), padding=(1, 1))),
        replace(covered, expand=replace(expand, residual_layout=Layout(4))),
        replace(covered, reduce=replace(covered.reduce, argmax=True)),
    ):
        assert not GpuBottleneckTemplate.covers(other, SMALL)
