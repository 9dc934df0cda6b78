from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from enet_tvm.compiler.kernels.gpu.building import WARP
from enet_tvm.compiler.kernels.gpu.tile import GpuUnit, gpu_tile, gpu_tiles

UNITS = st.builds(GpuUnit, st.integers(1, 200), st.sampled_from([64, 72, 80, 128, 255]), st.sampled_from([128, 256, 1024]))


@given(UNITS, st.integers(1, 500_000), st.integers(1, 600), st.integers(1, 4), st.sampled_from([1, 4]))
def test_every_output_has_one_thread(unit: GpuUnit, pixels: int, channels: int, batch: int, phases: int):
    tile = gpu_tile(unit, pixels, channels, batch, accumulators_per_pixel=phases)
    along_pixels, along_channels = tile.blocks(pixels, channels)
    assert along_pixels * tile.lanes * tile.pixels >= pixels > (along_pixels - 1) * tile.lanes * tile.pixels
    assert along_channels * tile.groups * tile.channels == tile.padded_channels(channels) >= channels
    assert tile.lanes % WARP == 0
    assert tile.lanes * tile.groups <= unit.max_threads_per_block
    assert tile.pixels * tile.channels * phases <= unit.accumulators


def test_a_small_machine_has_large_tiles():
    """ENet's widest 3x3 convolution at 640x360: as many sums as there are registers on two multiprocessors."""
    small, large = (gpu_tile(GpuUnit(n, 80), 80 * 45, 32) for n in (2, 132))
    assert small.pixels * small.channels == 32
    assert large.pixels * large.channels < small.pixels * small.channels


def test_few_registers_few_sums():
    assert GpuUnit(2, 64).accumulators < GpuUnit(2, 80).accumulators


@given(UNITS, st.integers(1, 500_000), st.integers(1, 600), st.sampled_from([4, 1_000]), st.sampled_from([1, 4]))
def test_smaller_ones_follow_the_default(unit: GpuUnit, pixels: int, channels: int, depth: int, phases: int):
    """One after the other keeps fewer sums, down to four registers of a thread, so that every kernel fits in the end."""
    tiles = gpu_tiles(unit, pixels, channels, 1, depth, phases)
    assert tiles[0] == gpu_tile(unit, pixels, channels, 1, depth, phases)
    assert len(set(tiles)) == len(tiles)
    smaller = [tiles[0]]
    while following := next((tile for tile in tiles if tile.sums < smaller[-1].sums), None):
        smaller.append(following)
    assert smaller[-1].sums == 1
    assert [tile.sums for tile in smaller] == sorted((tile.sums for tile in smaller), reverse=True)
    limit = unit.accumulators // (2 if depth < 16 else 1)
    assert all(tile.sums * phases <= max(limit, phases) for tile in tiles)
    assert any(tile.sums * phases <= max(4, phases) for tile in smaller[:4])


def test_short_sums_few_of_them():
    deep, shallow = (gpu_tile(GpuUnit(2, 80), 57600, 16, depth=depth) for depth in (64, 4))
    assert shallow.pixels * shallow.channels == deep.pixels * deep.channels // 2


def test_channels_that_no_tile_divides_waste_little():
    tile = gpu_tile(GpuUnit(2, 80), 320 * 180, 11, accumulators_per_pixel=4)
    assert tile.padded_channels(11) == 12
