"""Where the time of a forward pass goes, kernel by kernel, beside what the machine could do."""

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
        Function in the library.
    layers : tuple of str
        Modules of the network that it computes.
    flops, bytes : int
        What it computes and moves at least.
    seconds : float
        Median duration.
    """

    name: str
    layers: tuple[str, ...]
    flops: int
    bytes: int
    seconds: float


@dataclass(frozen=True)
class Profile:
    """A forward pass taken apart.

    Attributes
    ----------
    kernels : tuple of KernelTime
        In launch order.
    whole : float
        Median seconds of a forward pass, measured without instruments.
    threads : int
        Threads of the forward pass.
    roofline : Roofline
        Measured in the same run.
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
        """The sum of the kernels' operations."""
        return sum(kernel.flops for kernel in self.kernels)

    def share_of_roofline(self, kernel: KernelTime) -> float:
        """Return how much of what the machine could do a kernel reaches; Winograd can do more than direct sums."""
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
    """Time every kernel of a network, the whole of it, and the machine.

    Parameters
    ----------
    segmenter : Segmenter
        The loaded artifact.
    passes : int
        Forward passes to take medians of.

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
