"""Masks in every form that tools write, and the sentences about those that are none."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from enet_tvm.data.camvid import CamVid
from enet_tvm.data.masks import as_labels, in_ranges, read_mask, read_mask_header, stored_pixels
from enet_tvm.errors import UserError

LABELS = np.random.default_rng(0).integers(0, 11, (16, 24), np.uint8)


def save_png(path: Path, size: tuple[int, int], bits: int, colour_type: int, rows: bytes) -> None:
    """Write a PNG of a depth that Pillow reads and does not write; each row begins with its filter, 0."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", *size, bits, colour_type, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)


def palette_image(labels: np.ndarray) -> Image.Image:
    image = Image.fromarray(labels).convert("L")
    image.putpalette(np.random.default_rng(0).integers(0, 256, 768, np.uint8).tobytes())
    return image


@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("L.png", Image.fromarray(LABELS)),
        ("L.bmp", Image.fromarray(LABELS)),
        ("L.tif", Image.fromarray(LABELS)),
        ("P.png", palette_image(LABELS)),
        ("P.gif", palette_image(LABELS)),
        ("RGB.png", Image.fromarray(LABELS).convert("RGB")),
        ("RGBA.png", Image.fromarray(LABELS).convert("RGBA")),
        ("LA.png", Image.fromarray(LABELS).convert("LA")),
        ("RGB.webp", Image.fromarray(LABELS).convert("RGB")),
        ("I16.png", Image.fromarray(LABELS.astype(np.uint16))),
        ("I16.tif", Image.fromarray(LABELS.astype(np.uint16))),
        ("I.tif", Image.fromarray(LABELS.astype(np.int32))),
        ("F.tif", Image.fromarray(LABELS.astype(np.float32))),
    ],
)
def test_numbers_in_every_form(tmp_path: Path, name: str, image: Image.Image):
    path = tmp_path / name
    image.save(path, **({"lossless": True} if name.endswith("webp") else {}))
    np.testing.assert_array_equal(read_mask(path), LABELS)
    assert np.issubdtype(read_mask(path).dtype, np.integer)
    assert read_mask_header(path).stored == (24, 16)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_few_bits_a_pixel(tmp_path: Path, bits: int):
    """Pillow stretches them for the eye; a mask means the numbers themselves."""
    labels = LABELS % 2**bits
    unpacked = np.unpackbits(labels[..., None], axis=2)[..., -bits:].reshape(16, 24 * bits)
    save_png(tmp_path / "m.png", (24, 16), bits, 0, b"".join(b"\0" + np.packbits(row).tobytes() for row in unpacked))
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png"), labels)


def test_a_mask_of_one_bit_written_by_pillow(tmp_path: Path):
    for name in ("m.png", "m.tif", "m.bmp"):
        Image.fromarray(LABELS > 5).save(tmp_path / name)
        mask = read_mask(tmp_path / name)
        np.testing.assert_array_equal(mask, LABELS > 5)
        assert mask.dtype == np.uint8


def test_sixteen_bits_are_all_read(tmp_path: Path):
    wide = np.arange(0, 16 * 24 * 150, 150, dtype=np.uint16).reshape(16, 24)
    Image.fromarray(wide).save(tmp_path / "m.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png"), wide)


@pytest.mark.parametrize(("colour_type", "channels"), [(2, 3), (4, 2), (6, 4)])
def test_sixteen_bits_in_several_channels_are_refused(tmp_path: Path, colour_type: int, channels: int):
    """Pillow keeps the upper eight, in which every label is 0."""
    wide = np.full((16, 24, channels), 65535, ">u2")
    wide[..., 0] = LABELS
    save_png(tmp_path / "m.png", (24, 16), 16, colour_type, b"".join(b"\0" + row.tobytes() for row in wide))
    with pytest.raises(UserError, match="has 16 bits in each of its channels; save the mask as one channel, or in 8 bits"):
        read_mask(tmp_path / "m.png")


