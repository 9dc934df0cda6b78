"""Pooling with window indices and unpooling by them, against PyTorch's indices into the plane."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F
from tvm import relax

from enet_tvm.compiler import ops

SHAPES = st.tuples(st.sampled_from([1, 3]), st.integers(1, 5), st.integers(2, 11), st.integers(2, 19))
FEW = settings(max_examples=12, deadline=None)


def values(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Few different values, most of them negative: ties are everywhere."""
    return np.random.default_rng(seed).integers(-3, 2, shape).astype(np.float32)


def plane_indices(window: np.ndarray, width: int) -> np.ndarray:
    """Return PyTorch's indices, places in a plane of `width` columns, for window indices (0 to 3)."""
    rows = np.arange(window.shape[2])[:, None] * 2 + window // 2
    columns = np.arange(window.shape[3]) * 2 + window % 2
    return (rows * width + columns).astype(np.int64)


@pytest.fixture(scope="session")
def pool(relax_main, run_relax):
    def run(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        mod = relax_main(lambda b, data: b.emit(ops.max_pool2d_with_window(data)), x.shape)
        return run_relax(mod, x)

    return run


@pytest.fixture(scope="session")
def unpool(relax_main, run_relax):
    def run(x: np.ndarray, window: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        mod = relax_main(
            lambda b, data, w: b.emit(ops.max_unpool2d(data, w, size)), x.shape, window.shape, dtypes=("float32", "uint8")
        )
        return run_relax(mod, x, window)

    return run


@FEW
@given(shape=SHAPES, seed=st.integers(0, 2**32 - 1))
def test_pooling_is_pytorchs(pool, shape: tuple[int, int, int, int], seed: int):
    x = values(shape, seed)
    maxima, window = pool(x)
    expected, indices = F.max_pool2d(torch.from_numpy(x), 2, return_indices=True)
    assert window.dtype == np.uint8
    assert np.array_equal(maxima, expected.numpy())
    assert np.array_equal(plane_indices(window.astype(int), shape[3]), indices.numpy())


@FEW
@given(shape=SHAPES, odd=st.tuples(st.integers(0, 1), st.integers(0, 1)), seed=st.integers(0, 2**32 - 1))
def test_unpooling_is_pytorchs(unpool, shape: tuple[int, int, int, int], odd: tuple[int, int], seed: int):
    """For any window indices, not only those that a pooling of some picture gave."""
    x = values(shape, seed)
    window = np.random.default_rng(seed + 1).integers(0, 4, shape).astype(np.uint8)
    size = (2 * shape[2] + odd[0], 2 * shape[3] + odd[1])
    indices = torch.from_numpy(plane_indices(window.astype(int), size[1]))
    expected = F.max_unpool2d(torch.from_numpy(x), indices, 2, output_size=size)
    assert np.array_equal(unpool(x, window, size), expected.numpy())


@pytest.mark.parametrize("shape", [(1, 2, 8, 16), (3, 5, 7, 9), (1, 16, 2, 2)])
def test_there_and_back(relax_main, run_relax, shape: tuple[int, int, int, int]):
    def body(b: relax.BlockBuilder, x: relax.Var) -> relax.Var:
        pair = b.emit(ops.max_pool2d_with_window(x))
        maxima, window = b.emit(relax.TupleGetItem(pair, 0)), b.emit(relax.TupleGetItem(pair, 1))
        return b.emit(ops.max_unpool2d(maxima, window, shape[2:]))

    x = values(shape, 5) - 3  # zeros of unpooling and maxima cannot be mistaken for each other
    pooled, indices = F.max_pool2d(torch.from_numpy(x), 2, return_indices=True)
    expected = F.max_unpool2d(pooled, indices, 2, output_size=shape[2:])
    assert np.array_equal(run_relax(relax_main(body, shape), x), expected.numpy())


def test_first_of_equal_maxima_wins(pool):
    x = np.array([[7, 7, 1, 9], [7, 7, 9, 9]], np.float32).reshape(1, 1, 2, 4)
    assert pool(x)[1].reshape(-1).tolist() == [0, 1]


def test_minus_infinity(pool):
    """A mask's value: all four places equal, the first is taken."""
    x = np.full((1, 1, 2, 4), -np.inf, np.float32)
    x[0, 0, 1, 3] = -5
    maxima, window = pool(x)
    assert maxima.reshape(-1).tolist() == [-np.inf, -5]
    assert window.reshape(-1).tolist() == [0, 3]
