"""CVAT's XML for images, version 1.1, which defusedxml reads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from enet_tvm.data.annotations.shapes import AnnotatedPicture, Annotations, Bitmap, Ellipse, Line, Outline, Point, Region
from enet_tvm.errors import UserError
from enet_tvm.size import Size

_REMEDY = "export it again as 'CVAT for images 1.1'"
_SHAPES = ("polygon", "box", "ellipse", "polyline", "points", "mask")
_MOST_PIXELS = 200_000_000


def read_cvat(path: Path) -> Annotations | None:
    """Return what a file of CVAT says, None if it is XML of something else.

    Raises
    ------
    UserError
        When it cannot be read, does not fit, is of a video, or defusedxml is not installed.
    """
    try:
        from defusedxml import DefusedXmlException, ElementTree
    except ImportError as error:
        raise UserError(
            f"{path} is XML, which needs defusedxml to be read safely; install it with pip install 'enet-tvm[annotations]'"
        ) from error
    try:
        root = ElementTree.parse(path).getroot()
    except (ElementTree.ParseError, DefusedXmlException, OSError, ValueError, LookupError) as error:
        raise UserError(f"{path} is no XML that can be read ({error}); {_REMEDY}") from error
    if root.tag != "annotations":
        return None
    if root.find("track") is not None:
        raise UserError(f"{path} is CVAT's export of a video, with tracks; {_REMEDY}")
    listed = [name for label in root.iter("label") if (name := label.findtext("name"))]
    pictures = tuple(_picture(image, path) for image in root.iter("image"))
    used = [region.label for picture in pictures for region in picture.regions if region.label is not None]
    return Annotations("CVAT", tuple(dict.fromkeys([*listed, *used])), pictures)


def _picture(image: Any, path: Path) -> AnnotatedPicture:
    name = image.get("name") or ""
    where = f"{path}: image '{name}'"
    size = Size(_whole(image, "width", where), _whole(image, "height", where))
    if not name or min(size) < 1 or size.width * size.height > _MOST_PIXELS:
        raise UserError(f"{where} has no name, or no size that a picture has; {_REMEDY}")
    return AnnotatedPicture(name, size, tuple(_regions(image, where)))


def _regions(image: Any, where: str) -> Iterator[Region]:
    for place, shape in enumerate(child for child in image if child.tag in _SHAPES):
        label = shape.get("label")
        if not label:
            raise UserError(f"{where}: a {shape.tag} has no label; {_REMEDY}")
        # Where two have one z_order, the later lies on top.
        order = _number(shape, "z_order", where, 0.0) + place * 1e-6
        yield Region(label, (_form(shape, f"{where}, {shape.tag} of '{label}'"),), order)


def _form(shape: Any, where: str) -> Outline | Line | Ellipse | Bitmap:
    match shape.tag:
        case "polygon":
            return Outline(_points(shape, where))
        case "box":
            left, top, right, bottom = (_number(shape, key, where) for key in ("xtl", "ytl", "xbr", "ybr"))
            return Outline(((left, top), (right, top), (right, bottom), (left, bottom)))
        case "ellipse":
            x, y, across, down = (_number(shape, key, where) for key in ("cx", "cy", "rx", "ry"))
            return Ellipse((x, y), (across, down), _number(shape, "rotation", where, 0.0))
        case "mask":
            return _bitmap(shape, where)
        case "points":
            return Line(_points(shape, where)[:1])
    return Line(_points(shape, where))


def _points(shape: Any, where: str) -> tuple[Point, ...]:
    try:
        pairs = [tuple(map(float, pair.split(","))) for pair in shape.get("points", "").split(";")]
        points = tuple((x, y) for x, y in pairs)
        if not np.isfinite(np.array(points)).all():
            raise ValueError("not finite")
    except ValueError as error:
        raise UserError(f"{where} has points that are no pairs of numbers; {_REMEDY}") from error
    return points


def _bitmap(shape: Any, where: str) -> Bitmap:
    left, top, width, height = (_whole(shape, key, where) for key in ("left", "top", "width", "height"))
    try:
        lengths = [int(part) for part in shape.get("rle", "").split(",")]
    except ValueError as error:
        raise UserError(f"{where} has run lengths that are no numbers; {_REMEDY}") from error
    if min(width, height) < 1 or width * height > _MOST_PIXELS or min(lengths) < 0 or sum(lengths) != width * height:
        raise UserError(f"{where} has run lengths that do not add up to its {width}x{height} pixels; {_REMEDY}")
    values = np.arange(len(lengths)) % 2 == 1
    return Bitmap(np.repeat(values, lengths).reshape(height, width), left, top)


def _number(element: Any, key: str, where: str, default: float | None = None) -> float:
    try:
        value = float(element.get(key, "" if default is None else default))
        if not np.isfinite(value):
            raise ValueError("not finite")
    except ValueError as error:
        raise UserError(f"{where}: '{key}' is {element.get(key)!r}, and no number; {_REMEDY}") from error
    return value


def _whole(element: Any, key: str, where: str) -> int:
    return round(_number(element, key, where))
