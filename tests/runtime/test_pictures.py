from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from enet_tvm.errors import UserError
from enet_tvm.runtime.pictures import (
    as_rgb,
    find_pictures,
    frame_names,
    load_frames,
    load_picture,
    output_names,
    read_header,
    rgb_pixels,
    taken_names,
)

PIXELS = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]], [[10, 20, 30], [200, 100, 50], [0, 0, 0]]], np.uint8)


def test_rgb_as_it_is(tmp_path: Path):
    Image.fromarray(PIXELS).save(tmp_path / "p.png")
    picture = load_picture(tmp_path / "p.png")
    assert picture.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(picture), PIXELS)


@pytest.mark.parametrize(
    ("suffix", "mode"),
    [
        *((".png", mode) for mode in ("1", "L", "LA", "P", "RGBA", "I;16")),
        *((".tif", mode) for mode in ("1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr", "LAB", "I", "I;16", "F")),
        *((".jpg", mode) for mode in ("1", "L", "CMYK", "YCbCr")),
        *((".gif", mode) for mode in ("1", "L", "P", "RGBA")),
    ],
)
def test_any_mode_that_a_format_holds(tmp_path: Path, suffix: str, mode: str):
    path = tmp_path / f"picture{suffix}"
    Image.new(mode, (3, 2)).save(path)
    picture = load_picture(path)
    assert picture.mode == "RGB"
    assert picture.size == (3, 2)


def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path: Path):
    Image.fromarray(np.array([[0, 255, 256, 32768, 65535]], np.uint16)).save(tmp_path / "deep.png")
    grey = np.asarray(load_picture(tmp_path / "deep.png"))[0, :, 0]
    np.testing.assert_array_equal(grey, [0, 0, 1, 128, 255])


def test_float_grey(tmp_path: Path):
    for values, expected in (([0, 0.5, 1], [0, 127, 255]), ([0, 127, 300], [0, 127, 255])):
        Image.fromarray(np.array([values], np.float32)).save(tmp_path / "f.tif")
        np.testing.assert_array_equal(np.asarray(load_picture(tmp_path / "f.tif"))[0, :, 2], expected)


def test_transparency_is_laid_on_black():
    image = Image.fromarray(np.array([[[200, 100, 50, 255], [200, 100, 50, 0], [200, 100, 50, 128]]], np.uint8))
    np.testing.assert_allclose(np.asarray(as_rgb(image)), [[[200, 100, 50], [0, 0, 0], [100, 50, 25]]], atol=1)


def test_palette_with_a_transparent_colour(tmp_path: Path):
    image = Image.fromarray(np.array([[0, 1]], np.uint8)).convert("P")
    image.putpalette([250, 10, 20, 30, 40, 50])
    image.save(tmp_path / "p.gif", transparency=0)
    np.testing.assert_array_equal(np.asarray(load_picture(tmp_path / "p.gif")), [[[0, 0, 0], [30, 40, 50]]])


@pytest.mark.parametrize(
    ("orientation", "turn"),
    [
        (1, lambda p: p),
        (2, lambda p: p[:, ::-1]),
        (3, lambda p: p[::-1, ::-1]),
        (4, lambda p: p[::-1]),
        (5, lambda p: p.swapaxes(0, 1)),
        (6, lambda p: np.rot90(p, -1)),
        (7, lambda p: p[::-1, ::-1].swapaxes(0, 1)),
        (8, lambda p: np.rot90(p, 1)),
    ],
)
def test_exif_rotation(tmp_path: Path, orientation: int, turn):
    exif = Image.Exif()
    exif[0x0112] = orientation
    for name, pixels in (("p.png", PIXELS), ("p.tif", PIXELS), ("grey.png", PIXELS[..., 0]), ("grey.tif", PIXELS[..., 0])):
        path = tmp_path / name
        Image.fromarray(pixels).save(path, exif=exif)
        picture = load_picture(path)
        expected = turn(pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=2))
        np.testing.assert_array_equal(np.asarray(picture), expected)
        header = read_header(path)
        assert (header.orientation, header.stored, header.size) == (orientation, (3, 2), picture.size)


def test_exif_data_after_the_pixels_of_a_png(tmp_path: Path):
    """Some tools append them; the header is read right nonetheless."""
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "p.png"
    Image.fromarray(PIXELS).save(path, exif=exif)
    content = path.read_bytes()
    start = content.index(b"eXIf") - 4
    end = start + 12 + int.from_bytes(content[start : start + 4], "big")
    last = content.index(b"IEND") - 4
    path.write_bytes(content[:start] + content[end:last] + content[start:end] + content[last:])
    assert load_picture(path).size == read_header(path).size == (2, 3)


