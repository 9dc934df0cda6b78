from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from videos import picture

from enet_tvm.errors import UserError
from enet_tvm.runtime.labels import resize_labels
from enet_tvm.runtime.overlay import colourise, overlay
from enet_tvm.video.frame import Frame, plane_pixels
from enet_tvm.video.painting import Painter

PALETTE = [(70, 130, 180), (128, 64, 128), (200, 30, 30), (0, 0, 142)]


def frame(width: int, height: int) -> Frame:
    image = av.VideoFrame.from_ndarray(picture(3, width, height), format="rgb24").reformat(format="yuv420p")
    image.pts, image.time_base = 6, Fraction(1, 4)
    return Frame(0, image)


def blocks(width: int, height: int) -> np.ndarray:
    """Segments so large that the half resolution of colours in a video matters at their borders only."""
    y, x = np.mgrid[:height, :width]
    return (2 * (y >= height // 2) + (x >= width // 2)).astype(np.uint8)


@given(st.integers(8, 60), st.integers(8, 60), st.sampled_from([(1, 1), (2, 2), (2, 4), (3, 2), (0, 0)]), st.floats(0, 1))
@settings(deadline=None, max_examples=60)
def test_colours_are_those_of_pictures(width: int, height: int, times: tuple[int, int], opacity: float):
    labels = blocks(width, height)
    one = frame(2 * max(8, width * times[0] // 2 or 37), 2 * max(8, height * times[1] // 2 or 23))
    painted = Painter(PALETTE, opacity).paint(one, labels)
    assert (painted.width, painted.height, painted.pts, painted.time_base) == (*one.size, 6, Fraction(1, 4))
    pixels = one.rgb().astype(float)
    colours = colourise(resize_labels(labels, one.size), PALETTE)
    expected = pixels * (1 - opacity) + colours * opacity
    difference = np.abs(painted.to_ndarray(format="rgb24") - expected).mean(axis=-1)
    assert np.median(difference) < 6


def test_a_line_of_full_colour_around_each_segment():
    one, labels = frame(80, 60), blocks(80, 60)
    painted = Painter(PALETTE, 0.3).paint(one, labels).to_ndarray(format="rgb24").astype(int)
    expected = np.asarray(overlay(one.rgb(), labels, PALETTE, 0.3)).astype(int)
    edge = painted[10:20, 39]
    assert np.abs(edge.mean(axis=-1) - expected[10:20, 39].mean(axis=-1)).max() < 12
    bare = Painter([*PALETTE, *[(0, 0, 0)] * 200], 0.3).paint(one, labels).to_ndarray(format="rgb24").astype(int)
    assert np.abs(bare[10:20, 39] - edge).mean() > 10


@pytest.mark.parametrize("colour", range(4))
def test_full_opacity_is_the_palette(colour: int):
    painted = Painter(PALETTE, 1.0).paint(frame(64, 48), np.full((24, 32), colour, np.uint8))
    assert np.abs(painted.to_ndarray(format="rgb24").astype(int) - PALETTE[colour]).max() <= 3


def test_no_opacity_is_the_frame():
    one = frame(64, 48)
    painted = Painter(PALETTE, 0.0).paint(one, blocks(32, 24))
    for plane, original in zip(painted.planes, one.image.planes, strict=True):
        np.testing.assert_array_equal(plane_pixels(plane), plane_pixels(original))


def test_the_frame_itself_is_left_alone():
    one = frame(64, 48)
    before = one.rgb()
    Painter(PALETTE, 0.7).paint(one, blocks(32, 24))
    np.testing.assert_array_equal(one.rgb(), before)


def test_an_opacity_that_is_none():
    with pytest.raises(UserError, match="opacity 2 is not between 0 and 1"):
        Painter(PALETTE, 2)
