"""Initial blocks with what a downsampling bottleneck begins with, in whole numbers, and what PyTorch makes of them."""

from __future__ import annotations

import numpy as np
import torch
from bottlenecks import window_of
from gpu_kernels import kernel_arrays
from torch.nn import functional as F
from whole_numbers import whole

from enet_tvm.compiler.kernels.gpu.bottleneck_tile import BottleneckTile
from enet_tvm.compiler.kernels.gpu.initial_downsampler import GpuInitialDownsamplerTemplate
from enet_tvm.compiler.ops import FusedConv2D, InitialBlockAttrs, InitialDownsampler


def downsampler(shape: tuple[int, int, int, int], filters: int, outputs: int, pool: int = 2) -> InitialDownsampler:
    """Return the block of a picture, and a 2x2 convolution with stride 2 and PReLU of so many outputs."""
    n, inputs, height, width = shape
    halves, quarters = ((height // by, width // by) for by in (2, 4))
    sides = (n, filters + inputs, *halves), (n, outputs, *quarters)
    reduce = FusedConv2D(*sides, (2, 2), (2, 2), (0, 0), (1, 1), activation="prelu")
    return InitialDownsampler(InitialBlockAttrs(shape, filters, pool), reduce)


class DownsamplerCall:
    """Arguments of a call, and what PyTorch makes of them."""

    def __init__(self, spec: InitialDownsampler, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        (_, inputs, _, _), filters = spec.block.data_shape, spec.block.filters
        channels, outputs = filters + inputs, spec.reduce.out_shape[1]
        # Negative pictures too: what lies outside must not win the maximum.
        data, weight, bias = whole(rng, *spec.data_shape) - 2, whole(rng, filters, inputs, 3, 3), whole(rng, filters)
        scale, shift = whole(rng, inputs), whole(rng, inputs)
        slopes = [rng.choice(np.array([0, 0.5, 1, 2], np.float32), count) for count in (channels, outputs)]
        narrow, narrow_bias = whole(rng, outputs, channels, 2, 2), whole(rng, outputs)
        self.arguments = [data, weight, bias, scale, shift, slopes[0], narrow, narrow_bias, slopes[1]]
        x, w, b, k, c, s, v, d, t = map(torch.from_numpy, self.arguments)
        pooled = F.max_pool2d(x, 2) * k[:, None, None] + c[:, None, None]
        wide = F.prelu(torch.cat([F.conv2d(x, w, b, 2, 1), pooled], 1), s)
        maxima, places = F.max_pool2d(wide, 2, return_indices=True)
        reduced = F.prelu(F.conv2d(wide, v, d, 2), t)
        window = window_of(places, wide.shape[3])
        self.expected = {"reduced": reduced.numpy(), "pooled": maxima.numpy(), "window": window}

    def arrays(
        self, template: GpuInitialDownsamplerTemplate, point: BottleneckTile, unwritten: float = np.nan
    ) -> dict[str, np.ndarray]:
        """Return the arguments of the kernel at a point, by name."""
        return kernel_arrays(template, point, self.arguments, self.expected, unwritten)
