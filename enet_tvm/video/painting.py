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
"""Offset of the label of a pixel at a boundary; at most 128 classes can be told apart that way."""


class Painter:
    """Lays the classes' colours over frames, with a line of full colour around every segment.

    Parameters
    ----------
    palette : sequence of (int, int, int)
        RGB colour of each class; with more than 128 classes there are no lines.
    opacity : float
        Opacity of the colours: 0 shows the frame, 1 the colours only.

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
        self._rooms: dict[tuple[str, tuple[int, ...]], NDArray[Any]] = {}
        self._tables: dict[tuple[Any, Any], list[NDArray[np.uint8]]] = {}

    def paint(self, frame: Frame, labels: NDArray[np.uint8]) -> Any:
        """Return a new av.VideoFrame: `frame` under the colours of `labels`, H x W uint8 of any size.

        Lines are drawn at the size of the labels, then enlarged with them.
        """
        source = frame.image
        if self._outlined:
            edges = boundaries(labels).view(np.uint8)
            labels = np.add(labels, np.multiply(edges, np.uint8(_EDGE), out=edges), out=edges)
        painted = pyav().VideoFrame(source.width, source.height, "yuv420p")
        painted.pts, painted.time_base = source.pts, source.time_base
        painted.colorspace, painted.color_range = source.colorspace, source.color_range
        fitted: dict[tuple[int, int], NDArray[np.uint8]] = {}
        for plane, target, table in zip(source.planes, painted.planes, self._table(source), strict=True):
            size = (plane.height, plane.width)
            if size not in fitted:  # U and V have one size
                fitted[size] = _fitted(labels, *size)
            pixels, values = plane_pixels(target), self._room("values", fitted[size].shape, np.uint8)
            weighted = self._room("weighted", size, np.uint16)
            np.multiply(plane_pixels(plane), self._picture_weight, out=weighted, dtype=np.uint16)
            np.copyto(pixels, np.right_shift(weighted, 8, out=weighted), casting="unsafe")
            if self._outlined:
                np.right_shift(fitted[size], 7, out=values)
                self._apply(np.bitwise_and, pixels, np.subtract(values, np.uint8(1), out=values))  # 0 at lines, else 255
            # Clipping skips a check: no label is beyond 255.
            self._apply(np.add, pixels, np.take(table, fitted[size], out=values, mode="clip"))
        return painted

    def _room(self, use: str, shape: tuple[int, ...], dtype: type[np.generic]) -> NDArray[Any]:
        """Return a scratch array that is reused from call to call: allocating it anew would take longer than the rest."""
        room = self._rooms.get((use, shape))
        if room is None:
            room = self._rooms[use, shape] = np.empty(shape, dtype)
        return room

    def _apply(self, operation: np.ufunc, pixels: NDArray[np.uint8], values: NDArray[np.uint8]) -> None:
        """Apply an operation to pixels, in place; a value serves one or two columns, and as many rows as it takes."""
        repeated = len(pixels) // len(values)
        if pixels.shape[1] == 2 * values.shape[1]:
            twice = self._room("twice", values.shape, np.uint16)
            values = np.multiply(values, np.uint16(0x0101), out=twice, dtype=np.uint16).view(np.uint8)
        for first in range(repeated):
            rows = pixels[first::repeated]
            operation(rows, values, out=rows)

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


def _fitted(labels: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Return the nearest labels at a size that `Painter` takes: of height x width, or a half or a whole part of either.

    Frames twice as large as the labels, and colours half as large as the frame, are the usual case, which needs no resizing.
    """
    rows, columns = labels.shape
    if rows % height == 0 and columns % width == 0:
        return np.ascontiguousarray(labels[rows // height // 2 :: rows // height, columns // width // 2 :: columns // width])
    if height % rows == 0 and width in (columns, 2 * columns):
        return labels
    return np.asarray(Image.fromarray(labels).resize((width, height), Image.Resampling.NEAREST))
