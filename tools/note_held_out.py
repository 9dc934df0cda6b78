"""How a recipe does on rides that were held out, written into weights that were made by it with no ride held out.

    python tools/note_held_out.py final.safetensors --twin model/held-out/enet-camvid-streets.safetensors --data camvid \
        --hold-out 0006R0 --hold-out 0001TP:-31 -o model/enet-camvid.safetensors

Weights that are shipped are trained on all pictures there are, and none is left to judge them. What can be said of them is how
other weights of the same recipe, their twin, do on rides that it has not seen: `enet-tvm info --card` prints it. What a
data set's val split said of them before goes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from enet_tvm.data.rides import Block, judged_data
from enet_tvm.errors import UserError
from enet_tvm.evaluation.evaluate import evaluate
from enet_tvm.evaluation.predictors import weights_predictor
from enet_tvm.files import hashed_name
from enet_tvm.networks import load_network, read_info, save_network
from enet_tvm.places import find_file, name_of


def main(
    weights: Annotated[Path, typer.Argument(help="Weights that are to say it.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="Weights file to write.")],
    twin: Annotated[Path, typer.Option(metavar="FILE", help="Weights of the same recipe, trained without the rides.")],
    data: Annotated[str, typer.Option(metavar="DIR", help="Data set that has the rides.")],
    hold_out: Annotated[list[str], typer.Option(metavar="RIDE[:START[:STOP]]", help="A ride to judge by; again for each.")],
    split: Annotated[str, typer.Option(metavar="NAME[/N],...", help="Splits that the rides are of.")] = "train",
    started_from: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Weights that the training started from, where its notes lack them.")
    ] = None,
) -> None:
    """Write a copy of weights whose notes say how their twin does on rides that it has not seen."""
    try:
        note(weights, out, find_file(twin), data, split, hold_out, started_from)
    except UserError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None
    typer.echo(f"{out}: {weights}, with the figures of {twin} on {', '.join(hold_out)}")


def note(
    weights: Path, out: Path, twin: Path, data: str, split: str, held_out: Sequence[str], started_from: Path | None = None
) -> None:
    """Write a copy of weights with the figures of a twin in their notes.

    Raises
    ------
    UserError
        When one of the files cannot be read, they are of other networks or classes, or the twin's notes do not say that it was
        trained without the rides.
    """
    info, other = read_info(weights), read_info(twin)
    for name in ("network", "classes"):
        if getattr(info, name) != getattr(other, name):
            raise UserError(f"{weights} and {twin} differ in their {name}; give a twin of the same network and data set")
    _, _, left_out = str(other.notes.get("data", {}).get("train", "")).partition(" without ")
    blocks = [str(Block.parse(text)) for text in held_out]
    if missing := set(blocks) - set(left_out.split(", ")):
        raise UserError(f"{twin} does not say that it was trained without {', '.join(sorted(missing))}; give weights that do")
    predictor = weights_predictor(twin, None)
    figures = {}
    for block in blocks:
        samples = judged_data(data, split, [block])
        predictor.check(samples.class_set, samples.paper_size)
        how = (samples.class_set, predictor.mean, predictor.std, samples.paper_size)
        figures[f"{block} of {split}"] = evaluate(predictor.forward, samples, *how).to_dict()
    notes = info.without_figures().notes
    if started_from is not None:
        notes["started_from"] = hashed_name(started_from)
    notes["held_out"] = {"weights": name_of(twin), "figures": figures}
    save_network(load_network(weights), replace(info, notes=notes), out)


if __name__ == "__main__":
    typer.run(main)
