"""How many channels of a tensor lie innermost on a CPU."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from enet_tvm.compiler.ops import PLANAR, InitialBlockAttrs, Layout

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


def out_block(spec: Any, lanes: int) -> int:
    """Return the block of an operator's output, which must suit a shortcut with fewer channels too."""
    return channel_block(math.gcd(spec.out_shape[1], getattr(spec, "residual_channels", 0)), lanes)


def forms(spec: Any, lanes: int) -> list[Any]:
    """Return a call in each of the layouts that its tensors may have: blocked, where the channels allow it, and planar.

    The input of a convolution follows from its channels alone and is left open (planar); a downsampler's may be either.
    """
    block = out_block(spec, lanes)
    outs = [replace(spec, out_layout=layout) for layout in (*([Layout(block)] if block else []), PLANAR)]
    if not isinstance(spec, InitialBlockAttrs):
        return outs
    inner = channel_block(spec.data_shape[1], lanes)
    blocked = [replace(form, data_layout=Layout(inner)) for form in outs] if inner else []
    return [*(replace(form, data_layout=PLANAR) for form in outs), *blocked]
