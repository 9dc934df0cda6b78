from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import pytest
from videos import picture

from enet_tvm.runtime import Segmenter
from enet_tvm.size import Size
from enet_tvm.video.frame import Frame, PlanarResizer, plane_pixels


def frame(width: int, height: int) -> Frame:
    image = av.VideoFrame.from_ndarray(picture(3, width, height), format="rgb24").reformat(format="yuv420p")
    image.pts, image.time_base = 6, Fraction(1, 4)
    return Frame(2, image)


def test_size_time_and_pixels():
    one = frame(64, 48)
    assert (one.size, one.seconds) == (Size(64, 48), 1.5)
    assert np.abs(one.rgb().astype(int) - picture(3)).mean() < 2
    assert Frame(0, av.VideoFrame(16, 16, "yuv420p")).seconds is None


@pytest.mark.parametrize("width", [24, 90, 96])  # rows that are padded in memory, too
def test_planes_are_red_green_and_blue(width: int):
    planes = PlanarResizer(Size(width, 40))(frame(96, 80))
    assert [plane.shape for plane in planes] == [(40, width)] * 3
    for plane, channel in zip(planes, np.moveaxis(picture(3, width, 40), -1, 0), strict=True):
        assert np.abs(plane.astype(int) - channel).mean() < 4


def test_a_resizer_takes_frames_of_any_size_in_turn():
    resize = PlanarResizer(Size(32, 24))
    for width, height in ((64, 48), (32, 24), (200, 50), (64, 48)):
        assert np.abs(np.stack(resize(frame(width, height)), -1).astype(int) - picture(3, 32, 24)).mean() < 4


def test_the_input_is_nearly_that_of_the_segmenter(tiny_artifact):
    one = frame(96, 64)
    with Segmenter.load(tiny_artifact.directory, threads=1) as segmenter:
        x = segmenter.normalise(PlanarResizer(segmenter.size)(one))
        reference = segmenter.preprocess(one.rgb())
    assert x.shape == reference.shape
    assert np.abs(x - reference).mean() < 2 / 255 / 0.2


def test_plane_pixels_shares_memory():
    image = av.VideoFrame(50, 20, "yuv420p")
    plane_pixels(image.planes[0])[:] = 7
    assert plane_pixels(image.planes[0]).shape == (20, 50)
    assert (image.to_ndarray()[:20] == 7).all()
