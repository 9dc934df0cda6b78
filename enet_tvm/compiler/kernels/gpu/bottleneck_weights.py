"""How the weights of a bottleneck's convolutions lie: what threads side by side load at a time lies side by side."""

from __future__ import annotations

import numpy as np

from enet_tvm.compiler.kernels.gpu.bottleneck_tile import BottleneckTile
from enet_tvm.compiler.kernels.gpu.building import VECTOR
from enet_tvm.compiler.kernels.gpu.tile import GpuTile
from enet_tvm.compiler.ops import FusedConv2D


def bottleneck_weight_shape(part: FusedConv2D, tile: BottleneckTile) -> tuple[int, ...]:
    """Return the shape of the packed weights of a convolution, of which a thread has as many channels as the tile."""
    *leading, width = grouped_weight((part.out_shape[1], part.data_shape[1]), tile)
    return (*leading, 4, width) if is_of_cells(part) else (*part.kernel, *leading, width)


def pack_bottleneck_weight(weight: np.ndarray, tile: BottleneckTile) -> np.ndarray:
    """Return weights (OC x IC x KH x KW) as kernel row and column, input channel, vector of a thread, thread, channel of it.

    What threads side by side load at a time lies side by side.
    """
    outputs, inputs, rows, columns = weight.shape
    width = vector_width(tile.channels)
    grouped = weight.reshape(outputs // tile.channels, tile.channels // width, width, inputs, rows, columns)
    return np.ascontiguousarray(grouped.transpose(4, 5, 3, 1, 0, 2))


def pack_cell_weight(weight: np.ndarray, tile: BottleneckTile) -> np.ndarray:
    """Return weights (OC x IC x 2 x 2) as input channel, vector of a thread, thread, place in a cell, channel of the vector."""
    return np.ascontiguousarray(
        np.moveaxis(pack_bottleneck_weight(weight, tile).reshape(4, *grouped_weight(weight.shape, tile)), 0, 3)
    )


def grouped_weight(shape: tuple[int, ...], tile: BottleneckTile) -> tuple[int, int, int, int]:
    """Return the extents by which weights of a kernel position lie: input channel, vector, thread, channel of the vector."""
    outputs, inputs = shape[:2]
    width = vector_width(tile.channels)
    return inputs, tile.channels // width, outputs // tile.channels, width


def vector_width(channels: int) -> int:
    """Return how many of a thread's weights one load moves."""
    return next(width for width in (VECTOR, 2, 1) if channels % width == 0)


def group_tile(tile: BottleneckTile) -> GpuTile:
    """Return a tile with the same groups of channels, by which weights and vectors lie."""
    return GpuTile(tile.pixels, tile.channels, tile.lanes, 1)


def is_of_cells(part: FusedConv2D) -> bool:
    """Whether each pixel of a convolution is computed of one cell of 2x2 pixels."""
    shape = (*part.kernel, *part.strides, *part.padding, *part.dilation)
    return not part.transposed and shape == (2, 2, 2, 2, 0, 0, 1, 1)
