from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from enet_tvm.compiler.kernels.cpu.blocking import SMALLEST_BLOCK, channel_block, out_block
from enet_tvm.compiler.ops import FusedConv2D

LANES = st.sampled_from([4, 8, 16])
SAME = FusedConv2D((1, 16, 8, 8), (1, 16, 8, 8), (3, 3), (1, 1), (1, 1), (1, 1))


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
