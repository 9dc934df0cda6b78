"""The training step's network as code that PyTorch generates: fewer passes over memory than layer by layer."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils._triton import has_triton

from enet_tvm.errors import UserError


def compiled(network: nn.Module, device: torch.device, backend: str = "inductor") -> nn.Module:
    """Return a network whose forward and backward passes `torch.compile` fuses when they are first run.

    That takes minutes once; PyTorch keeps the result in its cache. It rounds differently and draws another dropout than the
    network itself, which it shares its parameters with.

    Parameters
    ----------
    network : nn.Module
        The network, always called with inputs of one size.
    device : torch.device
        Device that the network is on.
    backend : str
        Backend of `torch.compile`, which generates the code.

    Raises
    ------
    UserError
        When what PyTorch generates code with is missing: a C++ compiler for CPUs, Triton for GPUs.
    """
    if backend == "inductor":
        _require_generator(device)
    return torch.compile(network, dynamic=False, backend=backend)  # type: ignore[return-value]


def _require_generator(device: torch.device) -> None:
    if device.type == "cpu":
        from torch._inductor.cpp_builder import get_cpp_compiler
        from torch._inductor.exc import InvalidCxxCompiler

        try:
            get_cpp_compiler()
        except InvalidCxxCompiler as error:
            raise UserError(
                "PyTorch finds no C++ compiler to compile the step with; install g++ or leave out --compile"
            ) from error
    elif device.type == "cuda" and not has_triton():
        raise UserError("PyTorch finds no Triton to compile the step with; pip install triton or leave out --compile")
