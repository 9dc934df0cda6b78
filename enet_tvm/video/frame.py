"""One picture of a video, as the decoder left it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from enet_tvm.size import Size
from enet_tvm.video.library import pyav


@dataclass(frozen=True)
class Frame:
    """A decoded frame.

    Attributes
    ----------
    index : int
        Number of the frame in the source, from 0.
    image : av.VideoFrame
        Pixels of the frame, upright, in planar YUV 4:2:0 of even width and height, with its time.
    """

    index: int
    image: Any

    @property
    def size(self) -> Size:
        """Width and height."""
        return Size(self.image.width, self.image.height)

    @property
    def seconds(self) -> float | None:
        """Presentation time from the start of the source; None where it does not say."""
        return None if self.image.time is None else float(self.image.time)

    def rgb(self) -> NDArray[np.uint8]:
        """Return the pixels as H x W x 3 uint8 RGB."""
        pixels: NDArray[np.uint8] = self.image.to_ndarray(format="rgb24")
        return pixels


class PlanarResizer:
    """Brings frames to one size as planes of red, green and blue: libswscale's bilinear filter, in one pass from YUV.

    It rounds otherwise than Pillow's and mixes colours in YUV, so values differ from those of `Segmenter.preprocess` by
    a grey level on average, more at edges of colour. For one thread at a time.

    Parameters
    ----------
    size : Size
        Width and height of the planes.
    """

    def __init__(self, size: Size) -> None:
        self._size = size
        self._converter = pyav().video.reformatter.VideoReformatter()  # keeps its filters from frame to frame

    def __call__(self, frame: Frame) -> list[NDArray[np.uint8]]:
        """Return the planes of red, green and blue, each H x W uint8, valid as long as they are referred to."""
        image = self._converter.reformat(
            frame.image, self._size.width, self._size.height, "gbrp", interpolation="BILINEAR", threads=1
        )
        green, blue, red = (plane_pixels(plane) for plane in image.planes)
        return [red, green, blue]


def plane_pixels(plane: Any) -> NDArray[np.uint8]:
    """Return the pixels of an av.VideoPlane, H x W uint8, without copying; rows may be padded in memory."""
    return np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width]
