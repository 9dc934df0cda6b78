"""CamVid in the layout of the SegNet tutorial: pictures, label maps and a list of pairs per split."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import numpy as np

from enet_tvm.data.classes import CAMVID
from enet_tvm.data.folder import Listing, PairedFiles
from enet_tvm.data.lists import read_pairs
from enet_tvm.data.masks import VOID, as_labels
from enet_tvm.errors import UserError

_SPLITS = ("train", "val", "test")


class CamVid(PairedFiles):
    """One split of CamVid (Brostow, Fauqueur, Cipolla, 2009) in SegNet's 11-class layout.

    Under `root` lie ``SPLIT.txt``, whose lines hold the paths of a picture and of its labels, and the folders ``SPLIT/``
    and ``SPLITannot/``; of the listed paths only the file names count, because the published lists carry their author's
    own prefix. Labels are 0..10; 11 and 255 are unlabelled. Pictures of 480x360 are what the paper used.
    """

    class_set = CAMVID
    layout = "train.txt, train/ and trainannot/"

    @classmethod
    def recognises(cls, root: Path) -> bool:
        """Return whether there is a list or a folder of labels."""
        return any((root / f"{split}.txt").is_file() or (root / f"{split}annot").is_dir() for split in _SPLITS)

    @classmethod
    def splits(cls, root: Path) -> tuple[str, ...]:
        """Return the splits that have a list."""
        return tuple(split for split in _SPLITS if (root / f"{split}.txt").is_file())

    @classmethod
    def list_files(cls, root: Path, split: str) -> Listing:
        """Return the pairs in the order of the list."""
        listing = root / f"{split}.txt"
        if not listing.is_file():
            have = ", ".join(cls.splits(root)) or "none"
            return Listing((), (f"there is no {listing}; give CamVid in SegNet's layout (splits found: {have})",))
        pictures, labels = root / split, root / f"{split}annot"
        try:
            return read_pairs(
                listing, lambda path: pictures / PurePosixPath(path).name, lambda path: labels / PurePosixPath(path).name
            )
        except UserError as error:
            return Listing((), (str(error),))

    @classmethod
    def to_classes(cls, stored: np.ndarray, path: Path) -> np.ndarray:
        """Return the labels, which are stored as classes; 255 is void too."""
        void = cls.class_set.ignore_index
        labels = as_labels(stored, path, void, VOID)
        return np.where(labels == VOID, np.uint8(void), labels)
