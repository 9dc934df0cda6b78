"""`enet-tvm data new`: what directories of pictures and masks are taken for."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from enet_tvm.data.check import check_data_set
from enet_tvm.data.dataset_file import DatasetFile, read_dataset_file
from enet_tvm.data.describing import Wishes, describe_directory
from enet_tvm.data.source import open_samples
from enet_tvm.errors import UserError
from enet_tvm.size import Size

RNG = np.random.default_rng(0)
VALUES = np.resize(np.uint8([0, 1, 2]), (16, 24))


def save(path: Path, pixels: np.ndarray | Image.Image | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if pixels is None:
        pixels = RNG.integers(0, 256, (16, 24, 3), np.uint8)
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(path)


def fill(root: Path, picture: str, mask: str, pixels: np.ndarray | Image.Image = VALUES, count: int = 4) -> None:
    for number in range(count):
        save(root / picture.format(number))
        save(root / mask.format(number), pixels)


def new(root: Path, **wishes) -> tuple[DatasetFile, str]:
    said = describe_directory(root, Wishes(**wishes), force=True)
    return read_dataset_file(root / "dataset.toml"), "\n".join(said)


LAYOUTS = [
    ("images/{}.jpg", "masks/{}.png"),
    ("images/{}.png", "labels/{}.png"),
    ("JPEGImages/{}.jpg", "SegmentationClass/{}.png"),
    ("images/day/{}.jpg", "masks/day/{}.png"),
    ("ride/rgb/{}.png", "ride/gt/{}.png"),
    ("train_images/{}.jpg", "train_masks/{}.png"),
    ("{}.jpg", "{}_mask.png"),
    ("{}.png", "{}_mask.png"),
    ("{}.JPG", "{}.png"),
    ("frames/{}.jpg", "frames/{}.png"),
    ("images/{}.jpg", "masks/{}_mask.png"),
    ("A/{}.jpg", "B/{}.png"),
    ("ride/{}_rgb.png", "ride/{}_labels.png"),
    ("images/{}_leftImg8bit.png", "labels/{}_gt.png"),
    ("meine Bilder/Übung {}.JPG", "masks/Übung {}.png"),
]


@pytest.mark.parametrize(("picture", "mask"), LAYOUTS)
def test_layouts(tmp_path: Path, picture: str, mask: str):
    fill(tmp_path, picture, mask)
    new(tmp_path)
    report = check_data_set(tmp_path)
    assert report.problems == report.warnings == ()
    assert report.pictures == {"train": 3, "val": 1}
    assert np.array_equal(open_samples(str(tmp_path), "val")[0][1], VALUES)


def test_folders_are_splits(tmp_path: Path):
    for split in ("train", "valid"):
        fill(tmp_path, split + "/images/{}.jpg", split + "/masks/{}.png")
    described, said = new(tmp_path)
    assert described.splits.train == ("train/",)
    assert described.splits.val == ("valid/",)
    assert "train is train/, val is valid/" in said
    assert check_data_set(tmp_path).pictures == {"train": 4, "val": 4}


def test_lists_are_splits(tmp_path: Path):
    fill(tmp_path, "JPEGImages/{}.jpg", "SegmentationClass/{}.png")
    (tmp_path / "ImageSets" / "Segmentation").mkdir(parents=True)
    for split, names in (("train", "0\n1\n2\n"), ("val", "3\n")):
        (tmp_path / "ImageSets" / "Segmentation" / f"{split}.txt").write_text(names)
    described, _ = new(tmp_path)
    assert described.splits.val == ("ImageSets/Segmentation/val.txt",)
    assert check_data_set(tmp_path).pictures == {"train": 3, "val": 1}


@pytest.mark.parametrize(
    ("pixels", "values", "void", "words"),
    [
        (VALUES, [0, 1, 2], (), "0 is the background"),
        (np.where(VALUES == 2, np.uint8(255), VALUES), [0, 1], (255,), "255 is taken for pixels of no class"),
        (np.where(VALUES == 2, 65535, VALUES.astype(np.uint16)), [0, 1], (65535,), "stored in 16 bits"),
        (VALUES.astype(np.uint16) * 300, [0, 300, 600], (), "stored in 16 bits (4)"),
        (np.uint8(255) * (VALUES == 1), [0, 255], (), "they are binary masks: 0 is 'background' and 255 is 'object'"),
        (Image.fromarray(VALUES == 1), [0, 1], (), "stored in 1 bit (4)"),
        (np.repeat(VALUES[..., None], 3, axis=2), [0, 1, 2], (), "stored in 8 bits (4)"),
    ],
)
def test_masks_of_numbers(tmp_path: Path, pixels, values, void, words):
    fill(tmp_path, "images/{}.jpg", "masks/{}.png", pixels)
    described, said = new(tmp_path)
    assert described.mask_kind == "numbers"
    assert [value for entry in described.classes for value in entry.value] == values
    assert described.void == void
    assert words in said
    assert check_data_set(tmp_path).problems == ()


def test_palettes_give_colours(tmp_path: Path):
    image = Image.fromarray(VALUES)
    image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    fill(tmp_path, "images/{}.jpg", "masks/{}.png", image)
    described, said = new(tmp_path)
    assert described.class_set().palette == ((0, 0, 0), (128, 0, 0), (0, 128, 0))
    assert "stored in a palette (4)" in said


def test_palettes_that_differ_are_colours(tmp_path: Path):
    """Tools that save colours to a palette of each file's own number them anew in each."""
    fill(tmp_path, "images/{}.jpg", "masks/{}.png")
    colours = np.uint8([[0, 0, 0], [255, 0, 0], [0, 0, 255]])
    for number, order in enumerate(([0, 1, 2], [2, 1, 0], [0, 2, 1], [1, 0, 2])):
        image = Image.fromarray(np.argsort(order).astype(np.uint8)[VALUES])
        image.putpalette(colours[order].tobytes())
        save(tmp_path / "masks" / f"{number}.png", image)
    described, said = new(tmp_path)
    assert described.mask_kind == "colours"
    assert "their palettes differ" in said
    assert check_data_set(tmp_path).problems == ()
    labels = [labels for split in ("train", "val") for _, labels in open_samples(str(tmp_path), split)]
    assert all(np.array_equal(labels[0], other) for other in labels)


