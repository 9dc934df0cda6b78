"""Biases of the classes after training: those with which the mean IoU on the training pictures is largest.

Class weights make a network find rare classes, and say them too often; the IoU counts both. One number a class, added to
its logits and kept in the last layer's bias, puts the borders between classes where the IoU wants them. Only training
pictures decide. (Menon et al., 2021, arXiv 2007.07314, adjust logits by the classes' frequencies; here their IoU decides.)
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from enet_tvm.data.classes import ClassSet
from enet_tvm.data.transforms import normalise
from enet_tvm.errors import UserError
from enet_tvm.evaluation.evaluate import Forward
from enet_tvm.evaluation.metrics import ConfusionMatrix

_STEPS = (0.6, 0.3, 0.15)
"""Steps by which a bias is changed, in units of logits: coarse ones first."""
_SWEEPS = 2
_SHARE = 0.12
"""Share of a picture's pixels that is used, drawn by chance: neighbours say the same."""
_GAIN = 0.002
"""Gain of mean IoU that a unit of bias must bring: a smaller one is as likely to be of these pictures only."""


def collect_logits(
    forward: Forward,
    samples: Iterable[tuple[Image.Image, NDArray[np.uint8]]],
    class_set: ClassSet,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    share: float = _SHARE,
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Return logits (pixels x classes, float32) and labels (pixels, uint8) of some labelled pixels of every picture.

    Raises
    ------
    UserError
        When no pixel is labelled.
    """
    rng = np.random.default_rng(0)
    logits, truth = [], []
    for picture, labels in samples:
        found = forward(normalise(np.asarray(picture), mean, std))[0]
        chosen = (labels != class_set.ignore_index) & (rng.random(labels.shape) < share)
        logits.append(found[:, chosen].T)
        truth.append(labels[chosen])
    if not sum(map(len, truth)):
        raise UserError("there is no labelled pixel to fit biases on; check the data set's label files")
    return np.concatenate(logits), np.concatenate(truth)


def fit_logit_bias(
    logits: NDArray[np.float32], labels: NDArray[np.uint8], class_set: ClassSet
) -> tuple[NDArray[np.float32], float, float]:
    """Return a bias for each class by coordinate ascent on the mean IoU, and that without and with them.

    Parameters
    ----------
    logits, labels : ndarray
        Logits (pixels x classes, float32) and labels (pixels, uint8), as `collect_logits` returns them.
    class_set : ClassSet
        Classes that the labels stand for.
    """
    bias = np.zeros(logits.shape[1], np.float32)
    best = before = _miou(logits, labels, class_set)
    for step in _STEPS:
        for index in list(range(len(bias))) * _SWEEPS:
            for change in (step, -step):
                moved = bias.copy()
                moved[index] += change
                if (reached := _miou(logits + moved, labels, class_set)) > best + _GAIN * step:
                    best, bias = reached, moved
    return bias, before, best


def _miou(logits: NDArray[np.float32], labels: NDArray[np.uint8], class_set: ClassSet) -> float:
    confusion = ConfusionMatrix(class_set)
    confusion.update(logits.argmax(axis=1).astype(np.uint8), labels)
    return confusion.metrics().miou


def add_to_logits(network: nn.Module, bias: NDArray[np.float32]) -> None:
    """Add a bias to each of a network's logits, in place, by way of its last layer.

    Raises
    ------
    UserError
        When the last layer has no bias of as many classes.
    """
    layers = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.ConvTranspose2d)]
    last = layers[-1] if layers else None
    if last is None or last.bias is None or last.out_channels != len(bias):
        raise UserError(f"the network's last layer has no bias of {len(bias)} classes; there is nothing to fit")
    with torch.no_grad():
        last.bias.add_(torch.from_numpy(bias))
