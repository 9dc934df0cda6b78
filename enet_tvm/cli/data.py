"""`enet-tvm data`: what a data set holds, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from enet_tvm.data.classes import ClassSet
    from enet_tvm.data.statistics import DataStatistics

SHOWN = 20
"""Problems that are printed; a file takes all of them."""

app = typer.Typer(no_args_is_help=True, help="Statistics and checks of a data set: CamVid, Cityscapes or SUN RGB-D.")

Dataset = Annotated[str | None, typer.Option(metavar="NAME", help="Which data set DIR is; by default its layout says it.")]


@app.command("stats")
def stats(
    data: Annotated[
        str, typer.Option(metavar="DIR|synthetic", help="Data set directory, or 'synthetic' for the drawn street.")
    ],
    split: Annotated[str, typer.Option(help="Split of the data set.")] = "train",
    dataset: Dataset = None,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write the figures to this file.")] = None,
) -> None:
    """Print class shares, the paper's class weights 1/ln(1.02+p), mean and deviation of the colours, sizes and counts."""
    from rich.console import Console
    from rich.progress import track

    from enet_tvm.data.source import open_samples
    from enet_tvm.data.statistics import data_statistics
    from enet_tvm.files import write_json

    console = Console(highlight=False, soft_wrap=True)
    samples = open_samples(data, split, dataset=dataset)
    pictures = track(samples, description="reading", total=len(samples), console=console, disable=not console.is_terminal)
    figures = data_statistics(pictures, samples.class_set)
    title = f"{samples.class_set.name} in {data}: {figures.pictures} pictures of the split '{split}'"
    console.print(_table(figures, samples.class_set, title))
    console.print("sizes: " + ", ".join(f"{size} ({count})" for size, count in figures.sizes.items()))
    console.print("mean of R, G, B:      " + ", ".join(f"{value:.4f}" for value in figures.mean))
    console.print("standard deviation:   " + ", ".join(f"{value:.4f}" for value in figures.std))
    if json is not None:
        write_json(json, {"data": data, "dataset": samples.class_set.name, "split": split} | figures.to_dict())


@app.command("check")
def check(
    data: Annotated[str, typer.Option(metavar="DIR", help="Data set directory.")],
    split: Annotated[str | None, typer.Option(help="Only this split; by default train, val and what else is there.")] = None,
    dataset: Dataset = None,
    json: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write all problems and warnings to this file.")
    ] = None,
) -> None:
    """Look for everything that would end a training, and exit with 2 if there is anything.

    Missing halves of pairs, unreadable files, labels out of range, pictures and labels of different sizes, a missing
    split, a split without one labelled pixel. Warns of pictures that EXIF data turn: their labels are not turned.
    """
    from rich.console import Console
    from rich.progress import track

    from enet_tvm.data.check import check_data_set
    from enet_tvm.files import write_json

    console = Console(highlight=False, soft_wrap=True)

    def watched(pairs: Sequence[tuple[Path, Path]], name: str) -> Iterable[tuple[Path, Path]]:
        return track(pairs, description=f"checking {name}", console=console, disable=not console.is_terminal)

    report = check_data_set(data, [split] if split else [], dataset=dataset, track=watched)
    if json is not None:
        write_json(json, {"data": data} | report.to_dict())
    for kind, sentences in (("", report.problems), ("warning: ", report.warnings)):
        for sentence in sentences[:SHOWN]:
            console.print(f"- {kind}{sentence}", markup=False)
        if (hidden := len(sentences) - SHOWN) > 0:
            console.print(f"and {hidden} more; --json FILE writes all of them")
    counts = ", ".join(f"{count} {name}" for name, count in report.pictures.items())
    found = len(report.problems)
    verdict = {0: "no problems", 1: "one problem"}.get(found, f"{found} problems")
    if warned := len(report.warnings):
        verdict += f", {warned} warning{'s' if warned > 1 else ''}"
    console.print(f"{report.dataset} in {data}, {counts} pairs: {verdict}", markup=False)
    if report.problems:
        raise typer.Exit(2)


@app.command("ride")
def ride(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="The video: an .mp4, .mov or .mkv.")],
    seconds: Annotated[float, typer.Option(min=0.01, max=3600, help="How long it is.")] = 10.0,
    size: Annotated[str, typer.Option(metavar="WxH", help="Of the video.")] = "1280x720",
    rate: Annotated[int, typer.Option(min=1, max=1000, help="Frames a second.")] = 30,
    seed: Annotated[int, typer.Option(min=0, help="Another one draws other streets.")] = 0,
) -> None:
    """Draw a ride along drawn streets as a video, to try things out."""
    from rich.console import Console

    from enet_tvm.size import parse_size
    from enet_tvm.video.drawn import write_ride

    frames = write_ride(path, parse_size(size), seconds, rate, seed)
    Console(highlight=False, soft_wrap=True).print(f"{path}: {frames} frames", markup=False)


def _table(figures: DataStatistics, class_set: ClassSet, title: str) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title))
    table.add_column("class")
    for column in ("pixels, %", "pictures", "weight"):
        table.add_column(column, justify="right")
    rows = zip(class_set.names, class_set.palette, figures.shares, figures.class_pictures, figures.class_weights, strict=True)
    for name, (red, green, blue), share, pictures, weight in rows:
        table.add_row(f"[rgb({red},{green},{blue})]■[/] {name}", f"{100 * share:.3f}", str(pictures), f"{weight:.3f}")
    table.add_section()
    table.add_row("void, of all pixels", f"{100 * figures.void_share:.3f}", "", "")
    return table
