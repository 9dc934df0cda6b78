"""`enet-tvm calibrate`: the ranges that int8 needs to know."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    weights: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Weights to calibrate; those shipped, by default.")
    ] = None,
    images: Annotated[list[Path] | None, typer.Option(metavar="DIR|FILE", help="Pictures, or a folder of them.")] = None,
    data: Annotated[
        str | None, typer.Option(metavar="DIR", help="A data set, such as CamVid; its labels are not used.")
    ] = None,
    split: Annotated[str, typer.Option(help="Split of the data set.")] = "train",
    pictures: Annotated[int, typer.Option(min=1, help="At most so many, spread evenly over those given.")] = 64,
    size: Annotated[str | None, typer.Option(metavar="WxH", help="Size of the input; by default 640x360.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="File to write; by default beside the weights.")
    ] = None,
) -> None:
    """Note the ranges of the input and of every layer on pictures such as the network will see, for 'compile --dtype int8'.

    Nothing is trained: some dozens of pictures and a few seconds are enough.
    """
    from rich.console import Console
    from rich.progress import track

    from enet_tvm.compiler.quantisation.calibrate import calibrate
    from enet_tvm.compiler.quantisation.calibration import calibration_beside
    from enet_tvm.data.calibration_pictures import evenly_spread
    from enet_tvm.data.source import open_samples
    from enet_tvm.errors import UserError
    from enet_tvm.networks.weights import DEFAULT_WEIGHTS
    from enet_tvm.places import find_file
    from enet_tvm.runtime.pictures import find_pictures, load_picture
    from enet_tvm.size import DEFAULT_SIZE, parse_size

    if (data is None) == (not images):
        raise UserError("give either --images with pictures or --data with a data set")
    console = Console(soft_wrap=True, highlight=False)
    wanted = parse_size(size) if size else None
    if data is not None:
        samples = open_samples(data, split, wanted or DEFAULT_SIZE)
        chosen = evenly_spread(len(samples), pictures)
        loaded = (samples[index][0] for index in chosen)
        source = f"{len(chosen)} pictures of {data} ({split})"
    else:
        paths = find_pictures(images or [])
        chosen = evenly_spread(len(paths), pictures)
        loaded = (load_picture(paths[index]) for index in chosen)
        source = f"{len(chosen)} pictures"
    path = find_file(weights or DEFAULT_WEIGHTS)
    shown = track(loaded, description="calibrating", total=len(chosen), console=console, disable=not console.is_terminal)
    calibration = calibrate(path, shown, source, wanted)
    target = out or calibration_beside(path)
    calibration.write(target)
    console.print(f"{target}: {len(calibration.ranges)} ranges on {source}", markup=False)
