"""The device a training runs on, and the processes that share it: one, or as many as `torchrun` started."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from enet_tvm.errors import UserError

DEVICES = ("cuda", "mps", "cpu")
"""Names of the kinds of device, the preferred one first."""

_PATIENCE = timedelta(hours=1)
"""Longest wait of the other processes while the first one evaluates and writes."""


@dataclass(frozen=True)
class Processes:
    """One of the processes that train together, each on its share of every batch.

    Attributes
    ----------
    device : torch.device
        Device that this process computes on.
    rank, count : int
        Number of this process, from 0, and number of all processes.
    """

    device: torch.device = torch.device("cpu")  # noqa: RUF009 (immutable)
    rank: int = 0
    count: int = 1

    @property
    def leads(self) -> bool:
        """Whether this is the one that evaluates, writes and reports."""
        return self.rank == 0

    def share(self, batch: int) -> slice:
        """Return this process's part of a batch, whose size must be divisible by `count`."""
        each = batch // self.count
        return slice(self.rank * each, (self.rank + 1) * each)

    def sum(self, value: Tensor) -> Tensor:
        """Return the sum of a tensor over all processes, without gradient."""
        if self.count > 1:
            value = value.detach().clone()
            dist.all_reduce(value)
        return value

    def together(self, network: nn.Module) -> nn.Module:
        """Return a module that calls `network` and averages its gradients over all processes in the backward pass."""
        if self.count == 1:
            return network
        devices = [self.device] if self.device.type == "cuda" else None
        # Statistics of batch norm are equal already: they are taken over all processes.
        return nn.parallel.DistributedDataParallel(network, device_ids=devices, forward_sync_buffers=False)

    def share_batch_norms(self, network: nn.Module) -> nn.Module:
        """Return `network` with batch norms that normalise by the statistics of the whole batch; names stay."""
        if self.count == 1:
            return network
        if self.device.type == "cuda":
            return nn.SyncBatchNorm.convert_sync_batchnorm(network)
        for module in network.modules():
            if type(module) is nn.BatchNorm2d:
                module.__class__ = _SharedBatchNorm2d
        return network


def choose_device(name: str | None = None) -> torch.device:
    """Return a device by name, or the best there is: CUDA, then MPS, then the CPU.

    Raises
    ------
    UserError
        When there is no such device here.
    """
    have = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name is None:
        return torch.device(next(kind for kind in DEVICES if have[kind]))
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"there is no kind of device '{name}'; give one of {', '.join(DEVICES)}") from error
    if not have.get(device.type):
        usable = ", ".join(kind for kind in DEVICES if have[kind])
        raise UserError(f"PyTorch finds no {device.type} device here; give one of {usable}, or leave --device out")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"there is no {device} here, but {torch.cuda.device_count()} CUDA devices, counted from 0")
    return device


def has_bfloat16(device: torch.device) -> bool:
    """Return whether a device convolves bfloat16 itself; a CPU that does not is several times slower in it than in float32."""
    return device.type != "cpu" or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


@contextlib.contextmanager
def join_processes(device: str | None = None) -> Iterator[Processes]:
    """Join the processes that `torchrun` started, by NCCL on CUDA and Gloo elsewhere; yield one process without it.

    Parameters
    ----------
    device : str, optional
        Name of the device; by default the best there is. With several processes, each takes the CUDA device of its number.

    Raises
    ------
    UserError
        When there is no such device, or fewer than there are processes.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    chosen = choose_device(device)
    if count == 1:
        yield Processes(chosen)
        return
    if chosen.type == "mps":
        if device is not None:
            raise UserError(f"{count} processes cannot share the one MPS device; start one, or give --device cpu")
        chosen = torch.device("cpu")
    if chosen.type == "cuda":
        local = int(os.environ.get("LOCAL_RANK", "0"))
        chosen = choose_device(f"cuda:{local}")
        torch.cuda.set_device(chosen)
    dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo", timeout=_PATIENCE)
    try:
        yield Processes(chosen, dist.get_rank(), count)
    finally:
        dist.destroy_process_group()


class _Sum(torch.autograd.Function):
    """Sum over processes, whose gradient is the sum of the gradients."""

    @staticmethod
    def forward(context: Any, value: Tensor) -> Tensor:
        total = value.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous().clone()
        dist.all_reduce(total)
        return total


class _SharedBatchNorm2d(nn.BatchNorm2d):
    """Batch norm over the batches of all processes, which must be of equal size; PyTorch's own does that on GPUs only."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        values = x.float()
        count = values.numel() // values.shape[1] * dist.get_world_size()
        mean = _Sum.apply(values.sum(dim=(0, 2, 3))) / count
        centred = values - mean[:, None, None]
        variance = _Sum.apply(centred.square().sum(dim=(0, 2, 3))) / count
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
            self.running_mean.lerp_(mean.detach(), share)
            self.running_var.lerp_(variance.detach() * (count / max(1, count - 1)), share)
        zero = torch.zeros_like(mean)
        normalised = centred * (variance + self.eps).rsqrt()[:, None, None]
        return F.batch_norm(normalised, zero, zero + 1, self.weight, self.bias, False, 0.0, 0.0).to(x.dtype)
