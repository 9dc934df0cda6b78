from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from enet_tvm.compiler.quantisation.codes import Codes, bfloat16_bits, quantise_weight, to_words, zero_starts

REAL = st.floats(-1e4, 1e4, width=32)


@pytest.mark.filterwarnings("error")
@given(REAL, REAL, st.floats(0, 1))
@example(0.0, 1e-40, 1.0)
def test_codes_are_within_half_a_step(low: float, high: float, share: float):
    codes = Codes.of(min(low, high), max(low, high))
    low, high = min(low, high, 0.0), max(low, high, 0.0)
    value = np.array([low + share * (high - low)], np.float32)
    error = abs(float(codes.decode(codes.encode(value))[0]) - float(value[0]))
    # The code of zero is a whole number, so the range's ends may lie half a step outside the codes.
    assert error <= 1.01 * codes.scale + 1e-6
    assert codes.decode(np.array([codes.zero], np.uint8))[0] == 0


def test_codes_saturate():
    codes = Codes.of(-1, 3)
    assert list(codes.encode(np.array([-9, 9], np.float32))) == [0, 255]
    assert Codes.of(0, 0).scale == 1, "a layer that is always zero has codes too"


@given(st.integers(0, 2**32 - 1))
def test_weights_keep_their_channel(seed: int):
    weight = np.random.default_rng(seed).normal(size=(3, 4, 2, 2)).astype(np.float32)
    weight[1] *= 100
    weight[2] = 0
    codes, scales = quantise_weight(weight, 0)
    assert np.abs(codes.astype(np.int64)).max() <= 127
    assert (np.abs(codes * scales[:, None, None, None] - weight) <= 0.51 * scales[:, None, None, None]).all()


@given(st.lists(REAL, min_size=4, max_size=4))
def test_bfloat16_rounds_as_pytorch_does(values: list[float]):
    expected = torch.tensor(values).bfloat16().view(torch.int16).numpy().view(np.uint16)
    assert np.array_equal(bfloat16_bits(np.array(values, np.float32)), expected)


def test_words_hold_neighbours_of_one_lane():
    words = to_words(np.arange(16, dtype=np.int8).reshape(8, 2))
    assert words.shape == (2, 2)
    assert words[1, 1] == 9 + (11 << 8) + (13 << 16) + (15 << 24)
    assert to_words(np.arange(4, dtype=np.uint16).reshape(4, 1)).tolist() == [[1 << 16], [2 + (3 << 16)]]


def test_starts_take_off_what_zeros_add():
    weight = np.array([[3, -5, 7]], np.int64)
    start = zero_starts(weight.sum(axis=1), 17)
    assert (start + (weight * 17).sum(axis=1) == 0).all()
    assert start.dtype == np.int32
