"""Winograd's algorithm on vectors of four against PyTorch, and where it is taken."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from winograds import any_convolution, convolution

from enet_tvm.compiler.kernels.cpu.register_tile import VectorUnit
from enet_tvm.compiler.kernels.cpu.winograd import tiles_of_row
from enet_tvm.compiler.kernels.cpu.winograd_blocked import BlockedWinogradTile, blocked_winograd_pays, blocked_winograd_tiles
from enet_tvm.compiler.ops import Layout

NEON = VectorUnit(4, 32, "aarch64")


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize(("rows", "columns"), [(2, 2), (4, 2), (2, 4), (4, 4), (1, 2), (1, 4), (2, 1), (4, 1)])
@settings(max_examples=3, deadline=None)
@given(data=st.data())
def test_any_shape(largest_error, rows: int, columns: int, data: st.DataObject):
    """Rows and columns that no tile divides, fewer tiles than are multiplied at once, any dilation, layout, shortcut."""
    attrs = any_convolution(data, columns, (1 if rows == 1 else 3, 1 if columns == 1 else 3))
    if data.draw(st.booleans(), "shortcut"):
        stored_as = Layout(attrs.out_layout.block, data.draw(st.integers(0, 2), "its padding"))
        attrs = replace(attrs, residual="add", residual_channels=attrs.out_shape[1], residual_layout=stored_as)
    attrs = replace(attrs, activation=data.draw(st.sampled_from(["none", "relu", "prelu"])))
    blocks = data.draw(st.sampled_from([b for b in (1, 2) if attrs.out_shape[1] // attrs.out_layout.block % b == 0]), "blocks")
    together = data.draw(st.integers(1, min(5, tiles_of_row(attrs, columns))), "tiles")
    tile = BlockedWinogradTile(rows, columns, together, blocks)
    assert largest_error(attrs, tile, data.draw(st.integers(0, 2**32 - 1), "seed")) < 2e-5


@pytest.mark.quick_cases(2)
@pytest.mark.parametrize("outputs", [2, 4])
@pytest.mark.parametrize("kernel", [(5, 1), (1, 5)])
@settings(max_examples=3, deadline=None)
@given(data=st.data())
def test_filters_of_five_taps(largest_error, kernel: tuple[int, int], outputs: int, data: st.DataObject):
    """As those of ENet's asymmetric bottlenecks, of any shape and dilation."""
    rows, columns = (outputs if taps == 5 else 1 for taps in kernel)
    attrs = replace(any_convolution(data, columns, kernel), activation=data.draw(st.sampled_from(["none", "prelu"])))
    tile = BlockedWinogradTile(rows, columns, data.draw(st.integers(1, min(5, tiles_of_row(attrs, columns))), "tiles"), 1)
    assert largest_error(attrs, tile, data.draw(st.integers(0, 2**32 - 1), "seed")) < 2e-5


def test_error_of_five_taps_at_a_shape_of_enet(largest_error):
    """The direct sum's is 1.2e-6."""
    for kernel, tile in (((5, 1), BlockedWinogradTile(4, 1, 5, 4)), ((1, 5), BlockedWinogradTile(1, 4, 5, 4))):
        assert largest_error(convolution(1, 32, 32, (24, 40), 1, 4, 4, (0, 0), kernel), tile) < 6e-6


@pytest.mark.parametrize(("outputs", "bound"), [(2, 3e-6), (4, 8e-6)])
def test_error_at_a_shape_of_enet(largest_error, outputs: int, bound: float):
    """As that of the kernel for wide vectors."""
    attrs = convolution(1, 32, 32, (24, 40), 1, 4, 4, (0, 0))
    assert largest_error(attrs, BlockedWinogradTile(outputs, outputs, 5, 4)) < bound


@given(
    channels=st.integers(1, 9).map(lambda n: 4 * n),
    size=st.tuples(st.integers(1, 80), st.integers(16, 200)),
    dilation=st.integers(1, 8),
)
def test_tiles_worth_measuring(channels: int, size: tuple[int, int], dilation: int):
    attrs = convolution(1, channels, channels, size, dilation, 4, 4, (0, 0))
    tiles = blocked_winograd_tiles(attrs, NEON)
    assert 0 < len(set(tiles)) == len(tiles) <= 24
    for tile in tiles:
        assert tile.columns * dilation <= size[1]
        assert channels // 4 % tile.blocks == 0
        assert tile.tiles <= tiles_of_row(attrs, tile.columns)
        assert tile.tiles * tile.blocks <= NEON.accumulators


def test_where_it_pays_in_enet():
    """At 320x192 and dilation 16 too many rows and columns of tiles are not of the picture, and a direct kernel skips rows."""
    stage_2 = {dilation: convolution(1, 32, 32, (24, 40), dilation, 4, 4, (0, 0)) for dilation in (1, 2, 4, 8, 16)}
    assert [blocked_winograd_pays(attrs, NEON) for attrs in stage_2.values()] == [True, True, True, True, False]
    assert blocked_winograd_tiles(stage_2[1], NEON)[0] == BlockedWinogradTile(4, 4, 5, 4)
    for kernel, outputs in (((5, 1), (4, 1)), ((1, 5), (1, 4))):
        asymmetric = convolution(1, 32, 32, (24, 40), 1, 4, 4, (0, 0), kernel)
        assert blocked_winograd_pays(asymmetric, NEON)
        assert blocked_winograd_tiles(asymmetric, NEON)[0] == BlockedWinogradTile(*outputs, 5, 4)
        halves = replace(asymmetric, data_layout=Layout(8, 2, "float16"), out_layout=Layout(8, 0, "float16"))
        assert not blocked_winograd_pays(halves, VectorUnit(8, 32, "aarch64")), "eight points are too many for float16"


def test_where_it_does_not_pay():
    attrs = convolution(1, 32, 32, (45, 80), 1, 4, 4, (0, 0))
    for unit in (VectorUnit(4, 16), VectorUnit(8, 16), VectorUnit(16, 32)):
        assert not blocked_winograd_pays(attrs, unit), "not counted"
    assert not blocked_winograd_pays(convolution(1, 32, 32, (45, 80), 1, 8, 8, (0, 0)), NEON), "no whole vector"
    assert not blocked_winograd_pays(convolution(1, 512, 512, (22, 30), 1, 4, 4, (0, 0)), NEON), "weights of 38 MB"
    assert not blocked_winograd_pays(convolution(1, 32, 32, (1, 4), 1, 4, 4, (0, 0)), NEON), "a quarter of each tile"
    assert not blocked_winograd_pays(replace(attrs, strides=(2, 2)), NEON)
