"""How weights do in light that their pictures were not taken in: mean IoU on labelled pictures whose colours are changed.

    python benchmarks/lights.py --data camvid
    python benchmarks/lights.py --data camvid --weights a.safetensors --weights b.safetensors --json lights.json
    python benchmarks/lights.py --data camvid --split train --hold-out 0006R0 --weights trained-without-it.safetensors

Every light is one fixed change of all pictures, so that weights are compared on the very same pixels. The figures say how much
a network leans on colour and brightness; how it does on other streets they do not say (model/README.md).
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from PIL import Image
from rich.console import Console
from rich.progress import track

from enet_tvm.data.rides import judged_data
from enet_tvm.data.transforms import MEAN, STD, ColourChange, recolour
from enet_tvm.evaluation.evaluate import evaluate
from enet_tvm.evaluation.predictors import weights_predictor
from enet_tvm.files import write_json
from enet_tvm.networks.weights import DEFAULT_WEIGHTS
from enet_tvm.places import find_file

SAME = ColourChange(brightness=1.0, contrast=1.0, saturation=1.0, hue=0.0, blur=False)


def _gains(red: float, green: float, blue: float) -> tuple[float, float, float]:
    """Return the factors of stops of exposure."""
    return 2.0**red, 2.0**green, 2.0**blue


LIGHTS = {
    "as taken": SAME,
    "one stop darker": dataclasses.replace(SAME, gains=_gains(-1, -1, -1)),
    "two stops darker, noisy": dataclasses.replace(SAME, gains=_gains(-2, -2, -2), noise=0.02, noise_seed=1),
    "half a stop brighter": dataclasses.replace(SAME, gains=_gains(0.5, 0.5, 0.5)),
    "warm": dataclasses.replace(SAME, gains=_gains(0.3, 0, -0.3)),
    "cold": dataclasses.replace(SAME, gains=_gains(-0.3, 0, 0.3)),
    "hazy": dataclasses.replace(SAME, contrast=0.5, saturation=0.7),
    "grey": dataclasses.replace(SAME, saturation=0.0),
    "gamma 0.67": dataclasses.replace(SAME, gamma=1 / 1.5),
    "gamma 1.5": dataclasses.replace(SAME, gamma=1.5),
    "out of focus": dataclasses.replace(SAME, blur=True),
    "noisy": dataclasses.replace(SAME, noise=0.04, noise_seed=2),
}
"""Changes of the pictures' colours, by name; values are those of light in 0..1 as the camera encodes it."""


def main(
    data: Annotated[str, typer.Option(metavar="DIR", help="Data set directory.")],
    weights: Annotated[
        list[Path] | None, typer.Option(help="Weights to judge, one or several; those shipped, by default.")
    ] = None,
    split: Annotated[str, typer.Option(metavar="NAME[/N]", help="Split; val/4 is every fourth picture of val.")] = "val",
    hold_out: Annotated[
        list[str] | None,
        typer.Option(metavar="RIDE[:START[:STOP]]", help="Only these frames of the split; again for each."),
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads.")] = None,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write the figures to this file.")] = None,
) -> None:
    """Print the mean IoU of weights in each light."""
    console = Console(soft_wrap=True, highlight=False)
    if threads:
        torch.set_num_threads(threads)
    chosen = weights or [find_file(DEFAULT_WEIGHTS)]
    figures = {str(path): miou_by_light(data, split, path, console, hold_out or []) for path in chosen}
    if json is not None:
        write_json(json, {"data": data, "split": split, "hold_out": hold_out or [], "miou": figures})
    console.print(table(figures), markup=False)


def miou_by_light(data: str, split: str, weights: Path, console: Console, held_out: Sequence[str] = ()) -> dict[str, float]:
    """Return the mean IoU in each of `LIGHTS` on the pictures of a split, or some frames of it, at their own size."""
    model = weights_predictor(weights)
    samples = judged_data(data, split, held_out)
    model.check(samples.class_set, samples.paper_size)
    reached = {}
    for name, change in LIGHTS.items():
        pictures = track(samples, description=name, total=len(samples), console=console, disable=not console.is_terminal)
        metrics = evaluate(
            model.forward,
            ((in_light(picture, change), labels) for picture, labels in pictures),
            samples.class_set,
            model.mean,
            model.std,
            samples.paper_size,
        )
        reached[name] = metrics.miou
    return reached


def in_light(picture: Image.Image, change: ColourChange) -> Image.Image:
    """Return a picture as it would be in another light; of the size and kind that it has, so that any network takes it."""
    pixels = torch.from_numpy(np.asarray(picture.convert("RGB")).copy()).permute(2, 0, 1)[None]
    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    changed = recolour(pixels, [change])[0] * std + mean
    return Image.fromarray((changed * 255).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy())


def table(figures: dict[str, dict[str, float]]) -> str:
    """Return the figures of each weights file as a table in Markdown, in per cent, with their means."""
    names = [Path(path).name for path in figures]
    lines = [f"| light | {' | '.join(names)} |", "|---|" + "--:|" * len(names)]
    for light in LIGHTS:
        lines.append(f"| {light} | " + " | ".join(f"{100 * reached[light]:.1f}" for reached in figures.values()) + " |")
    means = [statistics.mean(reached.values()) for reached in figures.values()]
    return "\n".join([*lines, "| **mean** | " + " | ".join(f"**{100 * mean:.1f}**" for mean in means) + " |"])


if __name__ == "__main__":
    typer.run(main)
