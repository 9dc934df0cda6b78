"""Where the time of a forward pass goes, kernel by kernel, beside the machine's roofline."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from enet_tvm.bench.measure.latency import Latency
from enet_tvm.bench.measure.roofline import Roofline, measure_roofline, seconds_of

if TYPE_CHECKING:
    from enet_tvm.runtime import Segmenter


@dataclass(frozen=True)
class KernelTime:
    """One launch of the forward pass.

    Attributes
    ----------
    name : str
        Name of the function in the library.
    layers : tuple of str
        Modules of the network that it computes.
    flops, bytes : int
        Floating-point operations of its convolution, and least number of bytes that it must move.
    seconds : float
        Median duration of the launch.
    """

    name: str
    layers: tuple[str, ...]
    flops: int
    bytes: int
    seconds: float


@dataclass(frozen=True)
class Profile:
    """Times of the kernels of a forward pass, and of the whole of it.

    Attributes
    ----------
    kernels : tuple of KernelTime
        Times of the kernels, in launch order.
    whole : float
        Median duration of a forward pass in seconds, measured without instruments.
    threads : int
        Number of threads of the forward pass.
    roofline : Roofline
        Limits of the machine, measured in the same run.
    """

    kernels: tuple[KernelTime, ...]
    whole: float
    threads: int
    roofline: Roofline

    @property
    def total(self) -> float:
        """The sum of the kernels' times, in seconds."""
        return sum(kernel.seconds for kernel in self.kernels)

    @property
    def flops(self) -> int:
        """The sum of the kernels' floating-point operations."""
        return sum(kernel.flops for kernel in self.kernels)

    def share_of_roofline(self, kernel: KernelTime) -> float:
        """Return the share of the roofline that a kernel reaches; Winograd, counted as direct sums, may exceed 1."""
        return self.roofline.seconds(kernel.flops, kernel.bytes) / kernel.seconds

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as JSON takes them."""
        kernels = [{**asdict(kernel), "share_of_roofline": self.share_of_roofline(kernel)} for kernel in self.kernels]
        return {
            "threads": self.threads,
            "whole_ms": 1e3 * self.whole,
            "sum_ms": 1e3 * self.total,
            "flops": self.flops,
            "roofline": asdict(self.roofline),
            "kernels": kernels,
        }


def profile(segmenter: Segmenter, passes: int = 30) -> Profile:
    """Time every kernel of a network and whole forward passes, and measure the machine's roofline.

    Parameters
    ----------
    segmenter : Segmenter
        The loaded artifact.
    passes : int
        Number of forward passes to take medians of.

    Raises
    ------
    ValueError
        When the library launches other kernels than its manifest lists.
    """
    x = np.random.default_rng(0).standard_normal(segmenter.manifest.input.shape, np.float32)
    segmenter.forward(x)
    whole = Latency(tuple(seconds_of(lambda: segmenter.forward(x)) for _ in range(passes)))
    timed = segmenter.time_kernels(x, passes)
    described = segmenter.manifest.kernels
    if any([name for name, _ in one] != [kernel.name for kernel in described] for one in timed):
        raise ValueError("the library does not launch the kernels that its manifest lists")
    medians = np.median([[seconds for _, seconds in one] for one in timed], axis=0)
    kernels = tuple(
        KernelTime(kernel.name, kernel.layers, kernel.flops, kernel.bytes, float(seconds))
        for kernel, seconds in zip(described, medians, strict=True)
    )
    return Profile(kernels, whole.median, segmenter.threads, measure_roofline(segmenter.threads))