def test_a_transparent_colour_of_an_rgb_picture(tmp_path: Path):
    Image.fromarray(PIXELS).save(tmp_path / "p.png", transparency=(10, 20, 30))
    expected = PIXELS.copy()
    expected[1, 0] = 0
    np.testing.assert_array_equal(np.asarray(load_picture(tmp_path / "p.png")), expected)


def test_broken_exif_beside_good_pixels(tmp_path: Path):
    Image.fromarray(PIXELS).save(tmp_path / "p.jpg", exif=b"Exif\x00\x00MM\x00\x2a\x00\x00\xff\xff broken")
    assert load_picture(tmp_path / "p.jpg").size == (3, 2)


def test_unreadable_files(tmp_path: Path):
    good = tmp_path / "good.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 60, 3), np.uint8)).save(good)
    (tmp_path / "text.png").write_text("not a picture")
    (tmp_path / "empty.png").touch()
    (tmp_path / "half.jpg").write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    (tmp_path / "folder.png").mkdir()
    for name, sentence in {
        "text.png": "not a picture of a known format",
        "empty.png": "not a picture of a known format",
        "half.jpg": "cannot be read as a picture",
        "folder.png": "there is no file",
        "absent.png": "there is no file",
    }.items():
        with pytest.raises(UserError, match=sentence):
            load_picture(tmp_path / name)


@given(data=st.data())
def test_damaged_files_are_user_errors_or_pictures(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "damaged"
    kind = data.draw(st.sampled_from(["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM"]))
    image = Image.fromarray(np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3))
    several = kind in ("PNG", "GIF", "TIFF", "WEBP") and data.draw(st.booleans())
    image.save(path, kind, **({"save_all": True, "append_images": [image.rotate(90)]} if several else {}))
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    with contextlib.suppress(UserError):
        assert load_picture(path).mode == "RGB"
    with contextlib.suppress(UserError):
        assert read_header(path).frames >= 1
    with contextlib.suppress(UserError):
        assert all(frame.mode == "RGB" for frame in load_frames(path))


COLOURS = [(250, 0, 0), (0, 250, 0), (0, 0, 250)]


def animate(path: Path, colours: list[tuple[int, int, int]] = COLOURS, **options: object) -> None:
    first, *others = [Image.new("RGB", (6, 4), colour) for colour in colours]
    first.save(path, save_all=True, append_images=others, **options)


@pytest.mark.parametrize("name", ["p.gif", "p.png", "p.webp", "p.tif"])
def test_frames(tmp_path: Path, name: str):
    animate(tmp_path / name, **({"lossless": True} if name == "p.webp" else {}))
    assert read_header(tmp_path / name).frames == 3
    frames = list(load_frames(tmp_path / name))
    assert [(frame.mode, frame.size, frame.getpixel((2, 2))) for frame in frames] == [("RGB", (6, 4), c) for c in COLOURS]
    with pytest.raises(UserError, match=r"holds 3 frames or pages, and one picture is wanted; save each that is meant"):
        load_picture(tmp_path / name)


def test_pages_of_other_sizes_and_modes(tmp_path: Path):
    """A small copy for browsers is no page, nor is a mask."""
    pages = [Image.new("L", (5, 4), 7), Image.new("RGB", (9, 2), (1, 2, 3)), Image.new("RGB", (2, 2)), Image.new("1", (9, 2))]
    for page, kind in zip(pages, (0, 2, 1, 4), strict=True):
        page.encoderinfo = {"tiffinfo": {254: kind}}
    pages[0].save(tmp_path / "p.tif", save_all=True, append_images=pages[1:], tiffinfo={254: 0})
    assert Image.open(tmp_path / "p.tif").n_frames == 4
    frames = list(load_frames(tmp_path / "p.tif"))
    assert [(frame.size, frame.getpixel((0, 0))) for frame in frames] == [((5, 4), (7, 7, 7)), ((9, 2), (1, 2, 3))]


def test_the_picture_of_viewers_without_animation_is_no_frame(tmp_path: Path):
    animate(tmp_path / "p.png", default_image=True)
    assert [frame.getpixel((2, 2)) for frame in load_frames(tmp_path / "p.png")] == COLOURS[1:]
    animate(tmp_path / "p.png", COLOURS[:2], default_image=True)
    assert load_picture(tmp_path / "p.png").getpixel((2, 2)) == COLOURS[1]


def test_previews_in_a_phones_picture_are_no_frames(tmp_path: Path):
    Image.fromarray(PIXELS).save(tmp_path / "p.jpg", "MPO", save_all=True, append_images=[Image.new("RGB", (3, 2))])
    assert Image.open(tmp_path / "p.jpg").n_frames == 2
    assert read_header(tmp_path / "p.jpg").frames == len(list(load_frames(tmp_path / "p.jpg"))) == 1
    assert load_picture(tmp_path / "p.jpg").size == (3, 2)


