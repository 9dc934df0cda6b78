"""The curves of a training as one picture: loss, figures on the val split, learning rate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from enet_tvm.files import atomic_file

Colour = tuple[int, int, int]
Point = tuple[float, float]

_SCALE = 2
"""Pictures are drawn this much larger and then reduced, which smooths their lines."""
_PANEL = (560, 400)
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 20, 44, 44
_INK, _SOFT, _GRID = (34, 38, 46), (110, 116, 128), (226, 229, 235)
_COLOURS: tuple[Colour, ...] = ((31, 98, 176), (214, 102, 28), (42, 140, 84))


@dataclass(frozen=True)
class Curve:
    """A named line."""

    name: str
    points: list[Point]


def draw_curves(history: Sequence[dict[str, Any]], path: str | Path) -> None:
    """Draw a training's log so far.

    Parameters
    ----------
    history : sequence of dict
        Rows of the log, in order, with at least "epoch", "stage", "loss", "learning_rate" and the "val_..." figures.
    path : str or Path
        PNG to write, atomically.

    Raises
    ------
    UserError
        When it cannot be written.
    """
    borders = [(row["epoch"] - 0.5, row["stage"]) for before, row in pairwise(history) if row["stage"] != before["stage"]]
    panels = [
        ("training loss", [_curve("loss", "loss", history)], None),
        (
            "val split",
            [
                _curve("mIoU", "val_miou", history),
                _curve("class average", "val_class_average", history),
                _curve("global accuracy", "val_global_accuracy", history),
            ],
            (0.0, 1.0),
        ),
        ("learning rate", [_curve("learning rate", "learning_rate", history)], None),
    ]
    width, height = _PANEL
    sheet = Image.new("RGB", (width * len(panels), height), "white")
    epochs = (history[0]["epoch"] - 1, max(history[-1]["epoch"], 2)) if history else (0, 2)
    for place, (title, curves, bounds) in enumerate(panels):
        sheet.paste(_panel(title, curves, epochs, bounds, borders), (place * width, 0))
    with atomic_file(path) as temporary:
        sheet.save(temporary, format="PNG", optimize=True)


def ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Return round values from `low` to `high`, about `wanted` of them: 1, 2 or 5 times a power of ten apart."""
    span = high - low
    if not span > 0:
        return [low]
    rough = span / wanted
    power = 10.0 ** math.floor(math.log10(rough))
    step = power * next(factor for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [n * step for n in range(first, math.floor(high / step + 1e-9) + 1)]


def _curve(name: str, key: str, history: Sequence[dict[str, Any]]) -> Curve:
    return Curve(name, [(row["epoch"], row[key]) for row in history if row.get(key) is not None])


def _panel(
    title: str, curves: list[Curve], epochs: tuple[float, float], bounds: tuple[float, float] | None, borders: list[Any]
) -> Image.Image:
    width, height = (_SCALE * side for side in _PANEL)
    left, right, top, bottom = _SCALE * _LEFT, width - _SCALE * _RIGHT, _SCALE * _TOP, height - _SCALE * _BOTTOM
    low, high = bounds or _bounds([value for curve in curves for _, value in curve.points])
    image = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(image)
    small, large = ImageFont.load_default(11 * _SCALE), ImageFont.load_default(14 * _SCALE)

    def x_of(epoch: float) -> float:
        return left + (epoch - epochs[0]) / (epochs[1] - epochs[0]) * (right - left)

    def y_of(value: float) -> float:
        return bottom - (value - low) / (high - low) * (bottom - top)

    draw.text((left, top / 2), title, font=large, fill=_INK, anchor="lm")
    for value in ticks(low, high):
        draw.line((left, y_of(value), right, y_of(value)), fill=_GRID, width=_SCALE)
        draw.text((left - 8 * _SCALE, y_of(value)), f"{value:.4g}", font=small, fill=_SOFT, anchor="rm")
    for value in ticks(*epochs):
        if value == int(value):
            draw.text((x_of(value), bottom + 8 * _SCALE), f"{value:.0f}", font=small, fill=_SOFT, anchor="mt")
    draw.line((left, bottom, right, bottom), fill=_SOFT, width=_SCALE)
    draw.text(((left + right) / 2, height - 6 * _SCALE), "epoch", font=small, fill=_SOFT, anchor="mb")
    for epoch, name in borders:
        _dashed(draw, x_of(epoch), top, bottom)
        draw.text((x_of(epoch) + 4 * _SCALE, top), name, font=small, fill=_SOFT, anchor="lt")
    for colour, curve in zip(_COLOURS, curves, strict=False):
        points = [(x_of(epoch), y_of(min(max(value, low), high))) for epoch, value in curve.points]
        if len(points) > 1:
            draw.line(points, fill=colour, width=2 * _SCALE, joint="curve")
        if len(points) <= 40:
            radius = 2.5 * _SCALE
            for x, y in points:
                draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
    if len(curves) > 1:
        _legend(draw, curves, right, top / 2, small)
    return image.resize(_PANEL, Image.Resampling.LANCZOS)


def _legend(draw: ImageDraw.ImageDraw, curves: list[Curve], right: float, y: float, font: Any) -> None:
    """Write the curves' names, with their last values, in a row that ends at `right`."""
    for colour, curve in reversed(list(zip(_COLOURS, curves, strict=False))):
        text = f"{curve.name} {curve.points[-1][1]:.3f}" if curve.points else curve.name
        draw.text((right, y), text, font=font, fill=_INK, anchor="rm")
        right -= font.getlength(text) + 5 * _SCALE
        draw.line((right - 12 * _SCALE, y, right, y), fill=colour, width=3 * _SCALE)
        right -= 24 * _SCALE


def _dashed(draw: ImageDraw.ImageDraw, x: float, top: float, bottom: float) -> None:
    step = 8 * _SCALE
    for y in range(round(top), round(bottom), step):
        draw.line((x, y, x, y + step / 2), fill=_SOFT, width=_SCALE)


def _bounds(values: list[float]) -> tuple[float, float]:
    """Return an axis from zero to a little above the largest value."""
    largest = max(values, default=1.0)
    return 0.0, largest * 1.05 if largest > 0 else 1.0
