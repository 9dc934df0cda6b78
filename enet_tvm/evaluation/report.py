"""A report of an evaluation for people to look at: confusion matrix, per-class table, a sheet of good and bad pictures."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from enet_tvm.data.classes import ClassSet
from enet_tvm.data.source import Samples
from enet_tvm.evaluation.charts import INK, SOFT, chart
from enet_tvm.evaluation.metrics import ConfusionMatrix, SegmentationMetrics
from enet_tvm.evaluation.report_page import Bar, Bars, Legend, Matrix, Page, Part, Pictures, Section, table_of, write_page
from enet_tvm.files import atomic_file
from enet_tvm.runtime.overlay import colourise

Colour = tuple[int, int, int]

_INK, _SOFT, _LINE = (34, 38, 46), (110, 116, 128), (214, 218, 226)
_WRONG, _VOID = (222, 30, 38), (152, 176, 214)
_CELL = 0.044
"""Side of a cell of the confusion matrix in inches, per point of its text size."""
_LEAST_TOLD, _DARK = 0.005, 0.3
"""Least share that is printed in a cell of the confusion matrix, and the share above which it is printed in white."""
_MARGIN = 24
_CELL_WIDTH = 380
"""Width of the pictures on the sheet, in pixels."""
_COLUMNS = ("picture", "truth", "prediction", "where it is wrong")
_ARE_PHOTOS = (True, False, False, True)

Row = tuple[str, Image.Image, np.ndarray, np.ndarray]
"""Row of the sheet: caption, RGB picture, and the H x W uint8 label maps of the truth and the prediction."""


@dataclass(frozen=True)
class PictureScore:
    """How well one picture was segmented.

    Attributes
    ----------
    index : int
        Number of the picture in the data set, from 0.
    miou : float
        Mean IoU over the classes that occur in its labels; NaN if all of it is void.
    accuracy : float
        Share of its labelled pixels that are right.
    """

    index: int
    miou: float
    accuracy: float


class Report:
    """Listens to an evaluation, then writes what it heard.

    Parameters
    ----------
    class_set : ClassSet
        Classes of the data set.
    """

    def __init__(self, class_set: ClassSet) -> None:
        self.class_set = class_set
        self.confusion = ConfusionMatrix(class_set)
        self.scores: list[PictureScore] = []

    def observe(self, index: int, prediction: np.ndarray, labels: np.ndarray) -> None:
        """Take in one picture; an `observe` of `enet_tvm.evaluation.evaluate.evaluate`."""
        own = ConfusionMatrix(self.class_set)
        own.update(prediction, labels)
        self.confusion.counts += own.counts
        metrics = own.metrics()
        occurring = [iou for iou, found in zip(metrics.class_iou, own.counts.sum(axis=1), strict=True) if found]
        self.scores.append(PictureScore(index, float(np.mean(occurring)) if occurring else math.nan, metrics.global_accuracy))

    def write(
        self,
        directory: str | Path,
        metrics: SegmentationMetrics,
        samples: Samples,
        segment: Callable[[Image.Image, tuple[int, ...]], np.ndarray],
        title: str,
        origin: dict[str, str],
        command: str = "",
    ) -> list[Path]:
        """Write ``report.md``, ``report.html``, ``confusion.png``, ``sheet.png`` and ``pictures.csv``, each atomically.

        Parameters
        ----------
        directory : str or Path
            Directory to write to; other files there are left alone.
        metrics : SegmentationMetrics
            Metrics that the evaluation returned.
        samples : Samples
            The pictures that were evaluated.
        segment : callable
            Maps a picture and the shape of its labels to the label map that was evaluated; a few are needed once more.
        title : str
            First line of the report.
        origin : dict
            Facts on what was evaluated and how, listed below the title.
        command : str
            Command that makes the report again.

        Returns
        -------
        list of Path
            Paths of the files that were written.

        Raises
        ------
        UserError
            When one cannot be written.
        """
        folder = Path(directory)
        rows = []
        for group, score in select(self.scores):
            picture, labels = samples[score.index]
            caption = (
                f"{group}:  {_name(samples, score.index)}   mIoU {score.miou:.3f}, {score.accuracy:.1%} of the pixels right"
            )
            rows.append((caption, picture, labels, segment(picture, labels.shape)))
        paths = [folder / name for name in ("report.md", "confusion.png", "sheet.png", "pictures.csv", "report.html")]
        draw_confusion(self.confusion, metrics, paths[1])
        _save(draw_sheet(rows, self.class_set), paths[2])
        with atomic_file(paths[3]) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(("picture", "miou", "accuracy"))
            for score in sorted(self.scores, key=_rank):
                writer.writerow((_name(samples, score.index), f"{score.miou:.4f}", f"{score.accuracy:.4f}"))
        write_page(paths[4], Page(title, self._sections(metrics, rows), origin, command))
        listed = origin | ({"command": f"`{command}`"} if command else {})
        with atomic_file(paths[0]) as temporary:
            temporary.write_text(self._markdown(metrics, title, listed), encoding="utf-8")
        return paths

    def _markdown(self, metrics: SegmentationMetrics, title: str, origin: dict[str, str]) -> str:
        lines = [f"# {title}", "", *(f"- {key}: {value}" for key, value in origin.items()), "", "| figure | % |", "|---|--:|"]
        lines += [_row(figures) for figures in _summary(metrics)]
        head, rows = self._class_table(metrics)
        lines += ["", "## Classes", "", _row(head), _row(["---", *["--:"] * (len(head) - 2), "---"]), *map(_row, rows)]
        if metrics.categories:
            lines += ["", "## Categories", "", _row(["category", "IoU, %"]), _row(["---", "--:"])]
            lines += [_row(figures) for figures in _category_table(metrics)]
        lines += [
            "",
            "## Confusion",
            "",
            "Each row is a class of the truth, and tells in per cent what its pixels were taken for.",
        ]
        lines += ["", "![Confusion matrix](confusion.png)", "", "## Pictures", ""]
        lines += ["Those with the lowest, the middle and the highest mean IoU over the classes in their labels; all are in"]
        lines += ["[pictures.csv](pictures.csv).", "", "![Pictures, truth, prediction and errors](sheet.png)", ""]
        return "\n".join(lines)

    def _sections(self, metrics: SegmentationMetrics, rows: Sequence[Row]) -> list[Section]:
        """Return the sections of the page: figures, classes, confusion, and the pictures of the sheet."""
        counts, names = self.confusion.counts, self.class_set.names
        totals = counts.sum(axis=1, keepdims=True)
        shares = np.divide(counts, totals, out=np.full(counts.shape, np.nan), where=totals > 0)
        ious = zip(metrics.classes, metrics.class_iou, strict=True)
        bars = tuple(Bar(name, iou, f"{_percent(iou)} %") for name, iou in ious if not math.isnan(iou))
        parts: list[Part] = [
            Bars("IoU of each class", bars, full=1.0),
            table_of(*self._class_table(metrics), "Figures of each class"),
        ]
        if metrics.categories:
            parts.append(table_of(("category", "IoU, %"), _category_table(metrics), "Categories"))
        told = "Each row is a class of the truth; what its pixels were taken for, %"
        legend = Legend(tuple(_legend(self.class_set)))
        shown = [
            Pictures(
                caption, tuple(zip(_COLUMNS, _cells(picture, truth, prediction, self.class_set), _ARE_PHOTOS, strict=True))
            )
            for caption, picture, truth, prediction in rows
        ]
        return [
            Section("Figures", [table_of(("figure", "%"), _summary(metrics))]),
            Section("Classes", parts),
            Section("Confusion", [Matrix(told, tuple(names), tuple(names), tuple(map(tuple, shares.tolist())))]),
            Section("Pictures with the lowest, the middle and the highest mean IoU", [legend, *shown]),
        ]

    def _class_table(self, metrics: SegmentationMetrics) -> tuple[list[str], list[list[str]]]:
        counts = self.confusion.counts
        weighted = metrics.instance.class_iou if metrics.instance else None
        head = [
            "class",
            "IoU, %",
            "accuracy, %",
            *(["iIoU, %"] if weighted else []),
            "share of the pixels, %",
            "most often taken for",
        ]
        rows = []
        shares = counts.sum(axis=1) / max(1, counts.sum())
        for i, name in enumerate(metrics.classes):
            figures = [metrics.class_iou[i], metrics.class_accuracy[i], *([weighted[i]] if weighted else []), shares[i]]
            rows.append([name, *map(_percent, figures), self._mistaken_for(i)])
        return head, rows

    def _mistaken_for(self, label: int) -> str:
        row = self.confusion.counts[label].astype(float)
        total = row.sum()
        row[label] = 0
        if not row.any():
            return ""
        other = int(row.argmax())
        return f"{self.class_set.names[other]} ({row[other] / total:.1%})"


def select(scores: Sequence[PictureScore], each: int = 3) -> list[tuple[str, PictureScore]]:
    """Return the worst, median and best pictures, named so; fewer than `each` of a kind if there are few, and none twice.

    Neighbours of a picture that was chosen are passed over: in data sets cut from a video they show the same.
    """
    order = sorted((score for score in scores if not math.isnan(score.miou)), key=_rank)
    each = max(1, min(each, len(order) // 3))
    apart = len(scores) // 20
    middle = (len(order) - 1) / 2
    from_middle = [order[rank] for rank in sorted(range(len(order)), key=lambda rank: abs(rank - middle))]
    chosen: list[tuple[str, PictureScore]] = []
    for name, candidates in (("worst", order), ("best", order[::-1]), ("median", from_middle)):
        taken = 0
        for score in candidates:
            if taken < each and all(abs(score.index - other.index) > apart for _, other in chosen):
                chosen.append((name, score))
                taken += 1
    rank_of = {"worst": 0, "median": 1, "best": 2}
    return sorted(chosen, key=lambda entry: rank_of[entry[0]])


def draw_confusion(confusion: ConfusionMatrix, metrics: SegmentationMetrics, path: str | Path) -> None:
    """Draw a confusion matrix: rows are the truth, columns what it was taken for, each cell the share of its row.

    The shade goes with the square root of the share, so that rare confusions can be seen. A last column holds the IoU.

    Parameters
    ----------
    confusion : ConfusionMatrix
        Confusion matrix to draw.
    metrics : SegmentationMetrics
        Metrics of the same predictions.
    path : str or Path
        PNG to write, atomically.

    Raises
    ------
    UserError
        When it cannot be written.
    """
    names = confusion.class_set.names
    totals = confusion.counts.sum(axis=1, keepdims=True)
    shares = np.divide(confusion.counts, totals, out=np.zeros(confusion.counts.shape), where=totals > 0)
    places, size = range(len(names)), 9 if len(names) <= 20 else 6.5
    cell = _CELL * size
    # Beside the cells stand the names, and above them names and title.
    beside = 0.085 * size / 9 * max(map(len, names)) + 0.6
    with chart(path, max(cell * (len(names) + 2) + beside, 6.4), max(cell * (len(names) + 1) + beside + 0.6, 2)) as figure:
        figure.suptitle("Confusion matrix: what the pixels of each class were taken for, %", x=0.02, ha="left", size=12)
        axes = figure.add_subplot()
        axes.imshow(np.sqrt(shares), cmap="Blues", vmin=0, vmax=1)
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        # White lines part the cells.
        for place in places[1:]:
            axes.axhline(place - 0.5, color="white", linewidth=1.5)
            axes.axvline(place - 0.5, color="white", linewidth=1.5)
        axes.set_xticks(places, names, rotation=90, size=size, color=INK)
        axes.set_yticks(places, names, size=size, color=INK)
        axes.tick_params(length=0, top=False, bottom=False, labeltop=True, labelbottom=False)
        axes.set(xlabel="prediction", ylabel="truth")
        axes.xaxis.set_label_position("top")
        for row, column in np.argwhere((shares >= _LEAST_TOLD) | np.eye(len(names), dtype=bool)):
            share = shares[row, column]
            ink = "white" if share > _DARK else INK
            axes.text(column, row, f"{100 * share:.0f}", color=ink, size=size, ha="center", va="center")
        beyond = axes.secondary_yaxis("right")
        beyond.set_yticks(places, [_percent(iou) for iou in metrics.class_iou], size=size, color=INK)
        beyond.tick_params(length=0)
        beyond.spines[:].set_visible(False)
        axes.annotate("IoU, %", (1, 1), (4, 6), "axes fraction", "offset points", size=size, color=SOFT)


def draw_sheet(rows: Sequence[Row], class_set: ClassSet) -> Image.Image:
    """Draw pictures beside their truth, their prediction, and where it is wrong.

    Parameters
    ----------
    rows : sequence of (str, PIL.Image.Image, ndarray, ndarray)
        Caption, RGB picture, and the H x W uint8 label maps of the truth and the prediction.
    class_set : ClassSet
        Names and colours of the classes.
    """
    heights = [round(_CELL_WIDTH * picture.height / picture.width) for _, picture, _, _ in rows]
    gap, caption_height = 10, 34
    width = 2 * _MARGIN + len(_COLUMNS) * _CELL_WIDTH + (len(_COLUMNS) - 1) * gap
    font, small = ImageFont.load_default(17), ImageFont.load_default(15)
    legend = _draw_class_legend(class_set, width - 2 * _MARGIN, small)
    total = 2 * _MARGIN + 20 + sum(heights) + caption_height * len(rows) + _MARGIN + legend.height
    sheet = Image.new("RGB", (width, total), "white")
    draw = ImageDraw.Draw(sheet)
    lefts = [_MARGIN + column * (_CELL_WIDTH + gap) for column in range(len(_COLUMNS))]
    for left, name in zip(lefts, _COLUMNS, strict=True):
        draw.text((left, _MARGIN), name, font=font, fill=_INK)
    y = _MARGIN + 20
    for (caption, picture, truth, prediction), height in zip(rows, heights, strict=True):
        draw.text((_MARGIN, y + caption_height - 6), caption, font=small, fill=_SOFT, anchor="ls")
        y += caption_height
        for left, cell in zip(lefts, _cells(picture, truth, prediction, class_set), strict=True):
            sheet.paste(cell, (left, y))
        y += height
    sheet.paste(legend, (_MARGIN, y + _MARGIN))
    return sheet


def _cells(picture: Image.Image, truth: np.ndarray, prediction: np.ndarray, class_set: ClassSet) -> list[Image.Image]:
    """Return a picture, its truth, its prediction and its errors as they are shown, all of one size."""
    void = truth == class_set.ignore_index
    coloured = [colourise(labels, class_set.palette) for labels in (truth, prediction)]
    coloured[0][void] = 0
    cells = [picture, *map(Image.fromarray, coloured), Image.fromarray(_errors(picture, truth, prediction, void))]
    size = (_CELL_WIDTH, round(_CELL_WIDTH * picture.height / picture.width))
    # Averaged colours of two classes would be those of a third.
    methods = [Image.Resampling.LANCZOS if is_photo else Image.Resampling.NEAREST for is_photo in _ARE_PHOTOS]
    return [cell.resize(size, method) for cell, method in zip(cells, methods, strict=True)]


def _errors(picture: Image.Image, truth: np.ndarray, prediction: np.ndarray, void: np.ndarray) -> np.ndarray:
    """Return the picture in pale grey, red where the prediction is wrong, and light blue where there is no truth."""
    grey = np.asarray(picture.convert("L"), np.float64)[..., None]
    result = np.repeat(155 + grey * (100 / 255), 3, axis=2)
    wrong = (truth != prediction) & ~void
    result[wrong] = 0.2 * grey[wrong] + 0.8 * np.array(_WRONG)
    result[void] = _VOID
    return result.round().astype(np.uint8)


def _legend(class_set: ClassSet) -> list[tuple[str, Colour]]:
    """Return what the colours of the pictures mean."""
    entries = [*zip(class_set.names, class_set.palette, strict=True), ("unlabelled", (0, 0, 0))]
    return [*entries, ("wrong", _WRONG), ("unlabelled, not judged", _VOID)]


def _draw_class_legend(class_set: ClassSet, width: int, font: Any) -> Image.Image:
    entries = _legend(class_set)
    line, square = 28, 16
    places, x, y = [], 0, 0
    for name, _ in entries:
        need = square + 7 + round(font.getlength(name)) + 22
        if x + need > width and x:
            x, y = 0, y + line
        places.append((x, y))
        x += need
    legend = Image.new("RGB", (width, y + line), "white")
    draw = ImageDraw.Draw(legend)
    for (x, y), (name, colour) in zip(places, entries, strict=True):
        draw.rectangle((x, y + 4, x + square, y + 4 + square), fill=tuple(colour), outline=_LINE)
        draw.text((x + square + 7, y + 4 + square / 2), name, font=font, fill=_INK, anchor="lm")
    return legend


def _summary(metrics: SegmentationMetrics) -> list[tuple[str, str]]:
    summary = [("mean IoU", metrics.miou), ("class average", metrics.class_average)]
    summary.append(("global accuracy", metrics.global_accuracy))
    if metrics.categories:
        summary.append(("category IoU", metrics.category_miou))
    if metrics.instance:
        summary += [("class iIoU", metrics.instance.class_mean), ("category iIoU", metrics.instance.category_mean)]
    return [(name, _percent(value)) for name, value in summary]


def _category_table(metrics: SegmentationMetrics) -> list[tuple[str, str]]:
    return [(name, _percent(iou)) for name, iou in zip(metrics.categories, metrics.category_iou, strict=True)]


def _save(image: Image.Image, path: Path) -> None:
    with atomic_file(path) as temporary:
        image.save(temporary, format="PNG", optimize=True)


def _rank(score: PictureScore) -> tuple[float, int]:
    return (math.inf if math.isnan(score.miou) else score.miou, score.index)


def _name(samples: Samples, index: int) -> str:
    pairs = getattr(samples, "pairs", None)
    return pairs[index][0].stem if pairs else f"picture {index + 1}"


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.2f}"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