def test_frames_before_the_damage_are_read(tmp_path: Path):
    path = tmp_path / "p.png"
    animate(path, COLOURS * 3)
    content = path.read_bytes()
    path.write_bytes(content[: content.rindex(b"fdAT") + 6])
    frames = load_frames(path)
    assert next(frames).getpixel((2, 2)) == COLOURS[0]
    with pytest.raises(UserError, match=r"p\.png cannot be read as a picture"):
        list(frames)


def test_names_of_frames():
    taken = taken_names(["a", "a_0002", "b", "c", "c_0001", "c_frame_0002_labels"])
    assert frame_names("x", 1, taken) == ["x"]
    assert frame_names("b", 2, taken) == ["b_0001", "b_0002"]
    assert frame_names("a", 2, taken) == ["a_frame_0001", "a_frame_0002"]
    assert frame_names("c", 2, taken) == ["c_frame-2_0001", "c_frame-2_0002"]
    assert frame_names("B", 2, taken) == ["B_frame_0001", "B_frame_0002"]
    assert frame_names("long", 12_345, taken)[0] == "long_00001"


def test_channels():
    np.testing.assert_array_equal(rgb_pixels(PIXELS, "bgr"), PIXELS[..., [2, 1, 0]])
    assert rgb_pixels(PIXELS, "bgr").flags.c_contiguous
    np.testing.assert_array_equal(rgb_pixels(PIXELS, "rgb"), PIXELS)


def picture_tree(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_folders_are_searched_in_order(tmp_path: Path):
    picture_tree(tmp_path, "b.PNG", "a.jpg", "night/1.jpeg", "notes.txt", ".hidden.png", ".git/x.png", "out/a.png")
    found = find_pictures([tmp_path], exclude=tmp_path / "out")
    assert [path.relative_to(tmp_path).as_posix() for path in found] == ["a.jpg", "b.PNG", "night/1.jpeg"]
    assert tmp_path / "out" / "a.png" in find_pictures([tmp_path / "out"], exclude=tmp_path / "out")


def test_files_are_taken_as_given_and_once(tmp_path: Path):
    picture_tree(tmp_path, "b.png", "a.raw")
    assert find_pictures([tmp_path / "b.png", str(tmp_path / "a.raw"), tmp_path]) == [tmp_path / "b.png", tmp_path / "a.raw"]


def test_nothing_found_is_said(tmp_path: Path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty holds no pictures; known suffixes are \.apng, \.bmp"):
        find_pictures([tmp_path / "empty"])
    with pytest.raises(UserError, match="there is no file or folder"):
        find_pictures([tmp_path / "absent"])
    with pytest.raises(UserError, match="no pictures were given"):
        find_pictures([])


def test_names_keep_sub_folders_and_do_not_collide(tmp_path: Path):
    picture_tree(tmp_path, "d/x.jpg", "d/x.png", "d/night/x.jpg", "e/x.jpg", "d/x_labels.png", "X.jpg")
    inputs = [tmp_path / "d", tmp_path / "e", tmp_path / "X.jpg"]
    names = dict(zip(pictures := find_pictures(inputs), output_names(pictures, inputs), strict=True))
    assert {path.relative_to(tmp_path).as_posix(): name for path, name in names.items()} == {
        "d/night/x.jpg": "night/x",
        "d/x.jpg": "x",
        "d/x.png": "x_png",
        "d/x_labels.png": "x_labels_png",
        "e/x.jpg": "x_jpg",
        "X.jpg": "X-2",
    }


@given(
    st.lists(
        st.tuples(st.sampled_from("aAb"), st.sampled_from(["", "_labels", "-2", "_jpg"]), st.sampled_from([".jpg", ".png", ""]))
    )
)
def test_results_never_share_a_name(parts: list[tuple[str, str, str]]):
    pictures = [Path(f"/pictures/{index}/{''.join(part)}") for index, part in enumerate(parts)]
    names = output_names(pictures, pictures)
    files = [name.lower() for name in names] + [f"{name}_labels".lower() for name in names]
    assert len(set(files)) == len(files)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_pixels_that_are_not_finite(tmp_path, value):
    values = np.zeros((4, 6), np.float32)
    values[1, 2] = value
    Image.fromarray(values).save(tmp_path / "depth.tif")
    with pytest.raises(UserError, match=r"depth\.tif cannot be read as a picture \(it holds NaN or infinite pixels\)"):
        load_picture(tmp_path / "depth.tif")
