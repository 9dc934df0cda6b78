"""`enet-tvm run`: segment pictures, a video or what a camera sees with a compiled network."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from enet_tvm.runtime import Segmenter
    from enet_tvm.video.session import VideoReport
    from enet_tvm.video.source import VideoSource


def command(
    artifact: Annotated[Path, typer.Argument(metavar="DIR", help="Artifact that 'enet-tvm compile' wrote.")],
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="OUT", help="Folder for the overlays of pictures; of a video, an .mp4, .mov or .mkv."
        ),
    ],
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[INPUT...]",
            help="Pictures and folders of them, of animations every frame; or a video file or address (rtsp://...).",
        ),
    ] = None,
    labels: Annotated[bool, typer.Option("--labels", help="Also write class numbers as <name>_labels.png.")] = False,
    opacity: Annotated[float, typer.Option("--opacity", help="Of the colours: 0 shows the picture, 1 the colours only.")] = 0.5,
    camera: Annotated[
        str | None, typer.Option(metavar="CAMERA", help="0 for /dev/video0, a device, or the address of a stream.")
    ] = None,
    camera_size: Annotated[str | None, typer.Option(metavar="WxH", help="Ask the camera for this size, as 1280x720.")] = None,
    rate: Annotated[
        int | None, typer.Option(min=1, max=1000, help="Frames a second: asked of the camera, or of a folder made a video.")
    ] = None,
    seconds: Annotated[
        float | None, typer.Option(min=0.01, help="End a video after so long; a camera's ends with Ctrl-C without it.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option("--threads", help="Threads at most; by default as processors and quota allow.")
    ] = None,
    regions: Annotated[
        Literal["rle", "polygons"] | None,
        typer.Option(help="Pictures' regions in the --json: COCO's run lengths, or polygons, by class and component."),
    ] = None,
    json: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write figures, and of pictures their classes.")
    ] = None,
) -> None:
    """Segment pictures, a video or what a camera sees with a compiled network, and write overlays.

    A folder's pictures become a video where OUT is one: they are its frames, in the order of their names.
    """
    from rich.console import Console

    from enet_tvm.errors import UserError
    from enet_tvm.files import write_json
    from enet_tvm.runtime import Segmenter
    from enet_tvm.runtime.overlay import check_opacity
    from enet_tvm.size import parse_size
    from enet_tvm.video.opening import check_options, means_video, open_source

    console, stderr = Console(soft_wrap=True, highlight=False), Console(stderr=True, soft_wrap=True, highlight=False)
    check_opacity(opacity)
    where = inputs or []
    video = means_video(where, camera, output)
    check_options(video, output, labels=labels, regions=regions, camera_size=camera_size, rate=rate, seconds=seconds)
    if regions is not None and json is None:
        raise UserError("regions go into a JSON file; give --json FILE too")
    if video:
        size = None if camera_size is None else parse_size(camera_size)
        source = open_source(where, camera, size=size, rate=rate, seconds=seconds)
        with contextlib.closing(source), Segmenter.load(artifact, threads) as segmenter:
            report = _follow(segmenter, source, output, opacity, stderr)
        if json is not None:
            write_json(json, report.to_json())
        _print_report(report, console, stderr)
        raise typer.Exit(report.exit_code)
    _segment_pictures(
        artifact, [Path(path) for path in where], output, labels, opacity, threads, regions, json, console, stderr
    )


def _follow(segmenter: Segmenter, source: VideoSource, output: Path, opacity: float, stderr: Console) -> VideoReport:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    from enet_tvm.video.session import segment_video

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=stderr, transient=True, disable=not stderr.is_terminal) as bar:
        shown = bar.add_task("segmenting", total=source.expected)

        def progress(frames: int, dropped: int) -> None:
            bar.update(shown, completed=frames, description=f"segmenting, {dropped} dropped" if dropped else "segmenting")

        return segment_video(segmenter, source, output, opacity=opacity, progress=progress)


def _print_report(report: VideoReport, console: Console, stderr: Console) -> None:
    found = report.statistics
    console.print(_stages(report))
    console.print(
        f"{found.items} frames of {report.source} ({report.size}) in {report.output}: {found.rate:.1f} a second end to end, "
        f"{found.rate / report.alone:.2f} of the {report.alone:.1f} of the network alone ({report.network_size}, "
        f"{report.threads} threads{_on(report.cores)}, {report.side_by_side} frames at once)",
        markup=False,
    )
    console.print(
        f"latency {found.latency.p50:.0f} ms (median; p99 {found.latency.p99:.0f}), {found.dropped} frames dropped, "
        f"sound: {report.audio}",
        markup=False,
    )
    if report.broken:
        stderr.print(f"{report.broken} frames could not be decoded and were left out", style="yellow", markup=False)
    if report.interrupted and not report.live:
        stderr.print(f"interrupted: {report.output} can be played as far as it goes", style="yellow", markup=False)
    if report.error is not None:
        stderr.print("error:", style="bold red", end=" ")
        stderr.print(report.error, markup=False)


def _stages(report: VideoReport) -> Table:
    from rich.table import Table

    table = Table()
    table.add_column("stage")
    for column in ("p50, ms", "p99, ms"):
        table.add_column(column, justify="right")
    for name, times in report.statistics.stages.items():
        table.add_row(name, f"{times.p50:.1f}", f"{times.p99:.1f}")
    return table


def _segment_pictures(
    artifact: Path,
    inputs: list[Path],
    output: Path,
    labels: bool,
    opacity: float,
    threads: int | None,
    regions: Literal["rle", "polygons"] | None,
    json: Path | None,
    console: Console,
    stderr: Console,
) -> None:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from enet_tvm.files import write_json
    from enet_tvm.runtime import Segmenter
    from enet_tvm.runtime.batch import segment_files, summarise
    from enet_tvm.runtime.pictures import find_pictures

    pictures = find_pictures(inputs, exclude=output)
    columns = (TextColumn("segmenting"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    progress = Progress(*columns, console=stderr, transient=True, disable=not stderr.is_terminal)
    with Segmenter.load(artifact, threads) as segmenter, progress:
        outcomes, total = [], len(pictures)
        results = segment_files(segmenter, pictures, inputs, output, labels=labels, opacity=opacity, region_shape=regions)
        shown = progress.add_task("", total=total)
        for outcome in results:
            outcomes.append(outcome)
            if outcome.frame == 1:
                total += outcome.frames - 1
            progress.update(shown, advance=1, total=total)
            if outcome.error is not None:
                stderr.print("error:", style="bold red", end=" ")
                stderr.print(outcome.error, markup=False)
        summary = summarise(outcomes, segmenter)
    if json is not None:
        write_json(json, summary)
    if summary["pictures"]:
        console.print(
            f"{summary['pictures']} overlays in {output}: median {summary['median_network_ms']:.1f} ms in the network, "
            f"{summary['median_total_ms']:.1f} ms from picture to labels ({summary['size']}, {summary['threads']} threads"
            f"{_on(summary.get('cores', ''))})",
            markup=False,
        )
        used = {outcome.threads for outcome in outcomes if outcome.error is None}
        if min(used) < segmenter.threads:
            console.print(f"other work kept processors busy: some passes used {min(used)} threads", markup=False)
        elif threads is None and not segmenter.cores and " of " in summary["processors"]:
            console.print(f"threads: {summary['processors']}", markup=False)
    if summary["failed"]:
        stderr.print(f"{summary['failed']} of {len(outcomes)} pictures could not be read", style="yellow")
        raise typer.Exit(2)


def _on(cores: str) -> str:
    return f" on {cores}" if cores else ""
