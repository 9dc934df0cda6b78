"""Bottlenecks that begin with a transposed convolution against PyTorch, on fibers that look at every access."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bottlenecks import BottleneckCall, bottleneck
from gpu_kernels import check_default, check_every_point

from enet_tvm.compiler.kernels.gpu.bottleneck import GpuBottleneckTemplate
from enet_tvm.compiler.kernels.gpu.bottleneck_doubling import GpuUpsamplingBottleneckTemplate, Window, pack_doubling_weight
from enet_tvm.compiler.kernels.gpu.bottleneck_tile import BottleneckTile
from enet_tvm.compiler.kernels.gpu.tile import GpuUnit
from enet_tvm.compiler.ops import Layout

SMALL, LARGE = GpuUnit(2, 128), GpuUnit(132, 255, 1024, 128, 33)
UP = {"doubling": 3, "residual": "unpool", "activation": "relu"}
KINDS = {
    "the first of ENet": bottleneck((16, 64, 16), (12, 24), **UP),
    "the second of ENet": bottleneck((4, 16, 4), (24, 40), **UP),
    "by pairs, two pictures": bottleneck((8, 32, 8), (10, 14), batch=2, **UP),
    "2x2": bottleneck((8, 32, 8), (12, 16), **{**UP, "doubling": 2}),
    "PReLU and another shortcut": bottleneck((16, 64, 16), (8, 16), doubling=3),
    "without an end": bottleneck((8, 16, 0), (8, 12), **UP),
}


@pytest.mark.slow
@pytest.mark.parametrize("unit", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("name", KINDS)
def test_every_kind(tmp_path: Path, name: str, unit: GpuUnit):
    spec = KINDS[name]
    assert GpuUpsamplingBottleneckTemplate.covers(spec, unit)
    assert not check_default(GpuUpsamplingBottleneckTemplate.of(spec, unit), BottleneckCall(spec), tmp_path).conflicts


@pytest.mark.slow
def test_every_point(tmp_path: Path):
    """Also those at which several threads share a tile of a convolution, and sum a part of its input channels each."""
    spec = bottleneck((8, 16, 8), (8, 12), **UP)
    points = check_every_point(GpuUpsamplingBottleneckTemplate.of(spec, LARGE), BottleneckCall(spec), tmp_path, 4)
    assert {point.chunk // 8 for point in points} == {1, 2}


def test_windows():
    conv = KINDS["the first of ENet"].conv
    assert conv is not None
    assert Window.of(conv).places == [(0, 0), (0, 1), (1, 0), (1, 1)]
    small = KINDS["2x2"].conv
    assert small is not None
    assert Window.of(small).places == [(0, 0)]


def test_weights_lie_by_the_places_of_a_cell():
    """The place at the top left takes the middle of the kernel of its own pixel, that at the bottom right all four corners."""
    conv = KINDS["the first of ENet"].conv
    assert conv is not None
    weight = np.arange(16 * 16 * 9, dtype=np.float32).reshape(16, 16, 3, 3) + 1
    packed = pack_doubling_weight(weight, conv, BottleneckTile(8, 4, 16, 4))
    assert packed.shape == (2, 2, 16, 1, 4, 4, 4)
    assert packed[0, 0, 5, 0, 1, 0, 2] == weight[5, 6, 1, 1]
    assert not packed[1, :, :, :, :, 0].any()
    assert not packed[0, 1, :, :, :, 0].any()
    corners = [packed[row, column, 5, 0, 1, 3, 2] for row in (0, 1) for column in (0, 1)]
    assert corners == [weight[5, 6, row, column] for row in (2, 0) for column in (2, 0)]


def test_what_it_does_not_cover():
    covered = bottleneck((16, 64, 16), (8, 12), **UP)
    assert GpuUpsamplingBottleneckTemplate.covers(covered, SMALL)
    assert not GpuBottleneckTemplate.covers(covered, SMALL)
    conv, reduce = covered.conv, covered.reduce
    assert conv is not None
    assert reduce is not None
    for other in (
        bottleneck((16, 64, 16), (8, 12)),
        replace(covered, pooled=True),
        replace(covered, conv=None),
        replace(covered, beside=reduce),
        replace(covered, conv=replace(conv, kernel=(5, 5), padding=(2, 2))),
        replace(covered, conv=replace(conv, out_layout=Layout(4))),
        replace(covered, conv=replace(conv, residual="add", residual_channels=16)),
        replace(covered, reduce=replace(reduce, kernel=(2, 2), strides=(2, 2))),
        bottleneck((5, 15, 5), (8, 12), **UP),
    ):
        assert not GpuUpsamplingBottleneckTemplate.covers(other, SMALL)
