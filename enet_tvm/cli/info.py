"""`enet-tvm info`: what a network costs, or what a compiled one launches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from enet_tvm.artifact import Kernel
    from enet_tvm.networks.summary import Cost, Summary


def command(
    weights: Annotated[Path | None, typer.Option(help="Weights whose network to describe; by default those in model/.")] = None,
    network: Annotated[str | None, typer.Option(help="Instead of weights: name of a network.")] = None,
    classes: Annotated[int | None, typer.Option(help="Instead of weights: number of classes.", min=1)] = None,
    size: Annotated[str, typer.Option(help="Size of the picture, WIDTHxHEIGHT.")] = "640x360",
    compiled: Annotated[Path | None, typer.Option(help="Print the kernels of this compiled artifact instead.")] = None,
    by_layer: Annotated[bool, typer.Option("--by-layer/--by-block", help="One row per layer, or per block.")] = True,
    json: Annotated[Path | None, typer.Option(help="Also write the figures to this file.")] = None,
) -> None:
    """Print a network's parameters, multiply-adds, FLOPs and activation memory, or the kernels of a compiled one.

    One multiply-add is two FLOPs. Only convolutions count, transposed ones without inserted zeros.
    """
    from rich.console import Console

    from enet_tvm.errors import UserError
    from enet_tvm.files import write_json
    from enet_tvm.size import parse_size

    console = Console()
    if compiled is not None:
        from enet_tvm.artifact import read_manifest

        kernels = read_manifest(compiled).kernels
        console.print(_kernel_table(kernels))
        console.print(f"[bold]{len(kernels)}[/] kernel launches in a forward pass")
        if json is not None:
            write_json(json, {"launches": len(kernels), "kernels": [kernel.model_dump(mode="json") for kernel in kernels]})
        return

    from enet_tvm.networks import load_network
    from enet_tvm.networks.summary import summarise
    from enet_tvm.networks.weights import DEFAULT_WEIGHTS, NETWORKS

    if weights is not None and (network is not None or classes is not None):
        raise UserError("the weights already say which network and how many classes; leave --network and --classes out")
    if network is not None and network not in NETWORKS:
        raise UserError(f"there is no network '{network}'; choose one of {', '.join(sorted(NETWORKS))}")
    if network is not None and classes is None:
        raise UserError("--network alone does not say how many classes there are; add --classes")
    if classes is not None:
        summary = summarise(NETWORKS[network or "enet"](classes), parse_size(size))
    else:
        summary = summarise(load_network(weights or DEFAULT_WEIGHTS), parse_size(size))
    console.print(_cost_table(summary, summary.layers if by_layer else summary.blocks))
    console.print("One multiply-add is two FLOPs; only convolutions count, transposed ones without inserted zeros.")
    if json is not None:
        write_json(json, summary.to_json())


def _cost_table(summary: Summary, rows: tuple[Cost, ...]) -> Table:
    from rich.table import Table

    table = Table(title=f"{summary.network} at {summary.size}, batch 1, float32", show_footer=False)
    table.add_column("layer", no_wrap=True)
    table.add_column("kind")
    for heading in ("output", "parameters", "M multiply-adds", "MFLOPs", "activations, MB"):
        table.add_column(heading, justify="right", no_wrap=True)

    def add(cost: Cost, style: str | None = None) -> None:
        shape = "x".join(map(str, cost.output_shape[1:]))
        work = (f"{cost.macs / 1e6:,.2f}", f"{cost.flops / 1e6:,.2f}") if cost.macs else ("", "")
        parameters = f"{cost.parameters:,}" if cost.parameters else ""
        table.add_row(cost.name, cost.kind, shape, parameters, *work, f"{cost.activation_bytes / 1e6:,.2f}", style=style)

    for row in rows:
        add(row)
    table.add_section()
    add(summary.total, "bold")
    if paper := summary.paper:
        flops = f"{paper['flops'] / 1e6:,.0f}" if "flops" in paper else ""
        table.add_row("the paper", "", "", f"{paper['parameters']:,}", "", flops, "", style="dim")
    return table


def _kernel_table(kernels: Sequence[Kernel]) -> Table:
    from rich.table import Table

    table = Table(title="Kernel launches of a forward pass")
    table.add_column("#", justify="right")
    table.add_column("kernel")
    table.add_column("fused in it")
    table.add_column("layers")
    table.add_column("output", justify="right", no_wrap=True)
    for number, kernel in enumerate(kernels, start=1):
        shape = "x".join(map(str, kernel.output_layout.shape)) if kernel.output_layout else "?"
        table.add_row(str(number), kernel.name, " + ".join(kernel.ops), ", ".join(kernel.layers), shape)
    return table
