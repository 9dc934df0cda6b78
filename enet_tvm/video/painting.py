"""The classes' colours over a frame, in the frame's own planes: no conversion to RGB and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from enet_tvm.runtime.overlay import Colour, boundaries, check_opacity
from enet_tvm.video.frame import Frame, plane_pixels
from enet_tvm.video.library import pyav

_EDGE = 128
"""Added to the label of a pixel at a boundary: at most 128 classes can be told apart that way."""


class Painter:
    """Lays the classes' colours over frames, with a line of full colour around every segment.

    Parameters
    ----------
    palette : sequence of (int, int, int)
        RGB colour of each class; with more than 128 classes there are no lines.
    opacity : float
        Of the colours: 0 shows the frame, 1 the colours only.

    Raises
    ------
    UserError
        When the opacity is not between 0 and 1.
    """

    def __init__(self, palette: Sequence[Colour], opacity: float = 0.5) -> None:
        check_opacity(opacity)
        self._palette = np.zeros((1, 256, 3), np.uint8)
        self._palette[0, : len(palette)] = palette
        self._outlined = opacity > 0 and len(palette) <= _EDGE
        # Fixed-point blending: 8 bits of fraction are finer than a grey level.
        self._weights = np.full(256, round(256 * opacity), np.uint16)
        if self._outlined:
            self._palette[0, _EDGE:] = self._palette[0, :_EDGE]
            self._weights[_EDGE:] = 256
        self._picture_weight = np.uint16(256 - round(256 * opacity))
        self._tables: dict[tuple[Any, Any], list[NDArray[np.uint8]]] = {}

    def paint(self, frame: Frame, labels: NDArray[np.uint8]) -> Any:
        """Return a new av.VideoFrame: `frame` under the colours of `labels`, H x W uint8 of any size.

        Lines are drawn at the size of the labels, then enlarged with them.
        """
        source = frame.image
        if self._outlined:
            labels = labels + boundaries(labels).view(np.uint8) * np.uint8(_EDGE)
        painted = pyav().VideoFrame(source.width, source.height, "yuv420p")
        painted.pts, painted.time_base = source.pts, source.time_base
        painted.colorspace, painted.color_range = source.colorspace, source.color_range
        for plane, target, table in zip(source.planes, painted.planes, self._table(source), strict=True):
            height, width = plane.height, plane.width
            pixels = plane_pixels(target)
            weighted = np.multiply(plane_pixels(plane), self._picture_weight, dtype=np.uint16)
            np.copyto(pixels, np.right_shift(weighted, 8, out=weighted), casting="unsafe")
            if self._outlined:
                _apply(np.bitwise_and, pixels, _widened((labels >> 7) - np.uint8(1), height, width))  # 0 at lines, else 255
            _apply(np.add, pixels, _widened(table[labels], height, width))
        return painted

    def _table(self, image: Any) -> list[NDArray[np.uint8]]:
        """Return the share of each class's colour in Y, U and V, in the colour space of `image`."""
        key = (image.colorspace, image.color_range)
        if key not in self._tables:
            colours = pyav().VideoFrame.from_ndarray(np.repeat(self._palette, 2, axis=0), format="rgb24")
            planes = colours.reformat(
                format="yuv444p", dst_colorspace=image.colorspace, dst_color_range=image.color_range
            ).planes
            self._tables[key] = [(plane_pixels(plane)[0] * self._weights >> 8).astype(np.uint8) for plane in planes]
        return self._tables[key]


def _widened(values: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Return a map enlarged or reduced to `width` and, unless `height` is a multiple of its own, to `height`: nearest values.

    Doubling the width, a whole number of times in height, is the usual case, and Pillow would take a quarter of the time of all
    that is done to a frame.
    """
    if height % len(values) == 0:
        if width == values.shape[1]:
            return values
        if width == 2 * values.shape[1]:
            return (values * np.uint16(0x0101)).view(np.uint8)
    return np.asarray(Image.fromarray(values).resize((width, height), Image.Resampling.NEAREST))


def _apply(operation: np.ufunc, pixels: NDArray[np.uint8], values: NDArray[np.uint8]) -> None:
    """Apply an operation of two arguments to pixels, in place; each row of `values` serves as many rows as it takes."""
    rows = pixels.reshape(len(values), -1, pixels.shape[1])
    operation(rows, values[:, None], out=rows)
