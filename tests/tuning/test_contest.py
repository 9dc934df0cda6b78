"""What is faster wins; what is only lucky does not."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from enet_tvm.tuning.contest import choose

DEFAULT = [1.0, 1.0, 1.0, 1.0, 1.0]


def test_fastest_of_several_wins():
    assert choose(DEFAULT, {"a": [0.9] * 5, "b": [0.8] * 5, "c": [1.1] * 5}) == "b"


def test_less_than_the_margin_is_nothing():
    assert choose(DEFAULT, {"a": [0.995] * 5}) is None


def test_one_lucky_turn_is_nothing():
    assert choose(DEFAULT, {"a": [0.5, 1.0, 1.0, 1.01, 1.0]}) is None


def test_one_burst_spoils_nothing():
    assert choose(DEFAULT, {"a": [0.9, 3.0, 0.9, 0.9, 0.9]}) == "a"
    assert choose([1.0, 3.0, 1.0, 1.0, 1.0], {"a": [0.99, 0.99, 1.0, 0.995, 1.0]}) is None


def test_a_slow_turn_of_the_machine_counts_for_both():
    assert choose([1.0, 2.0, 1.5, 1.0, 4.0], {"a": [0.9, 1.8, 1.4, 0.9, 3.6]}) == "a"


def test_a_failure_never_wins():
    assert choose(DEFAULT, {"a": [0.5, 0.5, math.inf, 0.5, 0.5]}) is None


def test_nobody_to_choose():
    assert choose(DEFAULT, {}) is None


@given(st.integers(0, 2**32 - 1))
def test_equal_kernels_seldom_win_by_much(seed):
    """With 5 % of noise a rival that is as fast as the default cannot pass for 6 % faster."""
    random = np.random.default_rng(seed)
    default, rival = 1 + 0.025 * random.uniform(-1, 1, (2, 5))
    won = choose(list(default), {"a": list(rival)})
    assert won is None or np.median(rival / default) > 0.94
