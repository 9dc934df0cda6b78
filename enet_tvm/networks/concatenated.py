"""The block with which ENet begins and ERFNet halves the resolution: a convolution beside a pooling of the same tensor."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ConvolutionBesidePooling(nn.Module):
    """A convolution and a pooling that halve the height and width, concatenated, then normalised and activated together.

    Parameters
    ----------
    conv : torch.nn.Conv2d
        Convolution with stride 2.
    pool : torch.nn.Module
        Max pooling with stride 2.
    norm : torch.nn.BatchNorm2d
        Batch norm over the concatenated channels of both.
    act : torch.nn.Module
        The activation.
    """

    def __init__(self, conv: nn.Conv2d, pool: nn.Module, norm: nn.BatchNorm2d, act: nn.Module) -> None:
        super().__init__()
        self.conv = conv
        self.pool = pool
        self.norm = norm
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output, at half the height and width, the convolution's channels first."""
        return self.act(self.norm(torch.cat([self.conv(x), self.pool(x)], dim=1)))
