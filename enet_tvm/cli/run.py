"""`enet-tvm run`: segment pictures with a compiled network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    artifact: Annotated[Path, typer.Argument(metavar="DIR", help="Artifact that 'enet-tvm compile' wrote.")],
    inputs: Annotated[
        list[Path], typer.Argument(metavar="INPUT...", help="Pictures, and folders of pictures; of animations, every frame.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="OUT", help="Folder for the overlays.")],
    labels: Annotated[bool, typer.Option("--labels", help="Also write class numbers as <name>_labels.png.")] = False,
    opacity: Annotated[float, typer.Option("--opacity", help="Of the colours: 0 shows the picture, 1 the colours only.")] = 0.5,
    threads: Annotated[
        int | None, typer.Option("--threads", help="Threads at most; by default as processors and quota allow.")
    ] = None,
    json: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write figures and classes per picture.")] = None,
) -> None:
    """Segment pictures with a compiled network and write overlays."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from enet_tvm.files import write_json
    from enet_tvm.runtime import Segmenter
    from enet_tvm.runtime.batch import segment_files, summarise
    from enet_tvm.runtime.overlay import check_opacity
    from enet_tvm.runtime.pictures import find_pictures

    console, stderr = Console(soft_wrap=True, highlight=False), Console(stderr=True, soft_wrap=True, highlight=False)
    check_opacity(opacity)
    pictures = find_pictures(inputs, exclude=output)
    columns = (TextColumn("segmenting"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    progress = Progress(*columns, console=stderr, transient=True, disable=not stderr.is_terminal)
    with Segmenter.load(artifact, threads) as segmenter, progress:
        outcomes, total = [], len(pictures)
        results = segment_files(segmenter, pictures, inputs, output, labels=labels, opacity=opacity)
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
            f"{summary['median_total_ms']:.1f} ms from picture to labels ({summary['size']}, {summary['threads']} threads)",
            markup=False,
        )
        used = {outcome.threads for outcome in outcomes if outcome.error is None}
        if min(used) < segmenter.threads:
            console.print(f"other work kept processors busy: some passes used {min(used)} threads", markup=False)
        elif threads is None and " of " in summary["processors"]:
            console.print(f"threads: {summary['processors']}", markup=False)
    if summary["failed"]:
        stderr.print(f"{summary['failed']} of {len(outcomes)} pictures could not be read", style="yellow")
        raise typer.Exit(2)
