from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import tvm

from enet_tvm.compiler.ops import Layout
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
    target = load_target("native").to_tvm()

    def run(kernel: tvm.tirx.PrimFunc, *inputs: np.ndarray, shape: tuple[int, ...], dtype: str = "float32") -> np.ndarray:
        module = tvm.compile(tvm.IRModule({"main": kernel.with_attr("global_symbol", "main")}), target)
        out = tvm.runtime.tensor(np.full(shape, np.nan if dtype == "float32" else 255, dtype))
        module["main"](*(tvm.runtime.tensor(x) for x in inputs), out)
        return out.numpy()

    return run


@pytest.fixture(scope="session")
def stored() -> Callable[..., np.ndarray]:
    """See `store`."""
    return store


@pytest.fixture(scope="session")
def loaded() -> Callable[..., np.ndarray]:
    """See `load`."""
    return load
