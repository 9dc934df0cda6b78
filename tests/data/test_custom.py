"""Data sets of one's own: which files belong to which split, what masks hold, and what is wrong with either."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from enet_tvm.data.check import check_data_set, require_sound
from enet_tvm.data.custom import deal_out
from enet_tvm.data.dataset_file import SplitEntries
from enet_tvm.data.source import at_paper_size, find_data_set, open_samples
from enet_tvm.errors import UserError

NUMBERS = """
void = 255
[[classes]]
name = "ground"
value = 0
[[classes]]
name = "apple"
value = [1, 300]
"""
COLOURS = """
mask_kind = "colours"
void = [[0, 0, 0]]
[[classes]]
name = "ground"
colour = [10, 20, 30]
[[classes]]
name = "apple"
colour = [255, 0, 0]
"""
SHARES = "[splits]\ntrain = 0.5\nval = 0.5\nblock = 1\n"


def describe(root: Path, classes: str = NUMBERS, splits: str = SHARES, head: str = "") -> Path:
    files = "" if "pictures" in head else 'pictures = "images/**/*.*"\nmasks = "masks/**/*.*"\n'
    (root / "dataset.toml").write_text(f'name = "orchard"\n{files}{head}\n{classes}\n{splits}', encoding="utf-8")
    return root


def add(root: Path, name: str, mask: np.ndarray | Image.Image | None = None, suffix: str = ".png", size=(24, 16)) -> Path:
    """Write a picture and its mask, by default of both classes."""
    picture = root / "images" / f"{name}{suffix}"
    picture.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(picture, format="JPEG" if suffix.lower() in (".jpg", ".jpeg") else "PNG")
    if mask is None:
        mask = np.arange(size[0] * size[1]).reshape(size[1], size[0]).astype(np.uint8) % 2
    target = root / "masks" / f"{name}.png"
    target.parent.mkdir(parents=True, exist_ok=True)
    (mask if isinstance(mask, Image.Image) else Image.fromarray(mask)).save(target)
    return picture


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for number in range(4):
        add(tmp_path, f"{number}")
    return describe(tmp_path)


def labels_of(root: Path, split: str = "train") -> np.ndarray:
    return open_samples(str(root), split)[0][1]


def test_a_whole_data_set(root: Path):
    report = check_data_set(root)
    assert report.dataset == "orchard"
    assert report.pictures == {"train": 2, "val": 2}
    assert report.problems == report.warnings == ()
    require_sound(root)
    samples = open_samples(str(root), "val")
    assert samples.class_set.names == ("ground", "apple")
    assert np.array_equal(np.unique(samples[0][1]), [0, 1])


def test_the_file_comes_before_a_layout_that_is_known(root: Path):
    (root / "train.txt").write_text("")
    assert find_data_set(root).class_set.name == "orchard"
    assert find_data_set(root, "camvid").class_set.name == "camvid"


def test_no_data_set_points_to_new(tmp_path: Path):
    with pytest.raises(UserError, match=r"write a dataset.toml first: enet-tvm data new"):
        find_data_set(tmp_path)


def test_numbers_of_eight_and_sixteen_bits_and_of_palettes(tmp_path: Path):
    describe(tmp_path, splits='[splits]\ntrain = "images/a/"\nval = "images/b/"')
    values = np.resize(np.uint16([0, 1, 255, 300]), (16, 24))
    add(tmp_path, "a/0", values)
    add(tmp_path, "b/0")
    expected = np.resize(np.uint8([0, 1, 255, 1]), (16, 24))
    assert np.array_equal(labels_of(tmp_path), expected)
    small = np.resize(np.uint8([0, 1, 255]), (16, 24))
    palette = Image.fromarray(small)
    palette.putpalette(bytes(range(256)) * 3)
    add(tmp_path, "a/0", palette)
    assert np.array_equal(labels_of(tmp_path), small)


def test_colours_in_every_form(tmp_path: Path):
    describe(tmp_path, COLOURS, '[splits]\ntrain = "images/a/"\nval = "images/b/"')
    colours = np.uint8([[10, 20, 30], [255, 0, 0], [0, 0, 0]])[np.resize([0, 1, 2], (16, 24))]
    expected = np.resize(np.uint8([0, 1, 255]), (16, 24))
    image = Image.fromarray(colours)
    for form in (image, image.convert("RGBA"), image.quantize(3)):
        add(tmp_path, "a/0", form)
        assert np.array_equal(labels_of(tmp_path), expected)


def test_values_that_no_class_has(root: Path):
    add(root, "0", np.full((16, 24), 7, np.uint8))
    problems = check_data_set(root).problems
    assert len(problems) == 1
    assert str(root / "masks" / "0.png") in problems[0]
    assert "holds 7 in 384 pixels, which no class has: dataset.toml knows 0..1 and 300, and 255 for void" in problems[0]


def test_colours_that_no_class_has(tmp_path: Path):
    describe(tmp_path, COLOURS)
    for number in range(2):
        add(tmp_path, f"{number}", np.tile(np.uint8([10, 20, 31]), (16, 24, 1)))
    problems = check_data_set(tmp_path).problems
    assert len(problems) == 2
    assert "0.png holds (10, 20, 31) in 384 pixels, which no class has" in problems[0]


def test_all_faults_are_found_with_their_files(root: Path):
    (root / "masks" / "0.png").unlink()
    add(root, "1", np.zeros((8, 24), np.uint8))
    (root / "images" / "2.png").write_bytes((root / "images" / "2.png").read_bytes()[:100])
    (root / "masks" / "3.png").write_text("nothing")
    Image.new("L", (24, 16)).save(root / "masks" / "lone.png")
    add(root, "twice")
    add(root, "twice", suffix=".jpg")
    report = check_data_set(root)
    found = {
        "images/0.png has no mask": 1,
        "images/1.png is 24x16 but its labels": 1,
        "images/2.png": 1,
        "masks/3.png is not a picture of a known format": 1,
        "masks/lone.png has no picture": 1,
        "images/twice.jpg and images/twice.png go by the same name": 1,
    }
    for words, count in found.items():
        assert sum(words in problem for problem in report.problems) == count, (words, report.problems)
    assert len(report.problems) == len(found)
    with pytest.raises(UserError, match=r"more like it: 'enet-tvm data check"):
        require_sound(root)


def test_names_as_people_have_them(tmp_path: Path):
    for name, suffix in (("ein Apfel", ".JPG"), ("яблоко", ".Jpeg"), ("りんご [1]", ".PNG"), ("a.b.c", ".png")):
        add(tmp_path, name, suffix=suffix)
    describe(tmp_path)
    report = check_data_set(tmp_path)
    assert report.problems == ()
    assert sum(report.pictures.values()) == 4


def test_a_picture_that_exif_turns(root: Path):
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(root / "images" / "0.png") as image:
        image.save(root / "images" / "0.png", exif=exif)
    report = check_data_set(root)
    assert any("images/0.png is 16x24, turned as its EXIF data say, but its labels" in problem for problem in report.problems)
    assert any("0.png is turned upright by its EXIF data" in warning for warning in report.warnings)


def test_what_is_left_out_is_named(root: Path):
    (root / "images" / "a.heic").write_bytes(b"x")
    describe(root, head='pictures = "images/*.png"\nmasks = "masks/*.png"')
    add(root, "4", suffix=".jpg")
    (root / "masks" / "4.png").unlink()
    warnings = check_data_set(root).warnings
    assert any("a.heic is of a format that is not read" in warning for warning in warnings)
    assert any("4.jpg fits no pattern" in warning for warning in warnings)
    assert len(warnings) == 2


def test_splits_by_lists(root: Path):
    (root / "train.txt").write_text("images/0.png\n1\n", encoding="utf-8")
    (root / "val.txt").write_text("./images/2.png masks/2.png\r\n3.png\r\n")
    describe(root, splits='[splits]\ntrain = "train.txt"\nval = "val.txt"')
    report = check_data_set(root)
    assert report.pictures == {"train": 2, "val": 2}
    assert report.problems == report.warnings == ()
    (root / "val.txt").write_text("images/1.png\nimages/9.png\n")
    report = check_data_set(root)
    assert any("1.png is in both splits 'train' and 'val'" in problem for problem in report.problems)
    assert any("val.txt, line 2: 'images/9.png' is no picture of the data set" in problem for problem in report.problems)
    assert any("2 pictures are in no split" in warning for warning in report.warnings)


def test_splits_by_folders_and_the_rest_by_shares(tmp_path: Path):
    for name in ("day/0", "day/1", "night/0", "test/0"):
        add(tmp_path, name)
    describe(tmp_path, splits='[splits]\ntrain = 0.7\nval = 0.3\nblock = 1\ntest = ["images/test/"]')
    report = check_data_set(tmp_path)
    assert report.pictures == {"train": 2, "val": 1, "test": 1}
    assert report.problems == ()


def test_a_split_without_pictures(root: Path):
    describe(root, splits='[splits]\ntrain = 0.9\nval = 0.1\nblock = 10\ntest = "images/none/"')
    problems = check_data_set(root).problems
    assert any("no pictures; there are too few blocks of 10" in problem for problem in problems)
    assert any("there is no list" in problem and "none" in problem for problem in problems)
    with pytest.raises(UserError, match="has no split 'test'; it has train, val"):
        open_samples(str(describe(root)), "test")


def test_the_size_of_the_file(root: Path):
    describe(root, head='size = "16x8"')
    assert at_paper_size(open_samples(str(root), "train"))[0][1].shape == (8, 16)


def test_files_elsewhere(root: Path, tmp_path_factory: pytest.TempPathFactory):
    other = tmp_path_factory.mktemp("other")
    describe(other, head=f"root = {str(root)!r}")
    assert check_data_set(other).problems == ()
    describe(other, head="root = 'nowhere'")
    with pytest.raises(UserError, match="'root' = 'nowhere', and there is no folder"):
        check_data_set(other)


@given(
    st.lists(st.integers(0, 2), max_size=60),
    st.floats(0.05, 0.9),
    st.integers(1, 7),
    st.integers(0, 3),
)
def test_shares_deal_out_whole_blocks(folders: list[int], share: float, block: int, seed: int):
    """Every picture goes to one split, blocks stay together, and both get something where there are two blocks."""
    pictures = [f"{folder}/{number:03}.png" for number, folder in enumerate(sorted(folders))]
    splits = SplitEntries(train=1 - share, val=share, block=block, seed=seed)
    dealt = deal_out(pictures, splits)
    assert sorted(dealt["train"] + dealt["val"]) == pictures
    assert dealt == deal_out(pictures, splits)
    assert dealt["train"] == sorted(dealt["train"])
    blocks = []
    for folder in sorted(set(folders)):
        inside = [path for path in pictures if path.startswith(f"{folder}/")]
        blocks += [set(inside[at : at + block]) for at in range(0, len(inside), block)]
    assert all(part <= set(dealt["train"]) or part <= set(dealt["val"]) for part in blocks)
    if len(blocks) > 1:
        assert dealt["train"]
        assert dealt["val"]
    assert abs(len(dealt["val"]) - share * len(pictures)) <= block


def test_shares_that_leave_some_over():
    dealt = deal_out([f"{number:03}" for number in range(100)], SplitEntries(train=0.5, val=0.2, block=1))
    assert (len(dealt["train"]), len(dealt["val"])) == (50, 20)
