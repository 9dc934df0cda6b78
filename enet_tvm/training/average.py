"""Exponential moving average of a network's weights."""

from __future__ import annotations

import copy

import torch
from torch import nn


class WeightAverage:
    """Keeps a copy of a network whose parameters and buffers follow the original's moving average.

    Parameters
    ----------
    network : nn.Module
        The network that is trained.
    decay : float
        Share of the average that each update keeps; early on less, ``(1 + n) / (10 + n)`` after n updates, so that
        the first weights are soon forgotten.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self.decay = decay
        self.updates = 0

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Take in the current weights; integer buffers are copied."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        source = network.state_dict()
        for key, value in self.network.state_dict().items():
            if value.is_floating_point():
                value.lerp_(source[key], 1 - decay)
            else:
                value.copy_(source[key])
