from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enet_tvm.kernels.coverage import SMALLEST_BLOCK, channel_block, covered, out_block, runs_blocked, runs_planar
from enet_tvm.ops import FusedConv2D

LANES = st.sampled_from([4, 8, 16])
SAME = FusedConv2D((1, 16, 8, 8), (1, 16, 8, 8), (3, 3), (1, 1), (1, 1), (1, 1))
STRIDED = FusedConv2D((1, 16, 8, 8), (1, 64, 4, 4), (2, 2), (2, 2), (0, 0), (1, 1))
DOUBLED = FusedConv2D((1, 16, 8, 8), (1, 16, 16, 16), (3, 3), (2, 2), (1, 1), (1, 1), transposed=True)


@given(channels=st.integers(1, 512), lanes=LANES)
def test_blocks_divide_the_channels(channels: int, lanes: int):
    block = channel_block(channels, lanes)
    if channels % SMALLEST_BLOCK:
        assert block == 0
    else:
        assert channels % block == 0
        assert SMALLEST_BLOCK <= block <= lanes
        assert block == lanes or channels % (2 * block), "a larger one would fit"


@given(known=st.integers(1, 64), channels=st.integers(1, 64), lanes=LANES)
def test_blocks_suit_the_shortcut_too(known: int, channels: int, lanes: int):
    attrs = replace(SAME, out_shape=(1, 4 * channels, 8, 8), residual="pad", residual_channels=4 * known)
    block = out_block(attrs, lanes)
    assert channels * 4 % block == 0
    assert known * 4 % block == 0


def with_channels(attrs: FusedConv2D, channels: int) -> FusedConv2D:
    n, _, height, width = attrs.out_shape
    return replace(attrs, out_shape=(n, channels, height, width))


@pytest.mark.parametrize(
    ("attrs", "blocked", "planar"),
    [
        (SAME, True, True),
        (STRIDED, True, False),
        (DOUBLED, True, True),
        (with_channels(SAME, 11), False, True),
        (with_channels(STRIDED, 11), False, False),
        (with_channels(DOUBLED, 19), False, True),
        (replace(SAME, residual="add", residual_channels=16), True, False),
        (replace(SAME, residual="pad", residual_channels=6), False, False),
        (replace(DOUBLED, residual="add", residual_channels=16), False, False),
        (replace(DOUBLED, out_shape=(1, 16, 15, 15)), False, False),
        (replace(DOUBLED, strides=(1, 1), out_shape=(1, 16, 8, 8)), False, False),
        (replace(DOUBLED, strides=(2, 1), out_shape=(1, 16, 16, 8)), False, False),
        (replace(SAME, padding=(0, 0), out_shape=(1, 16, 6, 6)), True, False),
        (replace(SAME, data_shape=(1, 3, 8, 8)), True, True),
        (replace(SAME, data_shape=(1, 16, 8, 1), out_shape=(1, 16, 8, 1)), True, False),
    ],
)
def test_which_template_covers_what(attrs: FusedConv2D, blocked: bool, planar: bool):
    assert (runs_blocked(attrs), runs_planar(attrs)) == (blocked, planar)
    assert covered(attrs) == (blocked or planar)
