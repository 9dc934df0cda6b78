"""Bottlenecks in one kernel against PyTorch, on fibers that look at every access: whole numbers, so that results are equal."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from bottlenecks import BottleneckCall, bottleneck
from gpu_kernels import check_default, check_every_point

from enet_tvm.compiler.kernels.gpu.bottleneck import GpuBottleneckTemplate, gpu_bottleneck
from enet_tvm.compiler.kernels.gpu.bottleneck_tile import BottleneckTile
from enet_tvm.compiler.kernels.gpu.tile import GpuUnit
from enet_tvm.compiler.ops import FusedBottleneck, Layout

SMALL, LARGE = GpuUnit(2, 128), GpuUnit(132, 255, 1024, 128, 33)
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
    "before downsampling": bottleneck((16, 64, 32), (12, 24), cells=True, pooled=True, kept=False),
    "before downsampling, by pairs": bottleneck((16, 32, 16), (6, 14), cells=True, pooled=True, batch=2),
    "2x2 alone, a tile shared": bottleneck((8, 16, 8), (8, 16), cells=True, residual="none"),
    "pooled alone": bottleneck((8, 16, 0), (8, 16), pooled=True),
    "before upsampling": bottleneck((16, 64, 8), (8, 12), beside=32, kept=False),
    "before upsampling, by turns": bottleneck((8, 64, 4), (9, 11), beside=16, activation="relu"),
    "three pictures of odd sizes": bottleneck((16, 64, 16), (7, 9), batch=3),
}


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("unit", [SMALL, pytest.param(LARGE, marks=pytest.mark.slow)], ids=["small", "large"])
@pytest.mark.parametrize("name", KINDS)
def test_every_kind(tmp_path: Path, name: str, unit: GpuUnit):
    spec = KINDS[name]
    assert GpuBottleneckTemplate.covers(spec, unit)
    counts = check_default(GpuBottleneckTemplate.of(spec, unit), BottleneckCall(spec), tmp_path)
    assert counts.shared
    assert not counts.conflicts


@pytest.mark.slow
@pytest.mark.parametrize(
    "spec", [bottleneck((8, 16, 8), (6, 8)), bottleneck((8, 16, 4), (5, 9), kernel=(1, 5))], ids=["by vectors", "one by one"]
)
def test_every_point(tmp_path: Path, spec: FusedBottleneck):
    """Also those at which several threads share a tile of a convolution, and sum a part of its input channels each."""
    points = check_every_point(GpuBottleneckTemplate.of(spec, LARGE), BottleneckCall(spec), tmp_path, 4)
    assert {point.chunk // 8 for point in points} == {1, 2}


def test_it_is_scheduled():
    """So that TVM's own schedules leave it alone."""
    assert gpu_bottleneck(KINDS["3x3"], BottleneckTile(4, 4, 8, 8)).attrs["tirx.is_scheduled"]


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
        replace(covered, reduce=replace(covered.reduce, kernel=(2, 2), strides=(2, 2), padding=(1, 1))),
        replace(covered, reduce=None, beside=covered.reduce),
        replace(covered, beside=conv),
        bottleneck((16, 64, 16), (8, 12), pooled=True, beside=16),
        bottleneck((16, 64, 16), (8, 11), pooled=True),
        bottleneck((16, 64, 16), (7, 12), cells=True),
    ):
        assert not GpuBottleneckTemplate.covers(other, SMALL)
