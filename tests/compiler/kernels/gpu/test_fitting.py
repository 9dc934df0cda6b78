from __future__ import annotations

from enet_tvm.compiler.kernels.gpu.conv2d import GpuConv2DTemplate
from enet_tvm.compiler.kernels.gpu.fitting import FittingChoices
from enet_tvm.compiler.kernels.gpu.pooling import GpuMaxPool2DTemplate
from enet_tvm.compiler.kernels.gpu.tile import GpuUnit
from enet_tvm.compiler.ops import FusedConv2D, MaxPool2DWithWindow
from enet_tvm.compiler.pipeline import ATTEMPTS


def test_a_template_shrinks_until_it_cannot():
    """Other shapes that load as little come first, then ever fewer sums."""
    spec = FusedConv2D((1, 16, 64, 96), (1, 16, 64, 96), (3, 3), (1, 1), (1, 1), (1, 1))
    template, other = (GpuConv2DTemplate(spec, GpuUnit(2, registers)) for registers in (128, 80))
    choices = FittingChoices()
    points = [choices.point(template)]
    while choices.shrink(template):
        points.append(choices.point(template))
    assert (points[0].pixels, points[0].channels) == (8, 8)
    assert {(4, 16), (4, 8)} <= {(point.pixels, point.channels) for point in points[:ATTEMPTS]}
    assert len(set(points)) == len(points)
    sums = [point.sums for point in points]
    assert sums == sorted(sums, reverse=True)
    assert sums[-1] == 2
    assert choices.point(other) == other.default


def test_what_has_no_tile_stays():
    choices = FittingChoices()
    assert not choices.shrink(GpuMaxPool2DTemplate(MaxPool2DWithWindow((1, 8, 6, 4))))
