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
        # Where it computes in TF32 its labels are not those of float32; what it searches for once, it keeps.
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        torch.backends.cudnn.benchmark = True

    def forward(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the logits."""
        begun = time.perf_counter()
        with torch.inference_mode():
            moved = torch.from_numpy(x).to(self._device).contiguous(memory_format=torch.channels_last)
            self._wait()
            there = time.perf_counter()
            output = self._module(moved).contiguous()
            self._wait()
            computed = time.perf_counter()
            logits: NDArray[np.float32] = output.cpu().numpy()
        self._last = PassTimes(computed - there, there - begun + time.perf_counter() - computed)
        return logits

    def last_pass(self) -> PassTimes | None:
        """Return the times of the last forward pass on the GPU, and of the transfer of its data."""
        return self._last

    def artifact_files(self) -> tuple[Path, ...]:
        """Return the weights."""
        return (self._weights,)

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


def channels_last(case: Case) -> Runner:
    """Return eager PyTorch on the GPU: batch norms folded, channels_last.

    Raises
    ------
    RunnerMissingError
        When PyTorch has no CUDA, or finds no GPU.
    """
    _require_cuda()
    return PyTorchCudaRunner("eager, folded, channels_last", best_form(case).to("cuda"), case)


def compiled(case: Case) -> Runner:
    """Return ``torch.compile`` on the GPU: batch norms folded, channels_last, weights frozen.

    Raises
    ------
    RunnerMissingError
        When PyTorch has no CUDA, finds no GPU, or its compiler fails.
    """
    _require_cuda()
    module = compile_frozen(best_form(case).to("cuda"))
    runner = PyTorchCudaRunner("torch.compile, folded, channels_last, frozen", module, case)
    return made_ready(runner, case, "Triton")


def _require_cuda() -> None:
    if torch.version.cuda is None:
        raise RunnerMissingError(
            f"PyTorch {torch.__version__} is built without CUDA; install its build with CUDA, as https://pytorch.org says"
        )
    if not torch.cuda.is_available():
        raise RunnerMissingError(f"PyTorch {torch.__version__} finds no GPU that it can use here; see to its driver")
