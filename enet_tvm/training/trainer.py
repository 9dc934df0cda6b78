"""The training loop: resumable at every epoch, with a log, averaged weights and a moving best."""

from __future__ import annotations

import csv
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from enet_tvm.data.source import Samples
from enet_tvm.data.transforms import MEAN, STD
from enet_tvm.errors import UserError
from enet_tvm.files import atomic_file, write_json
from enet_tvm.networks import WeightsInfo, save_network
from enet_tvm.networks.weights import NETWORKS
from enet_tvm.training.average import WeightAverage
from enet_tvm.training.batches import PackedSamples, batches_per_epoch, epoch_batches
from enet_tvm.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from enet_tvm.training.evaluate import evaluate, torch_forward
from enet_tvm.training.loss import SegmentationLoss
from enet_tvm.training.metrics import SegmentationMetrics
from enet_tvm.training.recipe import Recipe


@dataclass(frozen=True)
class Plan:
    """What a training will cost, known before it starts."""

    parameters: int
    train_pictures: int
    val_pictures: int
    steps_per_epoch: int
    epochs: int
    epochs_done: int
    threads: int


@dataclass(frozen=True)
class Step:
    """One optimiser step, as it is reported."""

    epoch: int
    done: int
    total: int
    loss: float
    learning_rate: float
    pictures_per_second: float


class Observer(Protocol):
    """Hears how a training goes."""

    def started(self, plan: Plan) -> None:
        """Before the first step."""

    def stepped(self, step: Step) -> None:
        """After every step."""

    def epoch_done(self, row: dict[str, Any]) -> None:
        """After an epoch is safe on disk; `row` is its line of the log."""


