"""`enet-tvm plot`: pictures of what a network has learned."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Pictures of what a network has learned.")


@app.callback()
def root() -> None:
    """Keep `prelu` a subcommand where this app runs by itself: typer would make an only command the whole of it."""


@app.command("prelu")
def prelu(
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="PNG to write.")],
    weights: Annotated[Path | None, typer.Option(metavar="FILE", help="Weights; those shipped, by default.")] = None,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write the figures to this file.")] = None,
) -> None:
    """Draw mean, minimum and maximum of the slopes of each PReLU against depth, as figure 3 of the paper does.

    Vertical lines are the borders of bottlenecks, a red one that of encoder and decoder. A ReLU has the slope 0.
    """
    from rich.console import Console

    from enet_tvm.files import write_json
    from enet_tvm.networks import load_network
    from enet_tvm.networks.slopes import prelu_slopes
    from enet_tvm.networks.weights import DEFAULT_WEIGHTS
    from enet_tvm.places import name_of
    from enet_tvm.training.slope_plot import draw_slopes

    source = weights or DEFAULT_WEIGHTS
    slopes = prelu_slopes(load_network(source))
    draw_slopes(slopes, f"Slopes of the activations in {source.name}", output)
    learned = [one for one in slopes if one.kind == "prelu"]
    count, lowest = sum(one.count for one in learned), min(one.minimum for one in learned)
    highest = max(one.maximum for one in learned)
    Console(soft_wrap=True, highlight=False).print(
        f"{output}: {len(learned)} PReLUs with {count:,} slopes from {lowest:.3g} to {highest:.3g}, "
        f"{len(slopes) - len(learned)} ReLUs",
        markup=False,
    )
    if json is not None:
        write_json(json, {"weights": name_of(source), "activations": [one.to_dict() for one in slopes]})
