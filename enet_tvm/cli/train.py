"""`enet-tvm train`: weights from labelled pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    data: Annotated[
        str, typer.Option(metavar="DIR|synthetic", help="Data set directory, or 'synthetic' for the drawn street.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Where checkpoints, weights and the log go.")],
    network: Annotated[str, typer.Option(help="What to train, such as enet or erfnet; an unknown name lists all.")] = "enet",
    recipe: Annotated[str, typer.Option(metavar="NAME|FILE", help="Built-in recipe, or a .toml file.")] = "default",
    change: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Replaces a key of the recipe: rare.paste=0, seed=1; may be repeated."),
    ] = None,
    dataset: Annotated[str | None, typer.Option(metavar="NAME", help="Which data set DIR is; its layout says it.")] = None,
    split: Annotated[
        str, typer.Option(metavar="NAME[/N],...", help="What to train on: splits; val/5 is every fifth picture of val.")
    ] = "train",
    hold_out: Annotated[
        list[str] | None,
        typer.Option(
            metavar="RIDE[:START[:STOP]]",
            help="Judge by these frames instead of val, and train on none of them; may be repeated. 0001TP:-31 is the last 31.",
        ),
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Replaces the recipe's number of epochs, in each stage.")] = None,
    size: Annotated[str | None, typer.Option(metavar="WxH", help="Replaces the recipe's size of the training windows.")] = None,
    device: Annotated[str | None, typer.Option(help="cuda, mps or cpu; by default the first of them that is here.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; all available by default.")] = None,
    start: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Weights, or a checkpoint, to start from; of other classes, all but the last layer."),
    ] = None,
    compile_step: Annotated[
        bool, typer.Option("--compile", help="Have torch.compile fuse the step: minutes at the start, faster after them.")
    ] = False,
    fresh: Annotated[bool, typer.Option("--fresh/--resume", help="Start over, or go on from the checkpoint in DIR.")] = False,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write the results to this file.")] = None,
) -> None:
    """Train a network; go on from where an interrupted training of the same recipe stopped.

    Cityscapes is brought to 1024x512 and SUN RGB-D to 256x200, as in the paper; --size, or the recipe, sets the windows
    that are cut from that.

    --hold-out tells how weights do on streets that they have not seen; a val split often lies between training frames. A ride
    is what file names begin with. Give evaluate the same --split and --hold-out for the figures of any weights there.

    On several GPUs: torchrun --nproc-per-node 4 -m enet_tvm train ...; the processes share each batch of the recipe.
    """
    import torch
    from rich.console import Console

    from enet_tvm.data.rides import training_data
    from enet_tvm.data.source import at_paper_size
    from enet_tvm.files import write_json
    from enet_tvm.machine import default_threads
    from enet_tvm.size import parse_size
    from enet_tvm.training.processes import join_processes
    from enet_tvm.training.progress import ConsoleObserver, Observers
    from enet_tvm.training.recipe import FORMER_NAMES, load_recipe
    from enet_tvm.training.tensorboard import tensorboard_observers
    from enet_tvm.training.trainer import Trainer

    console = Console(soft_wrap=True, highlight=False)
    chosen = load_recipe(recipe, change or [], epochs=epochs, crop=str(parse_size(size)) if size else None)
    torch.set_num_threads(threads or default_threads().threads)
    opened = training_data(data, split, hold_out or [], dataset)
    train, val = at_paper_size(opened.train), None if opened.val is None else at_paper_size(opened.val)
    with join_processes(device) as processes:
        console.quiet = not processes.leads
        if recipe in FORMER_NAMES:
            console.print(f"the recipe '{recipe}' is called '{FORMER_NAMES[recipe]}' now", markup=False)
        window = max(stage.crop_size for stage in chosen.in_order())
        if (whole := train.paper_size) and (window.width > whole.width or window.height > whole.height):
            console.print(f"windows of {window} are larger than the pictures, {whole}; try --size {whole}", style="yellow")
        trainer = Trainer(
            chosen,
            train,
            val,
            out,
            fresh=fresh,
            network=network,
            processes=processes,
            start=start,
            data=opened.description,
            compile_step=compile_step,
        )
        if start is not None and trainer.started is not None:
            console.print(trainer.started.sentence(start), markup=False)
        try:
            with ConsoleObserver(console) as shown:
                logs = tensorboard_observers(out, console.print) if processes.leads else []
                best = trainer.run(Observers(shown, *logs))
        except KeyboardInterrupt:
            kept = f"epoch {trainer.saved_epochs} is safe in {out}" if trainer.saved_epochs else "no epoch was finished"
            console.print(f"stopped; {kept}: run the same command again to go on", style="yellow")
            raise typer.Exit(130) from None
        if not processes.leads:
            return
    last = trainer.history[-1]
    weights = out / ("last.safetensors" if val is None else "best.safetensors")
    if hold_out:
        console.print(f"last: epoch {last['epoch']}, held-out mIoU {last['val_miou']:.4f}, in {out / 'last.safetensors'}")
    if val is None:
        console.print(f"last: epoch {last['epoch']}, in {weights}")
    else:
        judge = "held-out" if hold_out else "val"
        console.print(f"best: epoch {best['epoch']}, {judge} mIoU {best['val_miou']:.4f}, in {weights}")
    if json is not None:
        what = {"weights": str(weights), "best": best, "last": last, "epochs": trainer.epoch, "seconds": trainer.seconds}
        what |= {"data": opened.description}
        where = {"device": str(processes.device), "processes": processes.count, "threads": torch.get_num_threads()}
        write_json(json, what | where | {"recipe": chosen.model_dump(mode="json")})
