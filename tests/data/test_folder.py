"""Pairs: pictures as the device will see them, labels as they lie."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import enet_tvm
from enet_tvm.cli.main import main
from enet_tvm.data.camvid import CamVid
from enet_tvm.data.check import check_data_set, require_sound
from enet_tvm.errors import UserError
from enet_tvm.runtime import Segmenter
from enet_tvm.runtime.pictures import load_frames

ORIENTATION = 0x0112
TURNS = {
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.swapaxes(0, 1),
    6: lambda p: np.rot90(p, -1),
    7: lambda p: p[::-1, ::-1].swapaxes(0, 1),
    8: lambda p: np.rot90(p, 1),
}
"""What EXIF's orientations do to the stored pixels."""


def random_pixels(height: int = 16, width: int = 24, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), np.uint8)


def on_black(pixels: np.ndarray) -> np.ndarray:
    """Return RGBA pixels on black, rounded."""
    return np.rint(pixels[..., :3] * (pixels[..., 3:] / 255))


def grey(values: np.ndarray) -> np.ndarray:
    return np.repeat(np.asarray(values, np.uint8)[..., None], 3, axis=2)


RGBA = random_pixels(channels=4)
LA = random_pixels(channels=2)
DEEP = np.random.default_rng(0).integers(0, 65536, (16, 24), np.uint16)
RGB = Image.fromarray(random_pixels())


def _transparent_palette() -> tuple[Image.Image, np.ndarray]:
    places = np.arange(16 * 24, dtype=np.uint8).reshape(16, 24) % 4
    palette = np.array([[200, 10, 20], [30, 40, 50], [60, 70, 80], [90, 250, 0]], np.uint8)
    image = Image.fromarray(places).convert("L")
    image.putpalette(palette.tobytes())
    image.info["transparency"] = 0
    return image, np.where(places[..., None] == 0, 0, palette[places])


TRANSPARENT_PALETTE = _transparent_palette()
MODES: dict[str, tuple[Image.Image, str, np.ndarray]] = {
    "1": (RGB.convert("1"), "png", np.asarray(RGB.convert("1").convert("RGB"))),
    "L": (RGB.convert("L"), "png", grey(np.asarray(RGB.convert("L")))),
    "LA": (Image.fromarray(LA), "png", on_black(LA[..., [0, 0, 0, 1]])),
    "P": (RGB.convert("P"), "png", np.asarray(RGB.convert("P").convert("RGB"))),
    "P, transparent": (TRANSPARENT_PALETTE[0], "png", TRANSPARENT_PALETTE[1]),
    "RGB": (RGB, "png", np.asarray(RGB)),
    "RGBA": (Image.fromarray(RGBA), "png", on_black(RGBA)),
    "CMYK": (RGB.convert("CMYK"), "tif", np.asarray(RGB)),
    "YCbCr": (RGB.convert("YCbCr"), "tif", np.asarray(RGB.convert("YCbCr").convert("RGB"))),
    "LAB": (Image.new("LAB", (24, 16), (128, 0, 0)), "tif", np.asarray(Image.new("LAB", (24, 16), (128, 0, 0)).convert("RGB"))),
    "I;16": (Image.fromarray(DEEP), "png", grey(DEEP >> 8)),
    "I": (Image.fromarray(DEEP.astype(np.int32)), "tif", grey(DEEP >> 8)),
    "F": (Image.fromarray((DEEP / 65535).astype(np.float32)), "tif", grey(DEEP / np.float32(65535) * 255)),
}


@pytest.mark.parametrize("mode", MODES)
def test_training_sees_what_run_sees(mode: str, make_pair, tmp_path: Path, tiny_artifact):
    """The decoded picture is right, and training, `run` and a program that holds the opened file get the same of it."""
    image, suffix, expected = MODES[mode]
    assert image.mode == mode.partition(",")[0]
    picture, labels = make_pair(f"p.{suffix}")
    image.save(picture)
    Image.new("L", (24, 16), 3).save(labels)
    trained = CamVid(tmp_path, "train")[0][0]
    assert trained.mode == "RGB"
    np.testing.assert_allclose(np.asarray(trained), expected, atol=1)
    np.testing.assert_array_equal(np.asarray(trained), np.asarray(next(load_frames(picture))))
    with Segmenter.load(tiny_artifact.directory, threads=1) as segmenter:
        np.testing.assert_array_equal(segmenter.preprocess(Image.open(picture)), segmenter.preprocess(trained))


def test_there_is_one_decoder():
    """No module opens picture files but the one that all share; two decoders part in what they make of a file."""
    package = Path(enet_tvm.__file__).parent
    opening = [
        path.relative_to(package).as_posix() for path in package.rglob("*.py") if "Image.open(" in path.read_text("utf-8")
    ]
    assert opening == ["runtime/pictures.py"]


