"""Cityscapes as it is downloaded: `leftImg8bit/` and `gtFine/` by split and city."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from enet_tvm.data.classes import CITYSCAPES, INSTANCE_STEP
from enet_tvm.data.folder import Listing, PairedFiles
from enet_tvm.data.masks import as_labels, read_mask, read_mask_header
from enet_tvm.errors import UserError
from enet_tvm.size import Size

LABEL_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
"""Label id of each of the 19 classes in the label files."""
_LARGEST_ID = 33
_SPLITS = ("train", "val", "test")
_PICTURE, _LABELS, _INSTANCES = "_leftImg8bit.png", "_gtFine_labelIds.png", "_gtFine_instanceIds.png"


def _table() -> np.ndarray:
    table = np.full(256, CITYSCAPES.ignore_index, np.uint8)
    table[list(LABEL_IDS)] = np.arange(len(LABEL_IDS))
    return table


_CLASS_OF_ID = _table()


class Cityscapes(PairedFiles):
    """One split of the fine annotations of Cityscapes (Cordts et al., 2016).

    The picture ``leftImg8bit/SPLIT/CITY/NAME_leftImg8bit.png`` goes with ``gtFine/SPLIT/CITY/NAME_gtFine_labelIds.png``
    and, if there are any, ``NAME_gtFine_instanceIds.png``. Of the 34 label ids, 19 are classes; all others become 255,
    which counts nowhere. Of the published test split only placeholders of the labels exist, and everything in them is
    void.
    """

    class_set = CITYSCAPES
    layout = "leftImg8bit/ and gtFine/"
    paper_size = Size(1024, 512)

    @classmethod
    def recognises(cls, root: Path) -> bool:
        """Return whether either of the two folders is there."""
        return (root / "leftImg8bit").is_dir() or (root / "gtFine").is_dir()

    @classmethod
    def splits(cls, root: Path) -> tuple[str, ...]:
        """Return the splits that have a folder on either side."""
        return tuple(s for s in _SPLITS if any((root / folder / s).is_dir() for folder in ("leftImg8bit", "gtFine")))

    @classmethod
    def list_files(cls, root: Path, split: str) -> Listing:
        """Return the pairs in the order of their names."""
        pictures, labels = root / "leftImg8bit" / split, root / "gtFine" / split
        have = ", ".join(cls.splits(root)) or "none"
        problems = [
            f"there is no folder {folder}; give Cityscapes with its split '{split}' unpacked (splits found: {have})"
            for folder in (pictures, labels)
            if not folder.is_dir()
        ]
        if problems:
            return Listing((), tuple(problems))
        seen, labelled, instances = (
            {f"{path.parent.name}/{path.name.removesuffix(suffix)}" for path in folder.glob(f"*/*{suffix}")}
            for folder, suffix in ((pictures, _PICTURE), (labels, _LABELS), (labels, _INSTANCES))
        )
        problems += [
            f"{pictures / name}{_PICTURE} is missing, but it has labels; put it there or drop them"
            for name in sorted(labelled - seen)
        ]
        problems += [
            f"{labels / name}{_LABELS} is missing; put the labels of that picture there or drop it"
            for name in sorted(seen - labelled)
        ]
        if instances:
            problems += [
                f"{labels / name}{_INSTANCES} is missing, but other pictures have one; put it there or remove all of them"
                for name in sorted((seen & labelled) - instances)
            ]
        if not seen and not labelled:
            problems.append(f"{pictures} holds no CITY/*{_PICTURE}; unpack the pictures there")
        names = sorted(seen & labelled)
        pairs = tuple((pictures / f"{name}{_PICTURE}", labels / f"{name}{_LABELS}") for name in names)
        return Listing(pairs, tuple(problems))

    @classmethod
    def to_classes(cls, stored: np.ndarray, path: Path) -> np.ndarray:
        """Return the classes of label ids."""
        return _CLASS_OF_ID[as_labels(stored, path, _LARGEST_ID)]

    @classmethod
    def problems(cls, picture: Path, labels: Path, *, thorough: bool = True) -> Iterator[str]:
        """Yield a sentence about everything that is wrong with a pair and its map of instances."""
        yield from super().problems(picture, labels, thorough=thorough)
        if (path := _instances_beside(labels)).is_file():
            try:
                if read_mask_header(path).stored != read_mask_header(labels).stored:
                    yield _instance_mismatch(path, labels)
                elif thorough:
                    _to_instances(read_mask(path), path)
            except UserError as error:
                # Unreadable labels were told of above.
                if str(path) in str(error):
                    yield str(error)

    def instances(self, index: int) -> np.ndarray | None:
        """Return which instance each pixel of a picture belongs to.

        Returns
        -------
        ndarray or None
            H x W int32, ``class * INSTANCE_STEP + number`` and -1 elsewhere (other classes, groups that could not be
            told apart, void); None if the data set came without instances.

        Raises
        ------
        UserError
            When the file cannot be read or is not of the size of the labels.
        """
        labels = self.pairs[index][1]
        path = _instances_beside(labels)
        if not path.is_file():
            return None
        stored = read_mask(path)
        if stored.shape[::-1] != read_mask_header(labels).stored:
            raise UserError(_instance_mismatch(path, labels))
        return _to_instances(stored, path)


def _instance_mismatch(path: Path, labels: Path) -> str:
    return f"{path} and {labels.name} differ in size; make both from one annotation"


def _instances_beside(labels: Path) -> Path:
    return labels.with_name(labels.name.removesuffix(_LABELS) + _INSTANCES)


def _to_instances(stored: np.ndarray, path: Path) -> np.ndarray:
    """Return instances by class; the files hold ``id * 1000 + number``, and plain ids where there is no instance."""
    wide = stored.astype(np.int32)
    ids = wide // INSTANCE_STEP
    as_labels(ids, path, _LARGEST_ID)
    classes = _CLASS_OF_ID[ids].astype(np.int32)
    countable = np.zeros(256, bool)
    countable[: len(CITYSCAPES)] = [share > 0 for share in CITYSCAPES.instance_shares]
    return np.where((ids > 0) & countable[classes], classes * INSTANCE_STEP + wide % INSTANCE_STEP, -1).astype(np.int32)
