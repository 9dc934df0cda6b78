"""The transforms of Winograd's algorithm (Winograd 1980; Lavin and Gray 2016, arXiv 1509.09308) along one direction.

With m outputs of a filter of r taps there are m + r - 1 frequencies: values of polynomials at as many points, 0 and infinity
among them, the others in pairs of either sign.

Where there are six, they are 5/8 and 3/2, not the usual 1 and 2: for four outputs of three taps that leaves a quarter of the
usual error (in both directions, at 32 channels of random numbers, the largest was 4e-6 instead of 1.6e-5, that of the direct
sum 2e-6), and every constant is exact in float32 and in float16. Where there are eight, they are 1/2, 1 and 2: in float32 four
outputs of five taps have 2.3 times the mean error of the direct sum, as with the best of all multiples of 1/8, and 1 multiplies
nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tvm
from tvm.tirx.script.builder import ir as T

from enet_tvm.compiler.kernels.common.elements import splat

POINTS = {4: (1.0,), 6: (0.625, 1.5), 8: (0.5, 1.0, 2.0)}
"""Points beside 0 and infinity, each of which stands for either sign, by the number of frequencies."""


def frequencies(outputs: int, taps: int) -> int:
    """Return how many frequencies so many outputs of a filter have; one output of one tap is not transformed."""
    return outputs + taps - 1


def weight_transform(outputs: int, taps: int) -> np.ndarray:
    """Return the matrix, frequencies by taps, that transforms a filter; for one output, that of a single tap."""
    count = frequencies(outputs, taps)
    if count == 1:
        return np.ones((1, 1))
    if count == 4:
        return np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])
    # A filter's values at the points, over what the transform of the data leaves to divide by.
    squares = [point**2 for point in POINTS[count]]
    rows = [[1 / np.prod([-square for square in squares]), *(0,) * (taps - 1)]]
    for point, own in zip(POINTS[count], squares, strict=True):
        left = 2 * own * np.prod([own - other for other in squares if other != own])
        rows += [[(sign * point) ** power / left for power in range(taps)] for sign in (1, -1)]
    return np.array([*rows, [*(0,) * (taps - 1), 1]])


def data_transform(x: list[Any], lanes: int) -> list[Any]:
    """Return the frequencies of as many neighbours, all of them vectors; a lone one as it is."""
    if len(x) == 1:
        return x
    if len(x) == 4:
        return [x[0] - x[2], x[1] + x[2], x[2] - x[1], x[3] - x[1]]
    return _six(x, lanes) if len(x) == 6 else _eight(x, lanes)


def _six(x: list[Any], lanes: int) -> list[Any]:
    points = POINTS[6]
    a, b = points
    even = [T.bind(x[4] - _times(p * p, x[2], lanes)) for p in (b, a)]
    odd = [T.bind(x[3] - _times(p * p, x[1], lanes)) for p in (b, a)]
    first, last = (x[k + 4] - _times(a * a + b * b, x[k + 2], lanes) + _times(a * a * b * b, x[k], lanes) for k in (0, 1))
    pairs = [(e + _times(p, o, lanes), e - _times(p, o, lanes)) for p, e, o in zip(points, even, odd, strict=True)]
    return [first, *pairs[0], *pairs[1], last]


def _eight(x: list[Any], lanes: int) -> list[Any]:
    # The polynomial of all points has the coefficients 1, -21/4, 21/4 and -1.
    first, last = (x[k + 6] - x[k] + _times(5.25, x[k + 2] - x[k + 4], lanes) for k in (0, 1))
    pairs = []
    for point in POINTS[8]:
        p, q = (other**2 for other in POINTS[8] if other != point)
        even, odd = (T.bind(x[k + 4] + _times(p * q, x[k], lanes) - _times(p + q, x[k + 2], lanes)) for k in (2, 1))
        pairs += [even + _times(point, odd, lanes), even - _times(point, odd, lanes)]
    return [first, *pairs, last]


def sum_transform(outputs: int, x: list[Any], lanes: int) -> list[Any]:
    """Return the `outputs` neighbours that have these frequencies, all of them vectors; a lone one as it is."""
    if outputs == 1:
        return x
    if len(x) == 4:
        return [x[0] + x[1] + x[2], x[1] - x[2] + x[3]]
    points = POINTS[len(x)]
    pairs = list(zip(x[1:-1:2], x[2:-1:2], strict=True))
    sums = [T.bind(a + b) for a, b in pairs]
    differences = [T.bind(a - b) for a, b in pairs]
    results = []
    for power in range(outputs):
        values = differences if power % 2 else sums
        terms = [_times(point**power, value, lanes) for point, value in zip(points, values, strict=True)]
        results.append(_total([x[0], *terms] if power == 0 else terms))
    return [*results[:-1], results[-1] + x[-1]]


def _total(terms: list[Any]) -> Any:
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def _times(factor: float, value: Any, lanes: int) -> Any:
    if factor == 1:
        return value
    return splat(tvm.tirx.const(factor, str(value.ty.dtype).partition("x")[0]), lanes) * value
