"""Drawn pictures of plain shapes with masks: a data set of any few classes for tests and first trials, without a download.

Shapes of random colours lie on a mottled ground; only their form tells the classes apart. Thin lines and speckles belong to the
background.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from enet_tvm.data.class_list import spread_palette
from enet_tvm.errors import UserError
from enet_tvm.files import atomic_directory
from enet_tvm.size import Size

Point = tuple[float, float]
_BACKGROUND = "background"


def _regular(corners: int, turn: float, inner: float = 1.0) -> list[Point]:
    """Return the corners of a polygon in the unit circle; with `inner` below one every second corner lies so far in: a star."""
    count = corners if inner == 1.0 else 2 * corners
    angles = [turn + 2 * math.pi * number / count for number in range(count)]
    radii = [1.0 if inner == 1.0 or number % 2 == 0 else inner for number in range(count)]
    return [(radius * math.cos(angle), radius * math.sin(angle)) for angle, radius in zip(angles, radii, strict=True)]


def _cross(turn: float) -> list[Point]:
    arm = 0.35
    corners = [(-arm, -1), (arm, -1), (arm, -arm), (1, -arm), (1, arm), (arm, arm)]
    corners += [(arm, 1), (-arm, 1), (-arm, arm), (-1, arm), (-1, -arm), (-arm, -arm)]
    cosine, sine = math.cos(turn), math.sin(turn)
    return [(0.9 * (x * cosine - y * sine), 0.9 * (x * sine + y * cosine)) for x, y in corners]


_OUTLINES: dict[str, Callable[[float], list[Point]]] = {
    "disc": lambda turn: _regular(48, turn),
    "star": lambda turn: _regular(5, turn, inner=0.4),
    "box": lambda turn: _regular(4, turn),
    "triangle": lambda turn: _regular(3, turn),
    "cross": _cross,
    "burst": lambda turn: _regular(11, turn, inner=0.55),
    "hexagon": lambda turn: _regular(6, turn),
}
MOST_CLASSES = len(_OUTLINES) + 1


def shape_classes(count: int) -> tuple[str, ...]:
    """Return the names of so many classes, the background first.

    Raises
    ------
    UserError
        When there are not so many.
    """
    if not 2 <= count <= MOST_CLASSES:
        raise UserError(f"{count} classes of shapes cannot be drawn; give 2 to {MOST_CLASSES}, the background among them")
    return (_BACKGROUND, *list(_OUTLINES)[: count - 1])


def draw_shapes(size: Size, classes: int, rng: np.random.Generator) -> tuple[Image.Image, NDArray[np.uint8]]:
    """Return a drawn RGB picture and its H x W uint8 labels, of which 0 is the background."""
    names = shape_classes(classes)
    picture = Image.fromarray(_ground(size, rng))
    labels = Image.new("L", size)
    brush, pencil = ImageDraw.Draw(picture), ImageDraw.Draw(labels)
    for _ in range(int(rng.integers(2, 6))):
        ends = [(float(rng.uniform(0, size.width)), float(rng.uniform(0, size.height))) for _ in range(2)]
        brush.line(ends, fill=_colour(rng), width=max(1, size.height // 80))
    for _ in range(int(rng.integers(2, 6))):
        label = int(rng.integers(1, classes))
        radius = float(rng.uniform(0.1, 0.24)) * size.height
        centre = (float(rng.uniform(0, size.width)), float(rng.uniform(0, size.height)))
        outline = _OUTLINES[names[label]](float(rng.uniform(0, 2 * math.pi)))
        corners = [(centre[0] + radius * x, centre[1] + radius * y) for x, y in outline]
        brush.polygon(corners, fill=_colour(rng))
        pencil.polygon(corners, fill=label)
    noisy = np.asarray(picture, np.float32) + rng.normal(0, 8, (size.height, size.width, 3)).astype(np.float32)
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)), np.asarray(labels)


def _ground(size: Size, rng: np.random.Generator) -> NDArray[np.uint8]:
    coarse = rng.uniform(40, 215, (4, 5, 3)).astype(np.uint8)
    return np.array(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC))


def _colour(rng: np.random.Generator) -> tuple[int, int, int]:
    red, green, blue = rng.integers(0, 256, 3).tolist()
    return red, green, blue


def write_shapes(directory: str | Path, count: int, classes: int, size: Size, seed: int = 0) -> Path:
    """Write a data set as people have theirs: ``images/``, ``masks/`` of numbers and ``classes.txt``, and no `dataset.toml`.

    Parameters
    ----------
    directory : str or Path
        Directory to write; must be empty or missing.
    count, classes : int
        Number of pictures, and of classes.
    size : Size
        Width and height of the pictures, in pixels.
    seed : int
        Another one draws other pictures.

    Raises
    ------
    UserError
        When there are no such classes, or the directory holds something.
    """
    target = Path(directory).expanduser()
    names = shape_classes(classes)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"{target} exists and is not empty; give a new directory")
    digits = max(4, len(str(count)))
    with atomic_directory(target) as folder:
        for name in ("images", "masks"):
            (folder / name).mkdir()
        for number in range(1, count + 1):
            picture, labels = draw_shapes(size, classes, np.random.default_rng([seed, number]))
            picture.save(folder / "images" / f"{number:0{digits}}.png")
            Image.fromarray(labels).save(folder / "masks" / f"{number:0{digits}}.png")
        lines = [
            f"{name} {red} {green} {blue}" for name, (red, green, blue) in zip(names, spread_palette(classes), strict=True)
        ]
        (folder / "classes.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return target