def test_modes_that_no_file_has(tiny_artifact):
    with Segmenter.load(tiny_artifact.directory, threads=1) as segmenter:
        image = RGB.convert("HSV")
        np.testing.assert_array_equal(segmenter.preprocess(image), segmenter.preprocess(image.convert("RGB")))


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("shape", [(16, 24), (16, 16)])
@pytest.mark.parametrize("orientation", TURNS)
def test_pictures_are_turned_and_labels_are_not(
    orientation: int, shape: tuple[int, int], suffix: str, make_pair, tmp_path: Path
):
    pixels = random_pixels(*shape)
    upright = TURNS[orientation](pixels)
    drawn = np.random.default_rng(1).integers(0, 11, upright.shape[:2], np.uint8)
    picture, labels = make_pair(f"p.{suffix}", f"p.{suffix}")
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    Image.fromarray(pixels).save(picture, exif=exif)
    for compression in (None, "tiff_lzw") if suffix == "tif" else (None,):
        Image.fromarray(drawn).save(labels, exif=exif, compression=compression)
        sample, read = CamVid(tmp_path, "train")[0]
        np.testing.assert_array_equal(np.asarray(sample), upright)
        np.testing.assert_array_equal(read, drawn)
        report = check_data_set(tmp_path, ["train"])
        assert report.problems == check_data_set(tmp_path, ["train"], thorough=False).problems == ()
        if orientation == 1:
            assert report.warnings == ()
        else:
            about_picture, about_labels = report.warnings
            assert about_picture.startswith(f"{picture} is turned upright by its EXIF data (orientation {orientation})")
            assert about_labels.startswith(f"{labels} has EXIF data to turn it")


def test_labels_drawn_on_the_pixels_as_stored(make_pair, tmp_path: Path):
    """Oblong, the mistake shows, and the sentence says which it is; before anything is decoded, too."""
    picture, labels = make_pair("p.jpg")
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    Image.fromarray(random_pixels()).save(picture, exif=exif)
    Image.new("L", (24, 16)).save(labels)
    sentence = r"p\.jpg is 16x24, turned as its EXIF data say, but its labels .*p\.png are 24x16; the labels seem drawn on"
    (problem,) = check_data_set(tmp_path, ["train"]).problems
    for read in (lambda: CamVid(tmp_path, "train")[0], lambda: _raise(problem), lambda: _quickly(tmp_path)):
        with pytest.raises(UserError, match=sentence):
            read()
    Image.new("L", (16, 16)).save(labels)
    with pytest.raises(UserError, match=r"are 16x16; do they belong together\?"):
        CamVid(tmp_path, "train")[0]


def _raise(problem: str) -> None:
    raise UserError(problem)


def _quickly(root: Path) -> None:
    (root / "val.txt").write_bytes((root / "train.txt").read_bytes())
    for folder in ("", "annot"):
        if not (link := root / f"val{folder}").exists():
            link.symlink_to(root / f"train{folder}")
    require_sound(root)


@pytest.mark.parametrize("which", ["picture", "labels"])
def test_several_frames_where_one_is_wanted(which: str, make_pair, tmp_path: Path):
    picture, labels = make_pair("p.tif", "p.tif")
    Image.fromarray(random_pixels()).save(picture)
    Image.new("L", (24, 16)).save(labels)
    spoilt = {"picture": picture, "labels": labels}[which]
    Image.open(spoilt).copy().save(spoilt, save_all=True, append_images=[Image.new("L", (24, 16))])
    sentence = "p.tif holds 2 frames or pages, and one picture is wanted"
    for thorough in (True, False):
        (problem,) = check_data_set(tmp_path, ["train"], thorough=thorough).problems
        assert sentence in problem
        assert str(spoilt) in problem
    with pytest.raises(UserError, match=sentence):
        CamVid(tmp_path, "train")[0]


def test_the_check_warns_and_succeeds(make_pair, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    picture, labels = make_pair("p.jpg")
    exif = Image.Exif()
    exif[ORIENTATION] = 3
    Image.fromarray(random_pixels()).save(picture, exif=exif)
    Image.new("L", (24, 16)).save(labels)
    check: Callable[[], object] = lambda: main(["data", "check", "--data", str(tmp_path), "--split", "train"])  # noqa: E731
    with pytest.raises(SystemExit) as caught:
        check()
    out = capsys.readouterr().out
    assert not caught.value.code
    assert f"- warning: {picture} is turned upright" in out
    assert "no problems, 1 warning" in out
