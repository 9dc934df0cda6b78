"""Launches of bottlenecks by products of matrices: what warps share, and what fits."""

from __future__ import annotations

import pytest
from bottlenecks import bottleneck

from enet_tvm.compiler.kernels.gpu.bottleneck_tile import BottleneckTile
from enet_tvm.compiler.kernels.gpu.matrix_tile import WarpShare, matrix_tiles, shared_bytes, warp_share
from enet_tvm.compiler.kernels.gpu.tile import SHARED_BYTES, HalfUnit

UNIT = HalfUnit(114, 255, 1024, 128, 33, matrix_depth=16)


def test_fewer_tiles_than_warps_share_pixels():
    """Eight warps of 32 pixels: each has a tile of the wide tensor, and a quarter of the pixels of two narrow tiles."""
    spec, tile = bottleneck((32, 128, 32), (45, 80)), BottleneckTile(1, 16, 32, 8)
    assert warp_share(spec, "expand", tile) == WarpShare(1, 4, 1)
    assert warp_share(spec, "conv", tile) == warp_share(spec, "reduce", tile) == WarpShare(1, 1, 4)
    assert (WarpShare(1, 4, 1).vector, WarpShare(1, 4, 1).own, WarpShare(2, 4, 1).sums) == (4, 8, 32)
    with pytest.raises(ValueError, match="2 warps do not share 3 tiles"):
        warp_share(bottleneck((48, 96, 48), (4, 16)), "conv", BottleneckTile(1, 16, 32, 2))


def test_launches_fit():
    for channels in ((16, 64, 16), (32, 128, 32), (16, 64, 4)):
        spec = bottleneck(channels, (45, 80))
        tiles = matrix_tiles(spec, UNIT)
        assert tiles
        assert all(spec.expand.out_shape[1] % tile.chunk == 0 for tile in tiles)
        assert all(shared_bytes(spec, tile) <= SHARED_BYTES for tile in tiles)
    assert matrix_tiles(bottleneck((48, 96, 48), (45, 80)), UNIT) == []  # No number of warps shares three tiles.
    assert matrix_tiles(bottleneck((8, 32, 8), (45, 80)), UNIT) == []


def test_a_large_gpu_takes_small_blocks():
    """So that 3600 pixels are more blocks than there are multiprocessors to wait."""
    spec = bottleneck((32, 128, 32), (45, 80))
    assert matrix_tiles(spec, UNIT)[0].block_pixels == 32
