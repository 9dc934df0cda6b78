from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enet_tvm.compiler.kernels.gpu.building import WARP
from enet_tvm.compiler.kernels.gpu.tile import BYTES_PER_FMA, GpuUnit, TiledSums, clocks, gpu_tile, gpu_tiles, unrolled_channels
from enet_tvm.targets import load_target

UNITS = st.builds(
    GpuUnit,
    st.integers(1, 200),
    st.sampled_from([64, 72, 80, 128, 255]),
    st.sampled_from([128, 256, 1024]),
    st.sampled_from([64, 128]),
    st.sampled_from([33, 85]),
)
SUMS = st.builds(
    TiledSums,
    st.integers(1, 500_000),
    st.integers(1, 600),
    st.integers(1, 300),
    st.sampled_from([1, 4, 9]),
    st.integers(1, 4),
    st.none(),
    st.sampled_from([1, 4]),
)
SHARED_BYTES = 48 * 1024
"""Of a block, on every GPU."""


@given(UNITS, SUMS)
def test_every_output_has_one_thread_or_those_that_share_it(unit: GpuUnit, sums: TiledSums):
    for tile in gpu_tiles(unit, sums):
        along_pixels, along_channels = tile.blocks(sums.pixels, sums.channels)
        assert along_pixels * tile.lanes * tile.pixels >= sums.pixels > (along_pixels - 1) * tile.lanes * tile.pixels
        assert along_channels * tile.groups * tile.channels == tile.padded_channels(sums.channels) >= sums.channels
        assert tile.lanes % WARP == 0
        assert tile.lanes * tile.groups * tile.splits <= unit.max_threads_per_block
        assert tile.sums * sums.phases <= max(unit.accumulators, sums.phases)
        if tile.splits > 1:
            assert tile.groups == 1
            assert sums.inputs % tile.splits == tile.channels % tile.splits == 0
            assert tile.lanes * tile.splits * tile.sums * sums.phases * 4 <= SHARED_BYTES


@given(UNITS, SUMS)
def test_the_default_loads_little_wherever_any_does(unit: GpuUnit, sums: TiledSums):
    tiles = gpu_tiles(unit, sums)
    loaded = [sums.bytes_per_fma(tile.pixels, tile.channels) for tile in tiles]
    assert loaded[0] <= max(BYTES_PER_FMA, min(loaded))
    alike = [tile for tile, own in zip(tiles, loaded, strict=True) if own <= max(BYTES_PER_FMA, min(loaded))]
    assert clocks(unit, sums, tiles[0]) == min(clocks(unit, sums, tile) for tile in alike)


@given(UNITS, SUMS)
def test_smaller_ones_follow_the_default(unit: GpuUnit, sums: TiledSums):
    """So that every kernel fits in the end."""
    tiles = gpu_tiles(unit, sums)
    assert tiles[0] == gpu_tile(unit, sums)
    assert len(set(tiles)) == len(tiles)
    assert min(tile.sums for tile in tiles) <= 2 or len({tile.sums for tile in tiles}) == 1
    assert tiles[0].sums > 1 or sums.phases * 2 > unit.accumulators


def test_bytes_of_a_tile():
    sums = TiledSums(3600, 32, 32, weights=9)
    assert sums.bytes_per_fma(4, 8) == 1.5
    assert sums.bytes_per_fma(1, 1) == 8.0
    # Of a transposed convolution each of four pixels is loaded once for nine weights.
    assert TiledSums(3600, 32, 32, 9, reads=4, phases=4).bytes_per_fma(4, 4) == pytest.approx(4 * (16 + 36) / 144)


def test_a_large_machine_shares_tiles_and_a_small_one_does_not():
    """ENet's widest 3x3 convolution at 640x360."""
    sums = TiledSums(80 * 45, 32, 32, weights=9)
    small, large = (gpu_tile(unit, sums) for unit in (GpuUnit(2, 128), GpuUnit(132, 128, 1024, 128, 33)))
    assert (small.pixels, small.channels, small.splits) == (8, 8, 1)
    assert large.splits > 1
    assert sums.bytes_per_fma(large.pixels, large.channels) <= BYTES_PER_FMA


def test_few_registers_few_sums():
    assert GpuUnit(2, 64).accumulators < GpuUnit(2, 80).accumulators < GpuUnit(2, 128).accumulators


def test_loads_under_way_leave_room_for_sums():
    assert unrolled_channels(4, 8, 32) == 4
    assert unrolled_channels(8, 8, 32) < 4
    assert unrolled_channels(4, 8, 3) == 1


def test_the_unit_of_a_target():
    small, large = (GpuUnit.of(load_target(name).gpu) for name in ("jetson-tx1", "h100"))
    assert (small.multiprocessors, small.max_registers, small.l1_bytes) == (2, 128, 64)
    assert (large.multiprocessors, large.l1_bytes) == (114, 128)


def test_channels_that_no_tile_divides_waste_little():
    tile = gpu_tile(GpuUnit(2, 80), TiledSums(320 * 180, 11, 16, weights=4, reads=1, phases=4))
    assert 11 <= tile.padded_channels(11) <= 12
