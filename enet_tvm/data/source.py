"""Data sets by the name people give on the command line: a directory, or `synthetic`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
from PIL import Image

from enet_tvm.data.camvid import CamVid
from enet_tvm.data.classes import CAMVID, ClassSet
from enet_tvm.data.synthetic import SyntheticStreet
from enet_tvm.errors import UserError
from enet_tvm.size import Size

SYNTHETIC = "synthetic"
_SYNTHETIC_SIZE = Size(480, 360)
_SYNTHETIC_SPLITS = {"train": (200, 1), "val": (50, 2), "test": (50, 3)}
"""Pictures and seed of each split of the drawn street."""


class Samples(Protocol):
    """A labelled data set: item `i` is an RGB picture and its H x W uint8 labels."""

    class_set: ClassSet
    """What the labels mean."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[Image.Image, np.ndarray]: ...

    def __iter__(self) -> Iterator[tuple[Image.Image, np.ndarray]]: ...


class LabelledStreet(SyntheticStreet):
    """The drawn street with what its labels mean: they are CamVid's."""

    class_set = CAMVID


def open_samples(where: str, split: str, size: Size | None = None) -> Samples:
    """Open a split of a data set.

    Parameters
    ----------
    where : str
        ``synthetic`` for the drawn street, or the directory of CamVid.
    split : str
        "train", "val" or "test".
    size : Size, optional
        Size at which synthetic pictures are drawn; 480x360 by default. Other pictures come in their own size.

    Raises
    ------
    UserError
        When there is no such data set or split.
    """
    if where != SYNTHETIC:
        return CamVid(where, split)
    if split not in _SYNTHETIC_SPLITS:
        raise UserError(f"the synthetic street has no split '{split}'; give one of {', '.join(_SYNTHETIC_SPLITS)}")
    count, seed = _SYNTHETIC_SPLITS[split]
    return LabelledStreet(size or _SYNTHETIC_SIZE, count, seed)
