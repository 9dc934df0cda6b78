"""Training batches: a data set kept in memory as bytes, and augmented windows cut from it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from enet_tvm.data.classes import ClassSet
from enet_tvm.data.transforms import Augmentation, colour_and_normalise, crop_pair
from enet_tvm.errors import UserError
from enet_tvm.size import Size
from enet_tvm.training.recipe import Recipe


class PackedSamples:
    """A labelled data set decoded once and kept as uint8 tensors.

    Parameters
    ----------
    samples : sequence of (PIL image, ndarray)
        RGB pictures and their H x W uint8 labels; sizes may differ.
    class_set : ClassSet
        What the labels mean.

    Raises
    ------
    UserError
        When there are no samples, or not one labelled pixel.
    """

    def __init__(self, samples: Sequence[Any] | Any, class_set: ClassSet) -> None:
        self.class_set = class_set
        self.pictures: list[Tensor] = []
        self.labels: list[Tensor] = []
        self.histogram = np.zeros(len(class_set), np.int64)
        for i in range(len(samples)):
            picture, labels = samples[i]
            self.pictures.append(torch.from_numpy(np.array(picture)).permute(2, 0, 1))
            self.labels.append(torch.from_numpy(np.array(labels)))
            known = labels[labels != class_set.ignore_index]
            self.histogram += np.bincount(known.ravel(), minlength=len(class_set))
        if not self.histogram.sum():
            raise UserError("the training split has no labelled pixel; check its label files")

    def __len__(self) -> int:
        return len(self.pictures)

    def size(self) -> Size:
        """Return the size of the first picture."""
        height, width = self.labels[0].shape
        return Size(width, height)


def batches_per_epoch(count: int, batch_size: int) -> int:
    """Return how many full batches `count` samples make; a set smaller than a batch makes one."""
    return max(1, count // batch_size)


def epoch_batches(samples: PackedSamples, recipe: Recipe, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield one epoch of augmented batches; all chance comes from the recipe's seed and `epoch` alone.

    Yields
    ------
    pictures, labels : Tensor
        N x 3 x H x W float32 (normalised, channels last) and N x H x W uint8.
    """
    rng = np.random.default_rng([recipe.seed, epoch])
    order = rng.permutation(len(samples))
    augmentation = Augmentation(**recipe.augmentation.model_dump())
    size = (recipe.crop_size.height, recipe.crop_size.width)
    void = samples.class_set.ignore_index
    batch = min(recipe.batch_size, len(samples))
    for number in range(batches_per_epoch(len(samples), recipe.batch_size)):
        chosen = order[number * batch : (number + 1) * batch]
        pairs = [crop_pair(samples.pictures[i], samples.labels[i], size, augmentation, rng, void) for i in chosen]
        pictures = torch.stack([picture for picture, _ in pairs])
        yield colour_and_normalise(pictures, augmentation, rng), torch.stack([labels for _, labels in pairs])
