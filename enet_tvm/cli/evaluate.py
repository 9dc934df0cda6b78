"""`enet-tvm evaluate`: how good a network, or a compiled one, is on labelled pictures."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from enet_tvm.evaluation.metrics import SegmentationMetrics


def command(
    data: Annotated[
        str, typer.Option(metavar="DIR|synthetic", help="Data set directory, or 'synthetic' for the drawn street.")
    ],
    weights: Annotated[Path | None, typer.Option(help="Weights to evaluate; those shipped, by default.")] = None,
    artifact: Annotated[Path | None, typer.Option(metavar="DIR", help="Evaluate this compiled network instead.")] = None,
    split: Annotated[str, typer.Option(metavar="NAME[/N],...", help="Splits of the data set, as train takes them.")] = "val",
    hold_out: Annotated[
        list[str] | None,
        typer.Option(metavar="RIDE[:START[:STOP]]", help="Only these frames of them: those that train holds out. Repeatable."),
    ] = None,
    dataset: Annotated[str | None, typer.Option(metavar="NAME", help="Which data set DIR is; its layout says it.")] = None,
    size: Annotated[
        str | None,
        typer.Option(
            metavar="WxH", help="Resize pictures to this; results are judged at the labels' size. By default the paper's."
        ),
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; all available by default.")] = None,
    report: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Also write a report with pictures: report.md and report.html there.")
    ] = None,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write the figures to this file.")] = None,
) -> None:
    """Print the metrics of the paper on a split of a data set; void pixels do not count.

    Always class IoU, class average and global accuracy; for Cityscapes also category IoU and, where its instanceIds are,
    the instance-weighted IoU (iIoU).
    """
    from rich.console import Console
    from rich.progress import track

    from enet_tvm.data.rides import judged_data
    from enet_tvm.errors import UserError
    from enet_tvm.evaluation.evaluate import evaluate, predict
    from enet_tvm.evaluation.predictors import artifact_predictor, weights_predictor
    from enet_tvm.evaluation.report import Report
    from enet_tvm.files import write_json
    from enet_tvm.size import parse_size

    if weights is not None and artifact is not None:
        raise UserError("both --weights and --artifact were given; give the one to evaluate")
    console = Console()
    model = artifact_predictor(artifact, threads) if artifact is not None else weights_predictor(weights, threads)
    samples = judged_data(data, split, hold_out or [], dataset)
    chosen = parse_size(size) if size else model.size or samples.paper_size
    model.check(samples.class_set, chosen)
    pictures = track(samples, description="segmenting", total=len(samples), console=console, disable=not console.is_terminal)
    instances = getattr(samples, "instances", None)
    told = Report(samples.class_set)
    how = (samples.class_set, model.mean, model.std, chosen)
    metrics = evaluate(model.forward, pictures, *how, instances, told.observe if report else None)
    which = f"{', '.join(hold_out)} of {split}" if hold_out else split
    title = f"{model.name} on {len(samples)} pictures of {data} ({which})"
    console.print(_table(metrics, title))
    if metrics.absent:
        console.print(f"not in this split, and left out of the means: {', '.join(metrics.absent)}", markup=False)
    if metrics.categories:
        console.print(_category_table(metrics))
    origin = {
        "model": model.name,
        "data": data,
        "split": which,
        "pictures": len(samples),
        "size": str(chosen) if chosen else None,
    }
    if report is not None:
        listed = {key: str(value or "as the pictures are") for key, value in origin.items()}
        line = shlex.join(["enet-tvm", *sys.argv[1:]])
        told.write(
            *(report, metrics, samples, lambda picture, shape: predict(model.forward, picture, shape, *how), title, listed),
            command=line,
        )
        console.print(f"report: {report / 'report.html'}")
    if json is not None:
        write_json(json, origin | metrics.to_dict())


def _table(metrics: SegmentationMetrics, title: str) -> Table:
    from rich.table import Table

    table = Table(title=title)
    weighted = metrics.instance.class_iou if metrics.instance else ()
    for column in ("class", "IoU, %", "accuracy, %", *(["iIoU, %"] if metrics.instance else [])):
        table.add_column(column, justify="left" if column == "class" else "right")
    for i, name in enumerate(metrics.classes):
        table.add_row(name, *map(_percent, (metrics.class_iou[i], metrics.class_accuracy[i], *weighted[i : i + 1])))
    table.add_section()
    mean = [metrics.instance.class_mean] if metrics.instance else []
    table.add_row("mean", *map(_percent, (metrics.miou, metrics.class_average, *mean)), style="bold")
    table.add_row("global", "", _percent(metrics.global_accuracy), style="bold")
    return table


def _category_table(metrics: SegmentationMetrics) -> Table:
    from rich.table import Table

    table = Table()
    weighted = metrics.instance.category_iou if metrics.instance else ()
    for column in ("category", "IoU, %", *(["iIoU, %"] if metrics.instance else [])):
        table.add_column(column, justify="left" if column == "category" else "right")
    for i, name in enumerate(metrics.categories):
        table.add_row(name, *map(_percent, (metrics.category_iou[i], *weighted[i : i + 1])))
    table.add_section()
    mean = [metrics.instance.category_mean] if metrics.instance else []
    table.add_row("mean", *map(_percent, (metrics.category_miou, *mean)), style="bold")
    return table


def _percent(value: float) -> str:
    return "" if value != value else f"{100 * value:.2f}"
