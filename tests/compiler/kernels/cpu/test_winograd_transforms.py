"""The transforms of Winograd's algorithm: together they are a filter, and their constants are exact."""

from __future__ import annotations

import numpy as np
import pytest
from tvm.tirx.script.builder import ir as T

from enet_tvm.compiler.kernels.common.building import prim_func
from enet_tvm.compiler.kernels.cpu.winograd_transforms import (
    POINTS,
    data_transform,
    frequencies,
    sum_transform,
    weight_transform,
)


@pytest.mark.parametrize(("outputs", "taps"), [(1, 1), (2, 3), (4, 3), (2, 5), (4, 5)])
def test_transforms_are_a_filter(run_kernel, outputs: int, taps: int):
    """Frequencies of data times those of a filter, transformed back, are the filter's outputs."""
    count = frequencies(outputs, taps)

    def body(x: object, w: object, y: object) -> None:
        values = [T.bind(x[k]) for k in range(count)]  # type: ignore[index]
        products = [T.bind(value * w[k]) for k, value in enumerate(data_transform(values, 1))]  # type: ignore[index]
        for k, value in enumerate(sum_transform(outputs, products, 1)):
            T.buffer_store(y, value, [k])

    kernel = prim_func({"x": ((count,), "float32"), "w": ((count,), "float32"), "y": ((outputs,), "float32")}, body)
    rng = np.random.default_rng(3)
    x, weight = rng.standard_normal(count).astype(np.float32), rng.standard_normal(taps).astype(np.float32)
    spectrum = (weight_transform(outputs, taps) @ weight).astype(np.float32)
    found = run_kernel(kernel, x, spectrum, shape=(outputs,))
    np.testing.assert_allclose(found, np.correlate(x, weight, "valid"), rtol=0, atol=2e-5)


@pytest.mark.parametrize(("count", "dtype"), [(6, np.float16), (8, np.float32)])
def test_constants_are_exact(count: int, dtype: type):
    """Those of data and sums; those of weights are applied in float64."""
    squares = [point**2 for point in POINTS[count]]
    pairs = [(p, q) for p in squares for q in squares if p != q]
    for value in (
        *(p**power for p in POINTS[count] for power in (1, 2, 3)),
        *(p + q for p, q in pairs),
        *(p * q for p, q in pairs),
    ):
        assert float(dtype(value)) == value


def test_coefficients_of_eight_points():
    """Those of the polynomial of all finite points, from the highest power of two down."""
    roots = [sign * point for point in POINTS[8] for sign in (1, -1)]
    np.testing.assert_allclose(np.poly(roots)[::2], [1, -5.25, 5.25, -1])
