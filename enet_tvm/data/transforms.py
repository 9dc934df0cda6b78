"""Transforms of pictures and labels: normalisation, and augmentation that moves both together."""

from __future__ import annotations

import math
from collections.abc import Sequence
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
        H x W x 3 uint8 RGB picture.
    mean, std : tuple of float
        Mean and standard deviation per RGB channel of pictures scaled to 0..1.

    Returns
    -------
    ndarray
        1 x 3 x H x W float32 input, contiguous.
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
        Largest change x of the factors, which are drawn from ``1 - x .. 1 + x``.
    hue : float
        Largest turn of the colour circle, in degrees.
    blur : float
        Probability of a 3x3 binomial blur.
    exposure : (float, float)
        Range of the change of the exposure, in stops: one stop more is twice the light, two less are dusk.
    white_balance : float
        Largest change of the gains of red and blue, in stops likewise: a colder or a warmer light.
    gamma : float
        Largest change x of the exponent of the values, which lies in ``1 / (1 + x) .. 1 + x``; drawn uniformly in the
        logarithm.
    noise : float
        Largest standard deviation of a camera's noise, of values in 0..1; drawn uniformly from zero.
    """

    scale: tuple[float, float] = (1.0, 1.0)
    aspect: float = 0.0
    flip: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    blur: float = 0.0
    exposure: tuple[float, float] = (0.0, 0.0)
    white_balance: float = 0.0
    gamma: float = 0.0
    noise: float = 0.0


@dataclass(frozen=True)
class Crop:
    """A random window, drawn but not yet cut.

    Attributes
    ----------
    rows, columns : Window
        Source and target pixels along each axis.
    size : (int, int)
        Height and width of the result, in pixels.
    flip : bool
        Whether it is mirrored.
    """

    rows: Window
    columns: Window
    size: tuple[int, int]
    flip: bool


def draw_crop(
    shape: tuple[int, int],
    size: tuple[int, int],
    augmentation: Augmentation,
    rng: np.random.Generator,
    pixel: tuple[int, int] | None = None,
) -> Crop:
    """Draw a window of a picture of height and width `shape`; `scale`, `aspect` and `flip` of `augmentation` decide it.

    The `pixel`, a row and a column of the picture, lies in the window if it is given.
    """
    row, column = pixel or (None, None)
    low, high = augmentation.scale
    zoom = math.exp(rng.uniform(math.log(low), math.log(high)))
    stretch = math.exp(rng.uniform(-1, 1) * math.log1p(augmentation.aspect) / 2)
    rows = _window(shape[0], size[0], zoom / stretch, rng, row)
    columns = _window(shape[1], size[1], zoom * stretch, rng, column)
    return Crop(rows, columns, size, bool(rng.random() < augmentation.flip))


def cut(picture: Tensor, labels: Tensor, crop: Crop, void: int) -> tuple[Tensor, Tensor]:
    """Cut a window out of a picture and its labels and bring it to the crop's size.

    Parameters
    ----------
    picture : Tensor
        3 x H x W uint8 picture.
    labels : Tensor
        H x W uint8 labels.
    crop : Crop
        Window, drawn for that height and width.
    void : int
        Label of pixels outside the picture; their colour is the mean of `MEAN`.

    Returns
    -------
    picture, labels : Tensor
        3 x h x w uint8 (bilinear, antialiased) and h x w uint8 (nearest).
    """
    rows, columns = crop.rows, crop.columns
    fill = torch.tensor([round(255 * value) for value in MEAN], dtype=torch.uint8)
    out_picture = fill[:, None, None].repeat(1, *crop.size)
    out_labels = torch.full(crop.size, void, dtype=torch.uint8)
    target = (slice(rows.start, rows.stop), slice(columns.start, columns.stop))
    piece = picture[:, rows.source_start : rows.source_stop, columns.source_start : columns.source_stop]
    shape = (rows.stop - rows.start, columns.stop - columns.start)
    if piece.shape[1:] != shape:
        piece = F.interpolate(piece[None], shape, mode="bilinear", antialias=True)[0]
    out_picture[(slice(None), *target)] = piece
    out_labels[target] = labels[rows.nearest()][:, columns.nearest()]
    return (out_picture.flip(2), out_labels.flip(1)) if crop.flip else (out_picture, out_labels)


def crop_pair(
    picture: Tensor, labels: Tensor, size: tuple[int, int], augmentation: Augmentation, rng: np.random.Generator, void: int
) -> tuple[Tensor, Tensor]:
    """Draw a window and cut it; see `draw_crop` and `cut`."""
    return cut(picture, labels, draw_crop((labels.shape[0], labels.shape[1]), size, augmentation, rng), void)


@dataclass(frozen=True)
class Window:
    """Source pixels ``source_start..source_stop`` go to ``start..stop`` of the result, along one axis."""

    source_start: int
    source_stop: int
    start: int
    stop: int

    def nearest(self) -> Tensor:
        """Return, for each pixel of the result, the source pixel whose centre is nearest."""
        length, count = self.source_stop - self.source_start, self.stop - self.start
        return self.source_start + ((torch.arange(count) + 0.5) * (length / count)).long().clamp_(max=length - 1)


def _window(length: int, size: int, zoom: float, rng: np.random.Generator, inside: int | None) -> Window:
    wanted = max(1, round(size / zoom))
    slack = length - wanted
    first, last = min(0, slack), max(0, slack)
    if inside is not None:
        first, last = max(first, inside - wanted + 1), min(last, inside)
    begin = int(rng.integers(first, last, endpoint=True))
    source_start, source_stop = max(0, begin), min(length, begin + wanted)
    start = min(size - 1, round((source_start - begin) * size / wanted))
    stop = max(start + 1, round((source_stop - begin) * size / wanted))
    return Window(source_start, source_stop, start, min(stop, size))


@dataclass(frozen=True)
class ColourChange:
    """A random change of one picture's colours, drawn but not yet made.

    Attributes
    ----------
    brightness, contrast, saturation : float
        Factors of brightness, contrast and saturation.
    hue : float
        Turn of the colour circle, in radians.
    blur : bool
        Whether the picture is blurred.
    gains : (float, float, float)
        Factors of red, green and blue, of exposure and white balance together.
    gamma : float
        Exponent of the values.
    noise : float
        Standard deviation of the noise, for values in 0..1.
    noise_seed : int
        Seed of the noise.
    """

    brightness: float
    contrast: float
    saturation: float
    hue: float
    blur: bool
    gains: tuple[float, float, float] = (1.0, 1.0, 1.0)
    gamma: float = 1.0
    noise: float = 0.0
    noise_seed: int = 0


def draw_colours(count: int, augmentation: Augmentation, rng: np.random.Generator) -> list[ColourChange]:
    """Draw the changes of `count` pictures' colours."""
    strengths = (augmentation.brightness, augmentation.contrast, augmentation.saturation)
    factors = []
    for _ in range(count):
        brightness, contrast, saturation = (1 + rng.uniform(-1, 1) * strength for strength in strengths)
        factors.append((brightness, contrast, saturation, math.radians(rng.uniform(-1, 1) * augmentation.hue)))
    blurs = rng.random(count) < augmentation.blur
    lights = [_draw_light(augmentation, rng) for _ in range(count)]
    return [ColourChange(*values, bool(blur), *light) for values, blur, light in zip(factors, blurs, lights, strict=True)]


