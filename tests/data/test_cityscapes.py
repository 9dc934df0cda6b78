"""Cityscapes on a small tree of its own layout."""

import numpy as np
import pytest
from PIL import Image

from enet_tvm.data.cityscapes import LABEL_IDS, Cityscapes
from enet_tvm.data.classes import CITYSCAPES
from enet_tvm.errors import UserError
from enet_tvm.size import Size

NAMES = ("aachen/aachen_000000_000019", "bochum/bochum_000000_000313")


def write(root, split, name, ids, instances=None):
    picture = root / "leftImg8bit" / split / f"{name}_leftImg8bit.png"
    labels = root / "gtFine" / split / f"{name}_gtFine_labelIds.png"
    for path in (picture, labels):
        path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(len(name))
    Image.fromarray(rng.integers(0, 256, (*ids.shape, 3), np.uint8)).save(picture)
    Image.fromarray(ids.astype(np.uint8)).save(labels)
    if instances is not None:
        Image.fromarray(instances.astype(np.uint16)).save(labels.with_name(f"{labels.name[:-12]}instanceIds.png"))


@pytest.fixture
def root(tmp_path):
    ids = np.arange(34).reshape(2, 17)
    for name in reversed(NAMES):
        write(tmp_path, "train", name, ids, np.where(ids >= 24, ids * 1000 + 3, ids))
    return tmp_path


def test_label_ids_become_the_19_classes_and_the_rest_is_void(root):
    samples = Cityscapes(root, "train")
    assert len(samples) == 2
    assert [picture.parent.name for picture, _ in samples.pairs] == ["aachen", "bochum"]
    picture, labels = samples[0]
    assert picture.mode == "RGB"
    assert picture.size == (17, 2)
    assert labels.dtype == np.uint8
    flat = labels.ravel()
    assert {int(id_): CITYSCAPES.names[flat[id_]] for id_ in np.flatnonzero(flat != 255)} == {
        **{7: "road", 8: "sidewalk", 11: "building", 12: "wall", 13: "fence", 17: "pole", 19: "traffic light"},
        **{20: "traffic sign", 21: "vegetation", 22: "terrain", 23: "sky", 24: "person", 25: "rider", 26: "car"},
        **{27: "truck", 28: "bus", 31: "train", 32: "motorcycle", 33: "bicycle"},
    }
    assert (flat == 255).sum() == 34 - 19


def test_the_class_set():
    assert len(CITYSCAPES) == len(LABEL_IDS) == len(set(CITYSCAPES.palette)) == 19
    assert CITYSCAPES.category_names == ("flat", "construction", "object", "nature", "sky", "human", "vehicle")
    assert CITYSCAPES.instance_classes == ("person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle")
    assert CITYSCAPES.instance_shares[CITYSCAPES.names.index("car")] * 2048 * 1024 == pytest.approx(12794.0202738185)
    assert Cityscapes.paper_size == Size(1024, 512)


def test_instances_by_class(root):
    ids = np.array([[26, 26, 26, 24], [26, 29, 7, 0]])
    raw = np.array([[26000, 26001, 26, 24012], [26001, 29000, 7, 0]])
    write(root, "val", NAMES[0], ids, raw)
    car, person = CITYSCAPES.names.index("car"), CITYSCAPES.names.index("person")
    # A group (plain 26), a caravan (29, which is no class), road and void belong to no instance.
    expected = [[car * 1000, car * 1000 + 1, -1, person * 1000 + 12], [car * 1000 + 1, -1, -1, -1]]
    np.testing.assert_array_equal(Cityscapes(root, "val").instances(0), expected)


def test_without_instances(tmp_path):
    write(tmp_path, "train", NAMES[0], np.full((2, 3), 7))
    assert Cityscapes(tmp_path, "train").instances(0) is None


def path_of(root, folder, name, suffix):
    return root / folder / "train" / f"{name}_{suffix}.png"


def test_missing_files_are_all_named(root):
    path_of(root, "leftImg8bit", NAMES[0], "leftImg8bit").unlink()
    path_of(root, "gtFine", NAMES[1], "gtFine_labelIds").unlink()
    write(root, "train", "ulm/ulm_000001_000019", np.full((2, 3), 7))
    listing = Cityscapes.list_files(root, "train")
    assert len(listing.pairs) == 1
    assert len(listing.problems) == 3
    said = "\n".join(listing.problems)
    for name in (
        f"{NAMES[0]}_leftImg8bit.png is missing",
        f"{NAMES[1]}_gtFine_labelIds.png is missing",
        "ulm_000001_000019_gtFine_instanceIds.png is missing",
    ):
        assert name in said
    with pytest.raises(UserError, match=r"is missing.*2 more like it.*data check"):
        Cityscapes(root, "train")


@pytest.mark.parametrize("folder", ["leftImg8bit", "gtFine"])
def test_half_of_the_data_set(root, folder):
    (root / folder).rename(root / "elsewhere")
    with pytest.raises(UserError, match=rf"no folder .*{folder}/train"):
        Cityscapes(root, "train")


def test_a_split_that_is_not_there(root):
    with pytest.raises(UserError, match=r"split 'val'.*splits found: train"):
        Cityscapes(root, "val")


def test_empty_folders(tmp_path):
    for folder in ("leftImg8bit", "gtFine"):
        (tmp_path / folder / "train").mkdir(parents=True)
    with pytest.raises(UserError, match="holds no CITY"):
        Cityscapes(tmp_path, "train")


def test_labels_out_of_range(root):
    write(root, "train", NAMES[0], np.full((2, 3), 34), np.zeros((2, 3)))
    with pytest.raises(UserError, match=r"holds label 34; labels must lie in 0\.\.33"):
        Cityscapes(root, "train")[0]


@pytest.mark.parametrize(
    ("raw", "words"), [(np.full((2, 3), 7), "differ in size"), (np.full((2, 17), 35000), "holds label 35")]
)
def test_wrong_instances(root, raw, words):
    write(root, "train", NAMES[0], np.full((2, 17), 26), raw)
    samples = Cityscapes(root, "train")
    with pytest.raises(UserError, match=words):
        samples.instances(0)
    assert [words in problem for problem in Cityscapes.problems(*samples.pairs[0])] == [True]
