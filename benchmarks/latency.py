"""The table of the README: this network in every runtime, at several sizes, on one machine, in one run.

    python benchmarks/latency.py --out build/benchmarks            # two hours on two cores, otherwise idle
    python benchmarks/latency.py --size 64x48 --seconds 0.2 ...    # seconds, to see that it works

Writes ``latency.md`` (the table), ``latency.json`` (everything, with versions, hashes and the machine; `enet-tvm bench
compare` takes it, and benchmarks/readme_table.py makes the README's table of it) and ``latency.png`` (how latency grows
with pixels). A run that was stopped goes on where it stopped; what other versions, another machine or other weights
measured is measured again.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from enet_tvm.bench.comparison import compare
from enet_tvm.bench.machine.description import processor
from enet_tvm.bench.plan import plan_cases
from enet_tvm.bench.report.figures import load_figures
from enet_tvm.bench.runners import Case
from enet_tvm.bench.runners.registry import runners_at
from enet_tvm.files import atomic_file, sha256, write_json
from enet_tvm.machine import usable_cpus
from enet_tvm.size import parse_size
from enet_tvm.targets import load_target
from enet_tvm.version import __version__, stack_versions

SIZES = ("480x320", "480x360", "640x360", "1024x512", "1280x720")
OURS = "tvm"
UNTUNED = f"{OURS}-untuned"
HEADINGS = {
    "tvm-untuned": "ours untuned",
    "tvm": "ours",
    "tvm-float16": "ours float16",
    "tvm-bfloat16": "ours bfloat16",
    "tvm-int8": "ours int8",
    "torch": "PyTorch",
    "torch-channels-last": "PyTorch channels_last",
    "torch-compile": "torch.compile",
    "torch-compile-bfloat16": "torch.compile bfloat16",
    "onnxruntime": "ONNX Runtime",
    "onnxruntime-int8": "ONNX Runtime int8",
    "openvino": "OpenVINO",
    "openvino-float16": "OpenVINO float16",
    "openvino-bfloat16": "OpenVINO bfloat16",
    "openvino-int8": "OpenVINO int8",
    "ncnn": "ncnn",
    "ncnn-bfloat16": "ncnn bfloat16",
    "mnn": "MNN",
    "mnn-int8": "MNN int8",
    "litert": "LiteRT",
    "litert-float16": "LiteRT float16",
    "litert-int8": "LiteRT int8",
    "executorch": "ExecuTorch",
    "executorch-int8": "ExecuTorch int8",
}
"""Columns, in order."""
KINDS = {"float32": ("float32",), "half": ("float16", "bfloat16"), "int8": ("int8",)}
"""Data types whose runners are compared with each other: ours is never set beside a peer that computes in longer numbers."""


def main(
    out: Annotated[Path, typer.Option(help="Directory for the results.")] = Path("build/benchmarks"),
    size: Annotated[list[str] | None, typer.Option(help="Input size, again for each.")] = None,
    threads: Annotated[list[int] | None, typer.Option(help="Threads, again for each; 1 and all by default.")] = None,
    runner: Annotated[list[str] | None, typer.Option(help="Runner, again for each; all by default.")] = None,
    target: Annotated[str, typer.Option(help="What ours is compiled for.")] = "native",
    seconds: Annotated[float, typer.Option(help="How long to measure each, warm-up aside.")] = 30.0,
    weights: Annotated[Path | None, typer.Option(help="Weights; those shipped, by default.")] = None,
    data: Annotated[
        str | None,
        typer.Option(envvar="ENET_TVM_CAMVID", help="What peers' int8 is calibrated on; the drawn street by default."),
    ] = None,
) -> None:
    """Measure every runner at every size and number of threads, and write table, figures and plot."""
    console = Console(soft_wrap=True, highlight=False)
    names = runner or runners_at("gpu" if load_target(target).gpu else "cpu")
    figures = out / "latency.json"
    done = load_figures(figures) if figures.is_file() else []
    with tempfile.TemporaryDirectory() as directory:
        plan = plan_cases(
            *(Path(directory), target, names, weights, None, size or SIZES, threads or sorted({1, len(usable_cpus())})),
            streams="0",
            data=data,
        )
        for case in plan.cases:
            if any(is_same(result, case, names) for result in done):
                console.print(f"{case.size} on {case.threads} threads: measured already, in {figures}")
                continue
            done = [result for result in done if _place(result) != (str(case.size), case.threads)]
            with console.status("") as status:
                result = compare(names, case, seconds=seconds, report=status.update)
            done.append(result.to_dict())
            write_json(figures, done)
            console.print(_row(done[-1], _columns(done), _kinds(done)))
            for sentence in (*result.failures, *result.warnings):
                console.print(f"  {sentence}", markup=False)
    table = _table(done)
    with atomic_file(out / "latency.md") as path:
        path.write_text(table, encoding="utf-8")
    _plot(done, out / "latency.png")
    console.print(table, markup=False)


def _place(result: dict[str, Any]) -> tuple[str, int]:
    return result["size"], result["threads"]


def is_same(result: dict[str, Any], case: Case, names: list[str]) -> bool:
    """Return whether a result is of this case, with these versions, on this machine."""
    versions = {"enet-tvm": __version__, **stack_versions()}
    known = {entry["name"] for entry in result["entries"]} | result["missing"].keys()
    return (
        _place(result) == (str(case.size), case.threads)
        and result["target"] == case.target.name
        and known >= set(names)
        and result.get("weights", {}).get("sha256") == sha256(case.weights)
        and result.get("calibration_data", case.data) == case.data
        and result["machine"]["processor"] == processor()
        and versions.items() <= result["versions"].items()
    )


def _columns(results: list[dict[str, Any]]) -> list[str]:
    """Return the runners that any result has, in the order of the table."""
    there = {entry["name"] for result in results for entry in result["entries"]}
    return [name for name in HEADINGS if name in there] + sorted(there - HEADINGS.keys())


def _medians(result: dict[str, Any]) -> dict[str, float]:
    return {entry["name"]: entry["latency"]["median_ms"] for entry in result["entries"] if entry["latency"]}


def _cell(entry: dict[str, Any] | None) -> str:
    if entry is None:
        return "not here"
    if entry["latency"] is None:
        return "fails parity"
    times = entry["latency"]
    return f"{times['median_ms']:.1f} ({times['p10_ms']:.1f}-{times['p90_ms']:.1f})" + ("" if times["steady"] else " !")


def best_times(result: dict[str, Any], kind: str) -> tuple[float | None, float | None]:
    """Return the median of our fastest runner of a kind, and that of the fastest peer; None where there is none."""
    of_kind = {entry["name"] for entry in result["entries"] if entry["precision"] in KINDS[kind]}
    times = {name: median for name, median in _medians(result).items() if name in of_kind and name != UNTUNED}
    ours = [median for name, median in times.items() if name.startswith(OURS)]
    peers = [median for name, median in times.items() if not name.startswith(OURS)]
    return min(ours, default=None), min(peers, default=None)


def _kinds(results: list[dict[str, Any]]) -> list[str]:
    """Return the kinds of which there is a ratio: float32, and those of which any result has ours and a peer."""
    return [kind for kind in KINDS if kind == "float32" or any(None not in best_times(each, kind) for each in results)]


def _row(result: dict[str, Any], names: list[str], kinds: list[str]) -> str:
    entries = {entry["name"]: entry for entry in result["entries"]}
    best = (best_times(result, kind) for kind in kinds)
    ratios = [f"{ours / peer:.2f}" if ours and peer else "" for ours, peer in best]
    ours = _medians(result).get(OURS)
    limit = f"{result['limit_ms']:.1f}" if result["limit_ms"] else ""
    beside = f"{ours / result['limit_ms']:.2f}" if ours and result["limit_ms"] else ""
    cells = [result["size"], str(result["threads"]), *(_cell(entries.get(name)) for name in names), limit, *ratios, beside]
    return "| " + " | ".join(cells) + " |"


def _table(results: list[dict[str, Any]]) -> str:
    names, kinds = _columns(results), _kinds(results)
    shown = sorted(results, key=lambda result: (result["threads"], _pixels(result)))
    ratios = ["ours / best peer" + (f", {kind}" if kind != "float32" else "") for kind in kinds]
    headings = ["size", "threads", *(HEADINGS.get(name, name) for name in names), "limit", *ratios, "ours / limit"]
    lines = ["| " + " | ".join(headings) + " |", "|" + "--:|" * len(headings), *(_row(each, names, kinds) for each in shown)]
    machines = {result["machine"]["processor"]: None for result in results}
    lines += ["", f"Median milliseconds (10th to 90th percentile), alternating; {', '.join(machines)}."]
    lines += ["`!`: varied by more than a quarter. Limit: the arithmetic at the float32 rate of a large matrix product.", ""]
    described: dict[tuple[str, str, str], list[float]] = {}
    for each in (entry for result in shown for entry in result["entries"]):
        described.setdefault((each["name"], each["description"], each["precision"]), []).append(each["label_agreement"])
    lines += [
        f"- {HEADINGS.get(name, name)}: {text}, {precision}; at least {min(shares):.2%} of PyTorch's labels on noise"
        for (name, text, precision), shares in described.items()
    ]
    missing = {(name, reason): None for result in shown for name, reason in result["missing"].items() if name not in names}
    lines += [f"- {HEADINGS.get(name, name)} is missing: {reason}" for name, reason in missing]
    return "\n".join([*lines, ""])


def _plot(results: list[dict[str, Any]], path: Path) -> None:
    """Draw latency against pixels on the most threads, a panel for each kind of data types."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter, StrMethodFormatter

    most = max(result["threads"] for result in results)
    chosen = sorted((r for r in results if r["threads"] == most), key=_pixels)
    kinds = _kinds(chosen)
    figure = Figure(figsize=(1 + 3.6 * len(kinds), 5.5), layout="constrained")
    panels = figure.subplots(1, len(kinds), sharey=True, squeeze=False)[0]
    for kind, axes in zip(kinds, panels, strict=True):
        _draw_times(axes, chosen, kind)
        axes.set(
            xlabel="thousand pixels", title=f"ENet, {' and '.join(KINDS[kind])}, {most} threads", xscale="log", yscale="log"
        )
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(StrMethodFormatter("{x:.0f}"))
            axis.set_minor_formatter(NullFormatter())
        axes.set_xticks([100 * 2**k for k in range(16) if _pixels(chosen[0]) <= 1e5 * 2**k <= _pixels(chosen[-1])])
        axes.grid(alpha=0.3, which="both")
        axes.legend(fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2)
    panels[0].set_ylabel("median latency, ms")
    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=110)


def _draw_times(axes: Any, results: list[dict[str, Any]], kind: str) -> None:
    """Draw a line for each runner of a kind, and in float32 one for the limit."""
    precisions = {entry["name"]: entry["precision"] for result in results for entry in result["entries"]}
    for name in (name for name in _columns(results) if precisions[name] in KINDS[kind]):
        points = [(_pixels(r) / 1e3, _medians(r)[name]) for r in results if name in _medians(r)]
        if points:
            look: dict[str, Any] = {"color": "black", "linewidth": 2.5} if name.startswith(OURS) else {"linewidth": 1.2}
            if name == UNTUNED:
                look["linestyle"] = "--"
            axes.plot(*zip(*points, strict=True), marker=".", label=HEADINGS.get(name, name), **look)
    limits = [(_pixels(r) / 1e3, r["limit_ms"]) for r in results if r["limit_ms"]] if kind == "float32" else []
    if limits:
        axes.plot(*zip(*limits, strict=True), "k:", label="arithmetic limit")


def _pixels(result: dict[str, Any]) -> int:
    size = parse_size(result["size"])
    return size.width * size.height


if __name__ == "__main__":
    typer.run(main)
