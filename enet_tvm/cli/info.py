"""`enet-tvm info`: what a network costs, what a compiled one launches, or what a weights file says of itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from enet_tvm.artifact import DeviceReport, Kernel
    from enet_tvm.networks.summary import Cost, Summary


def command(
    weights: Annotated[Path | None, typer.Option(help="Weights whose network to describe; by default those in model/.")] = None,
    network: Annotated[str | None, typer.Option(help="Instead of weights: name of a network.")] = None,
    classes: Annotated[int | None, typer.Option(help="Instead of weights: number of classes.", min=1)] = None,
    size: Annotated[str, typer.Option(help="Size of the picture, WIDTHxHEIGHT.")] = "640x360",
    compiled: Annotated[Path | None, typer.Option(help="Print the kernels of this compiled artifact instead.")] = None,
    card: Annotated[
        Path | None,
        typer.Option(metavar="FILE.md", help="Write, or refresh, the model card of the weights instead."),
    ] = None,
    by_layer: Annotated[bool, typer.Option("--by-layer/--by-block", help="One row per layer, or per block.")] = True,
    json: Annotated[Path | None, typer.Option(help="Also write the figures to this file.")] = None,
) -> None:
    """Print a network's parameters, multiply-adds, FLOPs and activation memory, or the kernels of a compiled one.

    With --card, write the model card of weights: their network, classes, recipe and figures. In a card that is there, the part
    between the two comments that a new card shows is replaced, and all else kept.

    One multiply-add is two FLOPs. Only convolutions count, transposed ones without inserted zeros.
    """
    from rich.console import Console

    from enet_tvm.errors import UserError
    from enet_tvm.files import write_json
    from enet_tvm.size import parse_size

    console = Console(soft_wrap=False)
    if not console.is_terminal:
        # A file or a pipe has no edge to keep to.
        console = Console(width=160)
    if card is not None and any(other is not None for other in (compiled, network, classes, json)):
        raise UserError("--card writes the card of weights and nothing else; leave all but --weights out")
    if compiled is not None:
        from enet_tvm.artifact import read_manifest

        manifest = read_manifest(compiled)
        kernels, library = manifest.kernels, manifest.library_report
        device = library.device if library else None
        console.print(_kernel_table(kernels, device))
        console.print(f"[bold]{len(kernels)}[/] kernel launches in a forward pass")
        if device is not None:
            console.print(f"device code: {device}", soft_wrap=True)
        if json is not None:
            figures: dict[str, object] = {
                "launches": len(kernels),
                "kernels": [kernel.model_dump(mode="json") for kernel in kernels],
            }
            if device is not None:
                figures["device"] = device.model_dump(mode="json")
            write_json(json, figures)
        return

    if card is not None:
        from enet_tvm.networks.weights import DEFAULT_WEIGHTS
        from enet_tvm.places import name_of
        from enet_tvm.training.card import write_card

        write_card(card, weights or DEFAULT_WEIGHTS)
        console.print(f"{card}: what {name_of(weights or DEFAULT_WEIGHTS)} says of itself", markup=False, soft_wrap=True)
        return

    from enet_tvm.networks import load_network
    from enet_tvm.networks.summary import summarise
    from enet_tvm.networks.table import DEFAULT_NETWORK, require_network, require_size
    from enet_tvm.networks.weights import DEFAULT_WEIGHTS

    if weights is not None and (network is not None or classes is not None):
        raise UserError("the weights already say which network and how many classes; leave --network and --classes out")
    definition = require_network(network or DEFAULT_NETWORK)
    if network is not None and classes is None:
        raise UserError("--network alone does not say how many classes there are; add --classes")
    described = definition.new(classes) if classes is not None else load_network(weights or DEFAULT_WEIGHTS)
    picture = parse_size(size)
    require_size(described, picture)
    summary = summarise(described, picture)
    console.print(_cost_table(summary, summary.layers if by_layer else summary.blocks, with_kind=console.width >= 100))
    console.print("One multiply-add is two FLOPs; only convolutions count, transposed ones without inserted zeros.")
    if json is not None:
        write_json(json, summary.to_json())


def _cost_table(summary: Summary, rows: tuple[Cost, ...], with_kind: bool) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(
        title=f"{summary.network} at {summary.size}, batch 1, float32",
        caption="M MAC: millions of multiply-adds; MB: activations written",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    table.add_column("layer", no_wrap=True)
    if with_kind:
        table.add_column("kind", no_wrap=True)
    for heading in ("output", "params", "M MAC", "MFLOP", "MB"):
        table.add_column(heading, justify="right", no_wrap=True)

    def add(cost: Cost, style: str | None = None) -> None:
        shape = "x".join(map(str, cost.output_shape[1:]))
        work = (f"{cost.macs / 1e6:,.2f}", f"{cost.flops / 1e6:,.2f}") if cost.macs else ("", "")
        parameters = f"{cost.parameters:,}" if cost.parameters else ""
        kind = (cost.kind,) if with_kind else ()
        table.add_row(cost.name, *kind, shape, parameters, *work, f"{cost.activation_bytes / 1e6:,.2f}", style=style)

    for row in rows:
        add(row)
    table.add_section()
    add(summary.total, "bold")
    if paper := summary.paper:
        flops = f"{paper['flops'] / 1e6:,.0f}" if "flops" in paper else ""
        kind = ("",) if with_kind else ()
        table.add_row("the paper", *kind, "", f"{paper['parameters']:,}", "", flops, "", style="dim")
    return table


def _kernel_table(kernels: Sequence[Kernel], device: DeviceReport | None = None) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(title="Kernel launches of a forward pass", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("#", justify="right", no_wrap=True)
    table.add_column("kernel", overflow="fold")
    table.add_column("fused in it")
    table.add_column("computes", overflow="fold")
    if device is not None:
        table.add_column("registers", justify="right", no_wrap=True)
    # TVM appends this to the name of the function that launches it; of a sort, there may be several or other names.
    registers = {kernel.name.removesuffix("_kernel"): str(kernel.registers) for kernel in device.kernels} if device else {}
    for number, kernel in enumerate(kernels, start=1):
        more = [registers.get(kernel.name, "")] if device is not None else []
        table.add_row(str(number), kernel.name, " + ".join(kernel.ops), _common_layer(kernel.layers), *more)
    return table


def _common_layer(layers: Sequence[str]) -> str:
    """Return the innermost block that holds all of a kernel's layers, and the last of them."""
    if not layers:
        return ""
    paths = [layer.split(".") for layer in layers]
    depth = next((i for i, names in enumerate(zip(*paths, strict=False)) if len(set(names)) > 1), min(map(len, paths)))
    block, last = ".".join(paths[0][:depth]), ".".join(paths[-1][depth:])
    return f"{block} (to {last})" if block and last else block or layers[-1]
