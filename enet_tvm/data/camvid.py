"""CamVid in the layout of the SegNet tutorial: pictures, label maps and a list of pairs per split."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import numpy as np

from enet_tvm.data.classes import CAMVID
from enet_tvm.data.folder import Listing, PairedFiles, largest_checked

_SPLITS = ("train", "val", "test")


class CamVid(PairedFiles):
    """One split of CamVid (Brostow, Fauqueur, Cipolla, 2009) in SegNet's 11-class layout.

    Under `root` lie ``SPLIT.txt``, whose lines hold the paths of a picture and of its labels, and the folders ``SPLIT/``
    and ``SPLITannot/``; of the listed paths only the file names count, because the published lists carry their author's
    own prefix. Labels are 0..10, and 11 is unlabelled. Pictures of 480x360 are what the paper used.
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
        try:
            lines = listing.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError):
            have = ", ".join(cls.splits(root)) or "none"
            return Listing((), (f"cannot read {listing}; give CamVid in SegNet's layout (splits found: {have})",))
        pairs, problems = [], []
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            fields = line.split()
            if len(fields) != 2:
                problems.append(
                    f"{listing}, line {number}: '{line.strip()}' is not two paths; put a picture and its labels on it"
                )
                continue
            picture = root / split / PurePosixPath(fields[0]).name
            labels = root / f"{split}annot" / PurePosixPath(fields[1]).name
            missing = [path for path in (picture, labels) if not path.is_file()]
            problems += [f"{listing}, line {number}: {path} is missing; restore the file or drop the line" for path in missing]
            if not missing:
                pairs.append((picture, labels))
        if not pairs and not problems:
            problems.append(f"{listing} lists no pictures; restore the list of the data set")
        return Listing(tuple(pairs), tuple(problems))

    @classmethod
    def to_classes(cls, stored: np.ndarray, path: Path) -> np.ndarray:
        """Return the labels, which are stored as classes."""
        return largest_checked(stored, cls.class_set.ignore_index, path)
