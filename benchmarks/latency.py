"""The table of the README: this network in every runtime, at several sizes, on one machine, in one run.

    python benchmarks/latency.py --out build/benchmarks            # an hour and a half on two cores, otherwise idle
    python benchmarks/latency.py --size 64x48 --seconds 0.2 ...    # seconds, to see that it works

Writes ``latency.md`` (the table), ``latency.json`` (everything, with versions and the machine) and ``latency.png``
(how latency grows with pixels). A run that was stopped goes on where it stopped.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from enet_tvm.bench.comparison import compare
from enet_tvm.bench.runners import RUNNERS, Workload
from enet_tvm.files import atomic_file, write_json
from enet_tvm.machine import usable_cpus
from enet_tvm.networks.weights import DEFAULT_WEIGHTS
from enet_tvm.places import find_file
from enet_tvm.size import parse_size

SIZES = ("480x320", "480x360", "640x360", "1024x512", "1280x720")
OURS = "tvm"


def main(
    out: Annotated[Path, typer.Option(help="Directory for the results.")] = Path("build/benchmarks"),
    size: Annotated[list[str] | None, typer.Option(help="Input size, again for each.")] = None,
    threads: Annotated[list[int] | None, typer.Option(help="Threads, again for each; 1 and all by default.")] = None,
    runner: Annotated[list[str] | None, typer.Option(help="Runner, again for each; all by default.")] = None,
    target: Annotated[str, typer.Option(help="What ours is compiled for.")] = "native",
    seconds: Annotated[float, typer.Option(help="How long to measure each, warm-up aside.")] = 30.0,
) -> None:
    """Measure every runner at every size and number of threads, and write table, figures and plot."""
    console = Console(soft_wrap=True, highlight=False)
    names = runner or [name for name in RUNNERS if name != "tvm-rpc"]
    counts = threads or sorted({1, len(usable_cpus())})
    figures = out / "latency.json"
    done: list[dict[str, Any]] = json.loads(figures.read_text()) if figures.is_file() else []
    with tempfile.TemporaryDirectory() as directory:
        for text in size or SIZES:
            for count in counts:
                if any(result["size"] == text and result["threads"] == count for result in done):
                    console.print(f"{text} on {count} threads: measured already, in {figures}")
                    continue
                workload = Workload(find_file(DEFAULT_WEIGHTS), parse_size(text), count, Path(directory), target)
                with console.status("") as status:
                    done.append(compare(names, workload, seconds=seconds, report=status.update).to_dict())
                write_json(figures, done)
                console.print(_row(done[-1], names))
    table = _table(done, names)
    with atomic_file(out / "latency.md") as path:
        path.write_text(table, encoding="utf-8")
    _plot(done, names, out / "latency.png")
    console.print(table)


def _medians(result: dict[str, Any]) -> dict[str, float]:
    return {entry["name"]: entry["latency"]["median_ms"] for entry in result["entries"] if entry["latency"]}


def _cell(entry: dict[str, Any] | None) -> str:
    if entry is None:
        return "not here"
    if entry["latency"] is None:
        return "fails parity"
    times = entry["latency"]
    return f"{times['median_ms']:.1f} ({times['p10_ms']:.1f}-{times['p90_ms']:.1f})" + ("" if times["steady"] else " !")


def _row(result: dict[str, Any], names: list[str]) -> str:
    medians, entries = _medians(result), {entry["name"]: entry for entry in result["entries"]}
    peers = [median for name, median in medians.items() if name != OURS]
    ours = medians.get(OURS)
    ratio = f"{ours / min(peers):.2f}" if ours and peers else ""
    limit = f"{ours / result['limit_ms']:.2f}" if ours else ""
    cells = [result["size"], str(result["threads"]), *(_cell(entries.get(name)) for name in names), ratio, limit]
    return "| " + " | ".join(cells) + " |"


def _table(results: list[dict[str, Any]], names: list[str]) -> str:
    headings = ["size", "threads", *names, "ours / best peer", "ours / limit"]
    lines = ["| " + " | ".join(headings) + " |", "|" + "---|" * len(headings), *(_row(r, names) for r in results)]
    machine = results[0]["machine"] if results else {}
    lines += ["", f"Median milliseconds (10th to 90th percentile), float32, alternating; {machine.get('processor', '')}."]
    lines += ["`!`: varied by more than a quarter. Limit: the arithmetic at the rate of a large matrix product."]
    described = {e["name"]: e["description"] for result in results for e in result["entries"]}
    return "\n".join([*lines, *(f"- {name}: {text}" for name, text in described.items()), ""])


def _plot(results: list[dict[str, Any]], names: list[str], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    most = max(result["threads"] for result in results)
    chosen = sorted((r for r in results if r["threads"] == most), key=_pixels)
    for name in names:
        points = [(_pixels(r) / 1e3, _medians(r)[name]) for r in chosen if name in _medians(r)]
        if points:
            axes.plot(*zip(*points, strict=True), marker="o", linewidth=2.5 if name == OURS else 1.2, label=name)
    axes.plot([_pixels(r) / 1e3 for r in chosen], [r["limit_ms"] for r in chosen], "k:", label="arithmetic limit")
    axes.set(xlabel="thousand pixels", ylabel="median latency, ms", title=f"ENet, float32, {most} threads")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()
    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=110)


def _pixels(result: dict[str, Any]) -> int:
    size = parse_size(result["size"])
    return size.width * size.height


if __name__ == "__main__":
    typer.run(main)
