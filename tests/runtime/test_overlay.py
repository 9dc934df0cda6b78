from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from enet_tvm.errors import UserError
from enet_tvm.runtime.overlay import boundaries, colourise, overlay

PALETTE = ((255, 0, 0), (0, 255, 0), (0, 0, 255))


def test_colourise():
    labels = np.array([[0, 1], [2, 255]], np.uint8)
    np.testing.assert_array_equal(colourise(labels, PALETTE), [[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [0, 0, 0]]])


def test_boundaries():
    labels = np.array([[0, 0, 1], [0, 0, 1], [2, 2, 2]], np.uint8)
    np.testing.assert_array_equal(boundaries(labels), [[0, 1, 0], [1, 1, 1], [0, 0, 0]])
    assert not boundaries(np.zeros((1, 1), np.uint8)).any()
    assert not boundaries(np.zeros((1, 1), np.uint8), thickness=3).any()


@pytest.mark.parametrize(("opacity", "expected"), [(0, (100, 100, 100)), (0.5, (177, 50, 50)), (1, (255, 0, 0))])
def test_blending(opacity: float, expected: tuple[int, int, int]):
    picture = Image.new("RGB", (6, 4), (100, 100, 100))
    result = overlay(picture, np.zeros((4, 6), np.uint8), PALETTE, opacity)
    assert result.size == (6, 4)
    assert np.asarray(result).reshape(-1, 3).tolist() == [list(expected)] * 24


def test_opacity_zero_is_the_picture():
    pixels = np.random.default_rng(0).integers(0, 256, (9, 9, 3), np.uint8)
    labels = np.random.default_rng(1).integers(0, 3, (9, 9), np.uint8)
    np.testing.assert_array_equal(np.asarray(overlay(pixels, labels, PALETTE, 0)), pixels)


def test_the_picture_may_be_opencvs():
    rgb = np.random.default_rng(0).integers(0, 256, (9, 9, 3), np.uint8)
    labels = np.random.default_rng(1).integers(0, 3, (9, 9), np.uint8)
    expected = np.asarray(overlay(rgb, labels, PALETTE))
    np.testing.assert_array_equal(np.asarray(overlay(rgb[..., ::-1], labels, PALETTE, channels="bgr")), expected)
    with pytest.raises(UserError, match="a PIL image is RGB"):
        overlay(Image.fromarray(rgb), labels, PALETTE, channels="bgr")


def test_segments_are_outlined_in_full_colour():
    labels = np.zeros((4, 6), np.uint8)
    labels[:, 3:] = 1
    result = np.asarray(overlay(Image.new("RGB", (6, 4)), labels, PALETTE, 0.5))
    assert result[1, 2].tolist() == [255, 0, 0]
    assert result[1, 1].tolist() == [127, 0, 0]
    assert result[1, 3].tolist() == [0, 127, 0]


def test_legend_names_the_classes_that_occur():
    labels = np.zeros((240, 320), np.uint8)
    labels[:, 200:] = 2
    black = np.zeros((240, 320, 3), np.uint8)

    def legend(classes: list[str]) -> np.ndarray:
        plain = np.asarray(overlay(black, labels, PALETTE)).astype(int)
        return np.abs(np.asarray(overlay(black, labels, PALETTE, classes=classes)).astype(int) - plain).sum(axis=2)

    drawn = legend(["road", "tree", "car"])
    ys, xs = np.nonzero(drawn)
    assert ys.min() > 120, "the legend is in the lower left corner"
    assert xs.max() < 160
    assert (legend(["road", "another", "car"]) == drawn).all(), "a class that does not occur is not named"
    assert (legend(["road", "tree", "bus"]) != drawn).any()


@pytest.mark.parametrize("size", [(1, 1), (24, 16), (40, 300), (300, 20)])
def test_small_pictures_have_no_legend(size: tuple[int, int]):
    labels = np.random.default_rng(0).integers(0, 3, size[::-1], np.uint8)
    picture = Image.new("RGB", size)
    assert overlay(picture, labels, PALETTE, classes="abc").tobytes() == overlay(picture, labels, PALETTE).tobytes()


@pytest.mark.parametrize("opacity", [-0.1, 1.5, float("nan")])
def test_opacity_out_of_range(opacity: float):
    with pytest.raises(UserError, match="is not between 0 and 1"):
        overlay(Image.new("RGB", (2, 2)), np.zeros((2, 2), np.uint8), PALETTE, opacity)


def test_sizes_must_agree():
    with pytest.raises(UserError, match="do not fit"):
        overlay(Image.new("RGB", (2, 3)), np.zeros((2, 3), np.uint8), PALETTE)
