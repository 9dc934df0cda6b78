"""The order in which a bottleneck's weights lie, and that the kernel's arguments have the shape of what is packed."""

from __future__ import annotations

import numpy as np
import pytest

from enet_tvm.compiler.kernels.gpu.bottleneck_tile import BottleneckTile
from enet_tvm.compiler.kernels.gpu.bottleneck_weights import (
    bottleneck_weight_shape,
    is_of_cells,
    pack_bottleneck_weight,
    pack_cell_weight,
)
from enet_tvm.compiler.ops import FusedConv2D


def test_weights_lie_as_they_are_loaded():
    """Channel 13 of 16 is the second of the second vector of the second thread, of two with eight each."""
    weight = np.arange(16 * 3 * 2, dtype=np.float32).reshape(16, 3, 2, 1)
    packed = pack_bottleneck_weight(weight, BottleneckTile(4, 8, 8, 2))
    assert packed.shape == (2, 1, 3, 2, 2, 4)
    assert packed[1, 0, 2, 1, 1, 1] == weight[13, 2, 1, 0]


def test_weights_of_cells_lie_as_they_are_loaded():
    """Those of the four places in a cell side by side."""
    weight = np.arange(16 * 3 * 4, dtype=np.float32).reshape(16, 3, 2, 2)
    packed = pack_cell_weight(weight, BottleneckTile(8, 4, 16, 4))
    assert packed.shape == (3, 1, 4, 4, 4)
    assert packed[2, 0, 3, 1, 2] == weight[14, 2, 0, 1]


@pytest.mark.parametrize("channels", [8, 4, 2, 1])
@pytest.mark.parametrize("step", [1, 2])
def test_arguments_have_the_shape_of_what_is_packed(channels: int, step: int):
    kernel = (2, 2) if step == 2 else (5, 1)
    part = FusedConv2D((1, 3, 10, 12), (1, 16, 10 // step, 12 // step), kernel, (step, step), (0, 0), (1, 1))
    assert is_of_cells(part) == (step == 2)
    tile = BottleneckTile(8, channels, 16, 2)
    pack = pack_cell_weight if step == 2 else pack_bottleneck_weight
    assert bottleneck_weight_shape(part, tile) == pack(np.zeros((16, 3, *kernel), np.float32), tile).shape
