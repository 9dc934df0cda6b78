"""Base of data sets on disk: pairs of a picture and a label file, read, checked against each other, or refused."""

from __future__ import annotations

import contextlib
import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
from PIL import Image

from enet_tvm.data.classes import ClassSet
from enet_tvm.data.masks import read_mask, read_mask_header
from enet_tvm.errors import UserError
from enet_tvm.runtime.pictures import PictureHeader, load_picture, read_header, require_one_frame
from enet_tvm.size import Size


@dataclass(frozen=True)
class Listing:
    """The files of a split.

    Attributes
    ----------
    pairs : tuple of (Path, Path)
        Paths of the pictures and their label files, all of which exist.
    problems : tuple of str
        Sentences on the files and pairs that are missing; empty if the split is whole.
    """

    pairs: tuple[tuple[Path, Path], ...]
    problems: tuple[str, ...] = ()


class PairedFiles(ABC):
    """One split of a labelled data set on disk; item `i` is (RGB picture, H x W uint8 labels).

    Pictures are read as `enet_tvm.runtime.pictures.load_picture` reads them, turned as their EXIF data say, and labels as
    `enet_tvm.data.masks.read_mask` does, never turned.

    Parameters
    ----------
    root : str or Path
        Directory of the data set.
    split : str
        Name of the split: "train", "val", "test", or another that the data set has.

    Raises
    ------
    UserError
        When the directory, a list or a listed file is missing. Items raise it when a file cannot be read, holds labels
        that the data set does not have, or a picture and its labels differ in size.
    """

    class_set: ClassVar[ClassSet]
    """Classes that the labels stand for."""
    layout: ClassVar[str]
    """The files that the data set is recognised by, in words."""
    paper_size: ClassVar[Size | None] = None
    """Size to which the paper brought the pictures, or a `dataset.toml` does; None where they stay as they come."""

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
    def read_stored(cls, path: Path) -> np.ndarray:
        """Return what a label file holds, for `to_classes`."""
        return read_mask(path)

    @classmethod
    def problems_of_all(cls, root: Path) -> tuple[str, ...]:
        """Return a sentence about everything that is wrong with files of no split, or of several."""
        return ()

    @classmethod
    def warnings_of_all(cls, root: Path) -> tuple[str, ...]:
        """Return a sentence about everything that is left out and may be meant to be."""
        return ()

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
        picture_header = labels_header = None
        try:
            picture_header = read_header(picture)
            require_one_frame(picture_header.frames, picture)
            if thorough:
                load_picture(picture)
        except UserError as error:
            yield str(error)
        try:
            labels_header = read_mask_header(labels)
            if thorough:
                cls.to_classes(cls.read_stored(labels), labels)
        except UserError as error:
            yield str(error)
        if picture_header and labels_header and picture_header.size != labels_header.stored:
            yield _size_mismatch(picture, picture_header, labels, labels_header.stored)

    @classmethod
    def warnings(cls, picture: Path, labels: Path) -> Iterator[str]:
        """Yield a sentence about everything in a pair that may be meant or not; unreadable files are another's matter."""
        with contextlib.suppress(UserError):
            if (orientation := read_header(picture).orientation) != 1:
                yield (
                    f"{picture} is turned upright by its EXIF data (orientation {orientation}) and its labels never are; "
                    f"see that {labels.name} was drawn on the upright picture"
                )
        with contextlib.suppress(UserError):
            if (orientation := read_header(labels).orientation) != 1:
                yield f"{labels} has EXIF data to turn it (orientation {orientation}), and labels are never turned; remove them"

    def with_pairs(self, pairs: Sequence[tuple[Path, Path]]) -> Self:
        """Return the data set with these pairs of files in the place of its own; they may be of several of its splits."""
        chosen = copy.copy(self)
        chosen.pairs = tuple(pairs)
        return chosen

    def __len__(self) -> int:
        return len(self.pairs)

    def __iter__(self) -> Iterator[tuple[Image.Image, np.ndarray]]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: int) -> tuple[Image.Image, np.ndarray]:
        picture_path, labels_path = self.pairs[index]
        picture = load_picture(picture_path)
        labels = self.to_classes(self.read_stored(labels_path), labels_path)
        if labels.shape != (picture.height, picture.width):
            raise UserError(_size_mismatch(picture_path, read_header(picture_path), labels_path, Size(*labels.shape[::-1])))
        return picture, labels


def in_short(problems: tuple[str, ...], root: Path) -> str:
    """Return the first of some problems, and where to see the rest."""
    if len(problems) == 1:
        return problems[0]
    return f"{problems[0]} ({len(problems) - 1} more like it: 'enet-tvm data check --data {root}' lists them)"


def _size_mismatch(picture: Path, header: PictureHeader, labels: Path, size: Size) -> str:
    upright = ", turned as its EXIF data say," if header.orientation != 1 else ""
    if size == header.stored:
        advice = f"the labels seem drawn on the pixels as stored: turn them too, or save {picture.name} without EXIF data"
    else:
        advice = "do they belong together? Labels must be drawn on the picture in the size in which it is stored"
    return f"{picture} is {header.size}{upright} but its labels {labels} are {size}; {advice}"
