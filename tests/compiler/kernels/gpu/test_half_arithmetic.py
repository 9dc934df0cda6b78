"""Arithmetic of pairs of float16 on fibers against NumPy's, and how weights are made pairs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from cuda_network import kernel_source, run_kernel
from tvm.tirx.script.builder import ir as T

from enet_tvm.compiler.kernels.common.building import prim_func
from enet_tvm.compiler.kernels.gpu import half_arithmetic as halves
from enet_tvm.compiler.kernels.gpu.building import for_threads
from enet_tvm.errors import UserError

COUNT = 64


def test_every_function(tmp_path: Path):
    """A product of the upper half of `a` and both of `b` is added to `c`, and all is taken apart again."""

    def body(a, b, c, out, floats):
        with for_threads((1, 1, 1), (COUNT, 1)) as (_, _, _, thread, _):
            total = halves.multiply_add(halves.both(a[thread], 1), b[thread], c[thread])
            T.buffer_store(out, total, [0, thread])
            T.buffer_store(out, halves.pack_floats(floats[0, thread], floats[1, thread]), [1, thread])
            T.buffer_store(floats, halves.float_of(halves.both(a[thread], 0), 1), [2, thread])
            T.buffer_store(floats, halves.float_of(a[thread], 1), [3, thread])

    shapes = {"a": (COUNT,), "b": (COUNT,), "c": (COUNT,), "out": (2, COUNT)}
    kernel = prim_func({**{name: (shape, "uint32") for name, shape in shapes.items()}, "floats": ((4, COUNT), "float32")}, body)
    rng = np.random.default_rng(1)
    a, b, c = rng.standard_normal((3, COUNT, 2)).astype(np.float16)
    floats = rng.standard_normal((4, COUNT)).astype(np.float32)
    words = {name: value.view(np.uint32).ravel() for name, value in (("a", a), ("b", b), ("c", c))}
    after = run_kernel(kernel, tmp_path, **words, out=np.zeros((2, COUNT), np.uint32), floats=floats)
    # One rounding, of a sum that float64 has.
    expected = (a[:, 1:].astype(np.float64) * b + c).astype(np.float16)
    np.testing.assert_array_equal(after["out"][0].view(np.float16).reshape(COUNT, 2), expected)
    np.testing.assert_array_equal(after["out"][1].view(np.float16).reshape(COUNT, 2), floats[:2].T.astype(np.float16))
    np.testing.assert_array_equal(after["floats"][2:], a.T.astype(np.float32))
    assert kernel_source(kernel).count("__device__ __forceinline__ unsigned int enet_both_high(") == 1


def test_outputs_become_pairs():
    weight = np.arange(8, dtype=np.float32).reshape(4, 2, 1, 1)
    pairs = halves.pairs_of_outputs(weight)
    assert (pairs.shape, pairs.dtype) == ((2, 2, 1, 1), np.uint32)
    np.testing.assert_array_equal(np.ascontiguousarray(pairs).view(np.float16).reshape(2, 2, 2)[1, 1], [5, 7])
    with pytest.raises(UserError, match="a weight is larger than 65504"):
        halves.pairs_of_outputs(weight * 65504)


def test_chains_are_even_and_divide():
    assert [halves.chain_of(inputs) for inputs in (2, 4, 16, 32, 48, 64, 94, 128)] == [2, 4, 16, 32, 24, 32, 2, 32]


def test_what_is_called():
    assert halves.called(halves.no_pair()) is None
    assert halves.called(T.max(T.float32(1), T.float32(2))) is None
    assert halves.called(halves.multiply_add(halves.no_pair(), halves.no_pair(), halves.no_pair())) == halves.MULTIPLY_ADD
