"""The roofline of a machine: its highest rates of arithmetic and of memory, beside which a network's time is shown."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from enet_tvm.bench.machine.nvml import NvidiaGpu
    from enet_tvm.targets.spec import PeakFigures

MEASURED = "measured"
PROMISED = "the target's specification"
"""Sources of a roofline, as reports name them."""


@dataclass(frozen=True)
class Roofline:
    """Highest rates of the threads, or of the GPU, that the network uses.

    Attributes
    ----------
    flops_per_second : float
        Float32 operations a second of a large matrix product; a multiply-add is two.
    bytes_per_second : float
        Bytes a second read and written by a copy that does not fit the caches.
    """

    flops_per_second: float
    bytes_per_second: float

    def seconds(self, flops: int, size: int) -> float:
        """Return the least time that so many operations and bytes can take."""
        return max(flops / self.flops_per_second, size / self.bytes_per_second)


def measure_roofline(threads: int, side: int = 1536, megabytes: int = 96) -> Roofline:
    """Measure what this machine's processor reaches with PyTorch's matrix product and copy on so many threads."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return measure_on("cpu", lambda: None, side, megabytes)
    finally:
        torch.set_num_threads(before)


def gpu_roofline(gpu: NvidiaGpu | None, promised: PeakFigures | None) -> tuple[Roofline | None, str]:
    """Return what this machine's GPU could do at most, and the source of the figures.

    Measured by PyTorch's matrix product and copy where PyTorch has CUDA, else computed from the GPU's cores, its memory's width
    and their highest clocks, else what the target promises.

    Parameters
    ----------
    gpu : NvidiaGpu or None
        GPU as its driver describes it; None where NVML does not know it.
    promised : PeakFigures or None
        Peak figures of the target; None where it has none.
    """
    import torch

    if torch.cuda.is_available():
        # Without the memory for it, what the driver says is next.
        with contextlib.suppress(torch.OutOfMemoryError), exact_float32():
            return measure_on("cuda", torch.cuda.synchronize, side=4096, megabytes=512), MEASURED
    if gpu is not None and (flops := gpu.peak_flops()) is not None:
        return Roofline(flops, gpu.peak_bytes() or math.inf), "the GPU's cores and highest clocks"
    return promised_roofline(promised), PROMISED


def promised_roofline(figures: PeakFigures | None) -> Roofline | None:
    """Return the roofline of a target's peak figures; None when its arithmetic is not known."""
    if figures is None or figures.gflops is None:
        return None
    return Roofline(1e9 * figures.gflops, 1e9 * (figures.gbps or math.inf))


@contextlib.contextmanager
def exact_float32() -> Iterator[None]:
    """Keep PyTorch from rounding float32 to TF32 on a GPU, which would be another precision than ours."""
    import torch

    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def measure_on(device: str, wait: Callable[[], None], side: int, megabytes: int) -> Roofline:
    """Measure a device's matrix product and copy; `wait` returns when it has done what it was given."""
    import torch

    a, b = torch.rand(side, side, device=device), torch.rand(side, side, device=device)
    source, copy = (torch.ones(megabytes * 250_000, device=device) for _ in range(2))

    def finished(function: Callable[[], Any]) -> Callable[[], None]:
        def run() -> None:
            function()
            wait()

        return run

    wait()
    product = min(seconds_of(finished(lambda: torch.mm(a, b))) for _ in range(8))
    moved = min(seconds_of(finished(lambda: copy.copy_(source))) for _ in range(8))
    return Roofline(2 * side**3 / product, 2 * 4 * source.numel() / moved)


def seconds_of(function: Callable[[], Any]) -> float:
    """Return the seconds of a call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start
