"""How much of a convolution each thread of a GPU computes, and how many threads there are."""

from __future__ import annotations

import math
from dataclasses import dataclass

from enet_tvm.compiler.kernels.gpu.building import WARP

_THREADS_PER_MULTIPROCESSOR = 512
"""Threads that hide the latency of memory: 16 warps, each with several independent loads under way."""

_SHALLOW = 16


@dataclass(frozen=True)
class GpuUnit:
    """The figures of a GPU that tiles depend on.

    Attributes
    ----------
    multiprocessors : int
        Number of streaming multiprocessors.
    max_registers : int
        32-bit registers that a thread may use.
    max_threads_per_block : int
        Threads that a block may have.
    """

    multiprocessors: int
    max_registers: int = 255
    max_threads_per_block: int = 1024

    @property
    def accumulators(self) -> int:
        """Registers of a thread that sums may take: addresses, weights and pixels need about 45 beside them."""
        return 32 if self.max_registers >= 72 else 16

    @property
    def wanted_threads(self) -> int:
        """Threads of a launch that keep the whole machine busy."""
        return self.multiprocessors * _THREADS_PER_MULTIPROCESSOR


@dataclass(frozen=True)
class GpuTile:
    """A launch of a convolution.

    Attributes
    ----------
    pixels : int
        Pixels of each thread; they lie `lanes` apart, so that neighbouring threads have neighbouring pixels.
    channels : int
        Output channels of each thread.
    lanes : int
        Threads of a block side by side along the pixels.
    groups : int
        Threads of a block side by side along the channels.
    """

    pixels: int
    channels: int
    lanes: int
    groups: int

    @property
    def sums(self) -> int:
        """Pixels times channels of a thread: what it keeps in registers."""
        return self.pixels * self.channels

    def channel_groups(self, channels: int) -> int:
        """Return how many threads it takes, side by side, for all the channels."""
        return -(-channels // self.channels)

    def padded_channels(self, channels: int) -> int:
        """Return the number of channels that the groups compute, some of them for nothing."""
        return self.channel_groups(channels) * self.channels

    def blocks(self, pixels: int, channels: int) -> tuple[int, int]:
        """Return the blocks of a launch along pixels and along channels."""
        return -(-pixels // (self.lanes * self.pixels)), self.channel_groups(channels) // self.groups


def gpu_tile(
    unit: GpuUnit, pixels: int, channels: int, batch: int = 1, depth: int = 1_000_000, accumulators_per_pixel: int = 1
) -> GpuTile:
    """Return the launch for an output of `batch` x `channels` x `pixels`; it takes what `gpu_tiles` takes."""
    return gpu_tiles(unit, pixels, channels, batch, depth, accumulators_per_pixel)[0]


def gpu_tiles(
    unit: GpuUnit, pixels: int, channels: int, batch: int = 1, depth: int = 1_000_000, accumulators_per_pixel: int = 1
) -> list[GpuTile]:
    """Return the launches worth trying for an output of `batch` x `channels` x `pixels`, the default first.

    The largest tile that leaves enough threads for the machine is the best: it has the fewest loads for each
    multiplication. Of tiles of one size, the one that computes the fewest channels for nothing wins, then the more
    nearly square. After the default come the best tiles of half as many sums, a quarter and so on, which need fewer
    registers, then all others.

    Parameters
    ----------
    depth : int
        Products in each sum. Where they are few, the compiler unrolls the loop over them altogether: every load is then under
        way at once, and takes a register.
    accumulators_per_pixel : int
        Sums of each pixel and channel: 4 where the four phases of a transposed convolution are computed together.
    """

    def threads(shape: tuple[int, int]) -> int:
        return batch * -(-pixels // shape[0]) * -(-channels // shape[1])

    def loads(shape: tuple[int, int]) -> float:
        """Return the loads for each useful multiply-add, weights four at a time."""
        p, c = shape
        computed = -(-channels // c) * c
        useful = p * c * accumulators_per_pixel * channels / computed
        # Multiply-adds of channels that are no one's cost as much as the useful ones.
        return (p + accumulators_per_pixel * math.ceil(c / 4)) / useful + 0.25 * computed / channels

    def rank(shape: tuple[int, int]) -> tuple[float, float, int]:
        enough = min(1.0, threads(shape) / unit.wanted_threads)
        return (-enough, loads(shape), shape[0])

    limit = unit.accumulators // (2 if depth < _SHALLOW else 1)
    limits = [max(1, (limit >> halvings) // accumulators_per_pixel) for halvings in range(limit.bit_length() - 2)]
    ranked = sorted(((p, c) for p in (1, 2, 4) for c in (1, 2, 4, 8, 16) if c <= channels or c == 1), key=rank)
    fitting = [[shape for shape in ranked if shape[0] * shape[1] <= most] for most in limits]
    shapes = dict.fromkeys([*(some[0] for some in fitting), *fitting[0]])
    return [_launch(unit, pixels_, channels_, channels) for pixels_, channels_ in shapes]


def _launch(unit: GpuUnit, pixels: int, channels: int, of: int) -> GpuTile:
    """Return the launch whose threads compute `pixels` x `channels` each, out of `of` channels in all."""
    groups = -(-of // channels)
    # 128 threads make a block, or 256 where that lets all the channels of a pixel share one: they read the same pixels.
    most_groups = min(8, unit.max_threads_per_block // WARP)
    together = max(g for g in range(1, most_groups + 1) if groups % g == 0)
    lanes = WARP * max(1, min(4, most_groups) // together)
    return GpuTile(pixels, channels, lanes, together)
