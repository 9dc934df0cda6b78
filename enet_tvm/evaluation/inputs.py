"""Inputs that runners are compared on: the user's pictures, drawn streets, or a labelled data set."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from enet_tvm.data.classes import require_classes
from enet_tvm.data.source import LabelledStreet, Samples, open_samples
from enet_tvm.errors import UserError
from enet_tvm.runtime.pictures import find_pictures, load_picture

if TYPE_CHECKING:
    from enet_tvm.data.classes import ClassSet
    from enet_tvm.runtime import Segmenter

Sample = tuple[Image.Image, NDArray[np.uint8] | None]
"""An RGB picture and its H x W labels, None where there are none."""

_DEFAULT_STREETS = 4


@dataclass(frozen=True)
class Inputs:
    """Pictures and, where known, their labels; each is read when it is asked for.

    Attributes
    ----------
    description : str
        Description of the pictures, for people.
    names : tuple of str
        Name of each picture.
    load : callable
        Maps the number of a picture to the picture and its labels.
    class_set : ClassSet or None
        Classes that the labels stand for; None if there are none.
    """

    description: str
    names: tuple[str, ...]
    load: Callable[[int], Sample]
    class_set: ClassSet | None = None

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        return self.load(range(len(self))[index])

    def __iter__(self) -> Iterator[Sample]:
        return map(self.load, range(len(self)))


def open_inputs(
    segmenter: Segmenter,
    *,
    images: Sequence[Path] | None = None,
    synthetic: int | None = None,
    data: str | None = None,
    split: str = "val",
) -> Inputs:
    """Open what the user named, at most one of three; without any, a few drawn streets.

    Parameters
    ----------
    segmenter : Segmenter
        Network to run: streets are drawn at its input size, and have labels if it has their classes.
    images : sequence of Path, optional
        Picture files and folders.
    synthetic : int, optional
        Number of streets to draw.
    data, split : str
        Directory and split of a labelled data set, as `enet_tvm.data.source.open_samples` takes it.

    Raises
    ------
    UserError
        When more than one is given, there are no pictures, or the data set is not of the network's classes.
    """
    if sum(value is not None for value in (images or None, synthetic, data)) > 1:
        raise UserError("give only one of --images, --synthetic and --data")
    if images:
        paths = find_pictures(images)
        return Inputs(f"{len(paths)} pictures", tuple(map(str, paths)), lambda index: (load_picture(paths[index]), None))
    classes = len(segmenter.manifest.classes)
    if data is not None:
        samples = open_samples(data, split, segmenter.size)
        if len(samples.class_set) != classes:
            raise UserError(
                f"the artifact has {classes} classes and {data} has {len(samples.class_set)}; give pictures with --images"
            )
        require_classes(segmenter.manifest.classes, samples.class_set, "the artifact")
        return _labelled(samples, f"{len(samples)} pictures of {data} ({split})")
    streets = LabelledStreet(segmenter.size, synthetic or _DEFAULT_STREETS)
    inputs = _labelled(streets, f"{len(streets)} drawn streets")
    if len(streets.class_set) == classes:
        return inputs
    return replace(inputs, load=lambda index: (streets[index][0], None), class_set=None)


def _labelled(samples: Samples, description: str) -> Inputs:
    names = tuple(f"picture {number}" for number in range(1, len(samples) + 1))
    return Inputs(description, names, lambda index: samples[index], samples.class_set)
