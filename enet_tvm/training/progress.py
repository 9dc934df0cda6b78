"""Progress of a training: a live bar on a terminal, one line an epoch elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from enet_tvm.training.trainer import Observer, Step, TrainingCost

_ESTIMATE_AFTER = 10
"""Number of steps after which the remaining time is estimated."""


class ConsoleObserver:
    """Prints a training's plan, progress and results; use it as a context manager.

    Parameters
    ----------
    console : Console
        Console to print on.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self.progress = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]:.3f}  lr {task.fields[rate]:.1e}  {task.fields[speed]:.1f} pictures/s  left"),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=console,
            disable=not console.is_terminal,
        )
        self.task = self.progress.add_task("train", total=None, epoch="-", loss=0.0, rate=0.0, speed=0.0)
        self.plan: TrainingCost | None = None
        self.began = 0.0
        self.steps = 0

    def __enter__(self) -> ConsoleObserver:
        self.progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.progress.stop()

    def started(self, plan: TrainingCost) -> None:
        """Say what is about to happen."""
        self.plan = plan
        self.began = time.monotonic()
        self.progress.update(self.task, total=plan.steps, completed=plan.steps_done)
        resumed = f", resumed after epoch {plan.epochs_done}" if plan.epochs_done else ""
        stages = " and ".join(
            f"{stage.epochs} epochs of {stage.steps_per_epoch} steps" + (f" ({stage.name})" if len(plan.stages) > 1 else "")
            for stage in plan.stages
        )
        where = f"{plan.threads} thread{'s' * (plan.threads > 1)}" if plan.device == "cpu" else plan.device
        if plan.processes > 1:
            where = f"{plan.processes} processes, each on {where}"
        pictures = f"{plan.train_pictures} pictures to train on, {plan.val_pictures or 'none'} to check with"
        self._print(f"{plan.parameters:,} parameters, {pictures}, {stages} = {plan.steps:,} steps on {where}{resumed}")

    def stepped(self, step: Step) -> None:
        """Move the bar; after the first steps say how long it will take."""
        self.steps += 1
        if self.steps == _ESTIMATE_AFTER:
            minutes = (time.monotonic() - self.began) / self.steps * (step.total - step.done) / 60
            self._print(f"at this pace it takes another {minutes:.0f} minutes, evaluations aside")
        self.progress.update(
            self.task,
            completed=step.done,
            epoch=step.epoch + 1,
            loss=step.loss,
            rate=step.learning_rate,
            speed=step.pictures_per_second,
        )

    def epoch_done(self, row: dict[str, Any]) -> None:
        """Print evaluations, and every epoch where there is no bar."""
        if row["val_miou"] is None and self.console.is_terminal:
            return
        line = f"epoch {row['epoch']:3}  loss {row['loss']:.4f}  {row['seconds'] / 60:.1f} min"
        if row["val_miou"] is not None:
            line += (
                f"  val mIoU {row['val_miou']:.4f}, class average {row['val_class_average']:.4f}, "
                f"global {row['val_global_accuracy']:.4f}"
            )
        self._print(line)

    def _print(self, line: str) -> None:
        self.console.print(line, highlight=False, soft_wrap=True)


class Observers:
    """Several observers in the place of one."""

    def __init__(self, *observers: Observer) -> None:
        self.observers = observers

    def started(self, plan: TrainingCost) -> None:
        """Pass it on."""
        for observer in self.observers:
            observer.started(plan)

    def stepped(self, step: Step) -> None:
        """Pass it on."""
        for observer in self.observers:
            observer.stepped(step)

    def epoch_done(self, row: dict[str, Any]) -> None:
        """Pass it on."""
        for observer in self.observers:
            observer.epoch_done(row)
