"""Charts as PNG files: one look for all of them, whatever a matplotlibrc says, and no state of pyplot's."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from enet_tvm.files import atomic_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, SOFT, GRID = "#22262e", "#5b616d", "#e2e5eb"
BLUE, ORANGE, GREEN = "#0072b2", "#d55e00", "#009e73"
"""Colours of Okabe and Ito's palette, which differ in lightness too."""

DPI = 120
_STYLE = {
    "figure.facecolor": "white",
    "font.size": 10,
    "axes.titlesize": 12,
    "axes.titlelocation": "left",
    "axes.edgecolor": SOFT,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": GRID,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "text.color": INK,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    # Names of classes, stages and files may hold dollars.
    "text.parse_math": False,
}


@contextmanager
def chart(path: str | Path, width: float, height: float) -> Iterator[Figure]:
    """Yield a figure to draw on, which is written as a PNG, atomically, at the end of the block.

    Parameters
    ----------
    path : str or Path
        PNG to write.
    width, height : float
        Width and height in inches, of `DPI` pixels each.

    Raises
    ------
    UserError
        When it cannot be written.
    """
    # It takes half a second to import, which what draws nothing should not wait for.
    from matplotlib import style
    from matplotlib.figure import Figure

    with style.context(["default", _STYLE]), warnings.catch_warnings():
        # A name in a script that the font lacks is drawn as boxes.
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from font")
        figure = Figure((width, height), dpi=DPI, layout="constrained")
        yield figure
        with atomic_file(path) as temporary:
            figure.savefig(temporary, format="png")
