"""What a video costs beside the network: the two figures of the README's part on videos, on one machine, in one run.

    python benchmarks/video.py                                       # compiles 640x360, a few minutes on two idle cores
    python benchmarks/video.py --artifact DIR --input 64x48 --rounds 1 --seconds 1    # seconds, to see that it works

First, frames a second end to end (decoding, network, drawing, encoding of a drawn ride as a file) against the network alone,
in turns: alone as files are computed, several frames at once, and alone as one picture after the other on all threads. Second,
the share of a frame's time that goes to pre- and postprocessing, one step after the other: from the decoded frame to the
network's input, and from its output to the coloured frame.
"""

from __future__ import annotations

import contextlib
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from enet_tvm.bench.machine.description import processor
from enet_tvm.compiler.compile import CompileRequest, compile_artifact
from enet_tvm.compiler.workload import Workload
from enet_tvm.files import write_json
from enet_tvm.networks.weights import DEFAULT_WEIGHTS
from enet_tvm.runtime import Segmenter
from enet_tvm.size import DEFAULT_SIZE, parse_size
from enet_tvm.targets import load_target
from enet_tvm.video.drawn import write_ride
from enet_tvm.video.frame import PlanarResizer
from enet_tvm.video.painting import Painter
from enet_tvm.video.session import rate_alone, segment_video
from enet_tvm.video.source import open_file


def main(
    artifact: Annotated[Path | None, typer.Option(help="A compiled network; compiled at 640x360 by default.")] = None,
    input_size: Annotated[list[str] | None, typer.Option("--input", help="Size of the video, again for each.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Times that everything is measured, in turns.")] = 5,
    seconds: Annotated[float, typer.Option(min=0.1, help="Length of the video.")] = 4.0,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write the figures to this file.")] = None,
) -> None:
    """Measure a drawn ride end to end against the network alone, and the steps around the network."""
    console = Console(soft_wrap=True, highlight=False)
    with tempfile.TemporaryDirectory() as folder:
        if artifact is None:
            artifact = Path(folder, "artifact")
            request = CompileRequest(
                Workload(DEFAULT_WEIGHTS, DEFAULT_SIZE, load_target("native")), command="benchmarks/video.py"
            )
            compile_artifact(request, artifact)
        found = []
        with Segmenter.load(artifact, adaptive=False) as segmenter:
            for size in map(parse_size, input_size or ["640x360", "1280x720"]):
                ride = Path(folder, f"{size}.mp4")
                write_ride(ride, size, seconds)
                found.append({"input": str(size)} | _measure(segmenter, ride, rounds))
            conditions = f"network {segmenter.size}, {segmenter.threads} threads of {processor()}"
    console.print(_table(found, f"{conditions}; medians of {rounds} rounds"))
    if json is not None:
        write_json(json, {"conditions": conditions, "rounds": rounds, "videos": found})


def _measure(segmenter: Segmenter, ride: Path, rounds: int) -> dict[str, float]:
    """Return the medians of all rounds."""
    found = []
    for _ in range(rounds):
        with contextlib.closing(open_file(ride)) as source:
            report = segment_video(segmenter, source, ride.with_name("out.mp4"))
        alone = rate_alone([segmenter])
        rate = report.statistics.rate
        figures = {
            "end_to_end": rate,
            "alone": report.alone,
            "of_alone": rate / report.alone,
            "one_by_one": alone,
            "of_one_by_one": rate / alone,
        }
        found.append(figures | _steps(segmenter, ride))
    return {name: statistics.median(figures[name] for figures in found) for name in found[0]}


def _steps(segmenter: Segmenter, ride: Path) -> dict[str, float]:
    """Return the median milliseconds of what is done with a frame, one step after the other, and the share of the network's."""
    resize, painter = PlanarResizer(segmenter.size), Painter(segmenter.manifest.palette)
    times: dict[str, list[float]] = {"pre_ms": [], "network_ms": [], "post_ms": []}

    def timed(name: str, step: Callable[[], Any]) -> Any:
        before = time.perf_counter()
        result = step()
        times[name].append(1e3 * (time.perf_counter() - before))
        return result

    spare = None
    with contextlib.closing(open_file(ride)) as source:
        for frame in source.first(2.0):
            x = spare = timed("pre_ms", lambda: segmenter.normalise(resize(frame), out=spare))  # noqa: B023
            output = timed("network_ms", lambda: segmenter.forward(x))  # noqa: B023
            timed("post_ms", lambda: painter.paint(frame, segmenter.labels(output[0])))  # noqa: B023
    medians = {name: statistics.median(values) for name, values in times.items()}
    return medians | {"share": 1 - medians["network_ms"] / sum(medians.values())}


def _table(found: list[dict[str, Any]], title: str) -> Table:
    table = Table(title=title)
    table.add_column("video")
    columns = {
        "frames/s": ("end_to_end", ".1f"),
        "network alone": ("alone", ".1f"),
        "of it": ("of_alone", ".2f"),
        "one by one": ("one_by_one", ".1f"),
        "of that": ("of_one_by_one", ".2f"),
        "pre, ms": ("pre_ms", ".1f"),
        "network, ms": ("network_ms", ".1f"),
        "post, ms": ("post_ms", ".1f"),
        "pre and post": ("share", ".0%"),
    }
    for heading in columns:
        table.add_column(heading, justify="right")
    for figures in found:
        table.add_row(figures["input"], *(format(figures[name], style) for name, style in columns.values()))
    return table


if __name__ == "__main__":
    typer.run(main)
