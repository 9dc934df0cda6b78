"""How the warps of a block share a bottleneck that is computed by products of matrices.

A block has some pixels of a picture, one after the other, and all channels of them. A warp computes tiles of 16 output channels
and all of the block's pixels where there are as many tiles as warps; where there are fewer, a part of the pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from enet_tvm.compiler.kernels.gpu.bottleneck_tile import BottleneckTile
from enet_tvm.compiler.kernels.gpu.building import VECTOR, WARP
from enet_tvm.compiler.kernels.gpu.tile import ISSUE, SHARED_BYTES, GpuUnit
from enet_tvm.compiler.ops import FusedBottleneck

ROWS, COLUMNS, DEPTH = 16, 8, 16
"""Output channels, pixels and inputs of a product of matrices."""

PAIRS = DEPTH // 2
"""Words of two channels that the inputs of a product are."""

_MOST_SUMS = 96
"""Sums of a thread that leave registers for all else."""

_WORD_BYTES = 4


@dataclass(frozen=True)
class WarpShare:
    """What a warp computes of a convolution's result for a block, or of the channels of a turn.

    Attributes
    ----------
    tiles : int
        Tiles of output channels.
    columns : int
        Products side by side, of `COLUMNS` pixels each.
    beside : int
        Warps that share the pixels of a block.
    """

    tiles: int
    columns: int
    beside: int

    @property
    def vector(self) -> int:
        """Products whose pixels are neighbours by turns: a thread loads one pixel for each at a time."""
        return math.gcd(self.columns, VECTOR)

    @property
    def pixels(self) -> int:
        """Pixels of the warp."""
        return self.columns * COLUMNS

    @property
    def own(self) -> int:
        """Pixels of a thread, of both channels of each tile that it has sums of."""
        return self.columns * 2

    @property
    def sums(self) -> int:
        """Sums of a thread."""
        return self.tiles * self.columns * 4


def warp_share(spec: FusedBottleneck, name: str, tile: BottleneckTile) -> WarpShare:
    """Return what a warp computes of one of the convolutions, called ``expand`` and so on.

    Raises
    ------
    ValueError
        When channels and pixels are not divided by the warps.
    """
    if name == "expand":
        return WarpShare(1, tile.block_pixels // COLUMNS, 1)
    tiles = -(-spec.named[name].out_shape[1] // ROWS)
    along = min(tiles, tile.rows)
    beside = tile.rows // along
    if tiles % along or tile.rows % along or tile.block_pixels % (beside * COLUMNS):
        raise ValueError(f"{tile.rows} warps do not share {tiles} tiles of channels and {tile.block_pixels} pixels")
    return WarpShare(tiles // along, tile.block_pixels // (beside * COLUMNS), beside)


def matrix_tiles(spec: FusedBottleneck, unit: GpuUnit) -> list[BottleneckTile]:
    """Return the launches that there are for a bottleneck, the one that is expected to be the fastest first.

    Lanes are those of a warp, rows the warps of a block, and channels those of a tile. The list is empty where channels are not
    divided by 16; those of the last convolution need not be.
    """
    parts = spec.convolutions
    if any(part.data_shape[1] % DEPTH for part in parts) or spec.expand.out_shape[1] % ROWS:
        return []
    if spec.conv is not None and spec.conv.out_shape[1] % ROWS:
        return []
    tiles = [BottleneckTile(pixels, ROWS, WARP, warps) for warps in (2, 4, 8) for pixels in (1, 2, 4)]
    fitting = [tile for tile in tiles if _fits(spec, tile, unit)]
    return sorted(fitting, key=lambda tile: (_clocks(spec, unit, tile), tile.block_pixels, tile.rows))


def _fits(spec: FusedBottleneck, tile: BottleneckTile, unit: GpuUnit) -> bool:
    if spec.expand.out_shape[1] % tile.chunk or tile.threads > unit.max_threads_per_block:
        return False
    try:
        shares = {name: warp_share(spec, name, tile) for name in spec.named}
    except ValueError:
        return False
    beside = max(1, tile.threads // tile.block_pixels)
    if (spec.data_shape[1] // 2) % beside:
        return False
    kept = sum(shares[name].sums for name in shares if name != "conv")
    if max(share.sums for share in shares.values()) > _MOST_SUMS or kept > _MOST_SUMS:
        return False
    return shared_bytes(spec, tile) <= SHARED_BYTES


def shared_bytes(spec: FusedBottleneck, tile: BottleneckTile) -> int:
    """Return the bytes of shared memory of a block: words of two channels for each of its pixels."""
    inputs = 0 if spec.conv is None else spec.conv.data_shape[1]
    rows = max(inputs, spec.expand.data_shape[1]) // 2 + max(inputs, 0 if spec.reduce is None else tile.chunk) // 2
    return rows * tile.block_pixels * _WORD_BYTES


def _clocks(spec: FusedBottleneck, unit: GpuUnit, tile: BottleneckTile) -> float:
    """Return the clocks of a launch by a model of what the busiest multiprocessor issues and waits for."""
    expand = spec.expand
    pixels = expand.out_shape[2] * expand.out_shape[3]
    blocks = -(-(-(-pixels // tile.block_pixels) * expand.out_shape[0]) // unit.multiprocessors)
    area = 1 if spec.conv is None else spec.conv.kernel[0] * spec.conv.kernel[1]
    staged = area * spec.data_shape[1] // 2 * tile.block_pixels / tile.threads
    turns = expand.out_shape[1] // tile.chunk
    issued = staged * 8 + area * 20
    for name, part in spec.named.items():
        share, again = warp_share(spec, name, tile), turns if name == "expand" else 1
        steps = part.kernel[0] * part.kernel[1] * part.data_shape[1] // DEPTH
        loads = steps * (share.tiles + 2 * share.columns / share.vector)
        issued += again * (steps * share.tiles * share.columns + 2 * loads + share.sums * (14 if name == "expand" else 9))
    warps = blocks * tile.rows
    alone = issued + (area + 2 * turns + 4) * unit.l1_latency + 1000
    resident = max(1, min(blocks, 32 // tile.rows))
    return max(-(-warps // ISSUE) * issued, -(-blocks // resident) * alone)
