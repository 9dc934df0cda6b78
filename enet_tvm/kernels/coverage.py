"""Which convolutions the templates cover; the rest stays with TVM's own operators."""

from __future__ import annotations

import math

from enet_tvm.ops import FusedConv2D

SMALLEST_BLOCK = 4
"""Channels that a tensor must come in multiples of to be stored in blocks, on any target."""


def channel_block(channels: int, lanes: int) -> int:
    """Return the block for this many channels: a whole vector if it divides them, else the largest part of one.

    0 when not even `SMALLEST_BLOCK` divides them: such a tensor stays planar.
    """
    block = lanes
    while block >= SMALLEST_BLOCK and channels % block:
        block //= 2
    return block if block >= SMALLEST_BLOCK else 0


def out_block(attrs: FusedConv2D, lanes: int) -> int:
    """Return the block of a convolution's output, which must suit a shortcut with fewer channels too."""
    return channel_block(math.gcd(attrs.out_shape[1], attrs.residual_channels), lanes)


def runs_blocked(attrs: FusedConv2D) -> bool:
    """Whether the register-tile template with channel-blocked output covers this convolution."""
    if out_block(attrs, SMALLEST_BLOCK) == 0:
        return False
    return not attrs.transposed or (_doubles(attrs) and attrs.residual == "none")


def runs_planar(attrs: FusedConv2D) -> bool:
    """Whether the kernel with NCHW output covers this convolution."""
    if (
        attrs.residual != "none" or attrs.inner_activation != "none" or attrs.data_shape[3] < 2
    ):  # A vector holds at least two neighbours.
        return False
    if attrs.transposed:
        return _doubles(attrs)
    return attrs.strides == (1, 1) and attrs.out_shape[2:] == attrs.data_shape[2:]


def covered(attrs: FusedConv2D) -> bool:
    """Whether any template covers this convolution."""
    return runs_blocked(attrs) or runs_planar(attrs)


def _doubles(attrs: FusedConv2D) -> bool:
    return attrs.strides == (2, 2) and attrs.out_shape[2:] == tuple(2 * side for side in attrs.data_shape[2:])
