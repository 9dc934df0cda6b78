"""The last bottleneck and the transposed convolution after it against PyTorch, on fibers that look at every access."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bottlenecks import BottleneckCall, bottleneck
from gpu_kernels import check_default, check_every_point

from enet_tvm.compiler.kernels.gpu.bottleneck import GpuBottleneckTemplate
from enet_tvm.compiler.kernels.gpu.bottleneck_head import GpuLastBottleneckTemplate, pack_head_weight
from enet_tvm.compiler.kernels.gpu.tile import GpuUnit
from enet_tvm.compiler.ops import Layout

SMALL, LARGE = GpuUnit(2, 128), GpuUnit(132, 255, 1024, 128, 33)
LAST = {"head": True, "activation": "relu", "kept": False}
KINDS = {
    "logits": bottleneck((4, 16, 11), (12, 16), **LAST),
    "labels": bottleneck((4, 16, 11), (12, 16), argmax=True, **LAST),
    "labels of many classes": bottleneck((4, 16, 19), (6, 20), argmax=True, **LAST),
    "vectors that go on in the next row": bottleneck((4, 16, 5), (6, 10), **LAST),
    "two pictures of odd sizes": bottleneck((4, 16, 3), (5, 9), batch=2, argmax=True, **LAST),
    "read by others": bottleneck((8, 16, 2), (8, 12), **{**LAST, "kept": True}),
    "without a beginning": bottleneck((8, 16, 7), (8, 12), kernel=None, **LAST),
}


@pytest.mark.slow
@pytest.mark.parametrize("unit", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("name", KINDS)
def test_every_kind(tmp_path: Path, name: str, unit: GpuUnit):
    spec = KINDS[name]
    assert GpuLastBottleneckTemplate.covers(spec, unit)
    assert not check_default(GpuLastBottleneckTemplate.of(spec, unit), BottleneckCall(spec), tmp_path).conflicts


@pytest.mark.slow
@pytest.mark.parametrize("argmax", [False, True], ids=["logits", "labels"])
def test_every_point(tmp_path: Path, argmax: bool):
    spec = bottleneck((8, 16, 11), (8, 12), argmax=argmax, **LAST)
    points = check_every_point(GpuLastBottleneckTemplate.of(spec, LARGE), BottleneckCall(spec), tmp_path, 4)
    assert {point.rows for point in points} >= {2, 4}


def test_weights_lie_as_they_are_loaded():
    """Both columns of a class side by side, classes of a group side by side, and zeros after the last class."""
    weight = np.arange(16 * 11 * 4, dtype=np.float32).reshape(16, 11, 2, 2) + 1
    packed = pack_head_weight(weight, 6)
    assert packed.shape == (2, 16, 2, 12)
    assert packed[1, 5, 0, 7] == weight[5, 9, 0, 1]
    assert not packed[1, :, :, 10:].any()


def test_what_it_does_not_cover():
    covered = KINDS["logits"]
    assert GpuLastBottleneckTemplate.covers(covered, SMALL)
    assert not GpuBottleneckTemplate.covers(covered, SMALL)
    conv, reduce = covered.conv, covered.reduce
    assert conv is not None
    assert reduce is not None
    for other in (
        bottleneck((16, 64, 16), (8, 12)),
        replace(covered, reduce=None),
        replace(covered, pooled=True),
        replace(covered, beside=conv),
        replace(covered, reduce=replace(reduce, kernel=(3, 3), padding=(1, 1))),
        replace(covered, reduce=replace(reduce, out_layout=Layout(4))),
        replace(covered, reduce=replace(reduce, residual="add", residual_channels=11)),
        replace(covered, conv=replace(conv, residual="add", residual_channels=4)),
        replace(covered, conv=replace(conv, out_layout=Layout(4))),
        bottleneck((4, 256, 11), (12, 16), **LAST),
        bottleneck((5, 15, 11), (8, 12), **LAST),
    ):
        assert not GpuLastBottleneckTemplate.covers(other, SMALL)
