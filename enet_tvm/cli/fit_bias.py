"""`enet-tvm fit-bias`: put the borders between classes where the mean IoU wants them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    weights: Annotated[Path, typer.Option(metavar="FILE", help="Trained weights.")],
    data: Annotated[str, typer.Option(metavar="DIR", help="Data set that they were trained on.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="Weights to write.")],
    split: Annotated[
        str, typer.Option(metavar="NAME[/N],...", help="Splits to fit on, as train takes them; never the one that is to judge.")
    ] = "train",
    hold_out: Annotated[
        list[str] | None,
        typer.Option(metavar="RIDE[:START[:STOP]]", help="Leave these frames out, as train did; may be repeated."),
    ] = None,
    dataset: Annotated[str | None, typer.Option(metavar="NAME", help="Which data set DIR is; its layout says it.")] = None,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write the biases to this file.")] = None,
) -> None:
    """Fit one bias a class on training pictures, so that their mean IoU is the largest, and add it to the last layer.

    Class weights make a network say rare classes too often; this takes back what costs IoU. It takes a minute, not a
    training, and the network stays as large and as fast as it was.
    """
    from dataclasses import replace

    from rich.console import Console
    from rich.progress import track

    from enet_tvm.data.rides import fitted_data
    from enet_tvm.evaluation.evaluate import torch_forward
    from enet_tvm.evaluation.predictors import weights_predictor
    from enet_tvm.files import write_json
    from enet_tvm.networks import load_network, read_info, save_network
    from enet_tvm.training.logit_bias import add_to_logits, collect_logits, fit_logit_bias

    console = Console(soft_wrap=True, highlight=False)
    samples = fitted_data(data, split, hold_out or [], dataset)
    which = f"{split} without {', '.join(hold_out)}" if hold_out else split
    weights_predictor(weights, None).check(samples.class_set, samples.paper_size)
    network, info = load_network(weights).eval(), read_info(weights)
    shown = track(samples, description="looking", total=len(samples), console=console, disable=not console.is_terminal)
    logits, labels = collect_logits(torch_forward(network), shown, samples.class_set, info.mean, info.std)
    with console.status("fitting biases"):
        bias, before, after = fit_logit_bias(logits, labels, samples.class_set)
    add_to_logits(network, bias)
    fitted = {"on": f"{len(samples)} pictures of {which}", "bias": [round(float(value), 2) for value in bias]}
    info = info.without_figures()
    save_network(network, replace(info, notes=info.notes | {"logit_bias": fitted}), out)
    for name, value in zip(info.classes, bias, strict=True):
        console.print(f"{name:>16} {value:+.2f}", markup=False)
    console.print(f"{out}: mIoU of pixels of {which} {before:.4f} before, {after:.4f} after", markup=False)
    if json is not None:
        write_json(json, {"bias": dict(zip(info.classes, map(float, bias), strict=True)), "before": before, "after": after})
