"""Rare-class sampling: windows cut around rare classes, and parts of other pictures pasted in.

Class mixing is that of Olsson, Tranheden, Pinto, Svensson, 2020 (arXiv 2007.07936), between labelled pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from enet_tvm.data.transforms import Augmentation, Crop, cut, draw_crop
from enet_tvm.training.recipe import RareRecipe


class RareClasses:
    """Knows where the rare classes of some pictures are.

    Parameters
    ----------
    labels : sequence of Tensor
        H x W uint8 labels of each picture.
    histogram : ndarray
        Number of labelled pixels of each class in all pictures.
    below : float
        Share of the labelled pixels below which a class is rare.
    """

    def __init__(self, labels: Sequence[Tensor], histogram: np.ndarray, below: float) -> None:
        self.labels = labels
        share = histogram / histogram.sum()
        self.classes = [int(number) for number in np.flatnonzero((histogram > 0) & (share < below))]

    @cached_property
    def _holders(self) -> dict[int, list[int]]:
        """The pictures that each rare class is in."""
        return {number: [i for i, labels in enumerate(self.labels) if (labels == number).any()] for number in self.classes}

    def draw(self, rng: np.random.Generator) -> tuple[int, tuple[int, int]]:
        """Return a picture and a pixel of it (row, column): first a class is drawn, then who holds it, then where."""
        number = self.classes[rng.integers(len(self.classes))]
        picture = int(rng.choice(self._holders[number]))
        places = np.flatnonzero(self.labels[picture].numpy() == number)
        row, column = divmod(int(rng.choice(places)), self.labels[picture].shape[1])
        return picture, (row, column)


@dataclass(frozen=True)
class Paste:
    """What is pasted into a window from another picture, drawn but not yet made.

    Attributes
    ----------
    source : int
        Number of the other picture.
    crop : Crop
        Window of the other picture.
    classes : tuple of int
        Labels of the classes that may be pasted.
    share : float
        Share of the classes that the window holds which is pasted, in the order of `classes`; at least one class.
    """

    source: int
    crop: Crop
    classes: tuple[int, ...]
    share: float = 1.0


@dataclass(frozen=True)
class Draft:
    """A training window, drawn but not yet made.

    Attributes
    ----------
    source : int
        Number of the picture.
    crop : Crop
        Window of the picture.
    pastes : tuple of Paste
        Parts of other pictures that are pasted in, in this order.
    """

    source: int
    crop: Crop
    pastes: tuple[Paste, ...] = ()


def draw_draft(
    source: int,
    shapes: Sequence[tuple[int, int]],
    size: tuple[int, int],
    augmentation: Augmentation,
    recipe: RareRecipe,
    rare: RareClasses,
    class_count: int,
    rng: np.random.Generator,
) -> Draft:
    """Draw a training window.

    Parameters
    ----------
    source : int
        The picture whose turn it is; where the window is to show a rare class, another may take its place.
    shapes : sequence of (int, int)
        Height and width of each picture.
    size : (int, int)
        Height and width of the window.
    augmentation : Augmentation
        Ranges from which the windows are drawn.
    recipe : RareRecipe
        Probabilities of showing and pasting rare classes. A zero draws nothing, so that recipes without it keep their chance.
    rare : RareClasses
        Places of the rare classes. If there are none, none are shown or pasted.
    class_count : int
        Number of classes of the labels.
    rng : Generator
        Source of all random choices.
    """
    pixel = None
    if recipe.windows and rare.classes and rng.random() < recipe.windows:
        source, pixel = rare.draw(rng)
    crop = draw_crop(shapes[source], size, augmentation, rng, pixel)
    pastes = []
    if recipe.class_mix and rng.random() < recipe.class_mix:
        other = int(rng.integers(len(shapes)))
        order = tuple(int(number) for number in rng.permutation(class_count))
        pastes.append(Paste(other, draw_crop(shapes[other], size, augmentation, rng), order, 0.5))
    if recipe.paste and rare.classes and rng.random() < recipe.paste:
        other, pixel = rare.draw(rng)
        pastes.append(Paste(other, draw_crop(shapes[other], size, augmentation, rng, pixel), tuple(rare.classes)))
    return Draft(source, crop, tuple(pastes))


def make(draft: Draft, pictures: Sequence[Tensor], labels: Sequence[Tensor], void: int) -> tuple[Tensor, Tensor]:
    """Return a window and its labels.

    Parameters
    ----------
    draft : Draft
        The window as it was drawn.
    pictures, labels : sequence of Tensor
        3 x H x W uint8 picture and H x W uint8 labels of each.
    void : int
        Label that is never pasted.

    Returns
    -------
    picture, labels : Tensor
        3 x h x w uint8 picture and h x w uint8 labels.
    """
    picture, truth = cut(pictures[draft.source], labels[draft.source], draft.crop, void)
    for paste in draft.pastes:
        other, other_truth = cut(pictures[paste.source], labels[paste.source], paste.crop, void)
        present = set(other_truth.unique().tolist())
        candidates = [number for number in paste.classes if number in present]
        chosen = candidates[: max(1, round(paste.share * len(candidates)))]
        mask = torch.isin(other_truth, torch.tensor(chosen, dtype=torch.uint8)) & (other_truth != void)
        picture, truth = torch.where(mask, other, picture), torch.where(mask, other_truth, truth)
    return picture, truth
