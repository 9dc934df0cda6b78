"""What data sets on disk share: pairs of a picture and a label file, read, checked against each other, or refused."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from PIL import Image, UnidentifiedImageError

from enet_tvm.data.classes import ClassSet
from enet_tvm.errors import UserError
from enet_tvm.size import Size

_LABEL_MODES = ("L", "P", "I", "I;16", "I;16B")
"""Modes of pictures that hold one integer a pixel."""


@dataclass(frozen=True)
class Listing:
    """The files of a split.

    Attributes
    ----------
    pairs : tuple of (Path, Path)
        Pictures and their label files, all of which exist.
    problems : tuple of str
        A sentence about each file or pair that is missing; empty if the split is whole.
    """

    pairs: tuple[tuple[Path, Path], ...]
    problems: tuple[str, ...] = ()


class PairedFiles(ABC):
    """One split of a labelled data set on disk; item `i` is (RGB picture, H x W uint8 labels).

    Parameters
    ----------
    root : str or Path
        Directory of the data set.
    split : str
        "train", "val", "test", or what else the data set has.

    Raises
    ------
    UserError
        When the directory, a list or a listed file is missing. Items raise it when a file cannot be read, holds labels
        that the data set does not have, or a picture and its labels differ in size.
    """

    class_set: ClassVar[ClassSet]
    """What the labels mean."""
    layout: ClassVar[str]
    """The files that the data set is recognised by, in words."""
    paper_size: ClassVar[Size | None] = None
    """Size to which the paper brought the pictures; None where they came in it."""

    def __init__(self, root: str | Path, split: str) -> None:
        self.root = Path(root).expanduser()
        self.split = split
        if not self.root.is_dir():
            raise UserError(f"there is no data set directory {self.root}; give the one that holds {self.layout}")
        listing = self.list_files(self.root, split)
        if listing.problems:
            raise UserError(in_short(listing.problems, self.root))
        self.pairs = listing.pairs

    @classmethod
    @abstractmethod
    def recognises(cls, root: Path) -> bool:
        """Return whether a directory looks like this data set, whole or not."""

    @classmethod
    @abstractmethod
    def splits(cls, root: Path) -> tuple[str, ...]:
        """Return the splits of which there is anything."""

    @classmethod
    @abstractmethod
    def list_files(cls, root: Path, split: str) -> Listing:
        """Return the files of a split and what is missing from it."""

    @classmethod
    @abstractmethod
    def to_classes(cls, stored: np.ndarray, path: Path) -> np.ndarray:
        """Return the H x W uint8 classes of a stored label map; raise UserError for labels that do not exist."""

    @classmethod
    def problems(cls, picture: Path, labels: Path, *, thorough: bool = True) -> Iterator[str]:
        """Yield a sentence about everything that is wrong with a pair.

        Parameters
        ----------
        picture, labels : Path
            The pair.
        thorough : bool
            Decode both files; otherwise only their headers are read, and label values are not seen.
        """
        sizes = []
        for path in (picture, labels):
            try:
                image = read_image(path, decode=thorough)
                sizes.append(image.size)
                if path == labels:
                    require_labels(image, path)
                    if thorough:
                        cls.to_classes(label_map(image, path), path)
            except UserError as error:
                yield str(error)
        if len(sizes) == 2 and sizes[0] != sizes[1]:
            yield _size_mismatch(picture, sizes[0], sizes[1])

    def __len__(self) -> int:
        return len(self.pairs)

    def __iter__(self) -> Iterator[tuple[Image.Image, np.ndarray]]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: int) -> tuple[Image.Image, np.ndarray]:
        picture_path, labels_path = self.pairs[index]
        picture = read_image(picture_path).convert("RGB")
        labels = self.to_classes(label_map(read_image(labels_path), labels_path), labels_path)
        if labels.shape != (picture.height, picture.width):
            raise UserError(_size_mismatch(picture_path, picture.size, labels.shape[::-1]))
        return picture, labels


def in_short(problems: tuple[str, ...], root: Path) -> str:
    """Return the first of some problems, and where to see the rest."""
    if len(problems) == 1:
        return problems[0]
    return f"{problems[0]} ({len(problems) - 1} more like it: 'enet-tvm data check --data {root}' lists them)"


def read_image(path: Path, *, decode: bool = True) -> Image.Image:
    """Return a picture; without `decode`, only what its header says of it.

    Raises
    ------
    UserError
        When it cannot be read.
    """
    try:
        with Image.open(path) as image:
            if decode:
                image.load()
            return image
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{path} is not a readable picture ({error}); restore it from the data set") from error


def require_labels(image: Image.Image, path: Path) -> None:
    """Raise UserError when a picture has colours instead of one number a pixel; its header is enough."""
    if image.mode not in _LABEL_MODES:
        raise UserError(f"{path} is not a map of one label a pixel; give the label files, not the coloured ones")


def label_map(image: Image.Image, path: Path) -> np.ndarray:
    """Return the stored H x W integer labels.

    Raises
    ------
    UserError
        When the picture has colours instead of labels.
    """
    require_labels(image, path)
    return np.asarray(image)


def largest_checked(stored: np.ndarray, largest: int, path: Path) -> np.ndarray:
    """Return labels as uint8.

    Raises
    ------
    UserError
        When one of them lies outside 0..largest.
    """
    for extreme in (int(stored.max()), int(stored.min())):
        if not 0 <= extreme <= largest:
            raise UserError(f"{path} holds label {extreme}; labels must lie in 0..{largest}, so restore the file")
    return stored.astype(np.uint8)


def _size_mismatch(picture: Path, size: tuple[int, ...], labels: tuple[int, ...]) -> str:
    return (
        f"{picture} is {Size(*size)} but its labels are {Size(*labels)}; resize neither by hand: restore both from the data set"
    )