def _draw_light(augmentation: Augmentation, rng: np.random.Generator) -> tuple[tuple[float, float, float], float, float, int]:
    """Draw gains, gamma, noise and its seed; what is zero draws nothing, so that recipes without it keep their chance."""
    gains, gamma, noise, noise_seed = np.ones(3), 1.0, 0.0, 0
    if any(augmentation.exposure):
        gains *= 2 ** rng.uniform(*augmentation.exposure)
    if augmentation.white_balance:
        gains[[0, 2]] *= 2 ** rng.uniform(-augmentation.white_balance, augmentation.white_balance, 2)
    if augmentation.gamma:
        gamma = math.exp(rng.uniform(-1, 1) * math.log1p(augmentation.gamma))
    if augmentation.noise:
        noise, noise_seed = rng.uniform(0, augmentation.noise), int(rng.integers(2**62))
    return (float(gains[0]), float(gains[1]), float(gains[2])), gamma, noise, noise_seed


def recolour(pictures: Tensor, changes: Sequence[ColourChange]) -> Tensor:
    """Change the colours of a batch and normalise it with `MEAN` and `STD`.

    Gains, brightness, contrast, saturation and hue are all affine in RGB, so each picture needs one 3x3 matrix. What leaves the
    range of the camera is clipped before gamma, blur and noise.

    Parameters
    ----------
    pictures : Tensor
        N x 3 x H x W uint8 RGB pictures, on any device.
    changes : sequence of ColourChange
        Change of each picture's colours.

    Returns
    -------
    Tensor
        N x 3 x H x W float32 pictures, channels last, on the same device.
    """
    count, _, height, width = pictures.shape
    device = pictures.device
    values = pictures.reshape(count, 3, -1).float().mul_(1 / 255)
    means = values.mean(dim=2).cpu().double().numpy()
    matrices, offsets = np.empty((count, 3, 3)), np.empty((count, 3, 1))
    for i, change in enumerate(changes):
        matrices[i], offsets[i] = _affine(change, means[i])
    linear, constant = (torch.from_numpy(array).float().to(device) for array in (matrices, offsets))
    values = torch.baddbmm(constant, linear, values).clamp_(0, 1)
    values = values.view(count, 3, height, width)
    if any(change.gamma != 1 for change in changes):
        values.pow_(torch.tensor([change.gamma for change in changes], device=device)[:, None, None, None])
    if any(change.blur for change in changes):
        blurred = torch.tensor([change.blur for change in changes], device=device)
        values[blurred] = _blur(values[blurred])
    for picture, change in zip(values, changes, strict=True):
        if change.noise:
            chance = torch.Generator(device).manual_seed(change.noise_seed)
            noise = torch.randn(picture.shape, generator=chance, device=device)
            picture.add_(noise, alpha=change.noise).clamp_(0, 1)
    mean, std = (torch.tensor(row, device=device)[:, None, None] for row in (MEAN, STD))
    return values.sub_(mean).div_(std).contiguous(memory_format=torch.channels_last)


