"""Splits by ride: pictures that were filmed on one drive are held out together, so that none of its streets is trained on.

A data set's own val split often holds frames between training frames of the same drive, and says little about other streets.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from enet_tvm.data.check import require_sound
from enet_tvm.data.folder import PairedFiles
from enet_tvm.data.source import SYNTHETIC, Samples, open_samples
from enet_tvm.errors import UserError

_BLOCK = re.compile(r"(?P<ride>[^:]+)(?::(?P<start>-?\d+)?(?::(?P<stop>-?\d+)?)?)?")
_SPLIT = re.compile(r"(?P<name>[^/]+)(?:/(?P<step>[1-9]\d*))?")


def ride_of(picture: Path) -> str:
    """Return the ride of a picture: its file name up to the first underscore.

    CamVid's are 0001TP, 0006R0, 0016E5 and others; those of Cityscapes are its cities.
    """
    return picture.name.split("_")[0]


@dataclass(frozen=True)
class Block:
    """Successive frames of a ride, chosen as a Python slice chooses them.

    Attributes
    ----------
    ride : str
        Name of the ride.
    start, stop : int or None
        First frame, and the one after the last, in the order of the file names; negative numbers count from the end.
    """

    ride: str
    start: int | None = None
    stop: int | None = None

    @classmethod
    def parse(cls, text: str) -> Block:
        """Return what ``RIDE[:START[:STOP]]`` says: ``0006R0``, ``0001TP:-31`` (the last 31), ``0016E5::68`` (the first 68).

        Raises
        ------
        UserError
            When it says nothing of the kind.
        """
        if (match := _BLOCK.fullmatch(text)) is None:
            raise UserError(f"'{text}' names no frames of a ride; give RIDE, RIDE:START or RIDE:START:STOP, such as 0001TP:-31")
        start, stop = (None if match[key] is None else int(match[key]) for key in ("start", "stop"))
        return cls(match["ride"], start, stop)

    def frames(self, pictures: Iterable[Path]) -> set[str]:
        """Return the file names among `pictures` that the block holds.

        Raises
        ------
        UserError
            When there is none.
        """
        names = {picture.name for picture in pictures if ride_of(picture) == self.ride}
        chosen = set(sorted(names)[self.start : self.stop])
        if names and not chosen:
            raise UserError(f"'{self}' holds none of the {len(names)} frames of that ride; count from its first, or its last")
        if not names:
            known = sorted({ride_of(picture) for picture in pictures})
            shown = ", ".join(known[:12]) + (", ..." if len(known) > 12 else "")
            raise UserError(f"no picture is of ride '{self.ride}'; give one of {shown}")
        return chosen

    def __str__(self) -> str:
        bounds = ["" if bound is None else str(bound) for bound in (self.start, self.stop)]
        return ":".join([self.ride, *bounds]).rstrip(":")


@dataclass(frozen=True)
class TrainingData:
    """Pictures to train on and pictures to judge by.

    Attributes
    ----------
    train : Samples
        Pictures to train on.
    val : Samples or None
        Pictures to judge by; None when all that there are are trained on.
    description : dict of str to str
        Description of both: ``{"train": "train,val without 0006R0", "val": "0006R0 of train,val"}``.
    """

    train: Samples
    val: Samples | None
    description: dict[str, str]


def training_data(where: str, splits: str = "train", held_out: Sequence[str] = (), dataset: str | None = None) -> TrainingData:
    """Open what a training needs, and refuse files that are visibly not in order.

    Parameters
    ----------
    where, dataset : str
        Directory and name of the data set, as `open_samples` takes them.
    splits : str
        Splits to train on, as `open_splits` takes them.
    held_out : sequence of str
        Blocks of frames, as `Block.parse` takes them, that are not trained on but judge the result. Without any, the split
        val judges it, unless that is trained on.

    Raises
    ------
    UserError
        See `open_splits`, `hold_out` and `enet_tvm.data.check.require_sound`.
    """
    named = [part.partition("/")[0].strip() for part in splits.split(",")]
    val = "val" if not held_out and "val" not in named else None
    require_sound(where, [*dict.fromkeys([*named, *([val] if val else [])])], dataset=dataset)
    train = open_splits(where, splits, dataset)
    if held_out:
        blocks = [Block.parse(text) for text in held_out]
        rest, held = _rest(train, blocks)
        names = ", ".join(map(str, blocks))
        return TrainingData(rest, held, {"train": f"{splits} without {names}", "val": f"{names} of {splits}"})
    if val is None:
        return TrainingData(train, None, {"train": splits})
    return TrainingData(train, open_samples(where, val, dataset=dataset), {"train": splits, "val": val})


def judged_options(description: str) -> str:
    """Return the options with which ``enet-tvm evaluate`` judges by what the ``val`` of `TrainingData.description` says."""
    blocks, _, splits = description.rpartition(" of ")
    held_out = [f"--hold-out {block}" for block in blocks.split(", ") if block]
    return " ".join([f"--split {splits}", *held_out])


def judged_data(where: str, splits: str = "val", held_out: Sequence[str] = (), dataset: str | None = None) -> Samples:
    """Open pictures to evaluate on: some splits, or only the frames of them that a training with the same blocks held out.

    Parameters and what is raised are those of `training_data`.
    """
    samples = open_splits(where, splits, dataset)
    return hold_out(samples, [Block.parse(text) for text in held_out])[1] if held_out else samples


def fitted_data(where: str, splits: str = "train", held_out: Sequence[str] = (), dataset: str | None = None) -> Samples:
    """Open the pictures that a training with the same blocks held out was trained on.

    Parameters and what is raised are those of `training_data`.
    """
    samples = open_splits(where, splits, dataset)
    return _rest(samples, [Block.parse(text) for text in held_out])[0] if held_out else samples


def open_splits(where: str, splits: str, dataset: str | None = None) -> Samples:
    """Open several splits of a data set as one.

    Parameters
    ----------
    where, dataset : str
        Directory and name of the data set, as `open_samples` takes them.
    splits : str
        Names of the splits with commas between them: ``train,val``. ``val/5`` is every fifth picture of val, for one whose
        frames are nearly the same.

    Raises
    ------
    UserError
        When there is no such split, one is named twice, or several are asked of the drawn street.
    """
    parts = [_SPLIT.fullmatch(part.strip()) for part in splits.split(",")]
    named = [part["name"] for part in parts if part is not None]
    if len(named) < len(parts) or len(set(named)) < len(named):
        raise UserError(
            f"'{splits}' is no list of splits; give each once, with commas between them, such as train,val or val/5"
        )
    opened = [(open_samples(where, part["name"], dataset=dataset), int(part["step"] or 1)) for part in parts if part]
    if len(opened) == 1 and opened[0][1] == 1:
        return opened[0][0]
    files = [(_files(samples), step) for samples, step in opened]
    return files[0][0].with_pairs([pair for samples, step in files for pair in samples.pairs[::step]])


def hold_out(samples: Samples, blocks: Sequence[Block]) -> tuple[Samples, Samples]:
    """Return the samples outside of some blocks, and those in them.

    Parameters
    ----------
    samples : Samples
        Pictures in files that are named after their rides, of one split or several. A frame that is in two splits goes, with
        all its copies, to one side.
    blocks : sequence of Block
        Blocks of frames to hold out; may overlap.

    Raises
    ------
    UserError
        When the pictures have no rides, or a block has no frames.
    """
    files = _files(samples)
    pictures = [picture for picture, _ in files.pairs]
    held = set().union(*(block.frames(pictures) for block in blocks))
    inside = [pair for pair in files.pairs if pair[0].name in held]
    outside = [pair for pair in files.pairs if pair[0].name not in held]
    return files.with_pairs(outside), files.with_pairs(inside)


def _rest(samples: Samples, blocks: Sequence[Block]) -> tuple[Samples, Samples]:
    """Return what `hold_out` does; raise UserError when nothing is left outside of the blocks."""
    rest, held = hold_out(samples, blocks)
    if not len(rest):
        raise UserError("every picture is held out, so that none is left to train on; hold out fewer frames")
    return rest, held


def _files(samples: Samples) -> PairedFiles:
    if not isinstance(samples, PairedFiles):
        raise UserError(f"the pictures of '{SYNTHETIC}' are in no files and of no ride; give a data set in a directory")
    return samples
