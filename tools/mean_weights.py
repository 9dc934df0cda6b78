"""The mean of two trainings' weights, the second of which started from the first (Wortsman et al., 2022, arXiv 2109.01903).

    python tools/mean_weights.py model/enet-camvid.safetensors runs/any-light/last.safetensors -o mean.safetensors

Weights fine-tuned to a wider range of pictures lose a little on those that they knew; the mean with the weights from which they
started often keeps both. The notes are those of the second file without its figures, and name both files with the beginning of
their SHA-256.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from enet_tvm.errors import UserError
from enet_tvm.files import hashed_name
from enet_tvm.networks import load_network, read_info, save_network


def main(
    first: Annotated[Path, typer.Argument(help="Weights that the training started from.")],
    second: Annotated[Path, typer.Argument(help="Weights at its end.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Weights file to write.")],
) -> None:
    """Write the mean of two weights files of one network with the same classes; statistics of batch norms are averaged, too."""
    try:
        average(first, second, out)
    except UserError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None
    typer.echo(f"{out}: the mean of {first} and {second}")


def average(first: Path, second: Path, out: Path) -> None:
    """Write the mean of two weights files.

    Raises
    ------
    UserError
        When one cannot be read, or they are of other networks, classes or normalisations.
    """
    infos = [read_info(path) for path in (first, second)]
    for name in ("network", "classes", "variant", "mean", "std"):
        one, other = (getattr(info, name) for info in infos)
        if one != other:
            raise UserError(f"{first} and {second} differ in their {name}; give weights of one network on one data set")
    network, other_network = (load_network(path) for path in (first, second))
    state = other_network.state_dict()
    with_mean = {
        name: (tensor + state[name]) / 2 if tensor.is_floating_point() else state[name]
        for name, tensor in network.state_dict().items()
    }
    network.load_state_dict(with_mean)
    notes = infos[1].without_figures().notes
    notes.pop("epoch", None)
    notes["mean_of"] = [hashed_name(path) for path in (first, second)]
    save_network(network, replace(infos[1], notes=notes), out)


if __name__ == "__main__":
    typer.run(main)
