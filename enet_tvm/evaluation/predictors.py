"""Predictors to evaluate: weights run by PyTorch, or a compiled artifact, behind one interface."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from enet_tvm.data.classes import ClassSet, require_classes
from enet_tvm.errors import UserError
from enet_tvm.evaluation.evaluate import Forward, torch_forward
from enet_tvm.networks import load_network, read_info
from enet_tvm.networks.weights import DEFAULT_WEIGHTS
from enet_tvm.places import name_of
from enet_tvm.size import Size


@dataclass(frozen=True)
class Predictor:
    """A forward function with its classes, normalisation and input size.

    Attributes
    ----------
    name : str
        File or directory it came from.
    forward : callable
        Maps a 1 x 3 x H x W float32 normalised picture to 1 x C x H x W float32 logits.
    classes : tuple of str
        Class names, in the order of the logits.
    mean, std : tuple of float
        Normalisation per RGB channel of pictures scaled to 0..1.
    size : Size or None
        The only size it takes; None if it takes any.
    """

    name: str
    forward: Forward
    classes: tuple[str, ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    size: Size | None = None

    def check(self, class_set: ClassSet, size: Size | None) -> None:
        """Refuse a data set of other classes, or a size that was not compiled.

        Raises
        ------
        UserError
            When either does not fit.
        """
        require_classes(self.classes, class_set, self.name)
        if self.size is not None and size != self.size:
            raise UserError(f"{self.name} was compiled for {self.size}, not {size}; leave --size out or compile it for that")


def weights_predictor(weights: str | Path | None = None, threads: int | None = None) -> Predictor:
    """Return a weights file (by default the shipped one) run by PyTorch in float32.

    Raises
    ------
    UserError
        When the file is missing or broken.
    """
    path = weights or DEFAULT_WEIGHTS
    info = read_info(path)
    if threads:
        torch.set_num_threads(threads)
    return Predictor(name_of(path), torch_forward(load_network(path)), info.classes, info.mean, info.std)


def artifact_predictor(directory: str | Path, threads: int | None = None) -> Predictor:
    """Return a compiled network.

    Raises
    ------
    UserError
        When the artifact cannot be loaded here.
    """
    from enet_tvm.runtime import Segmenter

    segmenter = Segmenter.load(directory, threads=threads)
    manifest = segmenter.manifest
    _, _, height, width = manifest.input.shape
    return Predictor(
        str(directory), segmenter.forward, manifest.classes, manifest.input.mean, manifest.input.std, Size(width, height)
    )
