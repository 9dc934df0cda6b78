"""`enet-tvm evaluate`: how good a network, or a compiled one, is on labelled pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from enet_tvm.training.metrics import SegmentationMetrics


def command(
    data: Annotated[str, typer.Option(metavar="DIR|synthetic", help="CamVid directory, or 'synthetic' for the drawn street.")],
    weights: Annotated[Path | None, typer.Option(help="Weights to evaluate; those shipped, by default.")] = None,
    artifact: Annotated[Path | None, typer.Option(metavar="DIR", help="Evaluate this compiled network instead.")] = None,
    split: Annotated[str, typer.Option(help="Split of the data set.")] = "val",
    size: Annotated[
        str | None, typer.Option(metavar="WxH", help="Resize pictures to this; results are judged at the labels' size.")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; all available by default.")] = None,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write the figures to this file.")] = None,
) -> None:
    """Print class IoU, mean IoU, class average and global accuracy on a split of a data set; void pixels do not count."""
    from rich.console import Console
    from rich.progress import track

    from enet_tvm.data.source import open_samples
    from enet_tvm.errors import UserError
    from enet_tvm.files import write_json
    from enet_tvm.size import parse_size
    from enet_tvm.training.evaluate import evaluate
    from enet_tvm.training.models import artifact_model, weights_model

    if weights is not None and artifact is not None:
        raise UserError("both --weights and --artifact were given; give the one to evaluate")
    console = Console()
    model = artifact_model(artifact, threads) if artifact is not None else weights_model(weights, threads)
    chosen = parse_size(size) if size else model.size
    samples = open_samples(data, split)
    model.check(samples.class_set, chosen)
    pictures = track(samples, description="segmenting", total=len(samples), console=console, disable=not console.is_terminal)
    metrics = evaluate(model.forward, pictures, samples.class_set, model.mean, model.std, chosen)
    console.print(_table(metrics, f"{model.name} on {len(samples)} pictures of {data} ({split})"))
    if json is not None:
        origin = {
            "model": model.name,
            "data": data,
            "split": split,
            "pictures": len(samples),
            "size": str(chosen) if chosen else None,
        }
        write_json(json, origin | metrics.to_dict())


def _table(metrics: SegmentationMetrics, title: str) -> Table:
    from rich.table import Table

    table = Table(title=title)
    table.add_column("class")
    table.add_column("IoU, %", justify="right")
    table.add_column("accuracy, %", justify="right")
    for name, iou, accuracy in zip(metrics.classes, metrics.class_iou, metrics.class_accuracy, strict=True):
        table.add_row(name, f"{iou:.2%}"[:-1], f"{accuracy:.2%}"[:-1])
    table.add_section()
    table.add_row("mean", f"{metrics.miou:.2%}"[:-1], f"{metrics.class_average:.2%}"[:-1], style="bold")
    table.add_row("global", "", f"{metrics.global_accuracy:.2%}"[:-1], style="bold")
    return table