class Trainer:
    """Trains a network end to end and keeps everything under one directory.

    Writes ``checkpoint.pt`` after every epoch, ``log.csv``, ``recipe.json``, ``last.safetensors`` at each evaluation and
    ``best.safetensors`` when the val mIoU of the averaged weights is the best so far. All writes are atomic, and
    training goes on from the checkpoint when there is one.

    Parameters
    ----------
    recipe : Recipe
        How to train.
    train, val : Samples
        Labelled pictures; `val` is segmented at its own size, in float32.
    directory : str or Path
        Where everything is kept.
    fresh : bool
        Start over even if there is a checkpoint.
    network : str
        Which network, a key of `enet_tvm.networks.weights.NETWORKS`.

    Attributes
    ----------
    saved_epochs : int
        Epochs that are safe on disk.

    Raises
    ------
    UserError
        When there is no such network, or the checkpoint there is broken or of another recipe, class set or network;
        from `run`, when the loss is no longer finite (the last checkpoint stays) or the directory cannot be written.
    """

    def __init__(
        self,
        recipe: Recipe,
        train: Samples,
        val: Samples,
        directory: str | Path,
        *,
        fresh: bool = False,
        network: str = "enet",
    ) -> None:
        if network not in NETWORKS:
            raise UserError(f"there is no network '{network}'; choose one of {', '.join(sorted(NETWORKS))}")
        self.network_name = network
        self.recipe = recipe
        self.directory = Path(directory)
        self.class_set = train.class_set
        checkpoint = None if fresh else self._find_checkpoint()
        self.samples = PackedSamples(train, self.class_set)
        self.val = [val[i] for i in range(len(val))]
        if not any((labels != self.class_set.ignore_index).any() for _, labels in self.val):
            raise UserError("the val split has no labelled pixel, so no weights could be called best; check its label files")
        torch.manual_seed(recipe.seed)
        self.network: nn.Module = NETWORKS[network](len(self.class_set))
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        for module in self.network.modules():
            if isinstance(module, nn.Dropout2d):
                module.p *= recipe.dropout
        self.average = WeightAverage(self.network, recipe.average_decay)
        self.optimiser = _optimiser(self.network, recipe)
        self.loss = SegmentationLoss(recipe.loss, self.samples.histogram, self.class_set.ignore_index)
        self.epoch = self.saved_epochs = 0
        self.seconds = 0.0
        self.history: list[dict[str, Any]] = []
        if checkpoint is not None:
            self._restore(checkpoint)

    @property
    def best(self) -> dict[str, Any] | None:
        """Row of the log with the best val mIoU so far."""
        rated = [row for row in self.history if row["val_miou"] is not None]
        return max(rated, key=lambda row: row["val_miou"]) if rated else None

    def run(self, observer: Observer | None = None) -> dict[str, Any]:
        """Train to the recipe's last epoch and return the best row of the log."""
        write_json(self.directory / "recipe.json", self.recipe.model_dump(mode="json"))
        steps = batches_per_epoch(len(self.samples), self.recipe.batch_size)
        if observer:
            observer.started(
                Plan(
                    parameters=sum(p.numel() for p in self.network.parameters()),
                    train_pictures=len(self.samples),
                    val_pictures=len(self.val),
                    steps_per_epoch=steps,
                    epochs=self.recipe.epochs,
                    epochs_done=self.epoch,
                    threads=torch.get_num_threads(),
                )
            )
        while self.epoch < self.recipe.epochs:
            row = self._epoch(steps, observer)
            if observer:
                observer.epoch_done(row)
        assert self.best is not None  # the last epoch is always evaluated
        return self.best

    def _epoch(self, steps: int, observer: Observer | None) -> dict[str, Any]:
        started = time.monotonic()
        torch.manual_seed(self.recipe.seed * 1_000_003 + self.epoch)
        self.network.train()
        losses = []
        step_started = started
        for number, (pictures, labels) in enumerate(epoch_batches(self.samples, self.recipe, self.epoch)):
            done = self.epoch * steps + number
            rate = learning_rate(self.recipe, done / steps, self.recipe.epochs)
            losses.append(self._step(pictures, labels, rate))
            if observer:
                now = time.monotonic()
                speed = len(labels) / max(1e-9, now - step_started)
                step_started = now
                observer.stepped(Step(self.epoch, done + 1, steps * self.recipe.epochs, losses[-1], rate, speed))
        self.epoch += 1
        metrics = None
        if self.epoch % self.recipe.evaluate_every == 0 or self.epoch == self.recipe.epochs:
            metrics = self.evaluate()
        self.seconds += time.monotonic() - started
        row = {
            "epoch": self.epoch,
            "loss": float(np.mean(losses)),
            "learning_rate": rate,
            "seconds": round(self.seconds, 1),
            "val_miou": metrics.miou if metrics else None,
            "val_class_average": metrics.class_average if metrics else None,
            "val_global_accuracy": metrics.global_accuracy if metrics else None,
        }
        self._save(row, metrics)
        return row

    def _step(self, pictures: Tensor, labels: Tensor, rate: float) -> float:
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        with torch.autocast("cpu", torch.bfloat16, enabled=self.recipe.precision == "bfloat16"):
            logits = self.network(pictures)
        loss = self.loss(logits, labels)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.recipe.optimiser.clip_norm)
        if not (loss.isfinite() and norm.isfinite()):
            kept = f"the checkpoint of epoch {self.epoch} is intact" if self.epoch else "nothing was written"
            raise UserError(
                f"the loss or its gradient is no longer finite in epoch {self.epoch + 1} ({kept}); "
                "lower the recipe's learning rate and start over with --fresh"
            )
        self.optimiser.step()
        self.average.update(self.network)
        return float(loss.detach())

    def evaluate(self) -> SegmentationMetrics:
        """Return the metrics of the averaged weights on the val pictures, in float32."""
        return evaluate(torch_forward(self.average.network), self.val, self.class_set, MEAN, STD)

    def _save(self, row: dict[str, Any], metrics: SegmentationMetrics | None) -> None:
        before = self.best
        self.history.append(row)
        if metrics is not None:
            info = WeightsInfo(
                network=self.network_name,
                classes=self.class_set.names,
                palette=self.class_set.palette,
                mean=MEAN,
                std=STD,
                notes={"recipe": self.recipe.model_dump(mode="json"), "epoch": self.epoch, "val": metrics.to_dict()},
            )
            save_network(self.average.network, info, self.directory / "last.safetensors")
            if before is None or metrics.miou > before["val_miou"]:
                save_network(self.average.network, info, self.directory / "best.safetensors")
        with atomic_file(self.directory / "log.csv") as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, row.keys())
            writer.writeheader()
            writer.writerows(self.history)
        save_checkpoint(
            Checkpoint(
                recipe=self.recipe.to_json(),
                classes=list(self.class_set.names),
                epoch=self.epoch,
                network=self.network.state_dict(),
                average=self.average.network.state_dict(),
                optimiser=self.optimiser.state_dict(),
                updates=self.average.updates,
                seconds=self.seconds,
                history=self.history,
                network_name=self.network_name,
            ),
            self.directory / "checkpoint.pt",
        )
        self.saved_epochs = self.epoch

    def _find_checkpoint(self) -> Checkpoint | None:
        path = self.directory / "checkpoint.pt"
        if not path.exists():
            return None
        checkpoint = load_checkpoint(path)
        if checkpoint.recipe != self.recipe.to_json():
            raise UserError(f"{path} was trained with another recipe; give that one, another --out, or --fresh to start over")
        if checkpoint.network_name != self.network_name:
            raise UserError(f"{path} is a training of {checkpoint.network_name}; give another --out, or --fresh to start over")
        if checkpoint.classes != list(self.class_set.names):
            raise UserError(f"{path} was trained on other classes; give that data set, another --out, or --fresh to start over")
        return checkpoint

    def _restore(self, checkpoint: Checkpoint) -> None:
        self.network.load_state_dict(checkpoint.network)
        self.average.network.load_state_dict(checkpoint.average)
        self.average.updates = checkpoint.updates
        self.optimiser.load_state_dict(checkpoint.optimiser)
        self.epoch = self.saved_epochs = checkpoint.epoch
        self.seconds, self.history = checkpoint.seconds, checkpoint.history


def learning_rate(recipe: Recipe, epoch: float, epochs: int) -> float:
    """Return the learning rate after `epoch` (a fraction is part of one) of `epochs`."""
    section = recipe.optimiser
    warmup = min(section.warmup_epochs, epochs)
    if epoch < warmup:
        return section.learning_rate * max(0.01, epoch / warmup)
    progress = (epoch - warmup) / max(1e-9, epochs - warmup)
    factor = {"constant": 1.0, "cosine": (1 + math.cos(math.pi * progress)) / 2, "poly": (1 - progress) ** 0.9}[
        section.schedule
    ]
    return section.learning_rate * factor


def _optimiser(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    decayed = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": recipe.optimiser.weight_decay}, {"params": others, "weight_decay": 0.0}]
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[recipe.optimiser.name]
    return kind(groups, lr=recipe.optimiser.learning_rate)
