"""CamVid in SegNet's layout: what is read, and what is refused."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from enet_tvm.data.camvid import CamVid
from enet_tvm.data.classes import CAMVID, ClassSet
from enet_tvm.errors import UserError

REAL = Path(os.environ.get("ENET_TVM_CAMVID", Path(__file__).resolve().parents[3] / "shared" / "camvid"))


@pytest.fixture
def root(tmp_path):
    rng = np.random.default_rng(0)
    for folder in ("train", "trainannot"):
        (tmp_path / folder).mkdir()
    for name in ("a", "b"):
        Image.fromarray(rng.integers(0, 256, (16, 24, 3), np.uint8)).save(tmp_path / "train" / f"{name}.png")
        Image.fromarray(rng.integers(0, 12, (16, 24), np.uint8)).save(tmp_path / "trainannot" / f"{name}.png")
    lines = [f"/SegNet/CamVid/train/{name}.png /SegNet/CamVid/trainannot/{name}.png" for name in ("b", "a")]
    (tmp_path / "train.txt").write_text("\n".join(lines) + "\n\n")
    return tmp_path


def test_pairs_come_in_the_order_of_the_list_whatever_prefix_it_has(root):
    samples = CamVid(root, "train")
    assert len(samples) == len(list(samples)) == 2
    picture, labels = samples[0]
    assert picture.mode == "RGB"
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(np.asarray(picture), np.asarray(Image.open(root / "train" / "b.png")))
    np.testing.assert_array_equal(labels, np.asarray(Image.open(root / "trainannot" / "b.png")))


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:60])


def _save(path: Path, pixels: np.ndarray) -> None:
    Image.fromarray(pixels).save(path)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: (root / "train.txt").unlink(), "train.txt"),
        (lambda root: (root / "train.txt").write_text("\n"), "lists no pictures"),
        (lambda root: (root / "train.txt").write_text("a.png\n"), "line 1: 'a.png' is not two paths"),
        (lambda root: (root / "train.txt").write_bytes(b"\xff\xfe\x80"), "train.txt"),
        (lambda root: (root / "train" / "a.png").unlink(), "line 2"),
        (lambda root: (root / "trainannot" / "a.png").unlink(), "trainannot/a.png is missing"),
        (lambda root: _truncate(root / "train" / "a.png"), "train/a.png cannot be read as a picture"),
        (lambda root: (root / "trainannot" / "a.png").write_text("no picture"), "a.png is not a picture of a known format"),
        (lambda root: _save(root / "trainannot" / "a.png", np.full((16, 24), 12, np.uint8)), "holds label 12"),
        (
            lambda root: _save(root / "trainannot" / "a.png", np.zeros((16, 16), np.uint8)),
            r"a\.png is 24x16 but its labels .* are 16x16",
        ),
        (lambda root: _save(root / "trainannot" / "a.png", np.tile(np.uint8([1, 2, 3]), (16, 24, 1))), "not a map of one"),
    ],
)
def test_broken_data_sets_are_refused_with_a_sentence(root, spoil, message):
    spoil(root)
    with pytest.raises(UserError, match=message):
        list(CamVid(root, "train"))


def test_missing_directory(tmp_path):
    with pytest.raises(UserError, match="no data set directory"):
        CamVid(tmp_path / "nowhere", "train")


def test_missing_split_names_those_that_are_there(root):
    with pytest.raises(UserError, match=r"val\.txt.*splits found: train"):
        CamVid(root, "val")


@pytest.mark.camvid
@pytest.mark.skipif(not REAL.is_dir(), reason="CamVid is not here; set ENET_TVM_CAMVID to its directory")
def test_the_published_splits():
    assert (len(CamVid(REAL, "train")), len(CamVid(REAL, "val"))) == (367, 101)
    picture, labels = CamVid(REAL, "val")[0]
    assert picture.size == (480, 360)
    assert labels.shape == (360, 480)
    assert set(np.unique(labels)) <= set(range(12))
    # The road is what lies in front of the car.
    assert CAMVID.names[np.bincount(labels[-60:, 160:320].ravel()).argmax()] == "road"


def test_class_sets_must_agree_with_themselves():
    assert len(CAMVID) == len(CAMVID.palette) == CAMVID.ignore_index == 11
    with pytest.raises(ValueError, match="1 names but 2 colours"):
        ClassSet("x", ("a",), ((0, 0, 0), (1, 1, 1)), 255)
    with pytest.raises(ValueError, match="ignored label 0"):
        ClassSet("x", ("a",), ((0, 0, 0),), 0)
