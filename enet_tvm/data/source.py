"""Data sets by the name people give on the command line: a directory, whose layout says what it is, or `synthetic`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from enet_tvm.data.camvid import CamVid
from enet_tvm.data.cityscapes import Cityscapes
from enet_tvm.data.classes import CAMVID, ClassSet
from enet_tvm.data.custom import CustomData, custom_data
from enet_tvm.data.folder import PairedFiles
from enet_tvm.data.sunrgbd import SunRgbd
from enet_tvm.data.synthetic import SyntheticStreet
from enet_tvm.errors import UserError
from enet_tvm.size import Size

SYNTHETIC = "synthetic"
DATA_SETS: dict[str, type[PairedFiles]] = {"camvid": CamVid, "cityscapes": Cityscapes, "sunrgbd": SunRgbd}
"""Data sets on disk, by name, in the order in which a directory is held against them."""
_SYNTHETIC_SIZE = Size(480, 360)
_SYNTHETIC_SPLITS = {"train": (200, 1), "val": (50, 2), "test": (50, 3)}
"""Number of pictures and seed of each split of the drawn street."""


class Samples(Protocol):
    """A labelled data set: item `i` is an RGB picture and its H x W uint8 labels."""

    @property
    def class_set(self) -> ClassSet:
        """Classes that the labels stand for."""

    @property
    def paper_size(self) -> Size | None:
        """Size to which the paper brought the pictures; None where they came in it."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[Image.Image, np.ndarray]: ...

    def __iter__(self) -> Iterator[tuple[Image.Image, np.ndarray]]: ...


class LabelledStreet(SyntheticStreet):
    """The drawn street with what its labels mean: they are CamVid's."""

    class_set = CAMVID
    paper_size: Size | None = None


class Resized:
    """A data set brought to one size: pictures bilinear, labels nearest.

    Parameters
    ----------
    samples : Samples
        Labelled pictures of any size.
    size : Size
        Size of the items.
    """

    def __init__(self, samples: Samples, size: Size) -> None:
        self.samples = samples
        self.size = size
        self.class_set = samples.class_set
        self.paper_size = samples.paper_size

    def __len__(self) -> int:
        return len(self.samples)

    def __iter__(self) -> Iterator[tuple[Image.Image, np.ndarray]]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: int) -> tuple[Image.Image, np.ndarray]:
        picture, labels = self.samples[index]
        if picture.size == self.size:
            return picture, labels
        resized = Image.fromarray(labels).resize(self.size, Image.Resampling.NEAREST)
        return picture.resize(self.size, Image.Resampling.BILINEAR), np.asarray(resized)


class WithDrawn:
    """A data set followed by streets of the drawn training split, of the size of its first picture.

    Parameters
    ----------
    samples : Samples
        Labelled pictures with CamVid's classes.
    count : int
        Number of drawn streets to add.

    Raises
    ------
    UserError
        When the data set has other classes.
    """

    def __init__(self, samples: Samples, count: int) -> None:
        if samples.class_set != CAMVID:
            raise UserError(
                f"drawn streets are labelled with CamVid's classes, and this is {samples.class_set.name}; "
                "set drawn_streets to 0 in the recipe"
            )
        self.samples = samples
        self.class_set, self.paper_size = samples.class_set, samples.paper_size
        size = Size(*samples[0][0].size)
        self.drawn = SyntheticStreet(size, count, seed=_SYNTHETIC_SPLITS["train"][1])

    def __len__(self) -> int:
        return len(self.samples) + len(self.drawn)

    def __iter__(self) -> Iterator[tuple[Image.Image, np.ndarray]]:
        yield from self.samples
        yield from self.drawn

    def __getitem__(self, index: int) -> tuple[Image.Image, np.ndarray]:
        return self.samples[index] if index < len(self.samples) else self.drawn[index - len(self.samples)]


def at_paper_size(samples: Samples) -> Samples:
    """Return a data set at the size at which it is trained on: the paper's, or that of its `dataset.toml`."""
    return samples if samples.paper_size is None else Resized(samples, samples.paper_size)


def find_data_set(where: str | Path, dataset: str | None = None) -> type[PairedFiles]:
    """Return what reads a directory.

    Parameters
    ----------
    where : str or Path
        Directory of the data set.
    dataset : str, optional
        Name of the data set, a key of `DATA_SETS`; by default the layout of the directory decides, and a `dataset.toml` before
        all others.

    Raises
    ------
    UserError
        When there is no such directory or data set, or the layout is of none.
    """
    root = Path(where).expanduser()
    if not root.is_dir():
        raise UserError(f"there is no data set directory {root}; give one, or 'synthetic' for the drawn street")
    if dataset is not None:
        if dataset not in DATA_SETS:
            raise UserError(f"there is no data set '{dataset}'; give one of {', '.join(DATA_SETS)}")
        return DATA_SETS[dataset]
    kinds: tuple[type[PairedFiles], ...] = (CustomData, *DATA_SETS.values())
    for kind in kinds:
        if kind.recognises(root):
            return custom_data(root) if kind is CustomData else kind
    inside = next((p for p in sorted(root.iterdir()) if p.is_dir() and any(kind.recognises(p) for kind in kinds)), None)
    if inside is not None:
        raise UserError(f"cannot read {root} as a data set, but {inside} looks like one; give that")
    layouts = ", ".join(f"{kind.layout} ({name})" for name, kind in DATA_SETS.items())
    raise UserError(
        f"cannot read {root} as a data set; give the directory that holds one of: {layouts}; for pictures and masks of your "
        f"own write a {CustomData.layout} first: enet-tvm data new {root}"
    )


def open_samples(where: str, split: str, size: Size | None = None, dataset: str | None = None) -> Samples:
    """Open a split of a data set.

    Parameters
    ----------
    where : str
        ``synthetic`` for the drawn street, or the directory of CamVid, Cityscapes, SUN RGB-D or a data set with a
        `dataset.toml`.
    split : str
        Name of the split: "train", "val" or "test".
    size : Size, optional
        Size at which synthetic pictures are drawn; 480x360 by default. Other pictures come in their own size.
    dataset : str, optional
        Name of the data set; by default the layout of the directory decides.

    Raises
    ------
    UserError
        When there is no such data set or split, or files of it are missing.
    """
    if where != SYNTHETIC:
        return find_data_set(where, dataset)(where, split)
    if split not in _SYNTHETIC_SPLITS:
        raise UserError(f"the synthetic street has no split '{split}'; give one of {', '.join(_SYNTHETIC_SPLITS)}")
    count, seed = _SYNTHETIC_SPLITS[split]
    return LabelledStreet(size or _SYNTHETIC_SIZE, count, seed)
