"""Every kind of damage is found, all of it, and a whole data set passes."""

import numpy as np
import pytest
from PIL import Image

from enet_tvm.data.check import check_data_set, require_sound
from enet_tvm.errors import UserError


@pytest.fixture
def root(tmp_path):
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for folder in (split, f"{split}annot"):
            (tmp_path / folder).mkdir()
        for i in range(4):
            Image.fromarray(rng.integers(0, 256, (16, 24, 3), np.uint8)).save(tmp_path / split / f"{i}.png")
            Image.fromarray(rng.integers(0, 12, (16, 24), np.uint8)).save(tmp_path / f"{split}annot" / f"{i}.png")
        (tmp_path / f"{split}.txt").write_text("".join(f"{split}/{i}.png {split}annot/{i}.png\n" for i in range(4)))
    return tmp_path


def test_a_whole_data_set(root):
    report = check_data_set(root)
    assert report.dataset == "camvid"
    assert report.pictures == {"train": 4, "val": 4}
    assert report.problems == ()
    require_sound(root)
    require_sound("synthetic")


def test_all_problems_are_found(root):
    (root / "train" / "0.png").unlink()
    (root / "trainannot" / "0.png").unlink()
    (root / "train" / "1.png").write_text("no picture")
    (root / "trainannot" / "1.png").write_text("no picture either")
    Image.fromarray(np.full((16, 24), 99, np.uint8)).save(root / "trainannot" / "2.png")
    Image.fromarray(np.zeros((8, 24), np.uint8)).save(root / "trainannot" / "3.png")
    Image.fromarray(np.tile(np.uint8([1, 2, 3]), (16, 24, 1))).save(root / "valannot" / "0.png")
    pixels = (root / "val" / "1.png").read_bytes()
    (root / "val" / "1.png").write_bytes(pixels[: len(pixels) // 2])
    problems = check_data_set(root).problems
    expected = [
        ("train/0.png", "is missing"),
        ("trainannot/0.png", "is missing"),
        ("train/1.png", "not a picture of a known format"),
        ("trainannot/1.png", "not a picture of a known format"),
        ("trainannot/2.png", "holds label 99"),
        ("train/3.png", "are 24x8; do they belong together?"),
        ("valannot/0.png", "not a map of one label"),
        ("val/1.png", "cannot be read as a picture"),
    ]
    assert len(problems) == len(expected), problems
    for problem, (file, words) in zip(problems, expected, strict=True):
        assert file in problem
        assert words in problem


def test_the_quick_form_reads_headers_only(root):
    Image.fromarray(np.full((16, 24), 99, np.uint8)).save(root / "trainannot" / "2.png")
    require_sound(root)
    Image.fromarray(np.zeros((8, 24), np.uint8)).save(root / "trainannot" / "3.png")
    with pytest.raises(UserError, match="24x8") as caught:
        require_sound(root)
    assert "more like it" not in str(caught.value)
    (root / "val.txt").unlink()
    with pytest.raises(UserError, match=r"24x8.*\(1 more like it: 'enet-tvm data check --data"):
        require_sound(root)


def test_a_split_without_labels(root):
    for path in (root / "valannot").iterdir():
        Image.fromarray(np.full((16, 24), 11, np.uint8)).save(path)
    (problem,) = check_data_set(root).problems
    assert "'val'" in problem
    assert "no labelled pixel" in problem


def test_only_one_split(root):
    (root / "val.txt").unlink()
    assert check_data_set(root, ["train"]).problems == ()
    (problem,) = check_data_set(root).problems
    assert "val.txt" in problem


def test_progress_goes_through_every_pair(root):
    seen = []

    def track(pairs, split):
        for pair in pairs:
            seen.append((split, pair[0].name))
            yield pair

    check_data_set(root, track=track)
    assert seen == [(split, f"{i}.png") for split in ("train", "val") for i in range(4)]
