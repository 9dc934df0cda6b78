"""Blocked pooling and unpooling against PyTorch's, odd planes, padded rows and batches included."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import tvm
from torch.nn import functional as F

from enet_tvm.compiler.kernels.cpu import pooling
from enet_tvm.compiler.ops import Layout

SHAPES = [(1, 16, 6, 10), (2, 8, 7, 9), (1, 32, 2, 2), (3, 16, 5, 4), (1, 8, 8, 3), (1, 4, 3, 3)]
PADS = [(0, 0), (2, 1), (0, 3)]
GARBAGE = 99
"""What a buffer holds before a kernel writes it."""


def built(kernel: tvm.tirx.PrimFunc) -> Callable[..., None]:
    module = tvm.IRModule({"main": kernel.with_attr("global_symbol", "main")})
    return tvm.compile(module, target="llvm")["main"]


def stored(x: np.ndarray, layout: Layout) -> np.ndarray:
    n, c, h, w = x.shape
    blocked = x.reshape(n, c // layout.block, layout.block, h, w).transpose(0, 1, 3, 4, 2)
    return np.pad(blocked, ((0, 0), (0, 0), (0, 0), (layout.pad, layout.pad), (0, 0)))


def plain(x: np.ndarray, layout: Layout) -> np.ndarray:
    """Return the picture in a stored tensor, having checked that its padding is zero."""
    n, q, h, w, b = x.shape
    edges = np.concatenate([x[:, :, :, : layout.pad], x[:, :, :, w - layout.pad :]], axis=3)
    assert not edges.any(), "columns of padding must be zero"
    return x[:, :, :, layout.pad : w - layout.pad].transpose(0, 1, 4, 2, 3).reshape(n, q * b, h, w - 2 * layout.pad)


def run(kernel: tvm.tirx.PrimFunc, inputs: list[np.ndarray], outputs: list[tuple[tuple[int, ...], str]]) -> list[np.ndarray]:
    results = [tvm.runtime.tensor(np.full(shape, GARBAGE, dtype)) for shape, dtype in outputs]
    built(kernel)(*map(tvm.runtime.tensor, inputs), *results)
    return [result.numpy() for result in results]


def block_of(channels: int) -> int:
    return 8 if channels % 8 == 0 else 4


@pytest.mark.quick_cases(6)
@pytest.mark.parametrize("pads", PADS)
@pytest.mark.parametrize("shape", SHAPES)
def test_pooling(shape: tuple[int, int, int, int], pads: tuple[int, int]):
    # Few different values, most of them negative: ties are everywhere.
    x = np.random.default_rng(0).integers(-3, 2, shape).astype(np.float32)
    layout, out = (Layout(block_of(shape[1]), pad) for pad in pads)
    expected, indices = (t.numpy() for t in F.max_pool2d(torch.from_numpy(x), 2, return_indices=True))
    unpadded = Layout(out.block)
    buffers = [(out.physical(expected.shape), "float32"), (unpadded.physical(expected.shape), "uint8")]
    maxima, window = run(pooling.max_pool2d_with_window(shape, layout, out), [stored(x, layout)], buffers)
    assert np.array_equal(plain(maxima, out), expected)
    assert np.array_equal(plain(window, unpadded), indices // shape[3] % 2 * 2 + indices % shape[3] % 2)


@pytest.mark.quick_cases(6)
@pytest.mark.parametrize("pads", PADS)
@pytest.mark.parametrize("shape", SHAPES)
def test_unpooling_restores_the_plane_that_was_pooled(shape: tuple[int, int, int, int], pads: tuple[int, int]):
    rng = np.random.default_rng(0)
    pooled, indices = F.max_pool2d(torch.from_numpy(rng.standard_normal(shape, np.float32)), 2, return_indices=True)
    window = (indices // shape[3] % 2 * 2 + indices % shape[3] % 2).numpy().astype(np.uint8)
    other = rng.standard_normal(pooled.shape, np.float32)
    expected = F.max_unpool2d(torch.from_numpy(other), indices, 2, output_size=shape[2:]).numpy()
    layout, out = (Layout(block_of(shape[1]), pad) for pad in pads)
    kernel = pooling.max_unpool2d(other.shape, layout, shape[2:], out)
    inputs = [stored(other, layout), stored(window, Layout(layout.block))]
    (unpooled,) = run(kernel, inputs, [(out.physical(shape), "float32")])
    assert np.array_equal(plain(unpooled, out), expected)
