from __future__ import annotations

import pytest

from enet_tvm.compiler.kernels.gpu.conv2d import GpuConv2DTemplate
from enet_tvm.compiler.kernels.gpu.fitting import FittingChoices
from enet_tvm.compiler.kernels.gpu.pooling import GpuMaxPool2DTemplate
from enet_tvm.compiler.kernels.gpu.tile import GpuTile, GpuUnit
from enet_tvm.compiler.ops import FusedConv2D, MaxPool2DWithWindow


def test_a_template_shrinks_until_it_cannot():
    """Other shapes that load as little come first, then ever fewer sums."""
    spec = FusedConv2D((1, 16, 64, 96), (1, 16, 64, 96), (3, 3), (1, 1), (1, 1), (1, 1))
    template, other = (GpuConv2DTemplate(spec, GpuUnit(2, registers)) for registers in (128, 80))
    choices = FittingChoices()
    points = [choices.point(template)]
    while choices.shrink(template, lambda *_: True):
        points.append(choices.point(template))
    assert (points[0].pixels, points[0].channels) == (8, 8)
    assert {(4, 16), (4, 8)} <= {(point.pixels, point.channels) for point in points[:6]}
    assert len(set(points)) == len(points)
    sums = [point.sums for point in points]
    assert sums == sorted(sums, reverse=True)
    assert sums[-1] == 2
    assert choices.point(other) == other.default


@pytest.mark.parametrize("most", [16, 0])
def test_a_template_shrinks_until_it_fits(most: int):
    """Or to its last point, which the inspection of the library refuses if it does not."""
    spec = FusedConv2D((1, 16, 64, 96), (1, 16, 64, 96), (3, 3), (1, 1), (1, 1), (1, 1))
    template, choices = GpuConv2DTemplate(spec, GpuUnit(2, 128)), FittingChoices()
    asked: list[GpuTile] = []

    def fits(_: object, point: GpuTile) -> bool:
        asked.append(point)
        return point.sums <= most

    assert choices.shrink(template, fits)
    assert choices.point(template) == asked[-1]
    assert [point.sums <= 16 for point in asked].index(True) == len(asked) - 1 or most == 0
    assert choices.shrink(template, fits) == (most > 0)


def test_what_has_no_tile_stays():
    choices = FittingChoices()
    assert not choices.shrink(GpuMaxPool2DTemplate(MaxPool2DWithWindow((1, 8, 6, 4))), lambda *_: True)
