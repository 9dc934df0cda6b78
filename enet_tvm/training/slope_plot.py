"""The slopes of a network's PReLUs against depth, as a picture (the paper's figure 3)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from enet_tvm.files import atomic_file
from enet_tvm.networks.slopes import Slopes
from enet_tvm.training.curves import ticks

_SCALE = 2
"""The picture is drawn this much larger and then reduced, which smooths its lines."""
_WIDTH, _HEIGHT = 1280, 520
_LEFT, _RIGHT, _TOP, _BOTTOM = 68, 20, 64, 76
_INK, _SOFT, _GRID, _BORDER = (34, 38, 46), (110, 116, 128), (226, 229, 235), (196, 201, 210)
_BAND, _MEAN, _MIDDLE = (205, 212, 222), (31, 98, 176), (196, 52, 44)


def draw_slopes(slopes: Sequence[Slopes], title: str, path: str | Path) -> None:
    """Draw mean and range of the slopes of each activation, in order of depth.

    Vertical lines are the borders of blocks; a red one is the border of encoder and decoder.

    Parameters
    ----------
    slopes : sequence of Slopes
        As `prelu_slopes` returns them.
    title : str
        Stands above the picture.
    path : str or Path
        PNG to write, atomically.

    Raises
    ------
    UserError
        When it cannot be written.
    """
    image = Image.new("RGB", (_SCALE * _WIDTH, _SCALE * _HEIGHT), "white")
    _Plot(slopes, ImageDraw.Draw(image)).draw(title)
    with atomic_file(path) as temporary:
        image.resize((_WIDTH, _HEIGHT), Image.Resampling.LANCZOS).save(temporary, format="PNG", optimize=True)


class _Plot:
    def __init__(self, slopes: Sequence[Slopes], draw: ImageDraw.ImageDraw) -> None:
        self.slopes, self.draw_on = slopes, draw
        self.left, self.right = _SCALE * _LEFT, _SCALE * (_WIDTH - _RIGHT)
        self.top, self.bottom = _SCALE * _TOP, _SCALE * (_HEIGHT - _BOTTOM)
        low, high = min(0.0, *(s.minimum for s in slopes)), max(0.0, *(s.maximum for s in slopes))
        margin = 0.06 * (high - low) or 0.5
        self.low, self.high = low - margin, high + margin
        self.small, self.large = ImageFont.load_default(11 * _SCALE), ImageFont.load_default(15 * _SCALE)

    def x_of(self, place: float) -> float:
        return self.left + (place + 0.5) / len(self.slopes) * (self.right - self.left)

    def y_of(self, value: float) -> float:
        return self.bottom - (value - self.low) / (self.high - self.low) * (self.bottom - self.top)

    def draw(self, title: str) -> None:
        self._text((self.left, self.top / 2 - 10 * _SCALE), title, font=self.large, fill=_INK, anchor="lm")
        self._ranges()
        self._axis()
        self._blocks()
        self._means()
        self._legend()

    def _text(self, place: tuple[float, float], text: str, **how: Any) -> None:
        self.draw_on.text(place, text, **how)

    def _runs(self) -> list[list[int]]:
        """Return the places of neighbours of one kind: nothing is drawn from a PReLU to a ReLU."""
        return [list(run) for _, run in groupby(range(len(self.slopes)), key=lambda place: self.slopes[place].kind)]

    def _ranges(self) -> None:
        for run in self._runs():
            upper = [(self.x_of(place), self.y_of(self.slopes[place].maximum)) for place in run]
            lower = [(self.x_of(place), self.y_of(self.slopes[place].minimum)) for place in run]
            if len(run) > 1:
                self.draw_on.polygon([*upper, *lower[::-1]], fill=_BAND)

    def _axis(self) -> None:
        for value in ticks(self.low, self.high, 8):
            y = self.y_of(value)
            zero = abs(value) < 1e-9 * (self.high - self.low)
            self.draw_on.line((self.left, y, self.right, y), fill=_SOFT if zero else _GRID, width=_SCALE)
            self._text((self.left - 8 * _SCALE, y), "0" if zero else f"{value:.4g}", font=self.small, fill=_SOFT, anchor="rm")
        place = (self.left, self.top - 16 * _SCALE)
        self._text(place, "slope for negative inputs", font=self.small, fill=_SOFT, anchor="lm")

    def _blocks(self) -> None:
        start = 0
        parts = [s.part for s in self.slopes]
        for block, members in groupby(self.slopes, key=lambda s: s.block):
            stop = start + len(list(members))
            left, right = self.x_of(start - 0.5), self.x_of(stop - 0.5)
            if start:
                border = parts[start - 1] != parts[start]
                colour, width = (_MIDDLE, 2 * _SCALE) if border else (_BORDER, _SCALE)
                self.draw_on.line((left, self.top, left, self.bottom), fill=colour, width=width)
            # A name wider than its block would touch the next one.
            fits = self.small.getlength(_short(block)) <= right - left
            place = ((left + right) / 2 if fits else right, self.bottom + 8 * _SCALE)
            self._text(place, _short(block), font=self.small, fill=_SOFT, anchor="mt" if fits else "rt")
            start = stop
        self.draw_on.line((self.left, self.bottom, self.right, self.bottom), fill=_SOFT, width=_SCALE)
        self._text(
            ((self.left + self.right) / 2, self.bottom + 52 * _SCALE),
            f"bottleneck, in order of depth; {len(self.slopes)} activations",
            font=self.small,
            fill=_SOFT,
            anchor="mt",
        )
        start = 0
        for part, same in groupby(parts):
            stop = start + len(list(same))
            middle = (self.x_of(start - 0.5) + self.x_of(stop - 0.5)) / 2
            self._text((middle, self.bottom + 30 * _SCALE), part, font=self.small, fill=_INK, anchor="mt")
            start = stop

    def _means(self) -> None:
        for run in self._runs():
            points = [(self.x_of(place), self.y_of(self.slopes[place].mean)) for place in run]
            if len(points) > 1:
                self.draw_on.line(points, fill=_MEAN, width=2 * _SCALE, joint="curve")
            for place, (x, y) in zip(run, points, strict=True):
                s, radius = self.slopes[place], 3 * _SCALE
                # The range at the activation itself: between two, the band is only a guide for the eye.
                self.draw_on.line((x, self.y_of(s.maximum), x, self.y_of(s.minimum)), fill=_SOFT, width=_SCALE)
                filled = _MEAN if s.kind == "prelu" else "white"
                self.draw_on.ellipse((x - radius, y - radius, x + radius, y + radius), fill=filled, outline=_MEAN, width=_SCALE)

    def _legend(self) -> None:
        y, right = self.top - 16 * _SCALE, float(self.right)
        kinds = {s.kind for s in self.slopes}
        entries = [("mean", "line"), ("minimum to maximum", "band")]
        entries += [("PReLU", "full"), ("ReLU: slope 0", "hollow")] if kinds == {"prelu", "relu"} else []
        entries += [("encoder | decoder", "border")] if len({s.part for s in self.slopes}) > 1 else []
        radius = 3 * _SCALE
        for text, sign in reversed(entries):
            self._text((right, y), text, font=self.small, fill=_INK, anchor="rm")
            right -= self.small.getlength(text) + 6 * _SCALE
            left = right - 16 * _SCALE
            middle = (left + right) / 2
            if sign == "line":
                self.draw_on.line((left, y, right, y), fill=_MEAN, width=2 * _SCALE)
            elif sign == "band":
                self.draw_on.rectangle((left, y - 6 * _SCALE, right, y + 6 * _SCALE), fill=_BAND)
            elif sign == "border":
                self.draw_on.line((middle, y - 7 * _SCALE, middle, y + 7 * _SCALE), fill=_MIDDLE, width=2 * _SCALE)
            else:
                filled = _MEAN if sign == "full" else "white"
                box = (middle - radius, y - radius, middle + radius, y + radius)
                self.draw_on.ellipse(box, fill=filled, outline=_MEAN, width=_SCALE)
            right = left - 18 * _SCALE


def _short(block: str) -> str:
    """Return a block's name as table 1 of the paper has it."""
    return block.removeprefix("bottleneck").replace("_", ".")
