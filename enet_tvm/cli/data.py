"""`enet-tvm data`: a data set of one's own, what one holds, and what is wrong with it."""

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
"""Number of problems that are printed; the file of --json has all of them."""

app = typer.Typer(no_args_is_help=True, help="Data sets: describe your own, draw one, statistics, checks.")

Dataset = Annotated[str | None, typer.Option(metavar="NAME", help="Which data set DIR is; by default its layout says it.")]


@app.command("new")
def new(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Directory with pictures, and masks or annotations.")],
    classes: Annotated[
        str | None,
        typer.Option(metavar="A,B,..|FILE|N|NAME", help="Names of the classes, or a file with a name, and a colour, a line."),
    ] = None,
    pictures: Annotated[
        list[str] | None, typer.Option(metavar="GLOB", help="Where pictures lie, such as 'images/**/*.jpg'. Repeatable.")
    ] = None,
    masks: Annotated[
        list[str] | None, typer.Option(metavar="GLOB", help="Where masks lie, such as 'masks/**/*_mask.png'. Repeatable.")
    ] = None,
    annotations: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="Annotations of COCO, labelme or CVAT to draw masks from.")
    ] = None,
    outside: Annotated[str, typer.Option(help="What is outside of annotated regions: background or void.")] = "background",
    name: Annotated[str | None, typer.Option(help="Of the data set; the directory's by default.")] = None,
    size: Annotated[str | None, typer.Option(metavar="WxH", help="Size to which pictures are brought.")] = None,
    val: Annotated[
        float, typer.Option(min=0.01, max=0.9, help="Share of the pictures that judge, unless folders say it.")
    ] = 0.2,
    seed: Annotated[int, typer.Option(min=0, help="Another one draws others.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace a dataset.toml that is there.")] = False,
) -> None:
    """Look at pictures and masks, and write a dataset.toml that says what they are; say what was assumed.

    Annotations of COCO (JSON), labelme and CVAT (XML for images 1.1, or its masks) are taken too, and drawn as masks
    (pip install 'enet-tvm[annotations]').
    """
    from rich.console import Console
    from rich.progress import track

    from enet_tvm.data.describing import Wishes, describe_directory
    from enet_tvm.errors import UserError
    from enet_tvm.size import parse_size

    if outside not in ("background", "void"):
        raise UserError(f"--outside is '{outside}'; give background or void")
    console = Console(highlight=False, soft_wrap=True)
    wishes = Wishes(
        classes=classes,
        pictures=tuple(pictures or ()),
        masks=tuple(masks or ()),
        annotations=tuple(annotations or ()),
        outside="void" if outside == "void" else "background",
        name=name,
        size=parse_size(size) if size else None,
        val=val,
        seed=seed,
    )

    def watched(paths: Sequence[str], what: str) -> Iterable[str]:
        return track(paths, description=what, console=console, disable=not console.is_terminal)

    for sentence in describe_directory(directory, wishes, force=force, track=watched):
        console.print(f"- {sentence}", markup=False)
    console.print(f"wrote {directory / 'dataset.toml'}: read it, then enet-tvm data check --data {directory}", markup=False)


@app.command("draw")
def draw(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Where to; a new or empty directory.")],
    count: Annotated[int, typer.Option(min=1, max=100_000, help="Pictures.")] = 60,
    classes: Annotated[int, typer.Option(help="Classes, the background among them.")] = 3,
    size: Annotated[str, typer.Option(metavar="WxH", help="Of the pictures.")] = "160x120",
    seed: Annotated[int, typer.Option(min=0, help="Another one draws others.")] = 0,
) -> None:
    """Draw pictures of plain shapes with masks, to try things out: images/, masks/ and classes.txt."""
    from rich.console import Console

    from enet_tvm.data.shapes import shape_classes, write_shapes
    from enet_tvm.size import parse_size

    write_shapes(directory, count, classes, parse_size(size), seed)
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"{directory}: {count} pictures of {', '.join(shape_classes(classes))}", markup=False)
    console.print(f"describe them with enet-tvm data new {directory}", markup=False)


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
    split, a split without one labelled pixel; of a dataset.toml also masks without pictures, names that two files share
    and pictures in two splits. Warns of pictures that EXIF data turn: their labels are not turned; and of files that are
    left out.
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
