"""`enet-tvm bench segnet`: the paper's headline on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.table import Table

    from enet_tvm.bench.baseline import BaselineComparison


def command(
    size: Annotated[
        list[str] | None, typer.Option(metavar="WxH", help="Input size, again for each; 640x360 by default.")
    ] = None,
    weights: Annotated[Path | None, typer.Option(metavar="FILE", help="ENet's weights; those shipped, by default.")] = None,
    segnet_weights: Annotated[Path | None, typer.Option(metavar="FILE", help="SegNet's weights; random by default.")] = None,
    target: Annotated[str, typer.Option(help="What both are compiled for.")] = "native",
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of both; all by default.")] = None,
    seconds: Annotated[float, typer.Option(min=0, help="How long to measure each size; ten calls at least.")] = 20.0,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write the figures to this file.")] = None,
) -> None:
    """Compare ENet with SegNet, its paper's baseline: speed, FLOPs and parameters, with the same compiler and threads.

    Exits with 1 if either does not agree with PyTorch.
    """
    import tempfile

    from rich.console import Console

    from enet_tvm.bench.baseline import compare_with_segnet
    from enet_tvm.errors import UserError
    from enet_tvm.files import write_json
    from enet_tvm.machine import default_threads
    from enet_tvm.networks import read_info
    from enet_tvm.networks.weights import DEFAULT_WEIGHTS
    from enet_tvm.places import find_file
    from enet_tvm.size import parse_size
    from enet_tvm.targets import load_target

    console = Console(soft_wrap=True, highlight=False)
    sizes, spec = [parse_size(text) for text in size or ["640x360"]], load_target(target)
    enet_file, segnet_file = find_file(weights or DEFAULT_WEIGHTS), find_file(segnet_weights) if segnet_weights else None
    for network, path in (("enet", enet_file), ("segnet", segnet_file)):
        if path is not None and (found := read_info(path).network) != network:
            raise UserError(f"{path} holds weights of {found}, not of {network}; give those of {network}")
    results = []
    with tempfile.TemporaryDirectory(prefix="enet-tvm-segnet-") as directory:
        for wanted in sizes:
            with console.status("") as status:
                result = compare_with_segnet(
                    enet_file,
                    segnet_file,
                    wanted,
                    spec,
                    threads or default_threads().threads,
                    Path(directory),
                    seconds=seconds,
                    report=status.update,
                )
            results.append(result)
            console.print(_table(result))
            _print_notes(console.print, result)
    if json is not None:
        write_json(json, [result.to_dict() for result in results])
    if not all(result.passed for result in results):
        raise typer.Exit(1)


def _table(result: BaselineComparison) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from enet_tvm.bench.baseline import PAPER

    title = f"ENet and SegNet at {result.size}, batch 1, float32, {result.threads} threads, {result.target}"
    table = Table(title=title, box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("")
    for heading in ("ENet", "SegNet", "ratio", "the paper's"):
        table.add_column(heading, justify="right", no_wrap=True)
    sides, ratios = (result.enet, result.segnet), result.ratios

    def add(label: str, figures: list[str], key: str = "", paper: str = "") -> None:
        ratio = f"{ratios[key]:.1f}x" if key else ""
        table.add_row(label, *figures, ratio, f"{paper}{PAPER[key]}x" if key else "")

    add("forward pass, median ms", [f"{1e3 * side.latency.median:,.1f}" for side in sides], "faster", "up to ")
    spreads = [tuple(1e3 * side.latency.percentile(share) for share in (10, 90)) for side in sides]
    add("10 to 90 %, ms", [f"{low:,.1f}-{high:,.1f}" for low, high in spreads])
    add("GFLOPs", [f"{side.flops / 1e9:,.2f}" for side in sides], "fewer_flops")
    add("GFLOPs a second", [f"{side.flops / side.latency.median / 1e9:,.0f}" for side in sides])
    add("parameters", [f"{side.parameters:,}" for side in sides], "fewer_parameters")
    add("kernel launches", [str(side.kernels) for side in sides])
    add("pixels with PyTorch's logits", [f"{side.agreement:.2%}" for side in sides])
    return table


def _print_notes(say: Callable[..., None], result: BaselineComparison) -> None:
    if result.segnet.weights == "random":
        say("SegNet has random weights: what a forward pass takes does not depend on them.")
    if not (result.enet.latency.steady and result.segnet.latency.steady):
        say("the times vary a lot: something else is running, so take the ratio with care", style="yellow")
    if not result.passed:
        say("failed: the logits are not PyTorch's, so the speed is no result", style="bold red")
