"""Annotations of every tool in a directory become a data set."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from enet_tvm.data.check import check_data_set
from enet_tvm.data.dataset_file import read_dataset_file
from enet_tvm.data.describing import Wishes, describe_directory
from enet_tvm.data.source import open_samples
from enet_tvm.errors import UserError

BOX = [[2, 2], [9, 2], [9, 9], [2, 9]]


def picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (24, 16)).save(path)


def coco(path, names, first=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    images = [{"id": i, "file_name": name, "width": 24, "height": 16} for i, name in enumerate(names)]
    outlines = [
        {"image_id": i, "category_id": 1, "segmentation": [[x for point in BOX for x in point]]}
        for i in range(first, len(names))
    ]
    path.write_text(json.dumps({"images": images, "annotations": outlines, "categories": [{"id": 1, "name": "apple"}]}))


def labelme(path, label="apple"):
    shapes = [{"label": label, "points": BOX, "shape_type": "polygon"}]
    path.write_text(json.dumps({"shapes": shapes, "imagePath": f"{path.stem}.jpg", "imageWidth": 24, "imageHeight": 16}))


def described(root, **wishes):
    said = describe_directory(root, Wishes(**wishes), force=True)
    assert check_data_set(root).problems == ()
    return read_dataset_file(root / "dataset.toml"), "\n".join(said)


def test_coco(tmp_path):
    pytest.importorskip("pycocotools")
    for number in range(4):
        picture(tmp_path / "images" / f"ein Bild {number}.jpg")
    coco(tmp_path / "annotations" / "instances_default.json", [f"ein Bild {number}.jpg" for number in range(4)], first=1)
    file, said = described(tmp_path)
    assert [entry.name for entry in file.classes] == ["background", "apple"]
    assert "annotations of COCO: 4 masks were drawn into drawn_masks/" in said
    assert "1 pictures have no region" in said
    assert "pixels outside of every region are 'background'" in said
    labels = [labels for split in ("train", "val") for _, labels in open_samples(str(tmp_path), split)]
    assert sum(int(mask.sum()) for mask in labels) == 3 * 49
    coco(tmp_path / "annotations" / "instances_default.json", [f"ein Bild {number}.jpg" for number in range(4)])
    file, _ = described(tmp_path, outside="void", classes="apple,leaf")
    assert [entry.name for entry in file.classes] == ["apple", "leaf"]
    assert sum(int((mask == 0).sum()) for split in ("train", "val") for _, mask in open_samples(str(tmp_path), split)) == 4 * 49


def test_coco_with_a_file_for_each_split(tmp_path):
    """Both have a picture 0.jpg."""
    pytest.importorskip("pycocotools")
    for split in ("train", "val"):
        picture(tmp_path / split / "0.jpg")
        coco(tmp_path / "annotations" / f"instances_{split}.json", ["0.jpg"])
    described(tmp_path)
    assert check_data_set(tmp_path).pictures == {"train": 1, "val": 1}


def test_labelme(tmp_path):
    for number in range(4):
        picture(tmp_path / f"{number}.jpg")
        labelme(tmp_path / f"{number}.json", "__ignore__" if number == 0 else "apple")
    file, said = described(tmp_path)
    assert [entry.name for entry in file.classes] == ["background", "apple"]
    assert "annotations of labelme: 4 masks" in said
    values = {int(v) for split in ("train", "val") for _, mask in open_samples(str(tmp_path), split) for v in np.unique(mask)}
    assert values == {0, 1, 255}


def test_cvat(tmp_path):
    pytest.importorskip("defusedxml")
    picture(tmp_path / "images" / "a.png")
    picture(tmp_path / "images" / "b.png")
    images = "".join(
        f'<image name="{n}.png" width="24" height="16"><box label="ä" xtl="1" ytl="1" xbr="5" ybr="5"/></image>' for n in "ab"
    )
    (tmp_path / "annotations.xml").write_text(f"<annotations>{images}</annotations>", encoding="utf-8")
    file, _ = described(tmp_path)
    assert [entry.name for entry in file.classes] == ["background", "ä"]


def test_pictures_that_are_missing_are_told(tmp_path):
    pytest.importorskip("pycocotools")
    picture(tmp_path / "0.jpg")
    picture(tmp_path / "1.jpg")
    coco(tmp_path / "a.json", ["0.jpg", "1.jpg", "2.jpg"])
    assert "1 annotated pictures are not there and were left out, such as 2.jpg" in described(tmp_path)[1]


@pytest.mark.parametrize(
    ("wishes", "words"),
    [
        ({"classes": "leaf,stone"}, "have the class 'apple', which was not named"),
        ({"annotations": ("other.json",)}, "is no annotation file"),
        ({"annotations": ("none.json",)}, "none.json"),
    ],
)
def test_what_does_not_fit(tmp_path, monkeypatch, wishes, words):
    monkeypatch.chdir(tmp_path)
    picture(tmp_path / "0.jpg")
    labelme(tmp_path / "0.json")
    (tmp_path / "other.json").write_text("{}")
    wishes = wishes | ({"annotations": tuple(map(Path, wishes["annotations"]))} if "annotations" in wishes else {})
    with pytest.raises(UserError, match=words):
        describe_directory(tmp_path, Wishes(**wishes))
    assert not (tmp_path / "dataset.toml").exists()
    assert not (tmp_path / "drawn_masks").exists()
