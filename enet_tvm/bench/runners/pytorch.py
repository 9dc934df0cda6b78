"""PyTorch as a runner: as it comes, in its best form, and compiled by its own compiler."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from enet_tvm.artifact import Precision
from enet_tvm.bench.runners.base import Case, Runner, RunnerMissingError
from enet_tvm.machine import cpu_features
from enet_tvm.networks import load_network
from enet_tvm.networks.folded import folded


class PyTorchRunner(Runner):
    """A PyTorch module on the CPU, called under inference mode; in another precision than float32, under autocast too."""

    def __init__(
        self,
        description: str,
        module: Callable[[Tensor], Tensor],
        case: Case,
        *,
        channels_last: bool = False,
        precision: Precision = "float32",
    ) -> None:
        self.description = f"{description} (PyTorch {torch.__version__})"
        self.precision = precision
        self._module = module
        self._threads = case.threads
        self._weights = case.weights
        self._format = torch.channels_last if channels_last else torch.contiguous_format

    def forward(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the logits."""
        if torch.get_num_threads() != self._threads:
            torch.set_num_threads(self._threads)
        with torch.inference_mode(), self._autocast():
            output = self._module(torch.from_numpy(x).to(memory_format=self._format))
            return output.float().contiguous().numpy()

    def _autocast(self) -> contextlib.AbstractContextManager[object]:
        if self.precision == "float32":
            return contextlib.nullcontext()
        return torch.autocast("cpu", getattr(torch, self.precision))

    def artifact_files(self) -> tuple[Path, ...]:
        """Return the weights."""
        return (self._weights,)


def eager(case: Case) -> Runner:
    """Return PyTorch as it comes: NCHW, batch norms in place."""
    return PyTorchRunner("eager, NCHW", load_network(case.weights), case)


def channels_last(case: Case) -> Runner:
    """Return eager PyTorch in its best form: batch norms folded, channels_last."""
    return PyTorchRunner("eager, folded, channels_last", best_form(case), case, channels_last=True)


def best_form(case: Case) -> nn.Module:
    """Return the network in the form that PyTorch runs fastest: batch norms folded, weights channels_last."""
    network = folded(load_network(case.weights))
    for parameter in network.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.to(memory_format=torch.channels_last)
    return network


def compiled(case: Case) -> Runner:
    """Return ``torch.compile`` in its best form: batch norms folded, channels_last, weights frozen.

    Raises
    ------
    RunnerMissingError
        When it fails, most likely because a C++ compiler is missing.
    """
    torch.set_num_threads(case.threads)
    module = compile_frozen(best_form(case))
    runner = PyTorchRunner("torch.compile, folded, channels_last, frozen", module, case, channels_last=True)
    return made_ready(runner, case, "a C++ compiler")


def compiled_bfloat16(case: Case) -> Runner:
    """Return ``torch.compile`` in its best form under autocast: convolutions in bfloat16, what they exchange too.

    Raises
    ------
    RunnerMissingError
        When it fails, or the processor has no instructions for bfloat16: PyTorch would convert around every convolution.
    """
    if not cpu_features() & {"avx512_bf16", "amx_bf16", "bf16"}:
        raise RunnerMissingError("the processor has no instructions for bfloat16, by which PyTorch would gain; leave it out")
    torch.set_num_threads(case.threads)
    module = compile_frozen(best_form(case))
    description = "torch.compile, autocast to bfloat16, folded, channels_last, frozen"
    runner = PyTorchRunner(description, module, case, channels_last=True, precision="bfloat16")
    return made_ready(runner, case, "a C++ compiler")


def compile_frozen(network: nn.Module, **options: Any) -> Callable[[Tensor], Tensor]:
    """Return a network compiled by ``torch.compile`` with its weights as constants; it compiles when it is first called.

    Options, such as ``mode``, are those of ``torch.compile``.
    """
    torch._inductor.config.freezing = True
    # A second size in one process would otherwise be compiled for sizes unknown, several times slower.
    torch._dynamo.reset()
    return torch.compile(network, dynamic=False, **options)


def made_ready(runner: Runner, case: Case, needed: str) -> Runner:
    """Let a runner of ``torch.compile`` compile, and return it.

    Raises
    ------
    RunnerMissingError
        When compiling fails; `needed` names what it most likely lacks.
    """
    try:
        # Through the runner: a tensor made outside its inference mode is of another kind, which is compiled for anew.
        runner.forward(np.zeros(case.input_shape, np.float32))
    except Exception as error:  # what it raises without a compiler has no common base
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise RunnerMissingError(f"torch.compile does not work here ({reason[:120]}); it needs {needed}") from error
    return runner
