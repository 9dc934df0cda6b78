"""`enet-tvm bench`: this network in several runtimes, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.table import Table

    from enet_tvm.bench.comparison import Comparison


def command(
    runner: Annotated[
        list[str] | None,
        typer.Option(
            "--runner", metavar="NAME", help="Which runners, again for each; all by default. One that is missing is said."
        ),
    ] = None,
    weights: Annotated[Path | None, typer.Option(metavar="FILE", help="Weights; those shipped, by default.")] = None,
    size: Annotated[
        list[str] | None, typer.Option(metavar="WxH", help="Input size, again for each; 640x360 by default.")
    ] = None,
    threads: Annotated[list[int] | None, typer.Option(min=1, help="Threads, again for each; all by default.")] = None,
    target: Annotated[str, typer.Option(help="What ours is compiled for.")] = "native",
    seconds: Annotated[float, typer.Option(min=0, help="How long to measure each size, warm-up aside.")] = 20.0,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write the figures to this file.")] = None,
    markdown: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write the table as Markdown.")] = None,
) -> None:
    """Time this network in several runtimes, alternating in one run, each in its best float32 form.

    Parity comes first: the speed of a runner whose labels are not PyTorch's is no result.
    """
    import tempfile

    from rich.console import Console

    from enet_tvm.bench.comparison import compare
    from enet_tvm.bench.runners import RUNNERS, Workload
    from enet_tvm.errors import UserError
    from enet_tvm.files import atomic_file, write_json
    from enet_tvm.machine import usable_cpus
    from enet_tvm.networks.weights import DEFAULT_WEIGHTS
    from enet_tvm.places import find_file
    from enet_tvm.size import parse_size

    console = Console(soft_wrap=True, highlight=False)
    names = runner or [name for name in RUNNERS if name != "tvm-rpc"]
    if unknown := [name for name in names if name not in RUNNERS]:
        raise UserError(f"there is no runner '{unknown[0]}'; known are {', '.join(RUNNERS)}")
    sizes, path = [parse_size(text) for text in size or ["640x360"]], find_file(weights or DEFAULT_WEIGHTS)
    results = []
    with tempfile.TemporaryDirectory(prefix="enet-tvm-bench-") as directory:
        for wanted in sizes:
            for count in threads or [len(usable_cpus())]:
                workload = Workload(path, wanted, count, Path(directory), target)
                with console.status("") as status:
                    results.append(compare(names, workload, seconds=seconds, report=status.update))
                console.print(_table(results[-1]))
                _print_notes(console.print, results[-1])
    if json is not None:
        write_json(json, [result.to_dict() for result in results])
    if markdown is not None:
        with atomic_file(markdown) as temporary:
            temporary.write_text(_markdown(results), encoding="utf-8")


def _rows(result: Comparison) -> list[tuple[str, ...]]:
    ours = next((entry.latency for entry in result.entries if entry.name == "tvm" and entry.latency), None)
    rows: list[tuple[str, ...]] = []
    for entry in result.entries:
        if entry.latency is None:
            rows.append((entry.name, "fails parity", "", "", f"{entry.agreement:.4%}"))
            continue
        low, high = (1e3 * entry.latency.percentile(share) for share in (10, 90))
        ratio = f"{entry.latency.median / ours.median:.2f}" if ours else ""
        spread = f"{low:.1f}-{high:.1f}" + ("" if entry.latency.steady else " (!)")
        median = f"{1e3 * entry.latency.median:.1f}"
        rows.append((entry.name, median, spread, ratio, f"{entry.agreement:.4%}"))
    return rows


HEADINGS = ("runner", "median ms", "p10-p90", "x ours", "same labels")


def _title(result: Comparison) -> str:
    return f"{result.workload.size}, {result.workload.threads} threads, float32; arithmetic limit {1e3 * result.limit:.1f} ms"


def _table(result: Comparison) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(title=_title(result), box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading in HEADINGS:
        table.add_column(heading, justify="left" if heading == "runner" else "right", no_wrap=True)
    for row in _rows(result):
        table.add_row(*row)
    return table


def _print_notes(say: Callable[..., None], result: Comparison) -> None:
    for entry in result.entries:
        say(f"{entry.name}: {entry.description}; ready in {entry.ready_seconds:.0f} s", markup=False)
    for name, reason in result.missing.items():
        say(f"{name} is missing: {reason}", markup=False)
    if any(entry.latency and not entry.latency.steady for entry in result.entries):
        say("(!) these times vary too much to be trusted; stop what else the machine is doing, and measure again")


def _markdown(results: Sequence[Comparison]) -> str:
    lines = []
    for result in results:
        lines += [f"**{_title(result)}**", "", "| " + " | ".join(HEADINGS) + " |", "|" + "---|" * len(HEADINGS)]
        lines += ["| " + " | ".join(row) + " |" for row in _rows(result)] + [""]
        lines += [f"- {entry.name}: {entry.description}" for entry in result.entries] + [""]
    return "\n".join(lines)
