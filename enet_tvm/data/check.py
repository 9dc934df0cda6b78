"""Check of a data set: everything that is wrong with it, told before a training starts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from enet_tvm.data.folder import PairedFiles, in_short
from enet_tvm.data.source import SYNTHETIC, find_data_set
from enet_tvm.errors import UserError

REQUIRED = ("train", "val")
"""Splits without which nothing can be trained."""
Pair = tuple[Path, Path]
Track = Callable[[Sequence[Pair], str], Iterable[Pair]]
"""Passes through the pairs of a split, whose name comes second, and may show how far it is."""


@dataclass(frozen=True)
class CheckReport:
    """Findings of a check.

    Attributes
    ----------
    dataset : str
        Name of the data set.
    pictures : dict of str to int
        Number of whole pairs by split.
    problems : tuple of str
        Sentences on what is wrong; empty if nothing is.
    warnings : tuple of str
        A sentence about each thing that may be meant or not, such as a picture that its EXIF data turn; they end no training.
    """

    dataset: str
    pictures: dict[str, int]
    problems: tuple[str, ...]
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON takes it."""
        return {
            "dataset": self.dataset,
            "pictures": self.pictures,
            "problems": list(self.problems),
            "warnings": list(self.warnings),
        }


def check_data_set(
    where: str | Path,
    splits: Sequence[str] = (),
    *,
    dataset: str | None = None,
    thorough: bool = True,
    track: Track | None = None,
) -> CheckReport:
    """Look for everything that would end a training: missing, unreadable or mismatched files, labels out of range.

    Parameters
    ----------
    where : str or Path
        Directory of the data set.
    splits : sequence of str, optional
        Splits to look at; by default train, val and whatever others are there.
    dataset : str, optional
        Name of the data set; by default the layout of the directory decides.
    thorough : bool
        Decode every file. Otherwise only headers are read: quick, but blind to damaged pixels and to labels.
    track : callable, optional
        Wraps the pairs of each split to show progress.

    Raises
    ------
    UserError
        When there is no such directory or data set.
    """
    root = Path(where).expanduser()
    kind = find_data_set(root, dataset)
    pictures: dict[str, int] = {}
    problems: list[str] = list(kind.problems_of_all(root))
    warnings: list[str] = list(kind.warnings_of_all(root)) if thorough else []
    for split in splits or tuple(dict.fromkeys((*REQUIRED, *_distinct(kind, root)))):
        listing = kind.list_files(root, split)
        problems += listing.problems
        pictures[split] = len(listing.pairs)
        for picture, labels in track(listing.pairs, split) if track else listing.pairs:
            problems += kind.problems(picture, labels, thorough=thorough)
            if thorough:
                warnings += kind.warnings(picture, labels)
        if thorough and split in REQUIRED and listing.pairs and not _any_label(kind, listing.pairs):
            problems.append(
                f"the split '{split}' of {root} has no labelled pixel, all are void; give the labels that were drawn"
            )
    return CheckReport(kind.class_set.name, pictures, tuple(problems), tuple(warnings))


def require_sound(where: str | Path, splits: Sequence[str] = REQUIRED, *, dataset: str | None = None) -> None:
    """Refuse a data set whose files are visibly not in order; nothing is decoded, so that it costs a moment.

    Parameters
    ----------
    where, dataset : str
        Directory and name of the data set, as `check_data_set` takes them.
    splits : sequence of str
        Names of the splits to look at.

    Raises
    ------
    UserError
        With the first problem, and how to see the others.
    """
    if str(where) == SYNTHETIC:
        return
    report = check_data_set(where, splits, dataset=dataset, thorough=False)
    if report.problems:
        raise UserError(in_short(report.problems, Path(where)))


def _distinct(kind: type[PairedFiles], root: Path) -> tuple[str, ...]:
    """Return the splits that are there, without those that repeat the pictures of train and val."""
    return tuple(split for split in kind.splits(root) if split != "trainval")


def _any_label(kind: type[PairedFiles], pairs: Sequence[Pair]) -> bool:
    """Return whether any pixel has a class; files that cannot be read are the matter of another sentence."""
    return any(_has_label(kind, labels) for _, labels in pairs)


def _has_label(kind: type[PairedFiles], path: Path) -> bool:
    try:
        return bool(np.any(kind.to_classes(kind.read_stored(path), path) != kind.class_set.ignore_index))
    except UserError:
        return True
