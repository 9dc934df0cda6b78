"""`enet-tvm verify`: whether a compiled network says the same as PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from enet_tvm.agreement import PICTURES, PICTURES_MIOU

if TYPE_CHECKING:
    from rich.table import Table

    from enet_tvm.evaluation.bisection import LayerDifference
    from enet_tvm.evaluation.parity import ParityReport


def _by_dtype(limits: Mapping[str, float]) -> str:
    """Return limits as in ``0.9999, 0.99 in bfloat16``."""
    return ", ".join(f"{limit:g}" if dtype == "float32" else f"{limit:g} in {dtype}" for dtype, limit in limits.items())


def command(
    artifact: Annotated[Path, typer.Argument(metavar="DIR", help="Artifact that 'enet-tvm compile' wrote.")],
    images: Annotated[list[Path] | None, typer.Option(metavar="DIR|FILE", help="Pictures, or a folder of them.")] = None,
    synthetic: Annotated[int | None, typer.Option(metavar="N", min=1, help="N drawn streets; 4 if nothing is given.")] = None,
    data: Annotated[str | None, typer.Option(metavar="DIR|synthetic", help="A labelled data set, such as CamVid.")] = None,
    split: Annotated[str, typer.Option(help="Split of the data set.")] = "val",
    weights: Annotated[Path | None, typer.Option(help="Weights it was compiled from; those shipped, by default.")] = None,
    min_agreement: Annotated[
        float | None,
        typer.Option(help=f"Share of pixels that must get the same label; by default {_by_dtype(PICTURES)}."),
    ] = None,
    max_logit_diff: Annotated[float | None, typer.Option(help="Largest difference of two logits allowed; any if none.")] = None,
    max_miou_diff: Annotated[
        float | None,
        typer.Option(help=f"Distance of the mIoUs allowed; by default {_by_dtype(PICTURES_MIOU)}."),
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of the compiled network; all by default.")] = None,
    tracker: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Run it on a device behind this RPC tracker.")
    ] = None,
    key: Annotated[str | None, typer.Option(help="The device's key at the tracker; by default that of its target.")] = None,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write the figures to this file.")] = None,
) -> None:
    """Compare a compiled network with PyTorch on the same weights and pictures; exit with 1 if they differ too much.

    If they do, name the first layer where the two part, also on a device, unless its server is TVM's own.
    """
    from rich.console import Console
    from rich.progress import track

    from enet_tvm.evaluation.bisection import compare_layers, first_parting
    from enet_tvm.evaluation.inputs import open_inputs
    from enet_tvm.evaluation.parity import load_reference, verify
    from enet_tvm.files import write_json
    from enet_tvm.runtime import Segmenter
    from enet_tvm.runtime.protocol import Capability

    console = Console(soft_wrap=True, highlight=False)
    if tracker is None:
        loaded = Segmenter.load(artifact, threads)
    else:
        from enet_tvm.rpc.address import parse_address
        from enet_tvm.rpc.engine import open_for_target

        loaded = open_for_target(artifact, parse_address(tracker), key, threads=threads)
    with loaded as segmenter:
        inputs = open_inputs(segmenter, images=images, synthetic=synthetic, data=data, split=split)
        network = load_reference(segmenter, weights)
        pictures = track(inputs, description="comparing", total=len(inputs), console=console, disable=not console.is_terminal)
        report = verify(segmenter, network, pictures, inputs.class_set)
        dtype = segmenter.manifest.dtype
        agreed = PICTURES[dtype] if min_agreement is None else min_agreement
        near = PICTURES_MIOU[dtype] if max_miou_diff is None else max_miou_diff
        passed = report.passes(agreed, max_logit_diff, near)
        parting = None
        looks = dtype == "float32" and Capability.KERNEL_OUTPUTS in segmenter.capabilities
        if not passed and looks:
            parting = first_parting(compare_layers(segmenter, network, inputs[report.worst_picture][0]))
    worst = inputs.names[report.worst_picture]
    console.print(_table(report, f"{artifact} against PyTorch on {inputs.description}", worst))
    if json is not None:
        limits = {"min_agreement": agreed, "max_logit_diff": max_logit_diff, "max_miou_diff": near}
        first = {} if passed else {"first_parting": parting.to_dict() if parting else None}
        write_json(json, {"passed": passed, "inputs": inputs.description, **limits, **report.to_dict(), **first})
    if passed:
        console.print("passed", style="bold green")
        return
    console.print("failed", style="bold red")
    if dtype != "float32":
        console.print(_explain_dtype(dtype, agreed, near), markup=False)
    elif looks:
        console.print(_explain(parting), markup=False)
    raise typer.Exit(1)


def _table(report: ParityReport, title: str, worst: str) -> Table:
    from rich.table import Table

    table = Table(title=title, show_header=False)
    table.add_row("pictures", str(report.pictures))
    if report.max_abs_logit_diff is not None:
        table.add_row("largest logit difference", f"{report.max_abs_logit_diff:.3g}")
        table.add_row("mean logit difference", f"{report.mean_abs_logit_diff:.3g}")
    table.add_row("label agreement", f"{report.label_agreement:.5%}")
    table.add_row("pixels with another label", f"{report.differing_pixels:,} of {report.pixels:,}")
    table.add_row("lowest label agreement", f"{report.worst_agreement:.5%} ({worst})")
    if report.miou is not None:
        table.add_row("mIoU, compiled and PyTorch", f"{report.miou:.6f}, {report.miou_reference:.6f}")
        table.add_row("mIoU difference", f"{report.miou_diff:.3g}")
    return table


def _explain(parting: LayerDifference | None) -> str:
    if parting is None:
        return "no layer parts by more than rounding: small differences flip labels where two classes are nearly equal"
    return (
        f"the first layer to part is {parting.layer}, in kernel {parting.kernel} (launch {parting.launch}): "
        f"largest difference {parting.max_abs_diff:.3g} at values up to {parting.scale:.3g}"
    )


def _explain_dtype(dtype: str, agreement: float, miou_diff: float) -> str:
    remedy = "calibrate on pictures like these, or compile" if dtype == "int8" else "compile"
    return f"{dtype} is expected to keep {agreement:.2%} of the labels and the mIoU within {miou_diff:g}; {remedy} in float32"
