"""PyTorch on this machine's GPU as a runner, in its best form: the peer of our networks compiled for a GPU."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from enet_tvm.bench.runners.base import Case, PassTimes, Runner, RunnerMissingError
from enet_tvm.bench.runners.pytorch import best_form, compile_frozen, made_ready
from enet_tvm.runtime.queues import Clock, HostClock


class PyTorchCudaRunner(Runner):
    """A module on a GPU, called under inference mode, in float32 without TF32.

    Parameters
    ----------
    description : str
        Form of the network, for the report.
    module : callable
        Takes the input and returns the logits, both tensors on the device.
    case : Case
        Case that is run.
    device : str
        PyTorch's name of the GPU; "cpu" works too, with nothing to wait for.
    """

    on_gpu = True

    def __init__(self, description: str, module: Callable[[Tensor], Tensor], case: Case, device: str = "cuda") -> None:
        self._device = torch.device(device)
        name = torch.cuda.get_device_name(self._device) if self._device.type == "cuda" else "processor"
        self.description = f"{description}, float32 without TF32, on {name} (PyTorch {torch.__version__})"
        self._module, self._weights = module, case.weights
        self._last: PassTimes | None = None
        self.clock: Clock = TorchEvents() if self._device.type == "cuda" else HostClock()
        # Where it computes in TF32 its labels are not those of float32; what it searches for once, it keeps.
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        torch.backends.cudnn.benchmark = True

    def forward(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the logits."""
        begun = time.perf_counter()
        with torch.inference_mode():
            moved = torch.from_numpy(x).to(self._device).contiguous(memory_format=torch.channels_last)
            self.clock.wait()
            there, start = time.perf_counter(), self.clock.mark()
            output = self._module(moved).contiguous()
            end = self.clock.mark()
            self.clock.wait()
            computed = time.perf_counter()
            logits: NDArray[np.float32] = output.cpu().numpy()
        moved_for = there - begun + time.perf_counter() - computed
        self._last = PassTimes(self.clock.seconds(start, end), moved_for)
        return logits

    def last_pass(self) -> PassTimes | None:
        """Return the times of the last forward pass on the GPU, and of the transfer of its data."""
        return self._last

    def artifact_files(self) -> tuple[Path, ...]:
        """Return the weights."""
        return (self._weights,)


class TorchEvents:
    """CUDA's events in PyTorch's current stream: an `enet_tvm.runtime.queues.Clock`."""

    def mark(self) -> torch.cuda.Event:
        """Record an event and return it."""
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def wait(self) -> None:
        """Wait until the GPU has done all that it was given."""
        torch.cuda.synchronize()

    def seconds(self, start: torch.cuda.Event, end: torch.cuda.Event) -> float:
        """Return the seconds between two events."""
        return start.elapsed_time(end) * 1e-3


def channels_last(case: Case) -> Runner:
    """Return eager PyTorch on the GPU: batch norms folded, channels_last.

    Raises
    ------
    RunnerMissingError
        When PyTorch has no CUDA, or finds no GPU.
    """
    require_cuda()
    return PyTorchCudaRunner("eager, folded, channels_last", best_form(case).to("cuda"), case)


def compiled(case: Case) -> Runner:
    """Return ``torch.compile`` on the GPU: batch norms folded, channels_last, weights frozen, all launches one CUDA graph.

    Raises
    ------
    RunnerMissingError
        When PyTorch has no CUDA, finds no GPU, or its compiler fails.
    """
    require_cuda()
    module = compile_frozen(best_form(case).to("cuda"), mode="reduce-overhead")
    runner = PyTorchCudaRunner("torch.compile with CUDA graphs, folded, channels_last, frozen", module, case)
    return made_ready(runner, case, "Triton")


def require_cuda() -> None:
    """Refuse a machine where PyTorch reaches no GPU.

    Raises
    ------
    RunnerMissingError
        When PyTorch has no CUDA, or finds no GPU.
    """
    if torch.version.cuda is None:
        raise RunnerMissingError(
            f"PyTorch {torch.__version__} is built without CUDA; install its build with CUDA, as https://pytorch.org says"
        )
    if not torch.cuda.is_available():
        raise RunnerMissingError(f"PyTorch {torch.__version__} finds no GPU that it can use here; see to its driver")
