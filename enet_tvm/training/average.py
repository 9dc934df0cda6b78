"""Exponential moving average of a network's weights, and batch-norm statistics that fit it."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


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
        pairs = list(zip(self.network.state_dict().values(), network.state_dict().values(), strict=True))
        averaged = [pair for pair in pairs if pair[0].is_floating_point()]
        torch._foreach_lerp_([own for own, _ in averaged], [new for _, new in averaged], 1 - decay)
        for own, new in pairs:
            if not own.is_floating_point():
                own.copy_(new)


@torch.no_grad()
def with_statistics_of(network: nn.Module, batches: Iterable[Tensor]) -> nn.Module:
    """Return a copy of a network whose batch norms have the statistics that it itself has on some batches.

    Those of averaged weights are averages of what other weights had: near, but not theirs.

    Parameters
    ----------
    network : nn.Module
        The network, in eval mode; its dropout stays off.
    batches : iterable of Tensor
        Batches of inputs, N x 3 x H x W, each of equal weight. Of several processes, each gives its share.
    """
    copied = copy.deepcopy(network)
    norms = [module for module in copied.modules() if isinstance(module, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    for batch in batches:
        copied(batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return copied.eval()
