"""Evaluation of anything that maps a normalised picture to logits: PyTorch, or a compiled module."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np
import torch
from PIL import Image
from torch import nn

from enet_tvm.data.classes import ClassSet
from enet_tvm.data.transforms import normalise
from enet_tvm.errors import UserError
from enet_tvm.evaluation.instance_iou import InstanceIou
from enet_tvm.evaluation.metrics import ConfusionMatrix, SegmentationMetrics
from enet_tvm.size import MULTIPLE, Size

Forward = Callable[[np.ndarray], np.ndarray]
"""Maps N x 3 x H x W float32 to N x C x H x W float32 logits."""


def torch_forward(network: nn.Module) -> Forward:
    """Return the forward function of a PyTorch network, which is turned to channels last; float32, no gradients.

    The network computes on the device that it is on.
    """
    device = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @torch.inference_mode()
    def forward(x: np.ndarray) -> np.ndarray:
        return network(torch.from_numpy(x).to(device, memory_format=torch.channels_last)).cpu().numpy()

    return forward


def predict(
    forward: Forward,
    picture: Image.Image,
    shape: tuple[int, ...],
    class_set: ClassSet,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    size: Size | None = None,
) -> np.ndarray:
    """Segment one picture; parameters, and what is raised, are those of `evaluate`.

    Returns
    -------
    ndarray
        Label map of the given `shape` (H, W), uint8; brought to it by nearest neighbours where the network's differs.
    """
    own = Size(*picture.size)
    if size is None and (own.width % MULTIPLE or own.height % MULTIPLE):
        raise UserError(f"a picture is {own}, whose sides are not divisible by {MULTIPLE}; give a --size, such as 480x360")
    if size is not None and own != size:
        picture = picture.resize(size, Image.Resampling.BILINEAR)
    logits = forward(normalise(np.asarray(picture), mean, std))
    if logits.shape[1] != len(class_set):
        raise UserError(
            f"the network has {logits.shape[1]} classes but the data set has {len(class_set)}; give weights made for it"
        )
    prediction = logits[0].argmax(axis=0).astype(np.uint8)
    if prediction.shape != shape:
        prediction = np.asarray(Image.fromarray(prediction).resize((shape[1], shape[0]), Image.Resampling.NEAREST))
    return prediction


def evaluate(
    forward: Forward,
    samples: Iterable[tuple[Image.Image, np.ndarray]],
    class_set: ClassSet,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    size: Size | None = None,
    instances: Callable[[int], np.ndarray | None] | None = None,
    observe: Callable[[int, np.ndarray, np.ndarray], None] | None = None,
) -> SegmentationMetrics:
    """Segment labelled pictures one by one and compare.

    Parameters
    ----------
    forward : callable
        Maps a 1 x 3 x H x W float32 normalised picture to 1 x C x H x W float32 logits.
    samples : iterable of (PIL image, ndarray)
        RGB pictures and their H x W uint8 labels.
    class_set : ClassSet
        Classes that the labels stand for.
    mean, std : tuple of float
        Normalisation of the network, per RGB channel of pictures scaled to 0..1.
    size : Size, optional
        Size to which pictures are resized (bilinear); predictions are brought back to the labels' size (nearest), so
        that the figures always are of the labels as they come. By default pictures are taken as they are.
    instances : callable, optional
        Returns the map of instances of picture `i`, as `Cityscapes.instances` does, for the instance-weighted IoU; it is
        left out if a picture has none.
    observe : callable, optional
        Called with each picture's number, prediction and labels.

    Raises
    ------
    UserError
        When a picture's own size does not fit the network and no size is given, or the number of logits is not that
        of the classes.
    """
    confusion = ConfusionMatrix(class_set)
    weighted = InstanceIou(class_set) if instances and class_set.instance_shares else None
    for index, (picture, labels) in enumerate(samples):
        prediction = predict(forward, picture, labels.shape, class_set, mean, std, size)
        confusion.update(prediction, labels)
        if observe:
            observe(index, prediction, labels)
        if weighted and instances:
            if (known := instances(index)) is None:
                weighted = None
            else:
                weighted.update(prediction, known)
    return replace(confusion.metrics(), instance=weighted.metrics(confusion) if weighted else None)
