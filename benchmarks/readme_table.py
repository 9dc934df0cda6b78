"""The latency tables of the README: beside the runtimes of PCs, beside those of boards, and in shorter numbers than float32.

`docs/latency.json`, `docs/peers.json` and `docs/precisions.json` keep the figures that they are of.

python benchmarks/readme_table.py build/benchmarks/latency.json        # takes the figures of a run of benchmarks/latency.py
python benchmarks/readme_table.py                                      # writes the table again
python benchmarks/readme_table.py --kind peers build/peers/latency.json
python benchmarks/readme_table.py --kind precisions build/peers/latency.json
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from enet_tvm.bench.report.figures import load_figures
from enet_tvm.bench.runners.registry import RUNNERS
from enet_tvm.errors import UserError
from enet_tvm.files import atomic_file, read_json, write_json
from enet_tvm.size import parse_size

ROOT = Path(__file__).resolve().parents[1]
HEADINGS = {
    "tvm": "enet-tvm",
    "torch-compile": "torch.compile",
    "openvino": "OpenVINO",
    "torch-channels-last": "PyTorch channels_last",
    "torch": "PyTorch",
    "onnxruntime": "ONNX Runtime",
    "litert": "LiteRT",
    "mnn": "MNN",
    "ncnn": "ncnn",
    "executorch": "ExecuTorch",
}
"""Heading of each runner's column."""


class Kind(enum.StrEnum):
    """A table."""

    LATENCY = "latency"
    PEERS = "peers"
    PRECISIONS = "precisions"


COLUMNS = {
    Kind.LATENCY: (
        *("tvm", "litert", "executorch", "torch-compile", "openvino", "ncnn"),
        *("torch-channels-last", "torch", "onnxruntime"),
    ),
    Kind.PEERS: ("tvm", "litert", "mnn", "ncnn", "openvino", "executorch", "onnxruntime"),
}
"""Runners of each table whose columns they are, in their order."""

OURS = "tvm"
PRECISIONS = ("float16", "bfloat16", "int8")
"""Data types that a runner's name ends with."""


def main(
    results: Annotated[Path | None, typer.Argument(metavar="[LATENCY.json]", help="Of benchmarks/latency.py.")] = None,
    kind: Annotated[Kind, typer.Option(help="Table to write.")] = Kind.LATENCY,
    figures: Annotated[Path | None, typer.Option(help="Where its figures are kept; docs/KIND.json by default.")] = None,
    readme: Annotated[Path, typer.Option(help="Text whose table is replaced.")] = ROOT / "README.md",
) -> None:
    """Write a table of the README; with results, take their figures first."""
    kept = figures or ROOT / f"docs/{kind}.json"
    if kind is Kind.PRECISIONS:
        take, show = summarise_precisions, table_of_precisions
    else:
        take, show = partial(summarise, names=COLUMNS[kind]), partial(table, names=COLUMNS[kind])
    write_table(lambda: take(load_figures(results)) if results else None, show, kept, readme)


def write_table(
    measured: Callable[[], dict[str, Any] | None], table: Callable[[dict[str, Any]], str], figures: Path, readme: Path
) -> None:
    """Write a table of a text and the figures that it is of; bad input ends the program in a sentence.

    Parameters
    ----------
    measured : callable
        Function that returns new figures; None for those that are kept.
    table : callable
        Function that makes the table of figures, as Markdown.
    figures : Path
        File in which the figures are kept.
    readme : Path
        Text whose table with the same headings is replaced.
    """
    try:
        kept = measured() or read_json(figures, "give a file that this made")
        text = replace_table(readme.read_text(encoding="utf-8"), table(kept))
        write_json(figures, kept)
        with atomic_file(readme) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except UserError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from error
    typer.echo(f"{readme}: the table of {figures}; its sentences around the table are yours to mend")


def summarise(results: list[dict[str, Any]], names: Sequence[str]) -> dict[str, Any]:
    """Return what a table of these runners shows of the results of `benchmarks/latency.py`.

    Raises
    ------
    UserError
        When a runner of the table was not timed somewhere.
    """
    rows = []
    for result in sorted(results, key=lambda one: (-one["threads"], *_height_and_width(one["size"]))):
        times = {entry["name"]: entry["latency"]["median_ms"] for entry in result["entries"] if entry["latency"]}
        if missing := [name for name in names if name not in times]:
            raise UserError(f"{result['size']} on {result['threads']} threads has no time of {', '.join(missing)}; measure it")
        if not (limit := result.get("limit_ms")):
            raise UserError(
                f"{result['size']} on {result['threads']} threads has no limit; measure it with benchmarks/latency.py"
            )
        ours, peers = times["tvm"], [times[name] for name in names if not name.startswith("tvm")]
        rows.append(
            {
                "size": result["size"],
                "threads": result["threads"],
                "median_ms": {name: round(times[name], 1) for name in names},
                "limit_ms": round(limit, 1),
                "of_the_best_peer": round(ours / min(peers), 2),
                "of_the_limit": round(ours / limit, 2),
            }
        )
    return {**_origin(results), "rows": rows}


