"""SUN RGB-D on small trees of the layouts in which it is found."""

import numpy as np
import pytest
from PIL import Image

from enet_tvm.data.classes import SUNRGBD
from enet_tvm.data.sunrgbd import SunRgbd
from enet_tvm.errors import UserError
from enet_tvm.size import MULTIPLE, Size


def write(folder, numbers, kind="jpg", prefix="img-"):
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        if kind == "jpg":
            Image.fromarray(np.full((3, 4, 3), number % 251, np.uint8)).save(folder / f"{prefix}{number:06d}.jpg")
        else:
            Image.fromarray(np.full((3, 4), number % 38, np.uint8)).save(folder / f"{prefix}{number:06d}.png")


LAYOUTS = {
    "as handed around": ("SUNRGBD-{}_images", "sunrgbd_train_test_labels", 0, 5050),
    "renamed pictures": ("SUNRGBD-{}_images", "sunrgbd_train_test_labels", 5050, 5050),
    "labels moved apart": ("{}", "labels/{}", 0, 5050),
    "all counted from one": ("image/{}", "label37/{}", 0, 0),
}


@pytest.fixture(params=LAYOUTS.values(), ids=LAYOUTS.keys())
def root(request, tmp_path):
    pictures, labels, picture_offset, label_offset = request.param
    write(tmp_path / pictures.format("test"), (1, 2))
    write(tmp_path / labels.format("test"), (1, 2), "png")
    train = (1, 2, 460)
    write(tmp_path / pictures.format("train"), [number + picture_offset for number in train])
    write(tmp_path / labels.format("train"), [number + label_offset for number in train], "png", "img37labels-")
    return tmp_path


def numbers(samples):
    return [tuple(int(path.stem[-6:]) % 5050 for path in pair) for pair in samples.pairs]


def test_pairs_by_number_in_every_layout(root):
    assert SunRgbd.recognises(root)
    assert numbers(SunRgbd(root, "test")) == [(1, 1), (2, 2)]
    assert numbers(SunRgbd(root, "trainval")) == [(1, 1), (2, 2), (460, 460)]
    assert numbers(SunRgbd(root, "train")) == [(1, 1), (2, 2)]
    assert numbers(SunRgbd(root, "val")) == [(460, 460)]
    picture, labels = SunRgbd(root, "train")[0]
    assert picture.mode == "RGB"
    assert labels.shape == (3, 4)


@pytest.mark.slow
def test_published_splits_are_apart_and_whole(tmp_path):
    (tmp_path / "SUNRGBD-train_images").mkdir()
    (tmp_path / "sunrgbd_train_test_labels").mkdir()
    for number in range(1, 5286):
        (tmp_path / "SUNRGBD-train_images" / f"img-{number:06d}.jpg").touch()
        (tmp_path / "sunrgbd_train_test_labels" / f"img-{number + 5050:06d}.png").touch()
    train, val, both = (set(SunRgbd.list_files(tmp_path, split).pairs) for split in ("train", "val", "trainval"))
    assert (len(train), len(val), len(both)) == (4785, 500, 5285)
    assert train | val == both
    assert not train & val


def test_labels_are_counted_from_one_and_zero_is_void(tmp_path):
    write(tmp_path / "SUNRGBD-test_images", (1,))
    write(tmp_path / "sunrgbd_train_test_labels", (1,), "png")
    path = tmp_path / "sunrgbd_train_test_labels" / "img-000001.png"
    Image.fromarray(np.array([[0, 1, 2, 37], [255, 0, 5, 37], [1, 1, 1, 1]], np.uint8)).save(path)
    labels = SunRgbd(tmp_path, "test")[0][1]
    assert labels.dtype == np.uint8
    assert labels.tolist() == [[255, 0, 1, 36], [255, 255, 4, 36], [0, 0, 0, 0]]
    assert [SUNRGBD.names[i] for i in (0, 4, 36)] == ["wall", "chair", "bag"]
    Image.fromarray(np.full((3, 4), 38, np.uint8)).save(path)
    with pytest.raises(UserError, match=r"holds label 38; labels must lie in 0\.\.37"):
        SunRgbd(tmp_path, "test")[0]


def test_the_class_set():
    assert len(SUNRGBD) == len(set(SUNRGBD.names)) == len(set(SUNRGBD.palette)) == 37
    assert (0, 0, 0) not in SUNRGBD.palette
    assert SUNRGBD.palette[:3] == ((128, 0, 0), (0, 128, 0), (128, 128, 0))
    assert SUNRGBD.categories == SUNRGBD.instance_classes == ()
    assert SunRgbd.paper_size == Size(256, 200)
    assert all(side % MULTIPLE == 0 for side in SunRgbd.paper_size)


def test_missing_halves_are_all_named(root):
    pictures = sorted(root.rglob("*.jpg"))
    labels = sorted(root.rglob("*.png"))
    gone = next(path for path in pictures if "train" in str(path) and path.stem[-6:] in ("000001", "005051"))
    gone.unlink()
    lost = next(path for path in labels if "img37" in path.name and int(path.stem[-6:]) % 5050 == 2)
    lost.unlink()
    problems = SunRgbd.list_files(root, "train").problems
    assert len(problems) == 2
    assert "has no picture" in problems[0]
    assert "has no labels" in problems[1]
    with pytest.raises(UserError, match="1 more like it"):
        SunRgbd(root, "train")


@pytest.mark.parametrize(
    ("split", "words"),
    [("val", "no numbered picture of the split 'val'"), ("test", "SUNRGBD-test_images"), ("minitest", "no split 'minitest'")],
)
def test_splits_that_are_not_there(tmp_path, split, words):
    write(tmp_path / "SUNRGBD-train_images", (1,))
    write(tmp_path / "sunrgbd_train_test_labels", (5051,), "png")
    with pytest.raises(UserError, match=words):
        SunRgbd(tmp_path, split)


def test_labels_that_were_not_unpacked(tmp_path):
    write(tmp_path / "SUNRGBD-train_images", (1,))
    with pytest.raises(UserError, match="no folder sunrgbd_train_test_labels"):
        SunRgbd(tmp_path, "train")
