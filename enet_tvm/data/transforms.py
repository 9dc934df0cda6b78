"""Transforms of pictures and labels: normalisation, and augmentation that moves both together."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
"""Mean and standard deviation per RGB channel, pictures scaled to 0..1, of ImageNet: the customary ones."""

_LUMA = (0.299, 0.587, 0.114)


def normalise(picture: np.ndarray, mean: tuple[float, ...] = MEAN, std: tuple[float, ...] = STD) -> np.ndarray:
    """Return a picture as a network takes it.

    Parameters
    ----------
    picture : ndarray
        H x W x 3 uint8, RGB.
    mean, std : tuple of float
        Per channel, of pictures scaled to 0..1.

    Returns
    -------
    ndarray
        1 x 3 x H x W float32, contiguous.
    """
    scaled = picture.astype(np.float32) / np.float32(255)
    scaled -= np.asarray(mean, np.float32)
    scaled /= np.asarray(std, np.float32)
    return np.ascontiguousarray(scaled.transpose(2, 0, 1)[None])


@dataclass(frozen=True)
class Augmentation:
    """How strongly training pictures are varied; zero (one for `scale`) leaves that property alone.

    Attributes
    ----------
    scale : (float, float)
        Range of the zoom; drawn uniformly in the logarithm.
    aspect : float
        Largest relative stretch of the width against the height.
    flip : float
        Probability of a horizontal flip.
    brightness, contrast, saturation : float
        Factors are drawn from ``1 - x .. 1 + x``.
    hue : float
        Largest turn of the colour circle, in degrees.
    blur : float
        Probability of a 3x3 binomial blur.
    """

    scale: tuple[float, float] = (1.0, 1.0)
    aspect: float = 0.0
    flip: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    blur: float = 0.0


def crop_pair(
    picture: Tensor, labels: Tensor, size: tuple[int, int], augmentation: Augmentation, rng: np.random.Generator, void: int
) -> tuple[Tensor, Tensor]:
    """Cut a random window out of a picture and its labels and bring it to `size`.

    Parameters
    ----------
    picture : Tensor
        3 x H x W uint8.
    labels : Tensor
        H x W uint8.
    size : (int, int)
        Height and width of the result.
    augmentation : Augmentation
        Its `scale`, `aspect` and `flip` decide the window.
    rng : numpy.random.Generator
        Source of chance.
    void : int
        Label of pixels outside the picture; their colour is the mean of `MEAN`.

    Returns
    -------
    picture, labels : Tensor
        3 x h x w uint8 (bilinear, antialiased) and h x w uint8 (nearest).
    """
    low, high = augmentation.scale
    zoom = math.exp(rng.uniform(math.log(low), math.log(high)))
    stretch = math.exp(rng.uniform(-1, 1) * math.log1p(augmentation.aspect) / 2)
    rows = _window(labels.shape[0], size[0], zoom / stretch, rng)
    columns = _window(labels.shape[1], size[1], zoom * stretch, rng)
    flip = bool(rng.random() < augmentation.flip)

    fill = torch.tensor([round(255 * value) for value in MEAN], dtype=torch.uint8)
    out_picture = fill[:, None, None].repeat(1, *size)
    out_labels = torch.full(size, void, dtype=torch.uint8)
    target = (slice(rows.start, rows.stop), slice(columns.start, columns.stop))
    piece = picture[:, rows.source_start : rows.source_stop, columns.source_start : columns.source_stop]
    shape = (rows.stop - rows.start, columns.stop - columns.start)
    if piece.shape[1:] != shape:
        piece = F.interpolate(piece[None], shape, mode="bilinear", antialias=True)[0]
    out_picture[(slice(None), *target)] = piece
    out_labels[target] = labels[rows.nearest()][:, columns.nearest()]
    return (out_picture.flip(2), out_labels.flip(1)) if flip else (out_picture, out_labels)


@dataclass(frozen=True)
class _Window:
    """Source pixels ``source_start..source_stop`` go to ``start..stop`` of the result, along one axis."""

    source_start: int
    source_stop: int
    start: int
    stop: int

    def nearest(self) -> Tensor:
        """Return, for each pixel of the result, the source pixel whose centre is nearest."""
        length, count = self.source_stop - self.source_start, self.stop - self.start
        return self.source_start + ((torch.arange(count) + 0.5) * (length / count)).long().clamp_(max=length - 1)


def _window(length: int, size: int, zoom: float, rng: np.random.Generator) -> _Window:
    wanted = max(1, round(size / zoom))
    slack = length - wanted
    begin = int(rng.integers(min(0, slack), max(0, slack), endpoint=True))
    source_start, source_stop = max(0, begin), min(length, begin + wanted)
    start = min(size - 1, round((source_start - begin) * size / wanted))
    stop = max(start + 1, round((source_stop - begin) * size / wanted))
    return _Window(source_start, source_stop, start, min(stop, size))


def colour_and_normalise(pictures: Tensor, augmentation: Augmentation, rng: np.random.Generator) -> Tensor:
    """Vary the colours of a batch and normalise it with `MEAN` and `STD`.

    Brightness, contrast, saturation and hue are all affine in RGB, so each picture needs one 3x3 matrix.

    Parameters
    ----------
    pictures : Tensor
        N x 3 x H x W uint8.
    augmentation : Augmentation
        How strongly.
    rng : numpy.random.Generator
        Source of chance.

    Returns
    -------
    Tensor
        N x 3 x H x W float32, channels last.
    """
    count, _, height, width = pictures.shape
    values = pictures.reshape(count, 3, -1).float().mul_(1 / 255)
    means = values.mean(dim=2).double().numpy()
    matrices, offsets = np.empty((count, 3, 3)), np.empty((count, 3, 1))
    for i in range(count):
        matrices[i], offsets[i] = _colour(augmentation, means[i], rng)
    values = torch.baddbmm(torch.from_numpy(offsets).float(), torch.from_numpy(matrices).float(), values).clamp_(0, 1)
    values = values.view(count, 3, height, width)
    blurred = torch.from_numpy(rng.random(count) < augmentation.blur)
    if blurred.any():
        values[blurred] = _blur(values[blurred])
    mean, std = torch.tensor(MEAN)[:, None, None], torch.tensor(STD)[:, None, None]
    return values.sub_(mean).div_(std).contiguous(memory_format=torch.channels_last)


def _colour(augmentation: Augmentation, mean: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    strengths = (augmentation.brightness, augmentation.contrast, augmentation.saturation)
    brightness, contrast, saturation = (1 + rng.uniform(-1, 1) * strength for strength in strengths)
    angle = math.radians(rng.uniform(-1, 1) * augmentation.hue)
    grey = np.tile(_LUMA, (3, 1))
    # A turn about the grey axis (Rodrigues' formula for the axis (1, 1, 1) / sqrt 3).
    cross = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)
    turn = math.cos(angle) * np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) / 3
    matrix = brightness * (saturation * np.eye(3) + (1 - saturation) * grey) @ turn
    pivot = float(grey[0] @ (matrix @ mean))
    return contrast * matrix, np.full((3, 1), (1 - contrast) * pivot)


def _blur(pictures: Tensor) -> Tensor:
    row = torch.tensor([0.25, 0.5, 0.25])
    kernel = (row[:, None] * row).expand(3, 1, 3, 3)
    return F.conv2d(F.pad(pictures, (1, 1, 1, 1), mode="replicate"), kernel, groups=3)
