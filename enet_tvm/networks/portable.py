"""A network in the operators that embedded runtimes have: batch norms folded, unpooling as arithmetic instead of by indices."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from enet_tvm.errors import UserError
from enet_tvm.networks.folded import folded
from enet_tvm.networks.window import replace_pooling

LARGE = 1e30
"""Factor of a value's distance from its window's maximum: beyond one for any distance but zero that matters, 1e-30 and more."""

LARGE_FLOAT16 = 1e4
"""The same as a number of float16, for runtimes that compute in it: distances below a ten-thousandth count in part."""

Kept = tuple[Tensor, Tensor]
"""The plane that was pooled, and its maxima: what stands in the place of indices."""


class _Pool(nn.Module):
    """2x2 max pooling that returns its maxima, and beside them `Kept`."""

    def forward(self, x: Tensor) -> tuple[Tensor, Kept]:
        pooled = nn.functional.max_pool2d(x, 2)
        return pooled, (x, pooled)


class _Unpool(nn.Module):
    """2x2 max unpooling without indices: a value goes wherever its window has its maximum."""

    def __init__(self, large: float) -> None:
        super().__init__()
        self.large = large

    def forward(self, x: Tensor, kept: Kept, output_size: Sequence[int] | None = None) -> Tensor:
        before, pooled = kept
        if any(side % 2 for side in before.shape[2:]):
            raise UserError("a plane with an odd side is pooled, which the portable form cannot undo; take another size")
        distance = before - nn.functional.interpolate(pooled, scale_factor=2.0, mode="nearest")
        hit = torch.clamp(distance * self.large + 1.0, 0.0, 1.0)
        return hit * nn.functional.interpolate(x, scale_factor=2.0, mode="nearest")


def portable(network: nn.Module, large: float = LARGE) -> nn.Module:
    """Return a copy of a network in eval mode in operators that embedded runtimes have.

    It holds convolutions, max pooling, nearest-neighbour enlargement, activations, concatenation, padding, products and sums:
    no batch norm, no index, no slice with a stride. What it computes is the same up to rounding, except where the maximum of a
    window is there several times: unpooling then puts the value at each of these places, and PyTorch at the first.

    Parameters
    ----------
    network : nn.Module
        Network of this project; input and output are those of the original.
    large : float
        `LARGE`, or `LARGE_FLOAT16` for a runtime that computes in float16.

    Raises
    ------
    UserError
        When the network pools with indices, or unpools, in windows other than 2x2 with stride 2; when it is called, also
        where it would unpool to an odd height or width.
    """
    network = replace_pooling(folded(network), _Pool, lambda: _Unpool(large))
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.Dropout | nn.Dropout2d):
            network.set_submodule(name, nn.Identity())
    return network
