"""Kernels of a GPU on small whole numbers: every sum is exact in float32, so results are equal in whichever order it adds."""

from __future__ import annotations

import numpy as np
import torch
import tvm
from torch.nn import functional as F

from enet_tvm.compiler.kernels.gpu.initial_block import gpu_initial_block, initial_tiles, pack_gpu_initial_weight


def whole(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Return whole numbers from -3 to 3, float32."""
    return rng.integers(-3, 4, shape).astype(np.float32)


def initial_block() -> tuple[tvm.tirx.PrimFunc, dict[str, np.ndarray], np.ndarray]:
    """Return the kernel of an initial block, its arrays, the output not written yet, and what PyTorch makes of them."""
    rng = np.random.default_rng(3)
    data, weight, bias = whole(rng, 1, 3, 10, 12), whole(rng, 13, 3, 3, 3), whole(rng, 13)
    scale, shift, slope = whole(rng, 3), whole(rng, 3), whole(rng, 16) / 4
    x = torch.from_numpy(data)
    pooled = F.max_pool2d(x, 2) * torch.from_numpy(scale)[:, None, None] + torch.from_numpy(shift)[:, None, None]
    convolved = F.conv2d(x, torch.from_numpy(weight), torch.from_numpy(bias), 2, 1)
    arrays = {
        "data": data,
        "weight": pack_gpu_initial_weight(weight, 16, initial_tiles(16)[0]),
        "bias": np.concatenate([bias, np.zeros(3, np.float32)]),
        "scale": scale,
        "shift": shift,
        "slope": slope,
        "out": np.full((1, 16, 5, 6), np.nan, np.float32),
    }
    expected = F.prelu(torch.cat([convolved, pooled], 1), torch.from_numpy(slope))
    return gpu_initial_block((1, 3, 10, 12), 13), arrays, expected.numpy()
