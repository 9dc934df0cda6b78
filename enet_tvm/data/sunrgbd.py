"""SUN RGB-D with 37 classes, in the layout in which its segmentation labels are handed around."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from enet_tvm.data.classes import SUNRGBD
from enet_tvm.data.folder import Listing, PairedFiles
from enet_tvm.data.masks import as_labels
from enet_tvm.size import Size

TEST_COUNT = 5050
"""Number of test pictures: 1..5050 of the data set are for testing, 5051..10335 for training."""
_BLOCK, _PERIOD = 50, 10
_SPLITS = ("train", "val", "trainval", "test")
_PICTURE_FOLDERS = ("SUNRGBD-{part}_images", "image/{part}", "rgb/{part}", "{part}")
_SHARED_LABELS = "sunrgbd_train_test_labels"
_LABEL_FOLDERS = (_SHARED_LABELS, "labels/{part}", "label37/{part}")


class SunRgbd(PairedFiles):
    """One split of the 2D labels of SUN RGB-D (Song, Lichtenberg, Xiao, 2015), 37 classes.

    Pictures and labels are paired by the number that ends their names, and a number over 5050 counts through the whole
    data set: training picture 1 is picture 5051. Pictures (.jpg or .png) lie in ``SUNRGBD-train_images/`` and
    ``SUNRGBD-test_images/``, or in ``train/`` and ``test/``, bare or under ``image/`` or ``rgb/``. Labels lie all in
    ``sunrgbd_train_test_labels/`` as ``img-000001.png`` to ``img-010335.png``, or in ``labels/train/`` and
    ``labels/test/`` or the same under ``label37/``. They are 1..37, and 0 is void (so is 255, which some copies hold).

    The splits are ``test`` (5050 pictures), ``trainval`` (5285, what the paper trained on), and two parts of the latter,
    because the data set has no validation split: ``val`` is every tenth run of 50 pictures (500 in all; runs, because
    neighbours are often frames of one video) and ``train`` the others (4785).
    """

    class_set = SUNRGBD
    layout = "SUNRGBD-train_images/, SUNRGBD-test_images/ and sunrgbd_train_test_labels/"
    paper_size = Size(256, 200)

    @classmethod
    def recognises(cls, root: Path) -> bool:
        """Return whether any of the folders of this layout is there."""
        telling = [name for name in (*_PICTURE_FOLDERS, *_LABEL_FOLDERS) if name != "{part}"]
        return any((root / name.format(part=part)).is_dir() for name in telling for part in ("train", "test"))

    @classmethod
    def splits(cls, root: Path) -> tuple[str, ...]:
        """Return the splits whose pictures are there."""
        return tuple(split for split in _SPLITS if _folder(root, _PICTURE_FOLDERS, _part(split)))

    @classmethod
    def list_files(cls, root: Path, split: str) -> Listing:
        """Return the pairs in the order of their numbers."""
        if split not in _SPLITS:
            return Listing((), (f"SUN RGB-D has no split '{split}'; give one of {', '.join(_SPLITS)}",))
        part = _part(split)
        picture_folder, label_folder = _folder(root, _PICTURE_FOLDERS, part), _folder(root, _LABEL_FOLDERS, part)
        problems = []
        if not picture_folder:
            problems.append(f"{root} has no folder SUNRGBD-{part}_images/ or {part}/; unpack the pictures there")
        if not label_folder:
            problems.append(f"{root} has no folder {_SHARED_LABELS}/ or labels/{part}/; unpack the labels there")
        if not picture_folder or not label_folder:
            return Listing((), tuple(problems))

        pictures = _numbered(picture_folder, (".jpg", ".jpeg", ".png"), part)
        labels = _numbered(label_folder, (".png",), part, shared=label_folder.name == _SHARED_LABELS)
        wanted = {number for number in pictures | labels if _in_split(number, split)}
        for number in sorted(wanted - pictures.keys()):
            problems.append(
                f"{labels[number]} has no picture in {picture_folder}; put picture {number} there or drop its labels"
            )
        for number in sorted(wanted - labels.keys()):
            problems.append(f"{pictures[number]} has no labels in {label_folder}; put img-{number:06d}.png there or drop it")
        pairs = tuple((pictures[number], labels[number]) for number in sorted(wanted & pictures.keys() & labels.keys()))
        if not wanted:
            problems.append(f"{picture_folder} holds no numbered picture of the split '{split}'; unpack the pictures there")
        return Listing(pairs, tuple(problems))

    @classmethod
    def to_classes(cls, stored: np.ndarray, path: Path) -> np.ndarray:
        """Return the classes of labels counted from one."""
        void = cls.class_set.ignore_index
        labels = as_labels(stored, path, len(cls.class_set), void)
        return np.where((labels == 0) | (labels == void), np.uint8(void), labels - np.uint8(1))


def _part(split: str) -> str:
    return "test" if split == "test" else "train"


def _folder(root: Path, names: tuple[str, ...], part: str) -> Path | None:
    return next((folder for name in names if (folder := root / name.format(part=part)).is_dir()), None)


def _numbered(folder: Path, suffixes: tuple[str, ...], part: str, *, shared: bool = False) -> dict[int, Path]:
    """Return the files of a part by their number in the whole data set."""
    files = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in suffixes and (match := re.search(r"(\d+)$", path.stem)):
            files[int(match[1])] = path
    if shared:
        return {number: path for number, path in files.items() if (number > TEST_COUNT) == (part == "train")}
    # A folder of training files alone may count from 1, or go on after the test files.
    offset = TEST_COUNT if part == "train" and files and min(files) <= TEST_COUNT else 0
    return {number + offset: path for number, path in files.items()}


def _in_split(number: int, split: str) -> bool:
    if split in ("test", "trainval"):
        return True
    held_out = (number - TEST_COUNT - 1) // _BLOCK % _PERIOD == _PERIOD - 1
    return held_out == (split == "val")