def test_colours(tmp_path: Path):
    colours = np.uint8([[0, 0, 0], [255, 0, 0], [1, 2, 3]])
    fill(tmp_path, "images/{}.jpg", "masks/{}.png", colours[VALUES])
    described, said = new(tmp_path)
    assert described.mask_kind == "colours"
    assert {entry.name for entry in described.classes} == {"background", "#ff0000", "#010203"}
    assert "masks hold 3 colours: " in said
    (tmp_path / "names.txt").write_text("apple 255 0 0\nleaf 1 2 3\nstone 9 9 9\n")
    described, said = new(tmp_path, classes=str(tmp_path / "names.txt"))
    assert [entry.name for entry in described.classes] == ["apple", "leaf", "stone"]
    assert described.void == ((0, 0, 0),)
    assert "black, which no class has, is taken for pixels of no class" in said
    assert check_data_set(tmp_path).problems == ()


def test_the_label_map_of_an_export_of_cvat(tmp_path: Path):
    colours = np.uint8([[0, 0, 0], [250, 50, 83], [51, 221, 255]])
    fill(tmp_path, "JPEGImages/{}.jpg", "SegmentationClass/{}.png", colours[VALUES])
    save(tmp_path / "SegmentationObject" / "0.png", colours[VALUES])
    text = "# label:color_rgb:parts:actions\nbackground:0,0,0::\nfruit tree:250,50,83::\nway:51,221,255::\n"
    (tmp_path / "labelmap.txt").write_text(text)
    described, said = new(tmp_path)
    assert [entry.name for entry in described.classes] == ["background", "fruit tree", "way"]
    assert described.masks == ("SegmentationClass/**/*.*",)
    assert "the classes are named in labelmap.txt" in said
    assert check_data_set(tmp_path).problems == ()


