"""The main job from end to end, as `make demo` runs it: compile ENet for this machine, segment a picture, prove and time it."""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from PIL import Image
from rich.console import Console
from rich.table import Table

from enet_tvm.agreement import PICTURES, PICTURES_MIOU
from enet_tvm.bench.measure.latency import Latency, alternate
from enet_tvm.compiler.compile import CompileRequest, compile_artifact
from enet_tvm.compiler.kernels.common.elements import dot_products
from enet_tvm.compiler.workload import Workload
from enet_tvm.data.synthetic import SyntheticStreet
from enet_tvm.errors import UserError
from enet_tvm.evaluation.inputs import open_inputs
from enet_tvm.evaluation.parity import ParityReport, load_reference, reference_logits, verify
from enet_tvm.files import atomic_file, write_json
from enet_tvm.machine import default_threads
from enet_tvm.networks.weights import DEFAULT_WEIGHTS
from enet_tvm.runtime import Segmenter
from enet_tvm.runtime.overlay import overlay
from enet_tvm.runtime.pictures import load_picture
from enet_tvm.size import Size, parse_size
from enet_tvm.targets import load_target

if TYPE_CHECKING:
    from torch import nn

STREETS = 8
"""Number of drawn streets on which parity is proven."""

_STREET = 6
"""Index of the drawn street that is segmented for people to look at: it shows most classes."""


def run(weights: Path, size: Size, output: Path, picture: Path | None, seconds: float, console: Console) -> bool:
    """Compile the network, segment a picture, prove parity with PyTorch and time both, with results on the console.

    Parameters
    ----------
    weights : Path
        Weights file.
    size : Size
        Width and height of the network's input.
    output : Path
        Directory for the artifact, ``overlay.png``, the drawn street as ``picture.png``, and ``verify.json``.
    picture : Path or None
        Picture file to segment; None for a drawn street.
    seconds : float
        Duration of the timing.

    Returns
    -------
    bool
        Whether the compiled network agrees with PyTorch.

    Raises
    ------
    UserError
        When a file cannot be read or written.
    """
    image = load_picture(picture) if picture else SyntheticStreet(Size(2 * size.width, 2 * size.height), STREETS)[_STREET][0]
    threads = default_threads().threads
    torch.set_num_threads(threads)

    start = time.perf_counter()
    workload = Workload(weights, size, load_target("native"), threads)
    request = CompileRequest(workload, command=shlex.join(sys.argv))
    manifest = compile_artifact(request, artifact := output / "artifact")
    took = time.perf_counter() - start
    console.print(f"compiled for {manifest.target.mcpu} in {took:.0f} s: {manifest.kernel_count} kernels, in {artifact}")

    with Segmenter.load(artifact, threads, adaptive=False) as segmenter:
        labels = segmenter.segment(image)
        shown = overlay(image, labels, segmenter.manifest.palette, 0.55, segmenter.manifest.classes)
        drawn = {} if picture else {"picture.png": image}
        for name, written in {**drawn, "overlay.png": beside(image, shown)}.items():
            with atomic_file(output / name) as path:
                written.save(path, format="PNG")
        console.print(f"segmented {picture or 'a drawn street'}: {output / 'overlay.png'}")

        network = load_reference(segmenter, weights)
        report = verify(segmenter, network, inputs := open_inputs(segmenter, synthetic=STREETS), inputs.class_set)
        dtype = segmenter.manifest.dtype
        passed = report.passes(PICTURES[dtype], max_miou_diff=PICTURES_MIOU[dtype])
        write_json(output / "verify.json", {"passed": passed, "inputs": inputs.description, **report.to_dict()})
        console.print(_parity(report, passed, inputs.description))

        latencies = time_both(segmenter, network, image, seconds)
    console.print(_speed(latencies, f"{size}, batch 1, float32, {threads} threads"))
    if not all(latency.steady for latency in latencies.values()):
        console.print("the times vary a lot: something else is running, so take the ratio with care", style="yellow")
    if passed:
        console.print("next:")
        for why, command in next_commands(output, picture):
            console.print(f"  {command}  # {why}", markup=False)
    return passed


