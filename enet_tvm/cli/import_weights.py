"""`enet-tvm import-weights`: weights that others trained, as weights of ours."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    checkpoint: Annotated[
        Path, typer.Argument(metavar="FILE", help="A file of torch.save, such as ENet.pth or last.ckpt, or of safetensors.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="Weights file to write.")],
    classes: Annotated[
        str | None,
        typer.Option(
            metavar="N|FILE|NAME",
            help="Its classes: how many; a file with a name a line, with an RGB colour after it if you like, or a JSON list; "
            "or camvid, cityscapes, sunrgbd.",
        ),
    ] = None,
    mean: Annotated[
        str | None,
        typer.Option(
            metavar="R,G,B", help="Mean of pictures scaled to 0..1 that it was trained with; 0 by default, or 'imagenet'."
        ),
    ] = None,
    std: Annotated[
        str | None, typer.Option(metavar="R,G,B", help="The standard deviation likewise; 1 by default, or 'imagenet'.")
    ] = None,
    state: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Which network of a file that has several, such as model; ema is taken first."),
    ] = None,
    variant: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE", help="What its tensors do not show, as epsilon=1e-5 or initial_pool=3; again for each."
        ),
    ] = None,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write what was found to this file.")] = None,
) -> None:
    """Convert a network that was trained elsewhere: a state dict of one of this project's networks, or a PyTorch-ENet.

    DataParallel, torch.compile, Lightning and EMA may have wrapped it, and half precision stored it. Nothing but tensors and
    plain values is read from the file.

    PyTorch-ENet (github.com/davidtvs/PyTorch-ENet) differs from the paper's in places; the tensors' shapes tell where, and the
    weights keep it.
    """
    from rich.console import Console

    from enet_tvm.data.class_list import read_classes
    from enet_tvm.data.transforms import MEAN, STD
    from enet_tvm.files import write_json
    from enet_tvm.networks import save_network
    from enet_tvm.networks.importing import import_weights, parse_channels
    from enet_tvm.networks.variant import parse_variant

    imported = import_weights(
        checkpoint,
        read_classes(classes) if classes is not None else None,
        mean=parse_channels(mean, "--mean", MEAN) if mean is not None else None,
        std=parse_channels(std, "--std", STD) if std is not None else None,
        state=state,
        variant=parse_variant(variant or []),
    )
    info = imported.info
    save_network(imported.network, info, output)
    console = Console(soft_wrap=True, highlight=False)
    console.print(f"{output}: {info.network} with {len(info.classes)} classes: {_shortened(info.classes)}", markup=False)
    console.print(f"normalised by mean {_listed(info.mean)} and std {_listed(info.std)}", markup=False)
    if info.variant:
        console.print(
            "unlike the paper's: " + ", ".join(f"{key} = {value}" for key, value in info.variant.items()), markup=False
        )
    for note in (*imported.notes, *([imported.left_out] if imported.left_out else [])):
        console.print(note, markup=False)
    if json is not None:
        found = {"network": info.network, "classes": list(info.classes), "mean": list(info.mean), "std": list(info.std)}
        write_json(json, found | {"variant": info.variant, "left_out": imported.left_out, "notes": list(imported.notes)})


def _shortened(names: tuple[str, ...], most: int = 12) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _listed(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:g}" for value in values)
