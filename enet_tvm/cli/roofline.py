"""`enet-tvm roofline`: how long a forward pass takes on a GPU, predicted without one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from enet_tvm.artifact import Precision

if TYPE_CHECKING:
    from rich.table import Table

    from enet_tvm.compiler.roofline import KernelPrediction, Prediction


def command(
    target: Annotated[str, typer.Option(help="A target with a GPU: its name, or a .toml file.")],
    size: Annotated[str | None, typer.Option(metavar="WxH", help="Size of the input; by default the target's.")] = None,
    weights: Annotated[Path | None, typer.Option(metavar="FILE", help="Weights; by default those shipped.")] = None,
    batch: Annotated[int, typer.Option(min=1, max=64, help="Pictures that go through the network at once.")] = 1,
    dtype: Annotated[
        Precision,
        typer.Option(
            help="float32, or float16: of tensors between kernels, and of most products where the GPU has a rate for it."
        ),
    ] = "float32",
    each: Annotated[bool, typer.Option("--each", help="A line for each launch, in order, instead of for each kernel.")] = False,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write the figures to this file.")] = None,
) -> None:
    """Predict the time of a forward pass on a GPU, kernel by kernel, and say what binds each. No GPU is needed.

    The network is compiled, and the assembler's output counted. What the model assumes stands in docs/roofline.md; it is a
    prediction, and 'enet-tvm bench' on the device is the measurement.
    """
    from rich.console import Console

    from enet_tvm.compiler.roofline import predict
    from enet_tvm.compiler.workload import Workload
    from enet_tvm.files import write_json
    from enet_tvm.networks.weights import DEFAULT_WEIGHTS
    from enet_tvm.size import parse_size
    from enet_tvm.targets import load_target

    console = Console(soft_wrap=True, highlight=False)
    wanted = parse_size(size) if size else None
    workload = Workload(weights or DEFAULT_WEIGHTS, wanted, load_target(target), batch=batch, dtype=dtype)
    with console.status(f"compiling for {workload.target.name}"):
        prediction = predict(workload)
    console.print(_table(prediction, each))
    for sentence in _sentences(prediction):
        console.print(sentence, markup=False)
    if json is not None:
        write_json(json, prediction.to_dict())


def _table(prediction: Prediction, each: bool) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    what = f"{prediction.target} at {prediction.size} in {prediction.dtype}"
    table = Table(
        title=f"Prediction for {what}, not a measurement; microseconds of a launch",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    table.add_column("layer" if each else "kernel", no_wrap=True)
    headings = ["launches", "blocks", "threads", "registers", "B/FMA", "fma", "issue", "L1", "shared", "L2", "DRAM"]
    headings += ["latency", "matrix", "conversion"]
    for heading in (*headings, "binding", "ms", "%"):
        table.add_column(heading, justify="right", no_wrap=True)
    groups: dict[object, list[KernelPrediction]] = {}
    for number, kernel in enumerate(prediction.kernels):
        groups.setdefault(number if each else kernel.kernel, []).append(kernel)
    shown = list(groups.values())
    if not each:
        shown.sort(key=lambda kernels: -sum(kernel.bounds.longest for kernel in kernels))
    for kernels in shown:
        first, bounds = kernels[0], kernels[0].bounds
        milliseconds = sum(kernel.bounds.longest for kernel in kernels) / 1e3
        table.add_row(
            first.layer or first.kernel if each else first.kernel,
            *(str(count) for count in (len(kernels), first.geometry.blocks, first.geometry.threads, first.registers)),
            "" if first.bytes_per_fma is None else f"{first.bytes_per_fma:.2f}",
            *(f"{us:.1f}" for us in (bounds.fma, bounds.issue, bounds.l1, bounds.shared, bounds.l2, bounds.dram)),
            *(f"{us:.1f}" for us in (bounds.latency, bounds.matrix, bounds.conversion)),
            _NAMES.get(bounds.binding, bounds.binding),
            f"{milliseconds:.3f}",
            f"{100 * milliseconds / prediction.kernel_ms:.1f}",
        )
    return table


_NAMES = {"l1": "L1", "l2": "L2", "dram": "DRAM"}
"""Parts of a GPU whose names are not words."""


def _sentences(prediction: Prediction) -> list[str]:
    chip = prediction.chip
    sentences = [
        f"predicted: {prediction.milliseconds:.3g} ms a frame, {prediction.kernel_ms:.3g} ms of them in "
        f"{len(prediction.kernels)} kernels and {prediction.launch_ms:.2g} ms between them in one captured graph; "
        "copies from and to the host left out",
        f"for {chip.multiprocessors} multiprocessors of {chip.arch} at {chip.ghz:.3g} GHz and {chip.gbps:.4g} GB/s, "
        f"{prediction.source}; no kernel was measured",
    ]
    paper = prediction.measured_by_paper
    if paper:
        measured = ", ".join(f"{gpu} {milliseconds:g} ms" for gpu, milliseconds in paper.items())
        sentences.append(f"the paper measured at {prediction.size}: {measured} (its table 2)")
    else:
        from enet_tvm.compiler.roofline import PAPER_SIZES

        sentences.append(f"the paper measured other sizes: {', '.join(map(str, PAPER_SIZES))}")
    return sentences
