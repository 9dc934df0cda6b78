"""The curves of a training as one picture: loss, figures on the val split, learning rate."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from enet_tvm.evaluation.charts import BLUE, GREEN, INK, ORANGE, SOFT, chart

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDTH, _HEIGHT = 15.0, 4.4
_PANELS = (
    ("training loss", {"loss": "loss"}),
    ("val split", {"mIoU": "val_miou", "class average": "val_class_average", "global accuracy": "val_global_accuracy"}),
    ("learning rate", {"learning rate": "learning_rate"}),
)
"""Title of each panel, and keys of the log by the names of their curves."""
_LOOKS = ((BLUE, "-", "o"), (ORANGE, "--", "s"), (GREEN, "-.", "^"))
"""Colour, line and marker of a panel's curves: they can be told apart without their colours."""
_MOST_MARKERS = 40


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
    with chart(path, _WIDTH, _HEIGHT) as figure:
        for axes, (title, keys) in zip(figure.subplots(1, len(_PANELS)), _PANELS, strict=True):
            axes.set_title(title, pad=26)
            axes.set_xlabel("epoch")
            _draw_lines(axes, history, keys)
            _limit(axes, history, keys)
            _draw_stages(axes, history)


def _draw_lines(axes: Axes, history: Sequence[dict[str, Any]], keys: dict[str, str]) -> None:
    for (colour, line, marker), (name, key) in zip(_LOOKS, keys.items(), strict=False):
        points = [(row["epoch"], row[key]) for row in history if row.get(key) is not None]
        last = f" {points[-1][1]:.3f}" if points else ""
        epochs, values = zip(*points, strict=True) if points else ((), ())
        shown = marker if len(points) <= _MOST_MARKERS else None
        axes.plot(epochs, values, line, color=colour, marker=shown, markersize=4.5, linewidth=1.8, label=name + last)
    if len(keys) > 1:
        # Under the title: within the axes there is always a curve that is in its way.
        legend = axes.legend(
            loc="lower left", bbox_to_anchor=(-0.02, 1), ncols=3, columnspacing=1, handlelength=2.2, borderpad=0.1
        )
        legend.set_in_layout(False)


def _limit(axes: Axes, history: Sequence[dict[str, Any]], keys: dict[str, str]) -> None:
    """Begin both axes at zero; of several curves, which are shares, all of 0 to 1 is shown."""
    from matplotlib.ticker import MaxNLocator, StrMethodFormatter

    axes.set_xlim(*((history[0]["epoch"] - 1, max(history[-1]["epoch"], 2)) if history else (0, 2)))
    largest = max((row[key] for row in history for key in keys.values() if row.get(key) is not None), default=1.0)
    axes.set_ylim(0, 1 if len(keys) > 1 else 1.05 * largest if largest > 0 else 1)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:.4g}"))


def _draw_stages(axes: Axes, history: Sequence[dict[str, Any]]) -> None:
    """Mark where a stage begins, by its name."""
    for before, row in pairwise(history):
        if row["stage"] != before["stage"]:
            axes.axvline(row["epoch"] - 0.5, color=SOFT, linestyle=":", linewidth=1.2)
            place = (row["epoch"] - 0.5, 1)
            axes.annotate(row["stage"], place, (4, -3), ("data", "axes fraction"), "offset points", color=INK, va="top")
