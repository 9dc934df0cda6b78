"""`enet-tvm export`: a network as an ONNX file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer


def command(
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="ONNX file to write.")],
    weights: Annotated[Path | None, typer.Option(help="Weights to export; by default those in model/.")] = None,
    size: Annotated[str, typer.Option(help="Size of the input, WIDTHxHEIGHT.")] = "640x360",
    opset: Annotated[int, typer.Option(help="Version of the ONNX operators, 18 to 23.")] = 18,
    form: Annotated[
        Literal["window", "portable"],
        typer.Option(help="How it unpools: by places inside windows, or by arithmetic that embedded runtimes have."),
    ] = "window",
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write the figures to this file.")] = None,
) -> None:
    """Write a network as ONNX, checked by ONNX Runtime against PyTorch.

    Pooling and unpooling exchange the place inside each 2x2 window, so no runtime has to scatter. The portable form has neither
    places nor slices with strides: ncnn, MNN and the like take it. Where a window has its maximum twice, it unpools to both.
    """
    from rich.console import Console

    from enet_tvm.compiler.frontend.onnx_export import export_onnx
    from enet_tvm.files import sha256, write_json
    from enet_tvm.networks import load_network, read_info
    from enet_tvm.networks.weights import DEFAULT_WEIGHTS
    from enet_tvm.places import find_file
    from enet_tvm.size import parse_size

    source = find_file(weights or DEFAULT_WEIGHTS)
    report = export_onnx(load_network(source), read_info(source), parse_size(size), output, opset, sha256(source), form)
    Console(soft_wrap=True, highlight=False).print(
        f"{output}: opset {report.opset}, {report.nodes} nodes; in ONNX Runtime {report.agreement:.3%} of the pixels have "
        f"PyTorch's logits, which differ by at most {report.max_abs_logit_diff:.2g}"
    )
    if json is not None:
        write_json(json, report.to_json())
