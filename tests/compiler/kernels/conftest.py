from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
import tvm
from quick_code import unoptimised
from torch.nn import functional as F

from enet_tvm.compiler.arm.simulation import Simulation, build_program
from enet_tvm.compiler.arm.tools import arm_tools
from enet_tvm.compiler.debian_packages import UnavailableError
from enet_tvm.compiler.kernels.cpu.winograd import WinogradTile, pack_winograd_weight, winograd
from enet_tvm.compiler.kernels.cpu.winograd_blocked import BlockedWinogradTile, blocked_winograd, pack_blocked_weight
from enet_tvm.compiler.ops import FusedConv2D, Layout
from enet_tvm.targets import load_target


def store(x: np.ndarray, layout: Layout, edge: float = 0) -> np.ndarray:
    """Return an N x C x H x W array as it is stored, `edge` in the columns of padding."""
    if not layout.block:
        return x
    n, c, h, w = x.shape
    blocked = x.reshape(n, c // layout.block, layout.block, h, w).transpose(0, 1, 3, 4, 2)
    columns = ((0, 0), (0, 0), (0, 0), (layout.pad, layout.pad), (0, 0))
    return np.ascontiguousarray(np.pad(blocked, columns, constant_values=edge))


def load(stored: np.ndarray, layout: Layout) -> np.ndarray:
    """Return the N x C x H x W array in a stored one, having checked that the padding is zero."""
    if not layout.block:
        return stored
    n, blocks, h, columns, block = stored.shape
    width = columns - 2 * layout.pad
    inside = stored[:, :, :, layout.pad : layout.pad + width]
    assert np.count_nonzero(stored) == np.count_nonzero(inside), "columns of padding must be zero"
    return inside.transpose(0, 1, 4, 2, 3).reshape(n, blocks * block, h, width)


@pytest.fixture(scope="session")
def run_kernel() -> Callable[..., np.ndarray]:
    """Makes ``run_kernel(kernel, *inputs, shape=...)`` what a kernel writes into a float32 array full of NaN.

    With ``dtype="uint8"`` the array is one of 255s.
    """
    target = unoptimised(load_target("native").to_tvm())

    def run(kernel: tvm.tirx.PrimFunc, *inputs: np.ndarray, shape: tuple[int, ...], dtype: str = "float32") -> np.ndarray:
        module = tvm.compile(tvm.IRModule({"main": kernel.with_attr("global_symbol", "main")}), target)
        out = tvm.runtime.tensor(np.full(shape, np.nan if dtype == "float32" else 255, dtype))
        module["main"](*(tvm.runtime.tensor(x) for x in inputs), out)
        return out.numpy()

    return run


@pytest.fixture(scope="session")
def emulated_kernels(tmp_path_factory: pytest.TempPathFactory) -> Simulation:
    """An emulated Neoverse V1, which computes what kernels for ARM do."""
    try:
        tools = arm_tools()
    except UnavailableError as error:
        pytest.skip(str(error))
    target = load_target("graviton3").to_tvm()
    return Simulation(target, "neoverse-v1", 1, tools, build_program(tmp_path_factory.mktemp("program")))


@pytest.fixture(scope="session")
def stored() -> Callable[..., np.ndarray]:
    """See `store`."""
    return store


@pytest.fixture(scope="session")
def loaded() -> Callable[..., np.ndarray]:
    """See `load`."""
    return load


@pytest.fixture(scope="session")
def largest_error(run_kernel: Callable[..., np.ndarray]) -> Callable[..., float]:
    """Makes ``largest_error(attrs, tile, seed)`` how far the kernel is from PyTorch in float64, for normal numbers."""

    def error(attrs: FusedConv2D, tile: WinogradTile, seed: int = 0) -> float:
        blocked = isinstance(tile, BlockedWinogradTile)
        pack, kernel = (pack_blocked_weight, blocked_winograd) if blocked else (pack_winograd_weight, winograd)
        rng = np.random.default_rng(seed)
        channels, inputs = attrs.out_shape[1], attrs.data_shape[1]
        data = rng.standard_normal(attrs.data_shape).astype(np.float32)
        weight = rng.standard_normal((channels, inputs, *attrs.kernel)) / (math.prod(attrs.kernel) * inputs) ** 0.5
        weight = weight.astype(np.float32)
        bias, slope = (rng.standard_normal(channels).astype(np.float32) for _ in range(2))
        x, w, b, s = (torch.from_numpy(a).double() for a in (data, weight, bias, slope))
        expected = F.conv2d(x, w, b, attrs.strides, attrs.padding, attrs.dilation)
        shortcut = rng.standard_normal(attrs.out_shape).astype(np.float32)
        if attrs.residual == "add":
            expected = expected + torch.from_numpy(shortcut).double()
        if attrs.activation == "relu":
            expected = F.relu(expected)
        elif attrs.activation == "prelu":
            expected = F.prelu(expected, s)
        arguments = [store(data, attrs.data_layout), pack(weight, attrs, tile), bias]
        arguments += [slope] if attrs.activation == "prelu" else []
        arguments += [store(shortcut, attrs.residual_layout)] if attrs.residual == "add" else []
        out = run_kernel(kernel(attrs, tile), *arguments, shape=attrs.out_layout.physical(attrs.out_shape))
        return float(np.abs(load(out, attrs.out_layout) - expected.numpy()).max())

    return error
