"""Class sets: what the labels of a data set mean and the colours they are drawn in. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ClassSet:
    """The classes of a data set, in the order of their labels.

    Attributes
    ----------
    name : str
        Name of the set.
    names : tuple of str
        Class names; a class's label is its place.
    palette : tuple of (int, int, int)
        RGB colour of each class, 0..255.
    ignore_index : int
        Label of pixels that belong to no class; they count neither in the loss nor in the metrics.
    """

    name: str
    names: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    ignore_index: int

    def __post_init__(self) -> None:
        if len(self.names) != len(self.palette):
            raise ValueError(f"{self.name}: {len(self.names)} names but {len(self.palette)} colours")
        if 0 <= self.ignore_index < len(self.names):
            raise ValueError(f"{self.name}: the ignored label {self.ignore_index} is that of a class")

    def __len__(self) -> int:
        return len(self.names)


CAMVID = ClassSet(
    name="camvid",
    names=("sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist"),
    palette=(
        (128, 128, 128),
        (128, 0, 0),
        (192, 192, 128),
        (128, 64, 128),
        (60, 40, 222),
        (128, 128, 0),
        (192, 128, 128),
        (64, 64, 128),
        (64, 0, 128),
        (64, 64, 0),
        (0, 128, 192),
    ),
    ignore_index=11,
)
"""The 11 classes of CamVid (Brostow, Fauqueur, Cipolla, 2009) as SegNet grouped them; 11 is unlabelled."""
