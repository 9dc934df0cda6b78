from __future__ import annotations

import numpy as np
import pytest
import tvm
from tvm import tirx

from enet_tvm.compiler.kernels.gpu.emulation import serial_threads
from enet_tvm.compiler.kernels.gpu.half_storage import with_half_storage
from enet_tvm.compiler.kernels.gpu.pooling import gpu_max_pool2d_with_window
from enet_tvm.targets import load_target

SHAPE = (1, 2, 4, 6)


def pooled(kernel: tirx.PrimFunc, x: np.ndarray, out_dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """Return maxima and window indices."""
    module = tvm.compile(tvm.IRModule({"main": kernel.with_attr("global_symbol", "main")}), load_target("native").to_tvm())
    out, window = (tvm.runtime.tensor(np.full((1, 2, 2, 3), 9, kind)) for kind in (out_dtype, "uint8"))
    module["main"](tvm.runtime.tensor(x), out, window)
    return out.numpy(), window.numpy()


@pytest.mark.parametrize("places", [{0}, {1}, {0, 1}])
def test_the_arguments_that_are_named_are_halves(places: set[int]):
    """Loads and stores convert; what is between them, and the other arguments, stay as they are."""
    kernel = serial_threads(gpu_max_pool2d_with_window(SHAPE))
    # Numbers that float16 holds, and of which the largest of a window is no other's neighbour.
    x = np.random.default_rng(0).permutation(48).reshape(SHAPE).astype(np.float32) / 8 - 3
    expected = pooled(kernel, x, "float32")
    short = with_half_storage(kernel, places)
    assert [str(each.ty.dtype) for each in short.params] == [
        "float16" if 0 in places else "float32",
        "float16" if 1 in places else "float32",
        "uint8",
    ]
    found = pooled(short, x.astype("float16") if 0 in places else x, "float16" if 1 in places else "float32")
    np.testing.assert_array_equal(found[0].astype(np.float32), expected[0])
    np.testing.assert_array_equal(found[1], expected[1])


def test_what_no_half_holds_is_infinite():
    x = np.full(SHAPE, 70000, np.float32)
    kernel = with_half_storage(serial_threads(gpu_max_pool2d_with_window(SHAPE)), {1})
    assert np.isposinf(pooled(kernel, x, "float16")[0]).all()


def test_bytes_are_not_halves():
    with pytest.raises(ValueError, match="window is uint8"):
        with_half_storage(gpu_max_pool2d_with_window(SHAPE), {2})