def _origin(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what the results were measured on, and with which versions."""
    machines = sorted({result["machine"]["processor"] for result in results})
    return {"origin": f"benchmarks/latency.py on {', '.join(machines)}", "versions": results[0]["versions"]}


def summarise_precisions(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what the table of shorter numbers shows of the results of `benchmarks/latency.py`: those on the most threads.

    Raises
    ------
    UserError
        When a size has no time of ours in any of them.
    """
    threads = max(result["threads"] for result in results)
    shown = sorted(
        (result for result in results if result["threads"] == threads), key=lambda one: _height_and_width(one["size"])
    )
    there = {entry["name"] for result in shown for entry in result["entries"]}
    rows = []
    for precision in PRECISIONS:
        own = f"{OURS}-{precision}"
        peers = [name for name in RUNNERS if name.endswith(f"-{precision}") and name in there - {own}]
        times = {name: _medians(shown, name) for name in (own, *peers)}
        if any(times[own].values()):
            rows += [
                {"precision": precision, "runner": name, "labels": _least_labels(shown, name), "median_ms": of_sizes}
                for name, of_sizes in times.items()
            ]
    if not rows:
        raise UserError(f"the results on {threads} threads have no time of ours in {' or '.join(PRECISIONS)}; measure one")
    return {**_origin(shown), "threads": threads, "sizes": [result["size"] for result in shown], "rows": rows}


def _height_and_width(size: str) -> tuple[int, int]:
    parsed = parse_size(size)
    return parsed.height, parsed.width


def _least_labels(results: list[dict[str, Any]], name: str) -> float:
    """Return the least share of PyTorch's labels that a runner has in any result that it is in."""
    shares: list[float] = [
        entry["label_agreement"] for result in results for entry in result["entries"] if entry["name"] == name
    ]
    return min(shares)


def _medians(results: list[dict[str, Any]], name: str) -> dict[str, float | None]:
    """Return the milliseconds of a runner by the size of each result that it is in; None where it failed parity."""
    entries = {result["size"]: entry for result in results for entry in result["entries"] if entry["name"] == name}
    times = {size: entry["latency"] for size, entry in entries.items()}
    return {size: round(time["median_ms"], 1) if time else None for size, time in times.items()}


def table(kept: dict[str, Any], names: Sequence[str]) -> str:
    """Return the table of these runners as Markdown, without a line break at its end."""
    headings = ["size", "threads", *(HEADINGS[name] for name in names), "limit", "of the best peer", "of the limit"]
    lines = ["| " + " | ".join(headings) + " |", "|---|" + "--:|" * (len(headings) - 1)]
    for row in kept["rows"]:
        ours, *others = (f"{row['median_ms'][name]:.1f}" for name in names)
        ratios = (f"{row['of_the_best_peer']:.2f}", f"{row['of_the_limit']:.2f}")
        cells = [row["size"], str(row["threads"]), f"**{ours}**", *others, f"{row['limit_ms']:.1f}", *ratios]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def table_of_precisions(kept: dict[str, Any]) -> str:
    """Return the table of shorter numbers as Markdown, without a line break at its end."""
    sizes = kept["sizes"]
    headings = ["data type", "runtime", "PyTorch's labels on noise", *sizes]
    lines = ["| " + " | ".join(headings) + " |", "|---|---|" + "--:|" * (len(headings) - 2)]
    own: dict[str, dict[str, float | None]] = {}
    for row in kept["rows"]:
        ours = own.setdefault(row["precision"], row["median_ms"])
        runtime = HEADINGS[row["runner"].removesuffix(f"-{row['precision']}")]
        cells = [row["precision"], runtime, f"{100 * row['labels']:.1f} %"]
        for size in sizes:
            time, least = row["median_ms"].get(size), ours.get(size)
            if time is None:
                cells.append("fails parity" if size in row["median_ms"] else "-")
            elif row["median_ms"] is ours:
                cells.append(f"**{time:.1f}**")
            else:
                cells.append(f"{time:.1f} ({least / time:.2f})" if least else f"{time:.1f}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def replace_table(text: str, new: str) -> str:
    """Return a text with its table of these headings replaced.

    Raises
    ------
    UserError
        When the text has no such table, or more than one.
    """
    heading = new.splitlines()[0]
    lines = text.split("\n")
    if lines.count(heading) != 1:
        raise UserError(
            f"the text has {lines.count(heading) or 'no'} tables that begin with '{heading}'; give one that has one"
        )
    start = end = lines.index(heading)
    while end < len(lines) and lines[end].startswith("|"):
        end += 1
    return "\n".join([*lines[:start], *new.split("\n"), *lines[end:]])


if __name__ == "__main__":
    typer.run(main)
