"""Winograd's algorithm against PyTorch: as exact as the direct sum where two outputs are made, nearly so where four are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from winograds import any_convolution, convolution

from enet_tvm.compiler.kernels.cpu import winograd
from enet_tvm.compiler.kernels.cpu.register_tile import VectorUnit
from enet_tvm.compiler.kernels.cpu.winograd import WinogradTile
from enet_tvm.compiler.kernels.cpu.winograd_transforms import weight_transform
from enet_tvm.compiler.ops import FusedConv2D, Layout

AVX512 = VectorUnit(16, 32)
STAGE_2 = FusedConv2D(
    (1, 32, 45, 80), (1, 32, 45, 80), (3, 3), (1, 1), (1, 1), (1, 1), data_layout=Layout(16, 1), out_layout=Layout(16)
)


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("columns", [2, 4])
@pytest.mark.parametrize("rows", [2, 4])
@settings(max_examples=3, deadline=None)
@given(data=st.data())
def test_any_shape(largest_error, rows: int, columns: int, data: st.DataObject):
    """Rows and columns that no tile divides, pictures of fewer rows than a tile, any dilation, layout and padding."""
    attrs = any_convolution(data, columns)
    tile = WinogradTile(rows, columns, data.draw(st.integers(1, 4), "tiles"))
    assert largest_error(attrs, tile, data.draw(st.integers(0, 2**32 - 1), "seed")) < 2e-5


@pytest.mark.quick_cases(2)
@pytest.mark.parametrize("outputs", [2, 4])
@pytest.mark.parametrize("kernel", [(3, 1), (1, 3)])
@settings(max_examples=3, deadline=None)
@given(data=st.data())
def test_filters_of_one_row_or_column(largest_error, kernel: tuple[int, int], outputs: int, data: st.DataObject):
    """As ERFNet's: any dilation of the one direction, also with a shortcut."""
    rows, columns = (outputs if taps == 3 else 1 for taps in kernel)
    attrs = any_convolution(data, columns, kernel)
    if data.draw(st.booleans(), "shortcut"):
        stored_as = Layout(attrs.out_layout.block, data.draw(st.integers(0, 2), "its padding"))
        attrs = replace(attrs, residual="add", residual_channels=attrs.out_shape[1], residual_layout=stored_as)
    tile = WinogradTile(rows, columns, data.draw(st.integers(1, 4), "tiles"))
    assert largest_error(attrs, tile, data.draw(st.integers(0, 2**32 - 1), "seed")) < 2e-5


@pytest.mark.quick_cases(2)
@pytest.mark.parametrize("shortcut", [False, True])
@pytest.mark.parametrize("activation", ["none", "relu", "prelu"])
def test_activations(largest_error, activation: str, shortcut: bool):
    attrs = replace(convolution(1, 16, 32, (6, 10), 1, 16, 16, (0, 1)), activation=activation)
    if shortcut:
        attrs = replace(attrs, residual="add", residual_channels=32, residual_layout=Layout(16, 2))
    assert largest_error(attrs, WinogradTile(4, 4, 2)) < 2e-5


@pytest.mark.parametrize(("outputs", "bound"), [(2, 3e-6), (4, 8e-6)])
def test_error_at_a_shape_of_enet(largest_error, outputs: int, bound: float):
    """The direct sum's is 2e-6; with the usual points 1 and 2, four outputs would be at 1.6e-5."""
    assert largest_error(STAGE_2, WinogradTile(outputs, outputs, 4)) < bound


def test_weights_lie_as_they_are_read():
    """Those of a filter of one tap are the same column of the transform for every channel."""
    attrs = convolution(1, 4, 4, (4, 4), 1, 4, 4, (0, 0))
    weight = np.zeros((4, 4, 3, 3), np.float32)
    weight[range(4), range(4), 1, 1] = 1
    packed = winograd.pack_winograd_weight(weight, attrs, WinogradTile(4, 4, 1))
    assert packed.shape == (6, 1, 4, 6, 4)
    middle = weight_transform(4, 3)[:, 1]
    for channel in range(4):
        np.testing.assert_allclose(packed[:, 0, channel, :, channel], np.outer(middle, middle), rtol=1e-6)
        assert not packed[:, 0, channel][:, :, [c for c in range(4) if c != channel]].any()


@given(
    unit=st.sampled_from([AVX512, VectorUnit(8, 16), VectorUnit(4, 32)]),
    size=st.tuples(st.integers(1, 80), st.integers(16, 200)),
    dilation=st.integers(1, 8),
)
def test_tiles_worth_measuring(unit: VectorUnit, size: tuple[int, int], dilation: int):
    attrs = convolution(1, unit.lanes, unit.lanes, size, dilation, unit.lanes, unit.lanes, (0, 0))
    assert winograd.runs_winograd(attrs)
    tiles = winograd.winograd_tiles(attrs, unit)
    assert 0 < len(set(tiles)) == len(tiles) <= 20
    for tile in tiles:
        assert tile.columns * dilation <= size[1]
        assert tile.tiles * (tile.columns + 2) < unit.registers


