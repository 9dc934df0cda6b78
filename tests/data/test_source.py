"""Data sets by name and by layout."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from enet_tvm.data.camvid import CamVid
from enet_tvm.data.cityscapes import Cityscapes
from enet_tvm.data.classes import CAMVID
from enet_tvm.data.source import DATA_SETS, LabelledStreet, WithDrawn, at_paper_size, find_data_set, open_samples
from enet_tvm.data.sunrgbd import SunRgbd
from enet_tvm.errors import UserError
from enet_tvm.size import Size


def test_synthetic_splits_differ():
    train, val = (open_samples("synthetic", split, Size(96, 64)) for split in ("train", "val"))
    assert train.class_set is CAMVID
    assert len(train) > len(val) > 0
    assert train[0][1].shape == (64, 96)
    assert not np.array_equal(train[0][1], val[0][1])


def test_no_such_synthetic_split():
    with pytest.raises(UserError, match="no split 'holdout'"):
        open_samples("synthetic", "holdout")


def test_drawn_streets_follow_the_pictures_in_their_size():
    pictures = LabelledStreet(Size(96, 64), 3, seed=7)
    joined = WithDrawn(pictures, 2)
    assert len(joined) == len(list(joined)) == 5
    assert np.array_equal(joined[2][0], pictures[2][0])
    drawn = open_samples("synthetic", "train", Size(96, 64))
    for place, (picture, labels) in enumerate(list(joined)[3:]):
        assert np.array_equal(picture, drawn[place][0])
        assert np.array_equal(labels, drawn[place][1])
        assert np.array_equal(joined[3 + place][1], labels)


def test_no_drawn_streets_among_other_classes():
    class Other(LabelledStreet):
        class_set = Cityscapes.class_set

    with pytest.raises(UserError, match="drawn_streets to 0"):
        WithDrawn(Other(Size(32, 32), 1), 1)


def test_missing_directory(tmp_path):
    with pytest.raises(UserError, match="no data set directory"):
        open_samples(str(tmp_path / "nowhere"), "train")


@pytest.mark.parametrize(
    ("folders", "kind"),
    [
        (("train", "trainannot"), CamVid),
        (("leftImg8bit/val",), Cityscapes),
        (("gtFine",), Cityscapes),
        (("SUNRGBD-test_images",), SunRgbd),
        (("train", "test", "labels/train"), SunRgbd),
        (("sunrgbd_train_test_labels",), SunRgbd),
    ],
)
def test_the_layout_says_what_it_is(tmp_path, folders, kind):
    root = tmp_path / "data"
    for folder in folders:
        (root / folder).mkdir(parents=True)
    assert find_data_set(root) is kind
    for name, other in DATA_SETS.items():
        assert find_data_set(root, name) is other
    with pytest.raises(UserError, match=r"but .*data looks like one"):
        find_data_set(tmp_path)


def test_camvid_by_its_list_alone(tmp_path):
    (tmp_path / "val.txt").write_text("")
    assert find_data_set(tmp_path) is CamVid


def test_a_directory_of_something_else(tmp_path):
    (tmp_path / "train").mkdir()
    with pytest.raises(UserError, match=r"cannot read .* as a data set.*leftImg8bit/ and gtFine/ \(cityscapes\)"):
        open_samples(str(tmp_path), "train")


def test_no_such_data_set(tmp_path):
    with pytest.raises(UserError, match=r"no data set 'kitti'; give one of camvid, cityscapes, sunrgbd"):
        open_samples(str(tmp_path), "train", dataset="kitti")


def test_paper_size(tmp_path):
    for folder, value in (("SUNRGBD-test_images", 200), ("sunrgbd_train_test_labels", 7)):
        (tmp_path / folder).mkdir()
        shape = (53, 73, 3) if value == 200 else (53, 73)
        Image.fromarray(np.full(shape, value, np.uint8)).save(tmp_path / folder / "img-000001.png")
    samples = at_paper_size(open_samples(str(tmp_path), "test"))
    (picture, labels) = next(iter(samples))
    assert len(samples) == 1
    assert samples.class_set.name == "sunrgbd"
    assert picture.size == (256, 200)
    assert labels.shape == (200, 256)
    assert set(np.unique(labels)) == {6}
    street = open_samples("synthetic", "val")
    assert at_paper_size(street) is street


def test_class_sets_do_without_torch():
    program = "import sys, enet_tvm.data.classes; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
