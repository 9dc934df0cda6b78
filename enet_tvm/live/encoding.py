"""A labelled frame as a message: figures, the picture as JPEG, and the labels as PNG, for the browser to lay over each other.

A message is four bytes that give the length of a JSON object (big-endian), that object, the JPEG, and the PNG. The object holds
``frame`` (its number), ``seconds`` (its time in the source, or null), ``shares`` (of each class in the picture, 0 to 1) and
``jpeg`` (the length of the JPEG).

The PNG has a palette: entry k is class k's colour at the opacity of the colours, entry 128 + k its colour at full strength, for
the line around a segment. A page changes the opacity, or hides a class, by rewriting the chunk tRNS, 256 bytes. With more than
128 classes there are no lines, and entry k is class k's.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence

import numpy as np
from PIL import Image

from enet_tvm.runtime.overlay import Colour, boundaries
from enet_tvm.size import Size
from enet_tvm.video.library import pyav
from enet_tvm.video.session import LabelledFrame

LINE = 128
"""Offset of the label of a pixel at the border of a segment; at most so many classes can have lines."""

_WIDEST = 1280
_QUALITY = 80


class MessageEncoder:
    """Makes messages of labelled frames, for one thread at a time.

    Parameters
    ----------
    palette : sequence of (int, int, int)
        RGB colour of each class.
    opacity : float
        Opacity of the colours in the PNG's palette, 0 to 1.
    """

    def __init__(self, palette: Sequence[Colour], opacity: float = 0.5) -> None:
        self._classes = len(palette)
        self.lines = self._classes <= LINE
        colours, alpha = np.zeros((256, 3), np.uint8), np.zeros(256, np.uint8)
        for start, strength in ((0, opacity), (LINE, 1.0))[: 1 + self.lines]:
            colours[start : start + self._classes] = palette
            alpha[start : start + self._classes] = round(255 * strength)
        self._palette, self._alpha = colours.tobytes(), alpha.tobytes()
        self._converter = pyav().video.reformatter.VideoReformatter()  # keeps its filters from frame to frame

    def __call__(self, item: LabelledFrame) -> bytes:
        """Return the message."""
        shares = np.bincount(item.labels.ravel(), minlength=self._classes)[: self._classes] / item.labels.size
        jpeg = self._jpeg(item)
        header = {
            "frame": item.frame.index,
            "seconds": item.frame.seconds,
            "shares": [round(float(share), 4) for share in shares],
            "jpeg": len(jpeg),
        }
        text = json.dumps(header, separators=(",", ":")).encode()
        return b"".join((len(text).to_bytes(4, "big"), text, jpeg, self._png(item)))

    def _jpeg(self, item: LabelledFrame) -> bytes:
        size = shown_size(item.frame.size)
        image = self._converter.reformat(item.frame.image, *size, "rgb24", interpolation="BILINEAR", threads=1)
        file = io.BytesIO()
        Image.fromarray(image.to_ndarray()).save(file, "JPEG", quality=_QUALITY)
        return file.getvalue()

    def _png(self, item: LabelledFrame) -> bytes:
        indices = item.labels
        if self.lines:
            indices = indices + boundaries(indices).view(np.uint8) * np.uint8(LINE)
        image = Image.fromarray(indices)
        image.putpalette(self._palette)
        file = io.BytesIO()
        image.save(file, "PNG", compress_level=1, transparency=self._alpha)
        return file.getvalue()


def shown_size(size: Size) -> Size:
    """Return the size at which frames of `size` are sent: at most 1280 wide."""
    if size.width <= _WIDEST:
        return size
    return Size(_WIDEST, max(1, round(size.height * _WIDEST / size.width)))
