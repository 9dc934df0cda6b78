"""Pictures of which a network says the same in every arithmetic: no rounding decides which value of a window is the largest."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import nn


def certain(network: nn.Module, shape: tuple[int, ...]) -> tuple[torch.Tensor, np.ndarray]:
    """Return a picture and its logits in double precision, such that rounding moves no maximum of a window."""
    exact = copy.deepcopy(network).double()
    with torch.no_grad():
        for seed in range(100):
            x = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
            logits = exact(x.double())
            noise = 1e-6 * torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
            if (exact(x.double() + noise) - logits).abs().max() < 1e-3 * logits.abs().max():
                return x, logits.numpy()
    raise AssertionError("every picture has near-ties")
