"""How a recipe does on rides that it was not trained on: the score by which recipes for CamVid are chosen.

    python benchmarks/held_out_rides.py --data camvid --recipe streets --seeds 3
    python benchmarks/held_out_rides.py --data camvid --recipe streets --set rare.paste=0 --seeds 3   # one change at a time

Trains on each fold with each seed, and judges the last epoch's weights by what was held out. Every run is kept in a directory
of its own under --out and goes on where it stopped, so that several commands, on several GPUs too, may share it. All that are
finished are in ``held_out_rides.md`` (a line a recipe, and the classes) and ``held_out_rides.json``.
"""

from __future__ import annotations

import re
import statistics
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console

from enet_tvm.data.rides import training_data
from enet_tvm.files import atomic_file, read_json, write_json
from enet_tvm.machine import default_threads
from enet_tvm.networks import read_info
from enet_tvm.training.processes import Processes, choose_device
from enet_tvm.training.progress import ConsoleObserver
from enet_tvm.training.recipe import load_recipe
from enet_tvm.training.trainer import Trainer

FOLDS = {"A": ("0006R0", 0.73), "B": ("0001TP:-31", 0.27)}
"""What is held out in each fold, and the fold's weight in the score."""


def main(
    data: Annotated[str, typer.Option(metavar="DIR", help="CamVid.")],
    recipe: Annotated[str, typer.Option(metavar="NAME|FILE", help="Built-in recipe, or a .toml file.")] = "streets",
    change: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Replaces a key of the recipe.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings on each fold.")] = 3,
    out: Annotated[Path, typer.Option(help="Directory for all runs and the results.")] = Path("runs/held_out_rides"),
    device: Annotated[str | None, typer.Option(help="cuda, mps or cpu; by default the first that is here.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads.")] = None,
    compile_step: Annotated[bool, typer.Option("--compile", help="Have torch.compile fuse the step.")] = False,
) -> None:
    """Train on both folds with each seed, and write how the rides that were held out are segmented."""
    console = Console(soft_wrap=True, highlight=False)
    torch.set_num_threads(threads or default_threads().threads)
    name = " ".join([Path(recipe).stem, *(change or [])])
    for seed in range(seeds):
        for fold, (held_out, _) in FOLDS.items():
            chosen = load_recipe(recipe, [*(change or []), f"seed={seed}"])
            opened = training_data(data, "train", [held_out])
            directory = out / re.sub(r"[^\w.=-]+", "_", name) / f"{fold}{seed}"
            processes = Processes(choose_device(device))
            options = {"processes": processes, "data": opened.description, "compile_step": compile_step}
            trainer = Trainer(chosen, opened.train, opened.val, directory, **options)
            console.print(f"{name}, fold {fold}, seed {seed}: {directory}", markup=False)
            with ConsoleObserver(console) as shown:
                trainer.run(shown)
            figures = read_info(directory / "last.safetensors").notes["val"]
            write_json(directory / "result.json", {"recipe": name, "fold": fold, "seed": seed} | figures)
    results = [read_json(path, "remove it and run this again") for path in sorted(out.glob("*/*/result.json"))]
    lines = table(results)
    write_json(out / "held_out_rides.json", results)
    with atomic_file(out / "held_out_rides.md") as path:
        path.write_text(lines, encoding="utf-8")
    console.print(lines, markup=False)


def scores(results: list[dict[str, Any]]) -> list[float]:
    """Return the score of each seed of a recipe whose folds are all finished."""
    of = {(result["fold"], result["seed"]): result["miou"] for result in results}
    seeds = sorted({seed for _, seed in of})
    finished = [seed for seed in seeds if all((fold, seed) in of for fold in FOLDS)]
    return [sum(weight * of[fold, seed] for fold, (_, weight) in FOLDS.items()) for seed in finished]


def table(results: list[dict[str, Any]]) -> str:
    """Return the results as tables in Markdown: the best recipe first, then the IoU of each class."""
    recipes = {name: [result for result in results if result["recipe"] == name] for name in {r["recipe"]: 0 for r in results}}
    lines = ["| recipe | " + " | ".join(FOLDS) + " | score | lowest and highest | seeds |", "|---|" + "--:|" * (len(FOLDS) + 3)]
    ranked = sorted(recipes.items(), key=lambda item: -statistics.mean(scores(item[1]) or [0]))
    for name, own in ranked:
        reached = scores(own)
        folds = [_mean([result["miou"] for result in own if result["fold"] == fold]) for fold in FOLDS]
        spread = f"{min(reached):.3f} to {max(reached):.3f}" if reached else ""
        lines.append(f"| {name} | {' | '.join(folds)} | {_mean(reached)} | {spread} | {len(reached)} |")
    classes = list(results[0]["classes"])
    lines += ["", "| recipe | fold | " + " | ".join(classes) + " |", "|---|---|" + "--:|" * len(classes)]
    for name, own in ranked:
        for fold in FOLDS:
            judged = [result["classes"] for result in own if result["fold"] == fold]
            if judged:
                ious = [_mean([figures[label]["iou"] for figures in judged]) for label in classes]
                lines.append(f"| {name} | {fold} | {' | '.join(ious)} |")
    return "\n".join([*lines, ""])


def _mean(values: list[float | None]) -> str:
    """Return the mean of the values that are known, for a table."""
    known = [value for value in values if value is not None]
    return f"{statistics.mean(known):.3f}" if known else ""


if __name__ == "__main__":
    typer.run(main)