def next_commands(output: Path, picture: Path | None = None) -> list[tuple[str, str]]:
    """Return three things to try after the demo.

    Parameters
    ----------
    output : Path
        Directory of the demo's results.
    picture : Path or None
        Picture that the demo segmented; None for the drawn street, which lies in `output`.

    Returns
    -------
    list of (str, str)
        Purpose of each command, and the command for a shell in this directory.
    """
    script = Path(sys.executable).with_name("enet-tvm")
    program = [sys.executable, "-m", "enet_tvm"]
    if script.is_file():
        program = [str(script.relative_to(Path.cwd()) if script.is_relative_to(Path.cwd()) else script)]
    run = ("run", output / "artifact", picture or output / "picture.png", "-o", output / "run")
    faster = ("compile", "--dtype", "int8", "--output", "labels", "-o", output / "int8")
    profile = ("profile", output / "artifact")
    bundle = ("device", "bundle", "--target", "rpi4", "-o", output / "rpi4.tar.gz")
    has_int8 = not dot_products(load_target("native").to_tvm()).isdisjoint({"uint8", "int8"})
    commands = [
        ("overlays of your own pictures, or of a directory of them", run),
        ("smaller and faster", faster) if has_int8 else ("where the time goes, kernel by kernel", profile),
        ("what a Raspberry Pi 4 needs, in one file", bundle),
    ]
    return [(why, shlex.join([*program, *map(str, arguments)])) for why, arguments in commands]


def beside(picture: Image.Image, result: Image.Image) -> Image.Image:
    """Return two pictures of one size next to each other."""
    both = Image.new("RGB", (2 * picture.width, picture.height))
    both.paste(picture, (0, 0))
    both.paste(result, (picture.width, 0))
    return both


def time_both(segmenter: Segmenter, network: nn.Module, picture: Image.Image, seconds: float) -> dict[str, Latency]:
    """Time a forward pass of PyTorch (eager, NCHW) and of the compiled network in turns, on the same input."""
    x = segmenter.preprocess(picture)
    return alternate(
        {"PyTorch eager": lambda: reference_logits(network, x), "compiled": lambda: segmenter.forward(x)},
        min_rounds=5,
        seconds=seconds,
    )


def _parity(report: ParityReport, passed: bool, inputs: str) -> Table:
    table = Table(title=f"The compiled network against PyTorch on {inputs}", show_header=False, title_justify="left")
    table.add_row("label agreement", f"{report.label_agreement:.4%}", "[green]passed" if passed else "[red]failed")
    table.add_row("pixels with another label", f"{report.differing_pixels:,} of {report.pixels:,}", "")
    table.add_row("largest difference of logits", f"{report.max_abs_logit_diff:.2g}", "")
    table.add_row("difference of mIoU", "no labels" if report.miou_diff is None else f"{report.miou_diff:.2g}", "")
    return table


def _speed(latencies: dict[str, Latency], how: str) -> Table:
    table = Table(title=f"A forward pass, {how}", title_justify="left")
    for heading in ("", "median, ms", "10 to 90 %, ms", "of PyTorch's time"):
        table.add_column(heading, justify="right" if heading else "left")
    reference = next(iter(latencies.values())).median
    for name, latency in latencies.items():
        spread = f"{1e3 * latency.percentile(10):.1f} to {1e3 * latency.percentile(90):.1f}"
        table.add_row(name, f"{1e3 * latency.median:.1f}", spread, f"{latency.median / reference:.2f}")
    return table


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the demo's command line."""
    parser = argparse.ArgumentParser(prog="python -m enet_tvm.demo", description="Compile, segment, verify and time ENet.")
    parser.add_argument("--picture", type=Path, help="a picture to segment instead of a drawn street")
    parser.add_argument("--weights", type=Path, default=DEFAULT_WEIGHTS, help="weights (default: those shipped)")
    parser.add_argument("--size", default="480x360", help="WIDTHxHEIGHT of the network's input (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=Path("build/demo"), help="directory for results (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=8.0, help="how long to measure (default: %(default)s)")
    return parser


def main() -> None:
    """Run the demo from the command line: exit code 0, 1 when parity fails, 2 on bad input."""
    options = build_parser().parse_args()
    console = Console(soft_wrap=True, highlight=False)
    try:
        passed = run(options.weights, parse_size(options.size), options.output, options.picture, options.seconds, console)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    sys.exit(0 if passed else 1)


if __name__ == "__main__":
    main()