@pytest.mark.parametrize(
    ("classes", "names", "values", "void"),
    [
        ("ground,apple,leaf", ("ground", "apple", "leaf"), [0, 1, 2], ()),
        ("a,b,c,d", ("a", "b", "c", "d"), [0, 1, 2, 3], ()),
        ("apple,leaf", ("apple", "leaf"), [1, 2], (0,)),
        ("3", ("class 0", "class 1", "class 2"), [0, 1, 2], ()),
    ],
)
def test_named_classes(tmp_path: Path, classes, names, values, void):
    fill(tmp_path, "images/{}.jpg", "masks/{}.png")
    described, _ = new(tmp_path, classes=classes)
    assert described.class_set().names == names
    assert [value for entry in described.classes for value in entry.value] == values
    assert described.void == void
    assert check_data_set(tmp_path).problems == ()


def test_given_patterns_and_wishes(tmp_path: Path):
    fill(tmp_path, "a/x{}.png", "b/y{}.png")
    described, _ = new(tmp_path, pictures=("a/x*.png",), masks=("b/y*.png",), size=Size(64, 32), name="mine", val=0.5)
    assert described.size == "64x32"
    assert described.name == "mine"
    assert check_data_set(tmp_path).pictures == {"train": 2, "val": 2}


def test_sizes_are_brought_to_one(tmp_path: Path):
    fill(tmp_path, "images/{}.jpg", "masks/{}.png", np.resize(VALUES, (1500, 2002)), count=2)
    for number in range(2):
        save(tmp_path / "images" / f"{number}.jpg", np.zeros((1500, 2002, 3), np.uint8))
    described, said = new(tmp_path)
    assert described.size == "1024x768"
    assert "pictures are 2002x1500; they are brought to 1024x768" in said


def test_halves_without_the_other_are_said(tmp_path: Path):
    fill(tmp_path, "images/{}.jpg", "masks/{}.png")
    (tmp_path / "masks" / "3.png").unlink()
    save(tmp_path / "masks" / "9.png", VALUES)
    (tmp_path / "masks" / "2.png").write_text("nothing")
    _, said = new(tmp_path)
    assert "1 pictures have no mask, such as images/3.jpg" in said
    assert "1 masks have no picture, such as masks/9.png" in said
    assert "not read: " in said
    assert len(check_data_set(tmp_path).problems) == 3


def test_what_is_there_is_not_replaced(tmp_path: Path):
    fill(tmp_path, "images/{}.jpg", "masks/{}.png")
    (tmp_path / "dataset.toml").write_text("mine")
    with pytest.raises(UserError, match=r"exists; correct it, or write a new one in its place with --force"):
        describe_directory(tmp_path)
    assert (tmp_path / "dataset.toml").read_text() == "mine"


@pytest.mark.parametrize(
    ("make", "wishes", "words"),
    [
        (lambda root: None, {}, "there are no pictures under"),
        (lambda root: save(root / "a.jpg"), {}, "no masks go with the pictures under"),
        (lambda root: save(root / "a.jpg"), {"masks": ("m/*.png",)}, "goes with one that fits m/*.png"),
        (lambda root: fill(root, "images/{}.jpg", "masks/{}.png", VALUES * 0), {}, "hold one class only"),
        (lambda root: fill(root, "images/{}.jpg", "masks/{}.png"), {"classes": "a"}, "1 classes were named"),
        (lambda root: fill(root, "images/{}.jpg", "masks/{}.png"), {"classes": "a,,b"}, "give different names"),
        (lambda root: fill(root, "images/{}.jpg", "masks/{}.png"), {"classes": "no.txt"}, "no class set 'no.txt'"),
        (lambda root: fill(root, "images/{}.jpg", "masks/{}.jpg"), {}, "no mask can be read"),
        (
            lambda root: fill(root, "images/{}.jpg", "masks/{}.png", RNG.integers(0, 256, (64, 64, 3), np.uint8)),
            {},
            "are they smoothed",
        ),
    ],
)
def test_what_cannot_be_described(tmp_path: Path, make, wishes, words):
    make(tmp_path)
    with pytest.raises(UserError, match=words.replace("*", r"\*")):
        describe_directory(tmp_path, Wishes(**wishes))
    assert not (tmp_path / "dataset.toml").exists()
