"""A network with every kind of kernel, and weights with which whole numbers stay whole and small."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class EveryKind(nn.Module):
    """Every kind of kernel: strides, dilation, filters of one column, poolings, shortcuts of three kinds, both activations.

    With `inner`, there are slopes before a shortcut as well as behind one.
    """

    def __init__(self, channels: int, head: nn.Module, *, inner: bool) -> None:
        super().__init__()
        half = channels // 2
        self.first = nn.Sequential(nn.Conv2d(3, channels, 3, stride=2, padding=1), nn.ReLU())
        self.wide = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=2, dilation=2), nn.PReLU(channels, 2.0))
        self.tall = nn.Conv2d(channels, channels, (5, 1), padding=(2, 0))
        self.expand = nn.Conv2d(channels, channels, 1)
        self.pool = nn.MaxPool2d(2, return_indices=True)
        self.project = nn.Sequential(nn.Conv2d(channels, half, 2, stride=2), nn.PReLU(half, -1.0))
        widen = nn.Conv2d(half, 2 * channels, 1)
        self.widen = nn.Sequential(widen, nn.PReLU(2 * channels, 0.5)) if inner else widen
        self.narrow = nn.Conv2d(2 * channels, half, 1)
        self.up = nn.Sequential(nn.ConvTranspose2d(half, half, 3, stride=2, padding=1, output_padding=1), nn.ReLU())
        self.join = nn.Conv2d(half, channels, 1)
        self.shortcut = nn.Conv2d(2 * channels, channels, 1)
        self.unpool = nn.MaxUnpool2d(2)
        self.act = nn.PReLU(channels, 0.0) if inner else nn.ReLU()
        self.padded_act = nn.ReLU()
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        x = self.act(self.expand(self.tall(self.wide(x))) + x)
        pooled, indices = self.pool(x)
        padded = nn.functional.pad(pooled, (0, 0, 0, 0, 0, pooled.shape[1]))
        y = self.padded_act(self.widen(self.project(x)) + padded)
        y = self.act(self.join(self.up(self.narrow(y))) + self.unpool(self.shortcut(y), indices))
        return self.head(y)


def with_whole_numbers(network: nn.Module, share: float) -> nn.Module:
    """Return the network with weights of -1, 0 and 1, `share` of them not 0 for every output."""
    generator = torch.Generator().manual_seed(3)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            chosen = torch.rand(module.weight.shape, generator=generator) < share / module.weight[0].numel()
            signs = torch.randint(-1, 2, module.weight.shape, generator=generator)
            module.weight.data = chosen.float() * signs
            if module.bias is not None:
                module.bias.data = torch.randint(-2, 3, module.bias.shape, generator=generator).float()
    return network
