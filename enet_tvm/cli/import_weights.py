"""`enet-tvm import-weights`: weights that others trained, as weights of ours."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    checkpoint: Annotated[Path, typer.Argument(metavar="FILE", help="Checkpoint of PyTorch-ENet, such as ENet.pth.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="Weights file to write.")],
    classes: Annotated[str, typer.Option(help="What it was trained on: camvid, cityscapes or sunrgbd.")] = "camvid",
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write what was found to this file.")] = None,
) -> None:
    """Convert weights in the naming of github.com/davidtvs/PyTorch-ENet; nothing but tensors is read from the file.

    That network differs from the paper's in places; the tensors' shapes tell where, and the weights keep it.
    """
    from rich.console import Console

    from enet_tvm.data.classes import CLASS_SETS
    from enet_tvm.errors import UserError
    from enet_tvm.files import write_json
    from enet_tvm.networks import save_network
    from enet_tvm.networks.public import import_public

    if classes not in CLASS_SETS:
        raise UserError(f"there is no class set '{classes}'; choose one of {', '.join(CLASS_SETS)}")
    network, info, left_out = import_public(checkpoint, CLASS_SETS[classes])
    save_network(network, info, output)
    console = Console(soft_wrap=True, highlight=False)
    console.print(f"{output}: {info.network} with {len(info.classes)} classes of {classes}", markup=False)
    console.print("unlike the paper's: " + ", ".join(f"{key} = {value}" for key, value in info.variant.items()), markup=False)
    if left_out:
        console.print(left_out)
    if json is not None:
        write_json(json, {"classes": list(info.classes), "variant": info.variant, "left_out": left_out})
