"""The slopes of a network's PReLUs against depth, as a picture (the paper's figure 3)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from enet_tvm.evaluation.charts import BLUE, INK, SOFT, chart
from enet_tvm.networks.slopes import Slopes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDTH, _HEIGHT = 12.0, 5.0
_BAND, _BLOCK, _BORDER = "#cdd4de", "#c4c9d2", "#c4342c"


def draw_slopes(slopes: Sequence[Slopes], title: str, path: str | Path) -> None:
    """Draw mean and range of the slopes of each activation, in order of depth.

    Vertical lines are the borders of blocks; a red one is the border of encoder and decoder.

    Parameters
    ----------
    slopes : sequence of Slopes
        Slopes of each activation, as `prelu_slopes` returns them.
    title : str
        Title above the picture.
    path : str or Path
        PNG file to write, atomically.

    Raises
    ------
    UserError
        When it cannot be written.
    """
    with chart(path, _WIDTH, _HEIGHT) as figure:
        axes = figure.add_subplot()
        axes.set_title(title, pad=44)
        axes.set_ylabel("slope for negative inputs")
        axes.set_xlabel(f"bottleneck, in order of depth; {len(slopes)} activations")
        axes.set_xlim(-0.5, len(slopes) - 0.5)
        axes.grid(visible=False, axis="x")
        axes.axhline(0, color=SOFT, linewidth=1, zorder=1.5)
        _draw_blocks(axes, slopes)
        _draw_slopes(axes, slopes)
        # Above the names of the parts: within the axes the slopes are in its way.
        axes.legend(loc="lower left", bbox_to_anchor=(-0.01, 1.055), ncols=5, columnspacing=1.6, borderpad=0)


def _draw_slopes(axes: Axes, slopes: Sequence[Slopes]) -> None:
    means, lowest, highest = ([getattr(s, name) for s in slopes] for name in ("mean", "minimum", "maximum"))
    places = range(len(slopes))
    # Between two activations the band and the line are only guides for the eye, and there are none from a PReLU to a ReLU.
    for start, stop in _runs(slopes, lambda s: s.kind):
        run = slice(start, stop)
        axes.fill_between(
            places[run], lowest[run], highest[run], color=_BAND, linewidth=0, label=None if start else "minimum to maximum"
        )
        axes.plot(places[run], means[run], color=BLUE, linewidth=1.8)
    axes.vlines(places, lowest, highest, color=SOFT, linewidth=1)
    for kind, filled, label in (("prelu", BLUE, "mean of a PReLU"), ("relu", "white", "ReLU: slope 0")):
        if chosen := [place for place in places if slopes[place].kind == kind]:
            values = [means[place] for place in chosen]
            axes.plot(chosen, values, "o", color=BLUE, markerfacecolor=filled, markersize=5, zorder=3, label=label)


def _draw_blocks(axes: Axes, slopes: Sequence[Slopes]) -> None:
    """Draw lines between the blocks, and name them and the parts of the network."""
    ticks = []
    for start, stop in _runs(slopes, lambda s: s.block):
        ticks.append(((start + stop - 1) / 2, _short(slopes[start].block), stop - start))
        if start and slopes[start].part == slopes[start - 1].part:
            axes.axvline(start - 0.5, color=_BLOCK, linewidth=1, zorder=0)
    axes.set_xticks([place for place, _, _ in ticks], [name for _, name, _ in ticks], size=9)
    axes.tick_params("x", length=0)
    for label, (_, name, count) in zip(axes.get_xticklabels(), ticks, strict=True):
        # A name wider than its block would touch the next one.
        label.set_rotation(90 if len(name) > 2 * count else 0)
    for start, stop in _runs(slopes, lambda s: s.part):
        middle = ((start + stop - 1) / 2, 1)
        axes.annotate(
            slopes[start].part, middle, (0, 4), ("data", "axes fraction"), "offset points", color=INK, ha="center", va="bottom"
        )
        if start:
            axes.axvline(start - 0.5, color=_BORDER, linewidth=2, zorder=2, label="encoder | decoder")


def _runs(slopes: Sequence[Slopes], key: Callable[[Slopes], str]) -> Iterator[tuple[int, int]]:
    """Yield the start and end (exclusive) of each run of neighbours with equal keys."""
    start = 0
    for _, members in groupby(slopes, key):
        stop = start + len(list(members))
        yield start, stop
        start = stop


def _short(block: str) -> str:
    """Return a block's name as table 1 of the paper has it."""
    return block.removeprefix("bottleneck").replace("_", ".")
