"""`enet-tvm train`."""

from __future__ import annotations

from pathlib import Path

import typer


def command(
    data: str = typer.Option(..., "--data", metavar="DIR|synthetic", help="CamVid directory, or 'synthetic' for the drawn street."),
    out: Path = typer.Option(..., "--out", "-o", metavar="DIR", help="Where checkpoints, weights and the log go."),
    recipe: str = typer.Option("default", metavar="NAME|FILE", help="Built-in recipe, or a .toml file."),
    epochs: int | None = typer.Option(None, help="Replaces the recipe's number of epochs."),
    size: str | None = typer.Option(None, metavar="WxH", help="Replaces the recipe's size of the training windows."),
    threads: int | None = typer.Option(None, min=1, help="CPU threads; all available by default."),
    fresh: bool = typer.Option(False, "--fresh/--resume", help="Start over, or go on from the checkpoint in DIR (default)."),
    json_file: Path | None = typer.Option(None, "--json", metavar="FILE", help="Write the results here as JSON."),
) -> None:
    """Train ENet, and go on from where an interrupted training stopped."""
    import os

    import torch
    from rich.console import Console

    from enet_tvm.data.source import open_samples
    from enet_tvm.files import write_json
    from enet_tvm.size import parse_size
    from enet_tvm.training.progress import ConsoleObserver
    from enet_tvm.training.recipe import load_recipe
    from enet_tvm.training.trainer import Trainer

    console = Console()
    chosen = load_recipe(recipe, epochs=epochs, crop=str(parse_size(size)) if size else None)
    torch.set_num_threads(threads or len(os.sched_getaffinity(0)))
    trainer = Trainer(chosen, open_samples(data, "train"), open_samples(data, "val"), out, fresh=fresh)
    try:
        with ConsoleObserver(console) as observer:
            best = trainer.run(observer)
    except KeyboardInterrupt:
        kept = f"epoch {trainer.saved_epochs} is safe in {out}" if trainer.saved_epochs else "no epoch was finished"
        console.print(f"stopped; {kept}: run the same command again to go on", style="yellow", soft_wrap=True)
        raise typer.Exit(130) from None
    if best is not None:
        console.print(f"best: epoch {best['epoch']}, val mIoU {best['val_miou']:.4f}, in {out / 'best.safetensors'}", soft_wrap=True)
    if json_file:
        content = {"best": best, "epochs": trainer.epoch, "seconds": trainer.seconds, "recipe": chosen.model_dump(mode="json")}
        write_json(json_file, content | {"weights": str(out / "best.safetensors"), "threads": torch.get_num_threads()})
