"""Parity of a compiled module with PyTorch: how closely their outputs agree on the same weights."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from enet_tvm.agreement import PICTURES
from enet_tvm.errors import UserError
from enet_tvm.evaluation.inputs import Sample
from enet_tvm.evaluation.metrics import ConfusionMatrix
from enet_tvm.files import sha256
from enet_tvm.networks import load_network
from enet_tvm.networks.weights import DEFAULT_WEIGHTS
from enet_tvm.places import find_file
from enet_tvm.runtime.labels import most_likely, resize_labels
from enet_tvm.size import Size

if TYPE_CHECKING:
    from enet_tvm.data.classes import ClassSet
    from enet_tvm.runtime import Segmenter


@dataclass(frozen=True)
class ParityReport:
    """Differences between the outputs of a compiled module and of PyTorch.

    Attributes
    ----------
    pictures, pixels : int
        Number of pictures, and of pixels at the size of the network's input, that were compared.
    max_abs_logit_diff, mean_abs_logit_diff : float or None
        Largest and mean absolute difference of two logits; NaN if either side has a NaN; None where the module returns labels.
    label_agreement : float
        Share of pixels, 0..1, to which both give the same label.
    worst_picture, worst_agreement : int, float
        Number of the picture with the lowest label agreement, from 0, and that agreement.
    miou, miou_reference, miou_diff : float or None
        Mean IoU of the compiled module and of PyTorch at the labels' size, and the distance of the two; None without labels.
    """

    pictures: int
    pixels: int
    max_abs_logit_diff: float | None
    mean_abs_logit_diff: float | None
    label_agreement: float
    worst_picture: int
    worst_agreement: float
    miou: float | None = None
    miou_reference: float | None = None
    miou_diff: float | None = None

    @property
    def differing_pixels(self) -> int:
        """Number of pixels with another label."""
        return round((1 - self.label_agreement) * self.pixels)

    def passes(
        self,
        min_agreement: float = PICTURES["float32"],
        max_logit_diff: float | None = None,
        max_miou_diff: float | None = None,
    ) -> bool:
        """Return whether labels agree well enough, and logits and mIoU where a limit is given; NaN and infinity never pass."""
        if self.max_abs_logit_diff is not None:
            if not math.isfinite(self.max_abs_logit_diff):
                return False
            if max_logit_diff is not None and self.max_abs_logit_diff > max_logit_diff:
                return False
        near = max_miou_diff is None or self.miou_diff is None or self.miou_diff <= max_miou_diff
        return near and self.label_agreement >= min_agreement

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as JSON takes them (NaN and infinity become null)."""
        figures = asdict(self)
        return {key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in figures.items()}


def load_reference(segmenter: Segmenter, weights: str | Path | None = None) -> nn.Module:
    """Return the PyTorch network that an artifact was compiled from, in eval mode.

    Parameters
    ----------
    segmenter : Segmenter
        The loaded artifact.
    weights : str or Path, optional
        Weights file; by default the one that the manifest names, if it is still there, else the shipped one.

    Raises
    ------
    UserError
        When the file is missing or broken, or the artifact was compiled from another one.
    """
    path = find_file(weights or _recorded_weights(segmenter) or DEFAULT_WEIGHTS)
    if sha256(path) != segmenter.manifest.hashes.weights:
        remedy = "give --weights with the file that" if weights is None else "give the file that"
        raise UserError(f"the artifact was not compiled from {path}; {remedy} it was compiled from, or compile it again")
    return load_network(path)


def _recorded_weights(segmenter: Segmenter) -> Path | None:
    """Return the file that the artifact was compiled from, None when it is gone or has changed."""
    manifest = segmenter.manifest
    if not manifest.weights:
        return None
    try:
        path = find_file(manifest.weights)
    except UserError:
        return None
    return path if sha256(path) == manifest.hashes.weights else None


@torch.inference_mode()
def reference_logits(network: nn.Module, x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return PyTorch's logits (N x C x H x W float32) for a normalised input (N x 3 x H x W float32)."""
    logits: NDArray[np.float32] = network(torch.from_numpy(x)).numpy()
    return logits


def verify(
    segmenter: Segmenter, network: nn.Module, samples: Iterable[Sample], class_set: ClassSet | None = None
) -> ParityReport:
    """Run pictures through a compiled module and through PyTorch, and compare.

    Both get the very same input array, so that only the network is compared, not the preparation of pictures.

    Parameters
    ----------
    segmenter : Segmenter
        The compiled network.
    network : torch.nn.Module
        The PyTorch network that it was compiled from, in eval mode.
    samples : iterable of (PIL.Image.Image, ndarray or None)
        RGB pictures of any size and their labels.
    class_set : ClassSet, optional
        Classes that the labels stand for; needed if there are any.

    Raises
    ------
    UserError
        When there are no pictures, or one cannot be read.
    """
    manifest = segmenter.manifest
    ours, theirs = (ConfusionMatrix(class_set), ConfusionMatrix(class_set)) if class_set else (None, None)
    largest, total, agreements = 0.0, 0.0, []
    pixels = 0
    for picture, labels in samples:
        x = segmenter.preprocess(picture)
        compiled, reference = segmenter.forward(x)[0], reference_logits(network, x)[0]
        found, expected = segmenter.labels(compiled), most_likely(reference)
        if not manifest.output.labels:
            difference = np.abs(compiled.astype(np.float64) - reference)
            # np.maximum keeps a NaN, max() would lose it.
            largest, total = float(np.maximum(largest, difference.max())), total + float(difference.sum())
        agreements.append(float(np.mean(found == expected)))
        pixels += found.size
        if labels is not None and ours is not None and theirs is not None:
            size = Size(labels.shape[1], labels.shape[0])
            ours.update(resize_labels(found, size), labels)
            theirs.update(resize_labels(expected, size), labels)
    if not agreements:
        raise UserError("there are no pictures to verify on; give at least one")
    miou, miou_reference = _miou(ours), _miou(theirs)
    worst = int(np.argmin(agreements))
    return ParityReport(
        pictures=len(agreements),
        pixels=pixels,
        max_abs_logit_diff=None if manifest.output.labels else largest,
        mean_abs_logit_diff=None if manifest.output.labels else total / (pixels * len(manifest.classes)),
        label_agreement=float(np.mean(agreements)),
        worst_picture=worst,
        worst_agreement=agreements[worst],
        miou=miou,
        miou_reference=miou_reference,
        miou_diff=None if miou is None or miou_reference is None else abs(miou - miou_reference),
    )


def _miou(confusion: ConfusionMatrix | None) -> float | None:
    if confusion is None or not confusion.counts.any():
        return None
    return confusion.metrics().miou
