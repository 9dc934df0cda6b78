"""A drawn ride: the view from a camera that drives along drawn streets, for trying out without a download."""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

from PIL import Image

from enet_tvm.data.synthetic import SyntheticStreet
from enet_tvm.errors import UserError
from enet_tvm.size import Size
from enet_tvm.video.library import pyav
from enet_tvm.video.writer import VideoWriter

_SCENE_SECONDS = 4.0
"""Seconds that the camera drives along one street before the next one begins."""
_CLOSER = 1.6
"""Factor by which a street has grown by then."""
_SWAY = 0.02
"""Largest turn of the camera to either side, as a share of the picture's width."""


def drawn_ride(size: Size, seconds: float, rate: int = 30, seed: int = 0) -> Iterator[Image.Image]:
    """Yield the pictures of a ride along the streets of `SyntheticStreet`, RGB of this size, so many a second."""
    scene = round(_SCENE_SECONDS * rate)
    streets = SyntheticStreet(Size(*(round(_CLOSER * side) for side in size)), math.ceil(seconds / _SCENE_SECONDS), seed)
    street: Image.Image | None = None
    for index in range(round(seconds * rate)):
        if street is None or index % scene == 0:
            street = streets[index // scene][0]
        done = index % scene / scene
        # Towards a point in the middle, as on a straight road; the view stays within the drawing while it turns.
        width = street.width * (1 - 2 * _SWAY) * _CLOSER**-done
        height = width * size.height / size.width
        left = (street.width - width) / 2 + street.width * _SWAY * math.sin(2 * math.pi * done)
        top = (street.height - height) / 2
        yield street.resize(size, Image.Resampling.BILINEAR, box=(left, top, left + width, top + height))


def write_ride(path: Path, size: Size, seconds: float, rate: int = 30, seed: int = 0) -> int:
    """Write a drawn ride as a video file and return how many frames it has.

    Parameters
    ----------
    path : Path
        Video file to write, as `VideoWriter` takes it.
    size : Size
        Width and height of the video; both even.
    seconds : float
        Duration of the video in seconds.
    rate : int
        Frames a second.
    seed : int
        Another one draws other streets.

    Raises
    ------
    UserError
        When the size is not even, the video would have no frame, or the file cannot be written.
    """
    if size.width % 2 or size.height % 2 or min(size) < 2:
        raise UserError(f"a video of {size} cannot be drawn; give an even width and height")
    if round(seconds * rate) < 1:
        raise UserError(f"a ride of {seconds:g} seconds at {rate} frames a second has no frame; give it more")
    with VideoWriter(path, size, Fraction(rate)) as writer:
        for index, picture in enumerate(drawn_ride(size, seconds, rate, seed)):
            image = pyav().VideoFrame.from_image(picture).reformat(format="yuv420p")
            image.pts, image.time_base = index, Fraction(1, rate)
            writer.write(image)
    return writer.frames
