"""Statistics against computations by hand and by numpy."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from enet_tvm.data.classes import ClassSet
from enet_tvm.data.statistics import data_statistics
from enet_tvm.errors import UserError

THREE = ClassSet("three", ("a", "b", "c"), ((0, 0, 0), (1, 1, 1), (2, 2, 2)), 255)


def test_by_hand():
    samples = [
        (Image.new("RGB", (4, 1), (0, 51, 255)), np.array([[0, 0, 0, 255]], np.uint8)),
        (Image.new("RGB", (2, 2), (255, 51, 255)), np.array([[0, 1], [1, 255]], np.uint8)),
        (Image.new("RGB", (4, 1), (0, 51, 255)), np.full((1, 4), 255, np.uint8)),
    ]
    figures = data_statistics(samples, THREE)
    assert figures.pictures == 3
    assert figures.sizes == {"4x1": 2, "2x2": 1}
    assert figures.class_pixels == (4, 2, 0)
    assert figures.class_pictures == (2, 1, 0)
    assert figures.shares == pytest.approx((2 / 3, 1 / 3, 0))
    assert figures.void_pixels == 6
    assert figures.void_share == pytest.approx(1 / 2)
    # The paper's weights lie between 1 / ln(2.02) and 1 / ln(1.02).
    assert figures.class_weights == pytest.approx((1 / math.log(1.02 + 2 / 3), 1 / math.log(1.02 + 1 / 3), 50.498), abs=1e-3)
    assert figures.mean == pytest.approx((1 / 3, 0.2, 1))
    assert figures.std == pytest.approx((math.sqrt(2) / 3, 0, 0))
    assert json.loads(json.dumps(figures.to_dict()))["classes"]["b"]["pixels"] == 2


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32))
def test_colours_agree_with_numpy(seed):
    rng = np.random.default_rng(seed)
    pictures = [rng.integers(0, 256, (*rng.integers(1, 9, 2), 3), np.uint8) for _ in range(3)]
    samples = [
        (Image.fromarray(pixels), rng.choice(np.array([0, 1, 2, 255], np.uint8), pixels.shape[:2])) for pixels in pictures
    ]
    figures = data_statistics(samples, THREE)
    together = np.concatenate([pixels.reshape(-1, 3) for pixels in pictures]) / 255
    assert figures.mean == pytest.approx(together.mean(axis=0))
    assert figures.std == pytest.approx(together.std(axis=0))
    assert sum(figures.class_pixels) + figures.void_pixels == len(together)


def test_nothing_but_void():
    figures = data_statistics([(Image.new("RGB", (1, 1)), np.full((1, 1), 255, np.uint8))], THREE)
    assert figures.shares == (0, 0, 0)


def test_no_pictures():
    with pytest.raises(UserError, match="no pictures"):
        data_statistics([], THREE)
