"""A report as one HTML page that needs nothing else: no asset of the net, no script; for telephones, in light and dark."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Literal

from jinja2 import Environment, StrictUndefined
from PIL import Image

from enet_tvm.files import atomic_file
from enet_tvm.version import __version__

_TEMPLATE = "report_page.html"


@dataclass(frozen=True)
class Table:
    """Figures in rows; the first column is of names.

    Attributes
    ----------
    headings : tuple of str
        Headings of the columns.
    rows : tuple of tuple of str
        Cells of each row, as many as headings.
    title : str
        Title above the table; empty for none.
    """

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    title: str = ""
    kind: Literal["table"] = "table"


@dataclass(frozen=True)
class Bar:
    """One bar of a chart: its name, its length, what is written beside it, and perhaps a spread around its end."""

    name: str
    value: float
    text: str
    spread: tuple[float, float] | None = None


@dataclass(frozen=True)
class Bars:
    """Bars from zero, one below the other, on one scale.

    Attributes
    ----------
    title : str
    bars : tuple of Bar
        Bars from top to bottom; their values are finite and not negative.
    full : float or None
        Value that the whole width stands for; by default the largest value or spread.
    """

    title: str
    bars: tuple[Bar, ...]
    full: float | None = None
    kind: Literal["bars"] = "bars"

    def percent(self, value: float) -> float:
        """Return where a value lies on the scale, from 0 to 100."""
        ends = (end for bar in self.bars for end in (bar.value, *(bar.spread or ())))
        full = self.full or max(ends, default=0.0)
        return round(100 * min(1.0, max(0.0, value / full)), 2) if full > 0 else 0.0


@dataclass(frozen=True)
class Matrix:
    """Shares from 0 to 1 in a table whose cells are the darker the larger they are.

    Attributes
    ----------
    title : str
    rows, columns : tuple of str
        Names of the rows and of the columns.
    shares : tuple of tuple of float
        Shares of each row, 0..1; NaN where there is none.
    """

    title: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    shares: tuple[tuple[float, ...], ...]
    kind: Literal["matrix"] = "matrix"

    @staticmethod
    def text(share: float) -> str:
        """Return a share in whole per cent; nothing for what rounds to none."""
        return "" if math.isnan(share) or share < 0.005 else f"{100 * share:.0f}"

    @staticmethod
    def shade(share: float) -> int:
        """Return how strong the colour is, from 0 to 100: the square root of the share, so that rare things are seen."""
        return 0 if math.isnan(share) else round(100 * math.sqrt(min(1.0, max(0.0, share))))


@dataclass(frozen=True)
class Pictures:
    """Pictures side by side, of which each has a caption below it and all have one above them.

    Attributes
    ----------
    title : str
    pictures : tuple of (str, PIL.Image.Image, bool)
        Caption, RGB picture, and whether it is a photograph, which is embedded as JPEG; others are PNG and lose nothing.
    """

    title: str
    pictures: tuple[tuple[str, Image.Image, bool], ...]
    kind: Literal["pictures"] = "pictures"


@dataclass(frozen=True)
class Legend:
    """Names with their RGB colours."""

    entries: tuple[tuple[str, tuple[int, int, int]], ...]
    kind: Literal["legend"] = "legend"


@dataclass(frozen=True)
class Sentences:
    """Sentences in a section; warnings stand out."""

    sentences: tuple[str, ...]
    warning: bool = False
    kind: Literal["sentences"] = "sentences"


Part = Table | Bars | Matrix | Pictures | Legend | Sentences


@dataclass(frozen=True)
class Section:
    """Parts of the page under one heading."""

    title: str
    parts: Sequence[Part]


@dataclass(frozen=True)
class Page:
    """A report.

    Attributes
    ----------
    title : str
    sections : sequence of Section
    conditions : mapping of str to str
        Facts on what was measured and on what, listed at the top.
    command : str
        Command that makes the report again; empty if it is not known.
    """

    title: str
    sections: Sequence[Section]
    conditions: Mapping[str, str] = field(default_factory=dict)
    command: str = ""


def render(page: Page) -> str:
    """Return a page as HTML; all texts in it are escaped."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["data_address"] = _data_address
    source = (resources.files("enet_tvm.evaluation") / _TEMPLATE).read_text(encoding="utf-8")
    return environment.from_string(source).render(page=page, version=__version__)


def write_page(path: str | Path, page: Page) -> None:
    """Write a page as HTML, atomically.

    Raises
    ------
    UserError
        When it cannot be written.
    """
    # Names of files may hold bytes that are no UTF-8, which Python keeps as halves of characters.
    text = render(page).encode("utf-8", "replace")
    with atomic_file(path) as temporary:
        temporary.write_bytes(text)


def table_of(headings: Iterable[str], rows: Iterable[Iterable[str]], title: str = "") -> Table:
    """Return a table of any iterables."""
    return Table(tuple(headings), tuple(tuple(row) for row in rows), title)


def _data_address(image: Image.Image, photograph: bool) -> str:
    file = io.BytesIO()
    if photograph:
        image.convert("RGB").save(file, format="JPEG", quality=85, optimize=True)
    else:
        image.save(file, format="PNG", optimize=True)
    kind = "jpeg" if photograph else "png"
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"
