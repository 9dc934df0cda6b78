"""labelme's JSON: one file a picture, with shapes."""

from __future__ import annotations

import base64
import math
import tempfile
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from enet_tvm.data.annotations.shapes import AnnotatedPicture, Bitmap, Ellipse, Line, Outline, Region
from enet_tvm.data.masks import stored_pixels
from enet_tvm.errors import UserError
from enet_tvm.size import Size

_REMEDY = "save it again with labelme"
_Extent = Annotated[int, Field(ge=1, le=100_000)]
_Kind = Literal["polygon", "rectangle", "circle", "line", "linestrip", "point", "points", "mask"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)


class _Shape(_Part):
    label: str = Field(min_length=1)
    points: list[tuple[float, float]] = Field(min_length=1)
    shape_type: _Kind = "polygon"
    mask: str | None = None


class _File(_Part):
    shapes: list[_Shape]
    image_path: str = Field(alias="imagePath", min_length=1)
    width: _Extent = Field(alias="imageWidth")
    height: _Extent = Field(alias="imageHeight")


def is_labelme(content: Any) -> bool:
    """Return whether JSON is that of labelme."""
    return isinstance(content, dict) and {"shapes", "imagePath"} <= content.keys()


def parse_labelme(content: Any, path: Path) -> AnnotatedPicture:
    """Return what a file of labelme says of its picture, whose name is beside the file's.

    Raises
    ------
    UserError
        When it does not fit.
    """
    try:
        file = _File.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(step) for step in first["loc"])
        raise UserError(f"{path} is no file of labelme ('{where}': {first['msg']}); {_REMEDY}") from error
    # labelme draws later shapes over earlier ones.
    regions = tuple(
        Region(shape.label, (_form(shape, f"{path}: shape {place}"),), float(place)) for place, shape in enumerate(file.shapes)
    )
    return AnnotatedPicture(file.image_path.replace("\\", "/"), Size(file.width, file.height), regions)


def _form(shape: _Shape, where: str) -> Outline | Line | Ellipse | Bitmap:
    points = shape.points
    if len(points) < {"polygon": 3, "rectangle": 2, "circle": 2, "line": 2, "linestrip": 2}.get(shape.shape_type, 1):
        raise UserError(f"{where}, a {shape.shape_type}, has {len(points)} points; {_REMEDY}")
    first = points[0]
    match shape.shape_type:
        case "polygon":
            return Outline(tuple(points))
        case "rectangle":
            (left, top), (right, bottom) = first, points[1]
            return Outline(((left, top), (right, top), (right, bottom), (left, bottom)))
        case "circle":
            radius = math.dist(first, points[1])
            return Ellipse(first, (radius, radius))
        case "mask":
            return _bitmap(shape, where)
        case "points":
            return Line((first,))
    return Line(tuple(points))


def _bitmap(shape: _Shape, where: str) -> Bitmap:
    with tempfile.TemporaryDirectory(prefix="enet-tvm-") as folder:
        path = Path(folder) / "mask.png"
        try:
            path.write_bytes(base64.b64decode(shape.mask or "", validate=True))
            pixels = stored_pixels(path)
        except (UserError, ValueError) as error:
            raise UserError(f"{where} is a mask whose pixels are no PNG file in base 64; {_REMEDY}") from error
    if pixels.ndim != 2:
        raise UserError(f"{where} is a mask in colours; {_REMEDY}")
    return Bitmap(pixels > 0, round(shape.points[0][0]), round(shape.points[0][1]))
