"""Bottlenecks, calls of the operator that computes them, and what PyTorch makes of these."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from gpu_kernels import kernel_arrays
from torch.nn import functional as F
from whole_numbers import whole

from enet_tvm.compiler.kernels.gpu.bottleneck import GpuBottleneckTemplate
from enet_tvm.compiler.kernels.gpu.bottleneck_tile import BottleneckTile
from enet_tvm.compiler.ops import FusedBottleneck, FusedConv2D


def bottleneck(
    channels: tuple[int, int, int],
    size: tuple[int, int],
    *,
    kernel: tuple[int, int] | None = (3, 3),
    dilation: int = 1,
    residual: str = "add",
    batch: int = 1,
    activation: str = "prelu",
    cells: bool = False,
    pooled: bool = False,
    kept: bool = True,
    beside: int = 0,
    doubling: int = 0,
    head: bool = False,
    argmax: bool = False,
) -> FusedBottleneck:
    """Return a bottleneck of narrow, wide and again narrow channels; without a kernel or channels at the end, without these.

    `cells` makes the narrowing convolution one of 2x2 with stride 2; `pooled` and `kept` are those of `FusedBottleneck`, and
    `beside` channels of the convolution that it calls so. `doubling` is the kernel of a transposed convolution in place of the
    first one; `size` is then that of its result. `head` makes the narrowing convolution a transposed one of 2x2
    with stride 2 and without activation, which may end in labels.
    """
    narrow, wide, last = channels

    def part(inputs: int, outputs: int, kernel: tuple[int, int] = (1, 1), **more: object) -> FusedConv2D:
        padding = (kernel[0] // 2 * dilation, kernel[1] // 2 * dilation)
        spread = (1, 1) if kernel == (1, 1) else (dilation, dilation)
        shapes = (batch, inputs, *size), (batch, outputs, *size)
        return FusedConv2D(*shapes, kernel, (1, 1), padding, spread, activation=activation, **more)

    added = {"none": 0, "pad": wide // 2, "add": wide, "unpool": wide}[residual]
    inner = "none" if residual == "none" else activation
    expand = part(narrow, wide, inner_activation=inner, residual=residual, residual_channels=added)
    reduce = part(wide, last) if last else None
    if cells and reduce is not None:
        halved = (batch, last, size[0] // 2, size[1] // 2)
        reduce = replace(reduce, out_shape=halved, kernel=(2, 2), strides=(2, 2), padding=(0, 0))
    if head and reduce is not None:
        doubled = (batch, last, 2 * size[0], 2 * size[1])
        reduce = FusedConv2D((batch, wide, *size), doubled, (2, 2), (2, 2), (0, 0), (1, 1), True, argmax=argmax)
    other = replace(part(wide, beside), activation="none") if beside else None
    conv = kernel and part(narrow, narrow, kernel)
    if doubling:
        shapes = (batch, narrow, size[0] // 2, size[1] // 2), (batch, narrow, *size)
        padding = (doubling // 2, doubling // 2) if doubling % 2 else (0, 0)
        conv = FusedConv2D(*shapes, (doubling, doubling), (2, 2), padding, (1, 1), True, activation=activation)
    return FusedBottleneck(expand, conv, reduce, pooled, kept, other)


def activated(value: torch.Tensor, activation: str, slope: np.ndarray | None) -> torch.Tensor:
    if activation == "relu":
        return torch.relu(value)
    return value if slope is None else F.prelu(value, torch.from_numpy(slope))


def window_of(places: torch.Tensor, width: int) -> np.ndarray:
    """Return PyTorch's places in a plane of some width as places in their 2x2 windows."""
    return (places // width % 2 * 2 + places % width % 2).numpy().astype(np.uint8)


class BottleneckCall:
    """Arguments of a call, and what PyTorch makes of them.

    With `small`, they are from -1 to 1 and slopes whole, so that all sums are numbers of float16 as well.
    """

    def __init__(self, spec: FusedBottleneck, seed: int = 0, *, small: bool = False) -> None:
        self.spec = spec
        self._largest = 1 if small else 3
        rng = np.random.default_rng(seed)
        self.data = self._whole(rng, *spec.data_shape)
        self.arguments = [self.data]
        self.shortcut: dict[str, np.ndarray] = {}
        x = torch.from_numpy(self.data)
        results: dict[str, np.ndarray] = {}
        for name, part in spec.named.items():
            y = self._convolve(part, x, rng)
            results[name] = y.argmax(1).numpy().astype(np.uint8) if part.argmax else y.numpy()
            x = x if name == "beside" else y
            if name == "expand":
                maxima, places = F.max_pool2d(x, 2, return_indices=True)
        results |= {"reduced": results.get("reduce"), "out": results["expand"], "pooled": maxima.numpy()}
        results["beside_out"] = results.get("beside")
        results["window"] = window_of(places, spec.expand.out_shape[3])
        self.expected = {name: results[name] for name in spec.outputs}

    def _whole(self, rng: np.random.Generator, *shape: int) -> np.ndarray:
        return np.clip(whole(rng, *shape), -self._largest, self._largest)

    def _convolve(self, part: FusedConv2D, x: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
        channels = part.out_shape[1]
        # Few weights are not zero, so that sums stay small enough to be exact one convolution after the other.
        sides = (part.data_shape[1], channels) if part.transposed else (channels, part.data_shape[1])
        weight = self._whole(rng, *sides, *part.kernel) * (rng.random((*sides, 1, 1)) < 0.2)
        weight, bias = weight.astype(np.float32), self._whole(rng, channels)
        self.arguments += [weight, bias]
        w, b = torch.from_numpy(weight), torch.from_numpy(bias)
        if part.transposed:
            x = F.conv_transpose2d(x, w, b, part.strides, part.padding, part.kernel[0] % 2)
        else:
            x = F.conv2d(x, w, b, part.strides, part.padding, part.dilation)
        x = activated(x, part.inner_activation, self._slope(part.inner_activation, channels, rng))
        slope = self._slope(part.activation, channels, rng)
        if part.residual == "unpool":
            pooled = torch.from_numpy(rng.permutation(x.numel()).astype(np.float32) % 64).reshape(x.shape)
            maxima, places = F.max_pool2d(pooled, 2, return_indices=True)
            x = x + F.max_unpool2d(maxima, places, 2, output_size=x.shape[2:])
            self.arguments += [maxima.numpy(), window_of(places, x.shape[3])]
        elif part.residual != "none":
            residual = self._whole(rng, x.shape[0], part.residual_channels, *x.shape[2:])
            self.arguments.append(residual)
            x[:, : part.residual_channels] += torch.from_numpy(residual)
        return activated(x, part.activation, slope)

    def _slope(self, activation: str, channels: int, rng: np.random.Generator) -> np.ndarray | None:
        if activation != "prelu":
            return None
        slope = rng.choice(np.array([0, 0.5, 1, 2] if self._largest > 1 else [0, 1], np.float32), channels)
        self.arguments.append(slope)
        return slope

    def arrays(
        self, template: GpuBottleneckTemplate, point: BottleneckTile, unwritten: float = np.nan
    ) -> dict[str, np.ndarray]:
        """Return the arguments of the kernel at a point, by name."""
        return kernel_arrays(template, point, self.arguments, self.expected, unwritten)
