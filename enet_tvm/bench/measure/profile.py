"""Where the time of a forward pass goes, kernel by kernel, beside the machine's roofline."""

from __future__ import annotations

import contextlib
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from enet_tvm.bench.machine.nvml import GpuUnknownError, open_gpu
from enet_tvm.bench.measure.latency import Latency
from enet_tvm.bench.measure.roofline import MEASURED, Roofline, gpu_roofline, measure_roofline, seconds_of
from enet_tvm.errors import UserError
from enet_tvm.targets import load_target

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
    roofline : Roofline or None
        Limits of the processor, or of the GPU where the network runs on it; None where nothing is known of that.
    source : str
        Source of the limits, as `enet_tvm.bench.measure.roofline` names them.
    """

    kernels: tuple[KernelTime, ...]
    whole: float
    threads: int
    roofline: Roofline | None
    source: str = MEASURED

    @property
    def total(self) -> float:
        """The sum of the kernels' times, in seconds."""
        return sum(kernel.seconds for kernel in self.kernels)

    @property
    def flops(self) -> int:
        """The sum of the kernels' floating-point operations."""
        return sum(kernel.flops for kernel in self.kernels)

    def share_of_roofline(self, kernel: KernelTime) -> float | None:
        """Return the share of the roofline that a kernel reaches; Winograd, counted as direct sums, may exceed 1."""
        return None if self.roofline is None else self.roofline.seconds(kernel.flops, kernel.bytes) / kernel.seconds

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as JSON takes them."""
        kernels = [{**asdict(kernel), "share_of_roofline": self.share_of_roofline(kernel)} for kernel in self.kernels]
        return {
            "threads": self.threads,
            "whole_ms": 1e3 * self.whole,
            "sum_ms": 1e3 * self.total,
            "flops": self.flops,
            "roofline": None if self.roofline is None else {**asdict(self.roofline), "source": self.source},
            "kernels": kernels,
        }


def profile(segmenter: Segmenter, passes: int = 30) -> Profile:
    """Time every kernel of a network and whole forward passes, and find out the roofline of what it runs on.

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
    return Profile(kernels, whole.median, segmenter.threads, *_roofline(segmenter))


def _roofline(segmenter: Segmenter) -> tuple[Roofline | None, str]:
    """Return the limits of the processor or of the GPU that a network runs on, and their source."""
    target = segmenter.manifest.target
    if target.device == "cpu":
        return measure_roofline(segmenter.threads), MEASURED
    with contextlib.ExitStack() as stack:
        gpu = promised = None
        with contextlib.suppress(GpuUnknownError):
            gpu = stack.enter_context(open_gpu())
        with contextlib.suppress(UserError):  # a target of someone's own, which is not here
            promised = load_target(target.name).roofline
        return gpu_roofline(gpu, promised)