def test_colours_are_kept_for_those_who_want_them(tmp_path: Path):
    pixels = np.random.default_rng(0).integers(0, 256, (16, 24, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "m.png")
    np.testing.assert_array_equal(stored_pixels(tmp_path / "m.png"), pixels)


def coloured() -> Image.Image:
    return Image.fromarray(np.array([(0, 0, 0), (128, 0, 0), (0, 128, 0)], np.uint8)[LABELS % 3])


def transparent() -> Image.Image:
    image = Image.fromarray(LABELS).convert("LA")
    image.putalpha(Image.fromarray(np.where(LABELS == 3, 0, 255).astype(np.uint8)))
    return image


@pytest.mark.parametrize(
    ("name", "image", "sentence"),
    [
        (
            "m.png",
            coloured(),
            r"not a map of one label a pixel but coloured, in 3 colours, \(0, 0, 0\), \(0, 128, 0\), \(128, 0, 0\);",
        ),
        ("m.png", transparent(), "is transparent in places; save the mask without transparency"),
        ("m.jpg", Image.fromarray(LABELS), "is a JPEG file, whose compression changes labels"),
        ("m.tif", coloured().convert("CMYK"), "is a picture in CMYK, not a map of one label a pixel"),
        ("m.tif", Image.fromarray(LABELS / np.float32(10)), "holds fractions"),
        ("m.tif", Image.fromarray(np.full((16, 24), np.nan, np.float32)), "holds fractions"),
    ],
)
def test_what_is_no_mask(tmp_path: Path, name: str, image: Image.Image, sentence: str):
    image.save(tmp_path / name)
    with pytest.raises(UserError, match=sentence):
        read_mask(tmp_path / name)


def test_unreadable_masks(tmp_path: Path):
    (tmp_path / "text.png").write_text("not a picture")
    for name, sentence in (("text.png", "not a picture of a known format"), ("absent.png", "there is no file")):
        with pytest.raises(UserError, match=sentence):
            read_mask(tmp_path / name)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([0, 255], "holds labels 0 and 255: a binary mask? labels must lie in 0..11, or be 255 for void, so replace 255"),
        ([0, 128], "holds labels 0 and 128: a binary mask?"),
        (
            [0, 1, 2, 12],
            "holds label 12; labels must lie in 0..11, or be 255 for void (found: 0..2 and 12). Do they count other",
        ),
        (
            [0, 20, 40, 220],
            "holds labels 20, 40 and 220; {} (found: 0, 20, 40 and 220). All are multiples of 20: stretched to be",
        ),
        (range(0, 200, 3), "A picture, or a mask that was smoothed? Resize masks by the nearest pixel and save them as PNG"),
        ([-1, 3], "holds label -1;"),
        ([0, 65535], "holds labels 0 and 65535: a binary mask?"),
    ],
)
def test_other_numbers_are_named(values, words: str):
    stored = np.resize(np.array(list(values)), (16, 24))
    with pytest.raises(UserError) as caught:
        as_labels(stored, Path("m.png"), 11, 255)
    assert words.format("labels must lie in 0..11, or be 255 for void") in str(caught.value)
    assert "restore" not in str(caught.value)


@pytest.mark.parametrize("values", [[0, 1, 255], [255], [0], [11, 255]])
def test_void(values: list[int]):
    stored = np.resize(np.array(values, np.uint16), (16, 24))
    labels = as_labels(stored, Path("m.png"), 11, 255)
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, stored)
    if 255 in values:
        with pytest.raises(UserError, match=r"holds label 255; labels must lie in 0\.\.11 \(found"):
            as_labels(stored, Path("m.png"), 11)


def test_void_in_camvid(make_pair, tmp_path: Path):
    """What most tools write for void is what CamVid calls 11."""
    picture, path = make_pair()
    Image.new("RGB", (24, 16)).save(picture)
    Image.fromarray(np.where(LABELS == 4, 255, LABELS).astype(np.uint8)).save(path)
    np.testing.assert_array_equal(CamVid(tmp_path, "train")[0][1], np.where(LABELS == 4, 11, LABELS))


@given(st.sets(st.integers(-5, 300), min_size=1))
def test_ranges_name_the_first_and_the_last(numbers: set[int]):
    words = in_ranges(sorted(numbers))
    assert words.startswith(str(min(numbers)))
    assert words.endswith(str(max(numbers)))
    assert len(words) < 150


def test_ranges():
    assert in_ranges([3]) == "3"
    assert in_ranges([0, 1, 2, 7, 255]) == "0..2, 7 and 255"
    assert in_ranges(range(0, 40, 2)) == "0, 2, 4, 6, 8, 10, 12, 12 more and 38"
