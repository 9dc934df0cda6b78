"""Statistics of a labelled data set: class shares, the weights that follow from them, colours, sizes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from enet_tvm.data.classes import ClassSet
from enet_tvm.errors import UserError
from enet_tvm.size import Size


@dataclass(frozen=True)
class DataStatistics:
    """Figures of one split.

    Attributes
    ----------
    classes : tuple of str
        Class names.
    class_pixels, class_pictures : tuple of int
        Number of pixels of each class, and of pictures in which it occurs.
    void_pixels : int
        Number of pixels without a class.
    mean, std : tuple of float
        Mean and standard deviation per RGB channel, over all pixels of pictures scaled to 0..1.
    sizes : dict of str to int
        Number of pictures of each size, the most frequent first.
    """

    classes: tuple[str, ...]
    class_pixels: tuple[int, ...]
    class_pictures: tuple[int, ...]
    void_pixels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    sizes: dict[str, int]

    @property
    def pictures(self) -> int:
        """Number of pictures."""
        return sum(self.sizes.values())

    @property
    def shares(self) -> tuple[float, ...]:
        """Share of each class in the labelled pixels; zero if there are none."""
        total = sum(self.class_pixels)
        return tuple(pixels / total if total else 0.0 for pixels in self.class_pixels)

    @property
    def void_share(self) -> float:
        """Share of the pixels without a class."""
        return self.void_pixels / (self.void_pixels + sum(self.class_pixels))

    @property
    def class_weights(self) -> tuple[float, ...]:
        """The paper's weight of each class, ``1 / ln(1.02 + share)``."""
        return tuple(1 / math.log(1.02 + share) for share in self.shares)

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as JSON takes them."""
        columns = zip(self.classes, self.class_pixels, self.shares, self.class_pictures, self.class_weights, strict=True)
        return {
            "pictures": self.pictures,
            "sizes": self.sizes,
            "mean": list(self.mean),
            "std": list(self.std),
            "void_pixels": self.void_pixels,
            "void_share": self.void_share,
            "classes": {
                name: {"pixels": pixels, "share": share, "pictures": pictures, "weight": weight}
                for name, pixels, share, pictures, weight in columns
            },
        }


def data_statistics(samples: Iterable[tuple[Image.Image, np.ndarray]], class_set: ClassSet) -> DataStatistics:
    """Return the figures of labelled pictures.

    Parameters
    ----------
    samples : iterable of (PIL image, ndarray)
        RGB pictures and their H x W uint8 labels.
    class_set : ClassSet
        Classes that the labels stand for.

    Raises
    ------
    UserError
        When there are no pictures.
    """
    pixels, occurrences = np.zeros(256, np.int64), np.zeros(256, np.int64)
    levels = np.zeros((3, 256), np.int64)
    sizes: Counter[str] = Counter()
    for picture, labels in samples:
        counts = np.bincount(labels.ravel(), minlength=256)
        pixels += counts
        occurrences += counts > 0
        levels += np.array(picture.histogram(), np.int64).reshape(3, 256)
        sizes[str(Size(*picture.size))] += 1
    if not sizes:
        raise UserError("there are no pictures to take figures of; check the data set with 'enet-tvm data check'")
    values = np.arange(256) / 255
    shares = levels / levels.sum(axis=1, keepdims=True)
    mean = shares @ values
    std = np.sqrt(np.maximum(0, shares @ values**2 - mean**2))
    count = len(class_set)
    return DataStatistics(
        classes=class_set.names,
        class_pixels=tuple(map(int, pixels[:count])),
        class_pictures=tuple(map(int, occurrences[:count])),
        void_pixels=int(pixels[class_set.ignore_index]),
        mean=tuple(map(float, mean)),
        std=tuple(map(float, std)),
        sizes=dict(sizes.most_common()),
    )
