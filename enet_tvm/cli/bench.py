"""`enet-tvm bench`: this network in several runtimes, side by side; `bench compare`: what changed since; `bench segnet`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from enet_tvm.cli import bench_segnet

if TYPE_CHECKING:
    from rich.console import Console

    from enet_tvm.bench.report.changes import Changes, RunnerChange
    from enet_tvm.bench.report.tables import TableText

app = typer.Typer()
app.command("segnet")(bench_segnet.command)


@app.callback(invoke_without_command=True)
def command(
    context: typer.Context,
    runner: Annotated[
        list[str] | None,
        typer.Option(
            "--runner",
            metavar="NAME",
            help="Which runners, again for each; ours and its peers in float32 by default.",
        ),
    ] = None,
    weights: Annotated[Path | None, typer.Option(metavar="FILE", help="Weights; those shipped, by default.")] = None,
    artifact: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Time this artifact as ours, instead of compiling one.")
    ] = None,
    size: Annotated[
        list[str] | None, typer.Option(metavar="WxH", help="Input size, again for each; 640x360 or the artifact's by default.")
    ] = None,
    threads: Annotated[
        list[int] | None, typer.Option(min=1, help="Threads, again for each; all by default, or the target's cores.")
    ] = None,
    streams: Annotated[
        str, typer.Option(metavar="N,N", help="Numbers of independent streams to measure throughput of; 0 for none.")
    ] = "1",
    target: Annotated[str | None, typer.Option(help="What ours is compiled for; this machine by default.")] = None,
    tracker: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Run ours on a device behind this RPC tracker.")
    ] = None,
    key: Annotated[str | None, typer.Option(help="The device's key at the tracker; the target's by default.")] = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            envvar="ENET_TVM_CAMVID",
            help="The data set on whose training pictures peers' int8 is calibrated; the drawn street by default.",
        ),
    ] = None,
    seconds: Annotated[float, typer.Option(min=0, help="How long to measure each size, warm-up aside.")] = 20.0,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write the figures to this file.")] = None,
    markdown: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write the tables as Markdown.")] = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write a page with plots and tables.")] = None,
) -> None:
    """Time this network in several runtimes, alternating in one run, each in its best form.

    Parity comes first: the speed of a runner whose labels are not PyTorch's is no result, and the exit code is 1. Then latency,
    and, each runner in processes of its own, start, memory, throughput and energy.

    Runners on a processor: tvm, tvm-untuned, tvm-float16, tvm-bfloat16, tvm-int8, torch, torch-channels-last, torch-compile,
    torch-compile-bfloat16, onnxruntime, onnxruntime-int8, openvino, openvino-float16, openvino-bfloat16, openvino-int8, ncnn,
    ncnn-bfloat16, mnn, mnn-int8, litert, litert-float16, litert-int8, executorch, executorch-int8. On a GPU: tvm and its forms,
    torch-cuda, torch-cuda-compile, onnxruntime-cuda, tensorrt. Behind a tracker: tvm-rpc.
    """
    if context.invoked_subcommand:
        return
    import shlex
    import sys
    import tempfile

    from enet_tvm.bench.comparison import compare
    from enet_tvm.bench.plan import plan_cases
    from enet_tvm.bench.report.notes import notes
    from enet_tvm.bench.report.page import markdown as as_markdown
    from enet_tvm.bench.report.page import page
    from enet_tvm.bench.report.tables import tables
    from enet_tvm.evaluation.report_page import write_page
    from enet_tvm.files import atomic_file, write_json

    console, results = _console(), []
    failures: list[str] = []
    with tempfile.TemporaryDirectory(prefix="enet-tvm-bench-") as directory:
        plan = plan_cases(
            *(Path(directory), target, runner, weights, artifact, size, threads),
            tracker=tracker,
            key=key,
            streams=streams,
            data=data,
        )
        line = shlex.join(["enet-tvm", *sys.argv[1:]])
        for case in plan.cases:
            with console.status("") as status:
                result = compare(
                    *(plan.runners, case), seconds=seconds, streams=plan.streams, command=line, report=status.update
                )
            results.append(result.to_dict())
            failures += result.failures
            for table in tables(results[-1]):
                console.print(_table(table))
            for note in notes(results[-1]):
                console.print(note, markup=False)
            for warning in result.warnings:
                console.print(f"warning: {warning}", style="yellow", markup=False)
    if json is not None:
        write_json(json, results)
    if markdown is not None:
        with atomic_file(markdown) as temporary:
            temporary.write_text(as_markdown(results), encoding="utf-8")
    if html is not None:
        write_page(html, page(results))
    for failure in failures:
        console.print(failure, style="red", markup=False)
    if failures:
        raise typer.Exit(1)


@app.command("compare")
def compare_files(
    before: Annotated[Path, typer.Argument(metavar="A.json", help="Of 'bench --json'.")],
    after: Annotated[Path, typer.Argument(metavar="B.json", help="Of 'bench --json', later.")],
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write what changed to this file.")] = None,
) -> None:
    """Say what changed between two benchmarks: figures, machine, versions."""
    from enet_tvm.bench.report.changes import find_changes
    from enet_tvm.bench.report.figures import load_figures
    from enet_tvm.files import write_json

    console = _console()
    changes = find_changes(load_figures(before), load_figures(after))
    console.print(_changes_table(changes))
    for change in changes.runners:
        for line in _lines(change):
            console.print(f"{change.runner}, {change.size}, {change.threads} threads: {line}", markup=False)
    for sentence in changes.conditions or ("machine, versions, weights and target are the same",):
        console.print(sentence, markup=False)
    if json is not None:
        write_json(json, changes.to_dict())


def _console() -> Console:
    from rich.console import Console

    return Console(soft_wrap=True, highlight=False)


def _table(text: TableText) -> object:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(title=text.title, box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for number, heading in enumerate(text.headings):
        table.add_column(heading, justify="right" if number else "left", overflow="fold", no_wrap=not number)
    for row in text.rows:
        table.add_row(*row)
    return table


def _changes_table(changes: Changes) -> object:
    from enet_tvm.bench.report.tables import TableText

    rows = []
    for change in changes.runners:
        if change.latency is not None:
            times = change.latency
            verdict = "within the spread" if not times.exceeds_spread else "faster" if times.ratio < 1 else "slower"
            figures = (f"{times.before_ms:.2f}", f"{times.after_ms:.2f}", f"{times.ratio:.3f}", f"{times.spread_ms:.2f}")
            rows.append((change.runner, change.size, str(change.threads), *figures, verdict))
    headings = ("runner", "size", "threads", "before ms", "after ms", "ratio", "spread ms", "")
    return _table(TableText("Median latency", headings, tuple(rows)))


def _lines(change: RunnerChange) -> list[str]:
    figures = [
        f"{label} {before:.4g} before, {after:.4g} after" + (f" ({after / before:.2f} x)" if before else "")
        for label, (before, after) in change.others.items()
    ]
    return [*change.sentences, *figures]
