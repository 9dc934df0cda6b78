"""Max pooling and unpooling by window index: the maximum's place inside its 2x2 window instead of in the plane.

PyTorch's indices make every exporter fall back on a scatter. A window index, 0 to 3 row by row, turns unpooling into
a comparison. Both operators are custom ones of PyTorch (``enet_tvm::...``), so an exported graph keeps them whole.
They are for inference: no gradient is defined.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from enet_tvm.errors import UserError


@torch.library.custom_op("enet_tvm::max_pool2d_with_window", mutates_args=())
def max_pool2d_with_window(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return 2x2 stride-2 maxima and their window indices.

    Parameters
    ----------
    x : Tensor
        N x C x H x W planes, H and W even.

    Returns
    -------
    pooled : Tensor
        N x C x H/2 x W/2 maxima.
    window : Tensor
        N x C x H/2 x W/2 uint8 window indices: 0 to 3, row by row; of equal values the first, as in PyTorch.
    """
    _require_even(x)
    pooled, indices = nn.functional.max_pool2d(x, 2, return_indices=True)
    width = x.shape[-1]
    window = indices // width % 2 * 2 + indices % width % 2
    return pooled, window.to(torch.uint8)


@max_pool2d_with_window.register_fake
def _(x: Tensor) -> tuple[Tensor, Tensor]:
    _require_even(x)
    pooled = x.new_empty(*x.shape[:2], x.shape[2] // 2, x.shape[3] // 2)
    return pooled, torch.empty_like(pooled, dtype=torch.uint8)


@torch.library.custom_op("enet_tvm::max_unpool2d", mutates_args=())
def max_unpool2d(x: Tensor, window: Tensor) -> Tensor:
    """Return `x` spread over a plane of twice its height and width, zero except where `window` points.

    Parameters
    ----------
    x : Tensor
        N x C x H x W values.
    window : Tensor
        N x C x H x W uint8 window indices, as from `max_pool2d_with_window`.
    """
    n, c, h, w = x.shape
    places = torch.arange(4, dtype=torch.uint8, device=x.device).reshape(2, 1, 2)  # row, (column of windows), column
    # N x C x H x row x W x column is the unpooled plane.
    return torch.where(window[..., None, :, None] == places, x[..., None, :, None], 0).reshape(n, c, 2 * h, 2 * w)


@max_unpool2d.register_fake
def _(x: Tensor, window: Tensor) -> Tensor:
    return x.new_empty(*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3])


class WindowMaxPool2d(nn.Module):
    """`max_pool2d_with_window` as a module."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the maxima and their window indices; the last row or column of an odd plane belongs to no window."""
        height, width = x.shape[-2:]
        if height % 2 or width % 2:
            x = x[..., : height // 2 * 2, : width // 2 * 2]
        return torch.ops.enet_tvm.max_pool2d_with_window(x)


class WindowMaxUnpool2d(nn.Module):
    """`max_unpool2d` as a module."""

    def forward(self, x: Tensor, window: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        """Return the unpooled plane, with a row or column of zeros more where `output_size` (H, W) asks for it.

        Raises
        ------
        ValueError
            When `output_size` is not that of a plane which pools to `x`.
        """
        plane = torch.ops.enet_tvm.max_unpool2d(x, window)
        if output_size is None:
            return plane
        below, right = (int(wanted) - have for wanted, have in zip(output_size[-2:], plane.shape[-2:], strict=True))
        if not {below, right} <= {0, 1}:
            raise ValueError(f"{tuple(output_size)} does not pool to {tuple(x.shape[-2:])}")
        return nn.functional.pad(plane, (0, right, 0, below)) if below or right else plane


def to_window_form(network: nn.Module) -> nn.Module:
    """Return a copy of a network whose pooling and unpooling exchange window indices; its outputs are the same.

    Raises
    ------
    UserError
        When the network pools with indices, or unpools, in windows other than 2x2 with stride 2.
    """
    return replace_pooling(network, WindowMaxPool2d, WindowMaxUnpool2d)


def replace_pooling(network: nn.Module, pool: Callable[[], nn.Module], unpool: Callable[[], nn.Module]) -> nn.Module:
    """Return a copy of a network with other modules for its pooling with indices and its unpooling.

    Parameters
    ----------
    network : nn.Module
        Network whose windows are 2x2 with stride 2.
    pool, unpool : callable
        Functions that return a module in the place of ``MaxPool2d`` and of ``MaxUnpool2d``; what the former returns beside
        the maxima is what the latter gets beside the values.

    Raises
    ------
    UserError
        When the network pools with indices, or unpools, in other windows.
    """
    network = copy.deepcopy(network)
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.MaxPool2d) and module.return_indices:
            replacement = pool()
        elif isinstance(module, nn.MaxUnpool2d):
            replacement = unpool()
        else:
            continue
        settings = [module.kernel_size, module.stride, module.padding]
        settings += [getattr(module, "dilation", 1), getattr(module, "ceil_mode", False)]
        if any(_as_pair(value) != (want, want) for value, want in zip(settings, (2, 2, 0, 1, 0), strict=True)):
            raise UserError(
                f"'{name}' does not pool in 2x2 windows with stride 2, so it has no window index; use nn.MaxPool2d(2)"
            )
        network.set_submodule(name, replacement)
    return network


def _as_pair(value: Any) -> tuple[int, int]:
    first, second = value if isinstance(value, tuple) else (value, value)
    return int(first), int(second)


def _require_even(x: Tensor) -> None:
    if x.dim() != 4 or x.shape[2] % 2 or x.shape[3] % 2:
        raise ValueError(f"2x2 windows need N x C x H x W with even H and W, not {tuple(x.shape)}")
