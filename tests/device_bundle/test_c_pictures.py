"""The board's programs see the pixels that Python sees: decoding, turning and resizing, with Pillow as the reference."""

from __future__ import annotations

import io
import re
import resource
import struct
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, PngImagePlugin
from PIL import __version__ as pillow

from enet_tvm.device_bundle.building import SOURCES, THIRD_PARTY
from enet_tvm.errors import UserError
from enet_tvm.files import sha256
from enet_tvm.runtime.pictures import load_picture

LEAST_DIFFERENCE = 0 if int(pillow.partition(".")[0]) >= 13 else 1
"""Of resized pixels: earlier releases resize along rows first, whatever the sizes."""

MARKER, XMP = b"\xff\xc0", '<x:xmpmeta><rdf:Description tiff:Orientation="{}"/></x:xmpmeta>'

Decode = Callable[..., Any]


@pytest.fixture
def decode(readers: Any, tmp_path: Path) -> Decode:
    """Makes ``decode(path)`` the pixels of a picture, or the sentence that refuses it."""

    def run(path: Path, width: int = 0, height: int = 0) -> np.ndarray | str:
        out = tmp_path / "decoded.ppm"
        (said,) = readers.run("pictures", lines=[f"{path} {out} {width} {height}"])
        return np.asarray(Image.open(out)) if said == "accepted" else str(said)

    return run


def street(width: int, height: int, mode: str = "RGB", seed: int = 0) -> Image.Image:
    """Something smooth, with every colour in it."""
    shape = (height // 5 + 2, width // 5 + 2, 4)
    small = np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def same(decode: Decode, path: Path) -> None:
    found = decode(path)
    assert not isinstance(found, str), found
    np.testing.assert_array_equal(found, np.asarray(load_picture(path)))


def test_what_is_not_ours_is_what_was_reviewed() -> None:
    folder = SOURCES / "third_party"
    assert {path.name for path in folder.iterdir()} == set(THIRD_PARTY)
    assert {name: sha256(folder / name) for name in THIRD_PARTY} == THIRD_PARTY


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("sampling", [0, 1, 2])
def test_jpegs(decode: Decode, tmp_path: Path, sampling: int, progressive: bool) -> None:
    """Full, half and quarter chroma; sizes of which the last block is cut, and too narrow to be smoothed."""
    for width, height in ((64, 48), (61, 43), (17, 9), (5, 8), (4, 3), (1, 1)):
        street(width, height).save(tmp_path / "x.jpg", quality=85, subsampling=sampling, progressive=progressive)
        same(decode, tmp_path / "x.jpg")


@pytest.mark.parametrize(("sampling", "factors", "across", "down"), [(1, 0x12, 0.5, 2), (2, 0x41, 2, 0.5), (2, 0x14, 0.5, 2)])
def test_jpegs_of_rare_sampling(
    decode: Decode, tmp_path: Path, sampling: int, factors: int, across: float, down: float
) -> None:
    """4:4:0, 4:1:1 and 4:1:0's likes: as many blocks as of a usual sampling, so a header of theirs makes them of it."""
    width, height = 48, 32
    street(width, height).save(tmp_path / "x.jpg", quality=85, subsampling=sampling)
    data = bytearray((tmp_path / "x.jpg").read_bytes())
    at = data.index(MARKER)
    data[at + 5 : at + 9] = struct.pack(">HH", int(height * down), int(width * across))
    data[at + 11] = factors
    (tmp_path / "x.jpg").write_bytes(data)
    same(decode, tmp_path / "x.jpg")


@pytest.mark.parametrize("kind", ["grey", "CMYK", "YCCK", "RGB", "restarts", "optimised", "best", "worst"])
def test_jpegs_of_other_kinds(decode: Decode, tmp_path: Path, kind: str) -> None:
    image = street(61, 43, {"grey": "L", "CMYK": "CMYK", "YCCK": "CMYK"}.get(kind, "RGB"))
    options: dict[str, dict[str, Any]] = {
        "RGB": {"keep_rgb": True},
        "restarts": {"restart_marker_blocks": 3},
        "optimised": {"optimize": True},
        "best": {"quality": 100},
        "worst": {"quality": 1},
    }
    path = tmp_path / "x.jpg"
    image.save(path, **options.get(kind, {}))
    if kind == "YCCK":
        data = bytearray(path.read_bytes())
        data[data.index(b"Adobe") + 11] = 2
        path.write_bytes(data)
    same(decode, path)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(width=st.integers(1, 70), height=st.integers(1, 70), seed=st.integers(0, 9), quality=st.integers(1, 100), data=st.data())
def test_any_jpeg(
    decode: Decode, tmp_path: Path, width: int, height: int, seed: int, quality: int, data: st.DataObject
) -> None:
    options = {"subsampling": data.draw(st.integers(0, 2)), "progressive": data.draw(st.booleans())}
    street(width, height, data.draw(st.sampled_from(["RGB", "L", "CMYK"])), seed).save(
        tmp_path / "x.jpg", quality=quality, **options
    )
    same(decode, tmp_path / "x.jpg")


@pytest.mark.parametrize("orientation", range(10))
def test_orientation(decode: Decode, tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Maker"
    exif[ExifTags.Base.Orientation] = orientation
    image = street(31, 20)
    for name in ("x.jpg", "x.png"):
        image.save(tmp_path / name, exif=exif.tobytes())
        same(decode, tmp_path / name)
    big = b"Exif\0\0MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 0x112, 3, 1, orientation, 0, 0)
    image.save(tmp_path / "big.jpg", exif=big)
    same(decode, tmp_path / "big.jpg")
    text = XMP.format(orientation)
    image.save(tmp_path / "xmp.jpg", xmp=text.encode())
    same(decode, tmp_path / "xmp.jpg")
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", text)
    image.save(tmp_path / "xmp.png", pnginfo=info)
    same(decode, tmp_path / "xmp.png")
    if orientation in range(1, 9):
        assert decode(tmp_path / "x.jpg").shape == ((31, 20, 3) if orientation > 4 else (20, 31, 3))


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "LA", "P", "1", "I;16"])
def test_pngs(decode: Decode, tmp_path: Path, mode: str) -> None:
    image = street(33, 21, "RGBA" if mode in ("RGBA", "LA") else "RGB")
    if mode == "I;16":
        image = Image.fromarray(np.random.default_rng(0).integers(0, 1 << 16, (21, 33)).astype(np.uint16))
    else:
        image = image.convert(mode)
    image.save(tmp_path / "x.png")
    same(decode, tmp_path / "x.png")


