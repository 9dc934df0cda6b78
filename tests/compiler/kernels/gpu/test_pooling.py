from __future__ import annotations

import numpy as np
import pytest
import torch
import tvm
from torch.nn import functional as F

from enet_tvm.compiler.kernels.gpu.emulation import serial_threads
from enet_tvm.compiler.kernels.gpu.pooling import gpu_max_pool2d_with_window, gpu_max_unpool2d
from enet_tvm.targets import load_target

SHAPES = [(1, 3, 6, 8), (2, 2, 7, 9), (1, 5, 18, 22)]


@pytest.mark.parametrize("shape", SHAPES)
def test_pooling_and_back(run_kernel, shape: tuple[int, int, int, int]):
    """Ties, negative values and odd sides, as PyTorch has them."""
    x = np.random.default_rng(0).integers(-2, 2, shape).astype(np.float32)
    maxima, places = F.max_pool2d(torch.from_numpy(x), 2, return_indices=True)
    kernel = serial_threads(gpu_max_pool2d_with_window(shape)).with_attr("global_symbol", "main")
    module = tvm.compile(tvm.IRModule({"main": kernel}), load_target("native").to_tvm())
    out, window = (tvm.runtime.tensor(np.full(maxima.shape, 9, kind)) for kind in ("float32", "uint8"))
    module["main"](tvm.runtime.tensor(x), out, window)
    np.testing.assert_array_equal(out.numpy(), maxima.numpy())
    expected = (places // shape[3] % 2 * 2 + places % shape[3] % 2).numpy()
    np.testing.assert_array_equal(window.numpy(), expected)

    unpool = serial_threads(gpu_max_unpool2d(tuple(maxima.shape), shape[2:]))
    spread = run_kernel(unpool, maxima.numpy(), window.numpy(), shape=shape)
    np.testing.assert_array_equal(spread, F.max_unpool2d(maxima, places, 2, output_size=shape[2:]).numpy())
