from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from enet_tvm.compiler.kernels.gpu.emulation import serial_threads
from enet_tvm.compiler.kernels.gpu.initial_block import gpu_initial_block, initial_tiles, pack_gpu_initial_weight


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "filters", "pool"),
    [
        ((1, 3, 12, 22), 13, 2),
        ((2, 3, 10, 8), 13, 3),
        ((1, 3, 32, 34), 29, 2),
        ((1, 1, 8, 6), 3, 3),
        ((1, 5, 6, 10), 19, 2),
        ((1, 3, 8, 8), 4, 2),
    ],
)
def test_like_pytorch(run_kernel, shape: tuple[int, ...], filters: int, pool: int):
    """Also with more channels than a thread computes, and with pooled ones that are not in the last group alone."""
    rng = np.random.default_rng(0)

    def whole(*extents: int) -> np.ndarray:
        return rng.integers(-3, 4, extents).astype(np.float32)

    n, inputs, height, width = shape
    channels = filters + inputs
    # Negative pictures too: what lies outside must not win the maximum.
    data, weight, bias = whole(*shape) - 2, whole(filters, inputs, 3, 3), whole(filters)
    scale, shift, slope = whole(inputs), whole(inputs), whole(channels) / 4
    x = torch.from_numpy(data)
    convolved = F.conv2d(x, torch.from_numpy(weight), torch.from_numpy(bias), 2, 1)
    pooled = F.max_pool2d(x, pool, 2, padding=pool - 2)
    pooled = pooled * torch.from_numpy(scale)[:, None, None] + torch.from_numpy(shift)[:, None, None]
    expected = F.prelu(torch.cat([convolved, pooled], 1), torch.from_numpy(slope)).numpy()

    padded = np.concatenate([bias, np.zeros(inputs, np.float32)])
    for tile in initial_tiles(channels):
        kernel = serial_threads(gpu_initial_block((n, inputs, height, width), filters, pool, tile))
        packed = pack_gpu_initial_weight(weight, channels, tile)
        out = run_kernel(kernel, data, packed, padded, scale, shift, slope, shape=expected.shape)
        np.testing.assert_array_equal(out, expected)


def test_every_channel_has_a_thread():
    for channels in range(1, 60):
        assert all(channels % tile.channels == 0 for tile in initial_tiles(channels))
    assert {tile.channels for tile in initial_tiles(16)} == {16, 8, 4, 2, 1}