def test_transparency(decode: Decode, tmp_path: Path) -> None:
    """Every value of a channel under every alpha, a palette's, and a colour that stands for nothing."""
    path = tmp_path / "x.png"
    values, alphas = np.meshgrid(np.arange(256, dtype=np.uint8), np.arange(256, dtype=np.uint8))
    Image.fromarray(np.stack([values, 255 - values, values // 2, alphas], axis=-1)).save(path)
    same(decode, path)
    street(33, 21, "P").save(path, transparency=bytes(range(256)))
    same(decode, path)
    for mode in ("RGB", "L"):
        image = street(33, 21, mode)
        image.save(path, transparency=image.getpixel((3, 3)))
        same(decode, path)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_palettes_of_few_colours(decode: Decode, tmp_path: Path, bits: int) -> None:
    street(33, 21).convert("P", palette=Image.Palette.ADAPTIVE, colors=2**bits).save(tmp_path / "x.png", bits=bits)
    same(decode, tmp_path / "x.png")


def chunk(kind: bytes, content: bytes = b"") -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, depth: int, colour: int, rows: bytes, *, interlaced: bool = False, more: bytes = b"") -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + more + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND")


@pytest.mark.parametrize(("colour", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_deep_pngs(decode: Decode, tmp_path: Path, colour: int, channels: int) -> None:
    values = np.random.default_rng(colour).integers(0, 256, (9, 1 + 7 * channels * 2)).astype(np.uint8)
    values[:, 0] = np.arange(9) % 5  # every filter
    (tmp_path / "x.png").write_bytes(png(7, 9, 16, colour, values.tobytes()))
    same(decode, tmp_path / "x.png")


def test_an_interlaced_png(decode: Decode, tmp_path: Path) -> None:
    pixels = np.asarray(street(13, 11))
    passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
    rows = b"".join(b"\0" + row.tobytes() for x, y, across, down in passes for row in pixels[y::down, x::across] if row.size)
    (tmp_path / "x.png").write_bytes(png(13, 11, 8, 2, rows, interlaced=True))
    same(decode, tmp_path / "x.png")
    np.testing.assert_array_equal(decode(tmp_path / "x.png"), pixels)


def jpeg_bytes() -> bytes:
    stream = io.BytesIO()
    street(40, 24).save(stream, "JPEG")
    return stream.getvalue()


def png_bytes() -> bytes:
    stream = io.BytesIO()
    street(40, 24).save(stream, "PNG")
    return stream.getvalue()


GREY = png(4, 4, 8, 0, bytes(20))
REFUSED: dict[str, tuple[bytes, str]] = {
    "a JPEG that is cut": (jpeg_bytes()[:-200], "it ends too early"),
    "a JPEG without an end": (jpeg_bytes()[:-2], "it ends too early"),
    "a JPEG whose last segment goes on behind it": (jpeg_bytes()[:-2] + b"\xff\xe1\xff\xff", "it ends too early"),
    "a JPEG that is its beginning": (jpeg_bytes()[:20], "cannot be read as a JPEG picture"),
    "a JPEG of nothing": (b"\xff\xd8\xff\xd9", "cannot be read as a JPEG picture"),
    "a PNG that is cut": (png_bytes()[:-200], "it ends too early"),
    "a PNG without an end": (png_bytes()[:-12], "it ends too early"),
    "a PNG with a byte that is another": (png_bytes()[:60] + b"x" + png_bytes()[61:], "a checksum differs"),
    "a PNG of too few pixels": (png(4, 5, 8, 0, bytes(20)), "not enough pixels"),
    "a PNG of no pixels": (png(0, 4, 8, 0, bytes(20)), "it has no header"),
    "a PNG that is too large": (png(1 << 20, 1 << 20, 8, 0, bytes(20)), "a picture has 1 to 178956970 pixels"),
    "a PNG of two frames": (png(4, 4, 8, 0, bytes(20), more=chunk(b"acTL", struct.pack(">II", 2, 0))), "holds 2 frames"),
    "a PNG with two headers": (GREY[:33] + GREY[8:], "multiple IHDR"),
    "a .ppm that is too large": (b"P6\n999999 999999\n255\n" + bytes(100), "ends too early"),
    "a GIF": (b"GIF89a" + bytes(100), "neither a JPEG nor a PNG"),
    "nothing": (b"", "neither a JPEG nor a PNG"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(decode: Decode, sanitised_readers: Any, tmp_path: Path, name: str) -> None:
    content, words = REFUSED[name]
    path = tmp_path / "picture"
    path.write_bytes(content)
    said = decode(path)
    assert isinstance(said, str)
    assert words in said
    assert str(path) in said
    assert sanitised_readers.run("pictures", lines=[f"{path} {tmp_path / 'out.ppm'} 0 0"]) == [said]
    if not re.search("end|another|two frames|two headers|last segment|too few pixels", name):  # Pillow is less strict
        with pytest.raises(UserError):
            load_picture(path)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_too_little_memory(readers: Any, tmp_path: Path, suffix: str) -> None:
    """Wherever it ends, a sentence says so, and with enough of it the picture is whole."""
    source, out = tmp_path / f"x{suffix}", tmp_path / "y.png"
    street(600, 500).save(source, progressive=True)
    said = []
    for megabytes in (*np.arange(4, 16, 0.6), 64):

        def run(lines: str, most: int = int(megabytes * 2**20)) -> subprocess.CompletedProcess[bytes]:
            return subprocess.run(
                [readers.path, "pictures"],
                input=lines.encode(),
                capture_output=True,
                preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (most, most)),
                check=False,
            )

        if run("").returncode == 0:  # the program itself can be loaded
            result = run(f"{source} {out} 0 0\n")
            assert result.returncode == 0, result
            said.append(result.stdout.decode().strip())
    told = set(said) - {"accepted"}
    assert said[-1] == "accepted"
    assert len(told) >= 2
    assert [line for line in told if "there is no memory" not in line] == []
    np.testing.assert_array_equal(np.asarray(Image.open(out)), np.asarray(load_picture(source)))


def test_metadata_that_is_damaged(decode: Decode, tmp_path: Path) -> None:
    """Pixels beside it are good."""
    for exif in (
        b"",
        b"II*\0",
        b"MM\0*\xff\xff\xff\xff",
        b"II*\0\x08\0\0\0\xff\xff",
        b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0",
    ):
        street(31, 20).save(tmp_path / "x.jpg", exif=b"Exif\0\0" + exif)
        assert decode(tmp_path / "x.jpg").shape == (20, 31, 3)


SIDES = st.one_of(st.integers(1, 40), st.sampled_from([97, 160, 333, 640]))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(width=SIDES, height=SIDES, to_width=SIDES, to_height=SIDES, seed=st.integers(0, 3))
def test_resized_pictures(
    decode: Decode, tmp_path: Path, width: int, height: int, to_width: int, to_height: int, seed: int
) -> None:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)
    (tmp_path / "x.ppm").write_bytes(b"P6 %d %d 255 " % (width, height) + noise.tobytes())
    expected = np.asarray(Image.fromarray(noise).resize((to_width, to_height), Image.Resampling.BILINEAR))
    found = decode(tmp_path / "x.ppm", to_width, to_height)
    assert np.abs(found.astype(int) - expected).max() <= LEAST_DIFFERENCE


@pytest.mark.parametrize(("size", "to"), [((1280, 720), (480, 360)), ((1920, 1080), (640, 360)), ((320, 240), (640, 480))])
def test_a_cameras_sizes_are_resized_exactly(
    decode: Decode, tmp_path: Path, size: tuple[int, int], to: tuple[int, int]
) -> None:
    street(*size).save(tmp_path / "x.ppm")
    expected = street(*size).resize(to, Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(decode(tmp_path / "x.ppm", *to), np.asarray(expected))


def test_resized_labels(readers: Any, tmp_path: Path) -> None:
    dice = np.random.default_rng(0)
    sizes = [tuple(map(int, dice.integers(1, 300, 4))) for _ in range(200)]
    outs = [tmp_path / f"{number}.pgm" for number in range(len(sizes))]
    lines = [f"{' '.join(map(str, size))} {out}" for size, out in zip(sizes, outs, strict=True)]
    assert set(readers.run("labels", lines=lines)) == {"accepted"}
    for (width, height, *to), out in zip(sizes, outs, strict=True):
        labels = (np.arange(width) + 7 * np.arange(height)[:, None]).astype(np.uint8)
        expected = np.asarray(Image.fromarray(labels).resize((to[0], to[1]), Image.Resampling.NEAREST))
        np.testing.assert_array_equal(np.asarray(Image.open(out)), expected)


def test_a_picture_from_a_real_camera_file(readers: Any, tmp_path: Path) -> None:
    """FFmpeg's motion JPEG, which is not libjpeg's writing."""
    av = pytest.importorskip("av")
    from fractions import Fraction

    codec = av.CodecContext.create("mjpeg", "w")
    codec.width, codec.height, codec.pix_fmt, codec.time_base = 63, 47, "yuvj422p", Fraction(1, 25)
    frame = av.VideoFrame.from_ndarray(np.asarray(street(63, 47)), format="rgb24").reformat(format="yuvj422p")
    frame.pts = 0
    (tmp_path / "x.jpg").write_bytes(b"".join(bytes(packet) for packet in (*codec.encode(frame), *codec.encode(None))))
    assert readers.run("pictures", lines=[f"{tmp_path / 'x.jpg'} {tmp_path / 'y.ppm'} 0 0"]) == ["accepted"]
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "y.ppm")), np.asarray(load_picture(tmp_path / "x.jpg")))
