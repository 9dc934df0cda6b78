"""Training batches: a data set kept in memory as bytes, and augmented windows cut from it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from enet_tvm.data.classes import ClassSet
from enet_tvm.data.transforms import Augmentation, draw_colours, recolour
from enet_tvm.errors import UserError
from enet_tvm.size import Size
from enet_tvm.training.processes import Processes
from enet_tvm.training.rare import RareClasses, draw_draft, make
from enet_tvm.training.recipe import Settings

T = TypeVar("T")


class PackedSamples:
    """A labelled data set decoded once and kept as uint8 tensors.

    Parameters
    ----------
    samples : sequence of (PIL image, ndarray)
        RGB pictures and their H x W uint8 labels; sizes may differ.
    class_set : ClassSet
        Classes that the labels stand for.

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

        self._rare: dict[float, RareClasses] = {}

    def __len__(self) -> int:
        return len(self.pictures)

    def rare(self, below: float) -> RareClasses:
        """Return where the classes are whose share of the labelled pixels is smaller; looked for once."""
        if below not in self._rare:
            self._rare[below] = RareClasses(self.labels, self.histogram, below)
        return self._rare[below]

    def shape(self, index: int) -> tuple[int, int]:
        """Return height and width of a picture."""
        height, width = self.labels[index].shape
        return height, width

    def size(self) -> Size:
        """Return the size of the first picture."""
        height, width = self.labels[0].shape
        return Size(width, height)


def batches_per_epoch(count: int, batch_size: int) -> int:
    """Return how many full batches `count` samples make; a set smaller than a batch makes one."""
    return max(1, count // batch_size)


def shared_batch(count: int, batch_size: int, processes: Processes) -> int:
    """Return the size of a batch of `count` samples, which all processes share.

    Raises
    ------
    UserError
        When they cannot share it evenly.
    """
    batch = min(batch_size, count)
    if batch % processes.count:
        raise UserError(
            f"{processes.count} processes cannot share batches of {batch} evenly; set batch_size to a multiple of their number"
        )
    return batch


def epoch_batches(
    samples: PackedSamples, settings: Settings, seed: int, epoch: int, processes: Processes
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield one epoch of augmented batches; all chance comes from `seed` and `epoch` alone.

    Parameters
    ----------
    samples : PackedSamples
        Pictures and labels to cut windows from.
    settings : Settings
        Size of the batches and windows, and augmentation.
    seed, epoch : int
        Seed of the recipe and number of the epoch, which decide the order and the augmentation.
    processes : Processes
        Each process gets its share of every batch, on its device. Together they get what one alone would.

    Yields
    ------
    pictures, labels : Tensor
        N x 3 x H x W float32 pictures (normalised, channels last) and N x H x W uint8 labels.

    Raises
    ------
    UserError
        When the processes cannot share a batch evenly.
    """
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(len(samples))
    augmentation = Augmentation(**settings.augmentation.model_dump())
    size = (settings.crop_size.height, settings.crop_size.width)
    void = samples.class_set.ignore_index
    shapes = [samples.shape(i) for i in range(len(samples))]
    rare = samples.rare(settings.rare.below)
    batch = shared_batch(len(samples), settings.batch_size, processes)
    share = processes.share(batch)
    for number in range(batches_per_epoch(len(samples), settings.batch_size)):
        chosen = order[number * batch : (number + 1) * batch]
        drafts = [
            draw_draft(int(i), shapes, size, augmentation, settings.rare, rare, len(samples.class_set), rng) for i in chosen
        ]
        colours = draw_colours(batch, augmentation, rng)
        pairs = [make(draft, samples.pictures, samples.labels, void) for draft in drafts[share]]
        pictures, labels = (torch.stack(column).to(processes.device) for column in zip(*pairs, strict=True))
        yield recolour(pictures, colours[share]), labels


def prefetched(batches: Iterable[T]) -> Iterator[T]:
    """Yield from `batches` while a thread already makes the next one.

    Raises
    ------
    UserError
        When it is gone on with in a process forked meanwhile, where there is no such thread.
    """
    iterator, owner = iter(batches), os.getpid()
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, iterator, None)
        while (batch := coming.result()) is not None:
            coming = pool.submit(next, iterator, None)
            yield batch
            if os.getpid() != owner:
                raise UserError("these batches are made in the process that this one was forked from; begin an epoch here")
