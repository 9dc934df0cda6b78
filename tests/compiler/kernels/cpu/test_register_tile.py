from __future__ import annotations

import pytest
import tvm
from hypothesis import given
from hypothesis import strategies as st

from enet_tvm.compiler.kernels.cpu.register_tile import VectorUnit, lane_tiles, register_tile, register_tiles
from enet_tvm.targets import TargetSpec

UNITS = st.sampled_from([VectorUnit(4, 16), VectorUnit(8, 16), VectorUnit(16, 32), VectorUnit(4, 32), VectorUnit(8, 32)])


@pytest.mark.parametrize(
    ("triple", "mcpu", "mattr", "unit"),
    [
        ("x86_64-linux-gnu", "x86-64", (), VectorUnit(4, 16)),
        ("x86_64-linux-gnu", "x86-64-v2", (), VectorUnit(4, 16)),
        ("x86_64-linux-gnu", "sandybridge", (), VectorUnit(8, 16)),
        ("x86_64-linux-gnu", "x86-64-v3", (), VectorUnit(8, 16)),
        ("x86_64-linux-gnu", "x86-64-v4", (), VectorUnit(16, 32)),
        ("x86_64-linux-gnu", "znver4", (), VectorUnit(16, 32)),
        ("x86_64-linux-gnu", "znver4", ("-avx512f",), VectorUnit(8, 16)),
        ("aarch64-linux-gnu", "cortex-a57", (), VectorUnit(4, 32, "aarch64")),
        ("aarch64-linux-gnu", "cortex-a72", (), VectorUnit(4, 32, "aarch64")),
        ("aarch64-linux-gnu", "neoverse-v1", (), VectorUnit(4, 32, "aarch64")),
    ],
)
def test_vector_units_of_processors(triple: str, mcpu: str, mattr: tuple[str, ...], unit: VectorUnit):
    spec = TargetSpec(name="t", description="d", triple=triple, mcpu=mcpu, mattr=mattr)
    assert VectorUnit.of(spec.to_tvm()) == unit


def test_a_target_without_a_triple_is_this_machine():
    here = VectorUnit.of(tvm.target.Target({"kind": "llvm"}))
    assert here.lanes in (4, 8, 16)


@given(
    unit=UNITS,
    width=st.integers(1, 3000),
    channel_blocks=st.integers(1, 64),
    phases=st.sampled_from([1, 4]),
)
def test_a_tile_fits(unit: VectorUnit, width: int, channel_blocks: int, phases: int):
    """Its accumulators into the registers, with some left; itself into a row; its blocks into the channels."""
    tile = register_tile(unit, width, channel_blocks, phases)
    assert 1 <= tile.pixels <= width
    assert channel_blocks % tile.blocks == 0
    assert tile.pixels * tile.blocks * phases <= unit.accumulators < unit.registers


@given(unit=UNITS, half=st.integers(1, 1500), channel_blocks=st.integers(1, 64))
def test_a_tile_of_whole_windows(unit: VectorUnit, half: int, channel_blocks: int):
    """Where the shortcut is unpooled, neighbours share a window."""
    tile = register_tile(unit, 2 * half, channel_blocks, multiple=2)
    assert tile.pixels % 2 == 0
    assert tile.pixels <= 2 * half
    assert tile.pixels * tile.blocks <= unit.accumulators


@given(unit=UNITS, width=st.integers(40, 3000), channel_blocks=st.integers(1, 64))
def test_a_tile_hides_the_latency_of_multiplication(unit: VectorUnit, width: int, channel_blocks: int):
    """At least eight independent accumulators: two units of a latency of four cycles."""
    tile = register_tile(unit, width, channel_blocks)
    assert tile.pixels * tile.blocks >= min(8, unit.accumulators // 2)


@given(unit=UNITS, width=st.integers(1, 3000), channel_blocks=st.integers(1, 64))
def test_little_is_computed_twice(unit: VectorUnit, width: int, channel_blocks: int):
    """A row that the registers hold is one tile; in longer ones, tiles overlap by a sixth of the row at most."""
    tile = register_tile(unit, width, channel_blocks)
    computed = -(-width // tile.pixels) * tile.pixels
    if width * tile.blocks <= unit.accumulators:
        assert computed == width
    elif width >= 24:
        assert computed <= width * 7 / 6


@pytest.mark.parametrize("width", [80, 160, 320, 640])
def test_common_widths_waste_nothing(width: int):
    assert width % register_tile(VectorUnit(16, 32), width, 2).pixels == 0


@pytest.mark.parametrize(("unit", "blocks"), [(VectorUnit(16, 32), 1), (VectorUnit(8, 16), 2), (VectorUnit(4, 32), 4)])
def test_narrow_vectors_take_several_blocks(unit: VectorUnit, blocks: int):
    """One loaded pixel then serves all of them."""
    assert register_tile(unit, 80, 8).blocks == blocks


@given(
    st.sampled_from([VectorUnit(16, 32), VectorUnit(8, 16), VectorUnit(4, 32), VectorUnit(4, 16)]),
    st.integers(1, 200),
    st.integers(1, 16),
    st.sampled_from([1, 4]),
    st.sampled_from([1, 2]),
)
def test_tiles_worth_measuring(unit, half, channel_blocks, per_pixel, multiple):
    width = half * multiple
    tiles = register_tiles(unit, width, channel_blocks, per_pixel, multiple)
    assert tiles[0] == register_tile(unit, width, channel_blocks, per_pixel, multiple)
    assert len(set(tiles)) == len(tiles) <= 40
    for tile in tiles[1:]:
        assert tile.pixels <= width
        assert tile.pixels % multiple == 0
        assert channel_blocks % tile.blocks == 0
        assert tile.pixels * tile.blocks * per_pixel < unit.registers


@given(
    width=st.integers(1, 400),
    channel_blocks=st.integers(1, 16),
    per_pixel=st.sampled_from([1, 4]),
    multiple=st.sampled_from([1, 2]),
)
def test_tiles_multiplied_by_lane(width, channel_blocks, per_pixel, multiple):
    """Sums, the pixels' blocks and two vectors of weights are in registers; the first tile is the default."""
    unit, width = VectorUnit(8, 32, "aarch64"), width * multiple
    tiles = lane_tiles(unit, width, channel_blocks, per_pixel, multiple)
    assert tiles == register_tiles(unit, width, channel_blocks, per_pixel, multiple, lanewise=True)
    assert tiles[0] == register_tile(unit, width, channel_blocks, per_pixel, multiple, lanewise=True)
    assert 0 < len(set(tiles)) == len(tiles) <= 40
    for tile in tiles:
        assert tile.pixels <= width
        assert tile.pixels % multiple == 0
        assert channel_blocks % tile.blocks == 0
        assert tile.pixels * tile.blocks * per_pixel + tile.pixels + 2 <= unit.registers


@pytest.mark.parametrize(
    ("channel_blocks", "per_pixel", "tile"), [(4, 1, (5, 4)), (2, 1, (8, 2)), (1, 1, (10, 1)), (2, 4, (5, 1))]
)
def test_tiles_by_lane_of_enet(channel_blocks, per_pixel, tile):
    """At 320x192: 32, 16 and 8 channels, and the four phases of a transposed convolution."""
    found = lane_tiles(VectorUnit(8, 32, "aarch64"), 40, channel_blocks, per_pixel)[0]
    assert (found.pixels, found.blocks) == tile
