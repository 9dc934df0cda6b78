from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pytest
from PIL import Image

from enet_tvm.live.encoding import MessageEncoder, shown_size
from enet_tvm.runtime.overlay import boundaries
from enet_tvm.size import Size
from enet_tvm.video.frame import Frame
from enet_tvm.video.library import pyav
from enet_tvm.video.session import LabelledFrame

PALETTE = [(70, 130, 180), (128, 64, 128), (107, 142, 35)]


SMALL = Size(64, 48)


def labelled(labels: np.ndarray, size: Size = SMALL) -> LabelledFrame:
    pixels = np.full((size.height, size.width, 3), (200, 100, 50), np.uint8)
    return LabelledFrame(Frame(7, pyav().VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="yuv420p")), labels)


def parts(message: bytes) -> tuple[dict[str, Any], Image.Image, Image.Image]:
    length = int.from_bytes(message[:4], "big")
    header = json.loads(message[4 : 4 + length])
    end = 4 + length + header["jpeg"]
    jpeg, png = (Image.open(io.BytesIO(data)) for data in (message[4 + length : end], message[end:]))
    return header, jpeg, png


def test_a_message_holds_the_picture_the_labels_and_their_shares() -> None:
    labels = np.zeros((12, 16), np.uint8)
    labels[:, 8:] = 2
    labels[:3, :4] = 1
    header, jpeg, png = parts(MessageEncoder(PALETTE, 0.4)(labelled(labels)))
    assert header["frame"] == 7
    assert header["seconds"] is None
    assert header["shares"] == [0.4375, 0.0625, 0.5]
    assert jpeg.format == "JPEG"
    assert np.abs(np.asarray(jpeg).astype(int) - (200, 100, 50)).max() < 8
    assert png.format == "PNG"
    edge = boundaries(labels)
    np.testing.assert_array_equal(np.asarray(png), labels + 128 * edge)
    # As whoever knows nothing of all this shows it: the colours at their opacity, lines in full.
    shown = np.asarray(png.convert("RGBA"))
    np.testing.assert_array_equal(shown[..., :3], np.array(PALETTE)[labels])
    np.testing.assert_array_equal(shown[..., 3], np.where(edge, 255, round(0.4 * 255)))


@pytest.mark.parametrize(("classes", "lines"), [(1, True), (128, True), (129, False), (256, False)])
def test_every_class_keeps_its_colour_however_many_there_are(classes: int, lines: bool) -> None:
    palette = [(k, 255 - k, 7) for k in range(classes)]
    labels = np.arange(16 * 16, dtype=np.uint8).reshape(16, 16) % np.uint8(min(classes, 255))
    encoder = MessageEncoder(palette)
    _, _, png = parts(encoder(labelled(labels)))
    assert encoder.lines is lines
    np.testing.assert_array_equal(np.asarray(png.convert("RGBA"))[..., :3], np.array(palette)[labels])
    assert len(png.info["transparency"]) == 256


def test_large_pictures_are_reduced() -> None:
    assert shown_size(Size(1280, 720)) == (1280, 720)
    assert shown_size(Size(3840, 2160)) == (1280, 720)
    assert shown_size(Size(4000, 2)) == (1280, 1)
    _, jpeg, png = parts(MessageEncoder(PALETTE)(labelled(np.zeros((12, 16), np.uint8), Size(1920, 1080))))
    assert jpeg.size == (1280, 720)
    assert png.size == (16, 12)
