"""COCO's JSON, whose polygons and run lengths pycocotools decodes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from enet_tvm.data.annotations.shapes import AnnotatedPicture, Annotations, Bitmap, Region
from enet_tvm.errors import UserError
from enet_tvm.size import Size

_FARTHEST = 1e6
_REMEDY = "export it again as 'COCO' from the annotation tool"


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)


class _Image(_Part):
    id: int | str
    file_name: str = Field(min_length=1)
    width: int = Field(ge=1, le=100_000)
    height: int = Field(ge=1, le=100_000)


class _RunLengths(_Part):
    counts: str | list[int]
    size: tuple[int, int]


class _Annotation(_Part):
    image_id: int | str
    category_id: int
    segmentation: _RunLengths | list[list[float]] | None = None
    iscrowd: int = 0


class _Category(_Part):
    id: int
    name: str = Field(min_length=1)


class _File(_Part):
    images: list[_Image]
    annotations: list[_Annotation]
    categories: list[_Category] = Field(min_length=1)


def is_coco(content: Any) -> bool:
    """Return whether JSON is that of COCO's annotations of objects."""
    return isinstance(content, dict) and {"images", "annotations", "categories"} <= content.keys()


def parse_coco(content: Any, path: Path) -> Annotations:
    """Return what a file of COCO's form says.

    Raises
    ------
    UserError
        When it does not fit, or pycocotools is not installed.
    """
    try:
        file = _File.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(step) for step in first["loc"])
        raise UserError(f"{path} is no COCO file of objects ('{where}': {first['msg']}); {_REMEDY}") from error
    names = {category.id: category.name for category in file.categories}
    sizes = {image.id: Size(image.width, image.height) for image in file.images}
    regions: dict[int | str, list[Region]] = {image.id: [] for image in file.images}
    boxes = 0
    for place, annotation in enumerate(file.annotations):
        if annotation.image_id not in sizes or annotation.category_id not in names:
            what = "an image" if annotation.image_id not in sizes else "a category"
            raise UserError(f"{path}: annotation {place} is of {what} that the file does not list; {_REMEDY}")
        if not annotation.segmentation:
            boxes += 1
            continue
        label = None if annotation.iscrowd else names[annotation.category_id]
        where = f"{path}: annotation {place}"
        regions[annotation.image_id].append(
            Region(label, (_bitmap(annotation.segmentation, sizes[annotation.image_id], where),))
        )
    said = [f"{boxes} annotations have a box and no outline, and are left out"] if boxes else []
    if crowds := sum(bool(annotation.iscrowd) for annotation in file.annotations):
        said.append(f"{crowds} crowds (iscrowd) count nowhere")
    pictures = tuple(AnnotatedPicture(image.file_name, sizes[image.id], tuple(regions[image.id])) for image in file.images)
    return Annotations("COCO", tuple(dict.fromkeys(names.values())), pictures, tuple(said))


def _bitmap(segmentation: _RunLengths | list[list[float]], size: Size, where: str) -> Bitmap:
    try:
        from pycocotools import mask
    except ImportError as error:
        raise UserError(
            f"{where}: annotations of COCO need pycocotools; install it with pip install 'enet-tvm[annotations]'"
        ) from error
    width, height = size
    if isinstance(segmentation, list):
        # Four numbers would be taken for a box.
        if bad := next((polygon for polygon in segmentation if len(polygon) < 6 or len(polygon) % 2), None):
            raise UserError(f"{where} has a polygon of {len(bad)} numbers; {_REMEDY}")
        if far := next((x for polygon in segmentation for x in polygon if abs(x) > _FARTHEST), None):
            raise UserError(f"{where} has a point at {far:g}, far from its picture; {_REMEDY}")
        return Bitmap(np.asarray(mask.decode(mask.merge(mask.frPyObjects(segmentation, height, width))), bool))
    if segmentation.size != (height, width):
        raise UserError(f"{where} is {Size(*segmentation.size[::-1])}, and its picture {size}; {_REMEDY}")
    counts = segmentation.counts
    lengths = unpack_counts(counts) if isinstance(counts, str) else counts
    # pycocotools writes beyond its memory if they do not.
    if min(lengths, default=0) < 0 or sum(lengths) != height * width:
        raise UserError(f"{where} has run lengths that do not add up to its {height * width} pixels; {_REMEDY}")
    packed = {"counts": counts.encode(), "size": [height, width]} if isinstance(counts, str) else None
    return Bitmap(np.asarray(mask.decode(packed or mask.frPyObjects(segmentation.model_dump(), height, width)), bool))


def unpack_counts(text: str) -> list[int]:
    """Return the run lengths of COCO's text form; ``[-1]`` if it is none."""
    lengths: list[int] = []
    place = 0
    while place < len(text):
        value, shift, more = 0, 0, True
        while more:
            if place >= len(text) or not 0 <= (code := ord(text[place]) - 48) < 64 or shift > 30:
                return [-1]
            value |= (code & 31) << shift
            more = bool(code & 32)
            place, shift = place + 1, shift + 5
            if not more and code & 16:
                value |= -1 << shift
        lengths.append(value + (lengths[-2] if len(lengths) > 2 else 0))
    return lengths