def colour_and_normalise(pictures: Tensor, augmentation: Augmentation, rng: np.random.Generator) -> Tensor:
    """Draw changes of a batch's colours, make them and normalise; see `draw_colours` and `recolour`."""
    return recolour(pictures, draw_colours(len(pictures), augmentation, rng))


def _affine(change: ColourChange, mean: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    grey = np.tile(_LUMA, (3, 1))
    # A turn about the grey axis (Rodrigues' formula for the axis (1, 1, 1) / sqrt 3).
    cross = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)
    cosine, sine = math.cos(change.hue), math.sin(change.hue)
    turn = cosine * np.eye(3) + sine * cross + (1 - cosine) / 3
    matrix = change.brightness * (change.saturation * np.eye(3) + (1 - change.saturation) * grey) @ turn
    matrix = matrix * change.gains  # the gains come first: they are columns
    pivot = float(grey[0] @ (matrix @ mean))
    return change.contrast * matrix, np.full((3, 1), (1 - change.contrast) * pivot)


def _blur(pictures: Tensor) -> Tensor:
    row = torch.tensor([0.25, 0.5, 0.25], device=pictures.device)
    kernel = (row[:, None] * row).expand(3, 1, 3, 3)
    return F.conv2d(F.pad(pictures, (1, 1, 1, 1), mode="replicate"), kernel, groups=3)
