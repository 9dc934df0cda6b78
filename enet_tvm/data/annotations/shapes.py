"""Annotated shapes of a picture, in one form for all tools, and the mask that they make."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from enet_tvm.size import Size

Point = tuple[float, float]
VOID = 255
"""Number in a drawn mask for pixels outside of every shape, when that is of no class, and for crowds."""


@dataclass(frozen=True)
class Outline:
    """A filled polygon."""

    points: tuple[Point, ...]

    def covered(self, size: Size) -> NDArray[np.bool_]:
        """Return the pixels that it covers, H x W."""
        image = Image.new("1", size)
        if len(self.points) > 2:
            ImageDraw.Draw(image).polygon(list(self.points), fill=1, outline=1)
        return np.asarray(image)


@dataclass(frozen=True)
class Line:
    """A line of some width, or points, in pixels."""

    points: tuple[Point, ...]
    width: int = 3

    def covered(self, size: Size) -> NDArray[np.bool_]:
        """Return the pixels that it covers, H x W."""
        image = Image.new("1", size)
        brush = ImageDraw.Draw(image)
        if len(self.points) > 1:
            brush.line(list(self.points), fill=1, width=self.width, joint="curve")
        for x, y in self.points:
            reach = self.width / 2
            brush.ellipse((x - reach, y - reach, x + reach, y + reach), fill=1)
        return np.asarray(image)


@dataclass(frozen=True)
class Ellipse:
    """A filled ellipse, turned by some degrees."""

    centre: Point
    radii: Point
    turn: float = 0.0

    def covered(self, size: Size) -> NDArray[np.bool_]:
        """Return the pixels that it covers, H x W."""
        angles = np.linspace(0, 2 * math.pi, 72, endpoint=False)
        x, y = self.radii[0] * np.cos(angles), self.radii[1] * np.sin(angles)
        cosine, sine = math.cos(math.radians(self.turn)), math.sin(math.radians(self.turn))
        across, down = self.centre[0] + x * cosine - y * sine, self.centre[1] + x * sine + y * cosine
        return Outline(tuple(zip(across.tolist(), down.tolist(), strict=True))).covered(size)


@dataclass(frozen=True)
class Bitmap:
    """Pixels, H x W bool, whose upper left corner lies somewhere in the picture."""

    pixels: NDArray[np.bool_]
    left: int = 0
    top: int = 0

    def covered(self, size: Size) -> NDArray[np.bool_]:
        """Return the pixels that it covers, H x W; what lies outside of the picture is cut off."""
        result = np.zeros((size.height, size.width), bool)
        cut_top, cut_left = max(0, -self.top), max(0, -self.left)
        inside = self.pixels[cut_top : max(0, size.height - self.top), cut_left : max(0, size.width - self.left)]
        top, left = max(0, self.top), max(0, self.left)
        result[top : top + inside.shape[0], left : left + inside.shape[1]] = inside
        return result


@dataclass(frozen=True)
class Region:
    """A part of a picture and its class.

    Attributes
    ----------
    label : str or None
        Name of its class; None for what counts nowhere, such as a crowd.
    forms : tuple
        Shapes whose union it is.
    order : float or None
        Drawing order, lowest first; None if the annotations give none: then the larger before the smaller.
    """

    label: str | None
    forms: tuple[Outline | Line | Ellipse | Bitmap, ...]
    order: float | None = None

    def covered(self, size: Size) -> NDArray[np.bool_]:
        """Return the pixels that any of its forms covers."""
        result = np.zeros((size.height, size.width), bool)
        for form in self.forms:
            result |= form.covered(size)
        return result


@dataclass(frozen=True)
class AnnotatedPicture:
    """A picture and its annotated regions.

    Attributes
    ----------
    name : str
        Path of the picture as it is written there.
    size : Size
        Size of the picture, as the annotations give it, or else of the file.
    regions : tuple of Region
        Annotated regions of the picture.
    """

    name: str
    size: Size
    regions: tuple[Region, ...]


@dataclass(frozen=True)
class Annotations:
    """Annotations that a tool exported.

    Attributes
    ----------
    kind : str
        Tool or format: "COCO", "labelme" or "CVAT".
    labels : tuple of str
        Class names, in the order of the tool.
    pictures : tuple of AnnotatedPicture
        All pictures, also those without a region.
    said : tuple of str
        Sentences on what was left out or assumed.
    """

    kind: str
    labels: tuple[str, ...]
    pictures: tuple[AnnotatedPicture, ...]
    said: tuple[str, ...] = ()


def draw_mask(picture: AnnotatedPicture, labels: Sequence[str], outside: int) -> NDArray[np.uint8]:
    """Return the mask of a picture: the place of each pixel's class in `labels`, H x W uint8.

    Parameters
    ----------
    picture : AnnotatedPicture
        The picture and its regions.
    labels : sequence of str
        Class names.
    outside : int
        Number that pixels of no region get.
    """
    mask = np.full((picture.size.height, picture.size.width), outside, np.uint8)
    drawn = [(region, region.covered(picture.size)) for region in picture.regions]
    # A picture on the wall is drawn over the wall, unless the annotations say what lies on top.
    drawn.sort(key=lambda each: (each[0].order or 0.0, -int(each[1].sum()) if each[0].order is None else 0))
    for region, covered in drawn:
        mask[covered] = VOID if region.label is None else labels.index(region.label)
    return mask
