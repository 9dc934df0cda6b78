"""Pictures of which a network says the same in every arithmetic: no rounding decides which value of a window is the largest."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import nn


def certain(network: nn.Module, shape: tuple[int, ...]) -> tuple[torch.Tensor, np.ndarray]:
    """Return a random picture and its logits in double precision, such that no maximum of a window is in doubt.

    Where two values of a window are equal but for rounding, its index hangs on the order of additions, and with it the
    place of a whole feature: nothing could be said of such logits. So noise of that size must not change them.
    """
    exact = copy.deepcopy(network).double()
    with torch.no_grad():
        for seed in range(100):
            generator = torch.Generator().manual_seed(seed)
            x = torch.randn(shape, generator=generator)
            logits, *noisy = (exact(x.double() + noise * torch.randn(shape, generator=generator)) for noise in (0, 2e-6, 2e-6))
            if max(float((other - logits).abs().max()) for other in noisy) < 1e-4 * float(logits.abs().max()):
                return x, logits.numpy()
    raise AssertionError("every picture has near-ties")