@pytest.mark.parametrize(("dilation", "pays"), [(1, True), (2, True), (4, True), (8, True), (16, False)])
def test_where_it_pays_in_enet(dilation: int, pays: bool):
    """At dilation 16 too many rows and columns of tiles are not of the picture, and a direct kernel skips rows."""
    attrs = replace(STAGE_2, dilation=(dilation,) * 2, padding=(dilation,) * 2, data_layout=Layout(16, dilation))
    assert winograd.winograd_pays(attrs, AVX512) is pays


@pytest.mark.parametrize(
    "other",
    [
        {"kernel": (1, 1), "padding": (0, 0)},
        {"strides": (2, 2)},
        {"transposed": True},
        {"padding": (0, 0), "out_shape": (1, 32, 43, 78)},
        {"dilation": (1, 2), "padding": (1, 2)},
        {"residual": "add", "residual_channels": 32, "residual_layout": Layout(8)},
        {"residual": "add", "residual_channels": 32, "residual_layout": Layout(16, 0, "uint8")},
        {"residual": "pad", "residual_channels": 16, "residual_layout": Layout(16)},
        {"kernel": (3, 1)},
        {"kernel": (3, 1), "padding": (1, 0), "dilation": (1, 2)},
        {"kernel": (1, 5), "padding": (0, 1)},
        {"kernel": (5, 5), "padding": (2, 2)},
        {"kernel": (1, 5), "padding": (0, 2), "data_layout": Layout(16, 2, "bfloat16")},
        {"inner_activation": "relu"},
        {"out_layout": Layout()},
        {"data_layout": Layout(16, 1, "uint8"), "out_layout": Layout(16, 0, "uint8")},
        {"data_shape": (1, 32, 45, 1), "out_shape": (1, 32, 45, 1)},
    ],
    ids=str,
)
def test_what_is_not_covered(other: dict[str, object]):
    assert winograd.runs_winograd(STAGE_2)
    attrs = replace(STAGE_2, **other)
    assert not winograd.runs_winograd(attrs)
    assert not winograd.winograd_pays(attrs, AVX512)


def test_where_it_pays_with_bfloat16():
    """Where it halves the time of the direct kernel at least, whose dot products are of pairs."""
    attrs = replace(STAGE_2, data_layout=Layout(16, 1, "bfloat16"), out_layout=Layout(16, 0, "bfloat16"))
    assert winograd.winograd_pays(attrs, AVX512)
    far = replace(attrs, dilation=(8, 8), padding=(8, 8), data_layout=Layout(16, 8, "bfloat16"))
    assert not winograd.winograd_pays(far, AVX512)


def with_block(block: int) -> FusedConv2D:
    return replace(STAGE_2, data_layout=Layout(block, 1), out_layout=Layout(block))


def test_where_it_pays_with_avx2():
    unit = VectorUnit(8, 16)
    assert winograd.winograd_pays(with_block(8), unit)
    assert winograd.winograd_tiles(with_block(8), unit)[0] == WinogradTile(4, 4, 2), "twelve of sixteen registers"


@pytest.mark.parametrize("kernel", [(3, 1), (1, 3)])
def test_where_it_pays_in_erfnet(kernel: tuple[int, int]):
    """On AVX2 up to dilation 4, where it was measured; farther, too much of the tiles is outside the picture."""
    unit, pays = VectorUnit(8, 16), []
    for dilation in (1, 2, 4, 16):
        attrs = convolution(1, 128, 128, (45, 80), dilation, 8, 8, (0, 0), kernel)
        pays.append(winograd.winograd_pays(attrs, unit))
        tile = winograd.winograd_tiles(attrs, unit)[0]
        assert (tile.rows == 1, tile.columns == 1) == (kernel[0] == 1, kernel[1] == 1)
    assert pays == [True, True, True, False]
    near = convolution(1, 128, 128, (45, 80), 1, 16, 16, (0, 0), kernel)
    assert winograd.runs_winograd(near)
    assert not winograd.winograd_pays(near, AVX512), "not measured"


def test_where_it_does_not_pay():
    for unit in (VectorUnit(4, 16), VectorUnit(4, 32)):
        assert not winograd.winograd_pays(with_block(4), unit), "loads are two fifths of its instructions: winograd_blocked"
    assert not winograd.winograd_pays(with_block(8), AVX512), "half of each vector"
    deep = {"data_shape": (1, 512, 22, 30), "out_shape": (1, 512, 22, 30)}
    assert not winograd.winograd_pays(replace(STAGE_2, **deep), AVX512), "weights of 38 MB"
    narrow = {"data_shape": (1, 32, 1, 4), "out_shape": (1, 32, 1, 4)}
    assert not winograd.winograd_pays(replace(STAGE_2, **narrow), AVX512), "a quarter of each tile is in the picture"
