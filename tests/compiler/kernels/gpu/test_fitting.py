from __future__ import annotations

from enet_tvm.compiler.kernels.gpu.conv2d import GpuConv2DTemplate
from enet_tvm.compiler.kernels.gpu.fitting import FittingChoices
from enet_tvm.compiler.kernels.gpu.pooling import GpuMaxPool2DTemplate
from enet_tvm.compiler.kernels.gpu.tile import GpuUnit
from enet_tvm.compiler.ops import FusedConv2D, MaxPool2DWithWindow


def test_a_template_shrinks_until_it_cannot():
    spec = FusedConv2D((1, 16, 64, 96), (1, 16, 64, 96), (3, 3), (1, 1), (1, 1), (1, 1))
    template, other = (GpuConv2DTemplate(spec, GpuUnit(2, registers)) for registers in (80, 64))
    choices = FittingChoices()
    sums = [choices.point(template).sums]
    while choices.shrink(template):
        sums.append(choices.point(template).sums)
    assert sums[:4] == [32, 16, 8, 4]
    assert sums[-1] == 1
    assert choices.point(other) == other.default


def test_what_has_no_tile_stays():
    choices = FittingChoices()
    assert not choices.shrink(GpuMaxPool2DTemplate(MaxPool2DWithWindow((1, 8, 6, 4))))
