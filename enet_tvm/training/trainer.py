"""The training loop: stage by stage, resumable at every epoch, with a log, averaged weights and a moving best."""

from __future__ import annotations

import csv
import math
import time
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from enet_tvm.data.source import Samples, WithDrawn
from enet_tvm.data.transforms import MEAN, STD
from enet_tvm.errors import UserError
from enet_tvm.evaluation.evaluate import evaluate, torch_forward
from enet_tvm.evaluation.metrics import SegmentationMetrics
from enet_tvm.files import atomic_file, check_place, write_json
from enet_tvm.networks import WeightsInfo, save_network
from enet_tvm.networks.table import DEFAULT_NETWORK, require_network
from enet_tvm.training.average import WeightAverage, with_statistics_of
from enet_tvm.training.batches import PackedSamples, batches_per_epoch, epoch_batches, prefetched, shared_batch
from enet_tvm.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from enet_tvm.training.compiled import compiled
from enet_tvm.training.curves import draw_curves
from enet_tvm.training.loss import SegmentationLoss, explicit_class_weights
from enet_tvm.training.processes import Processes, has_bfloat16
from enet_tvm.training.recipe import AugmentationRecipe, RareRecipe, Recipe, Settings
from enet_tvm.training.stages import reduce_labels, trained_part, without_supervision
from enet_tvm.training.start import read_start

_PLAIN = AugmentationRecipe(
    scale=(1.0, 1.0), aspect=0.0, flip=0.5, brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0, blur=0.0
)
"""Augmentation by flips alone: windows as the pictures are, which a network meets when it is used."""

CURVES_SECONDS = 30.0
"""Seconds between two drawings of the curves, which take as long as a short epoch; the last epoch's are always drawn."""


@dataclass(frozen=True)
class StageCost:
    """One stage of a plan."""

    name: str
    epochs: int
    steps_per_epoch: int


@dataclass(frozen=True)
class TrainingCost:
    """What a training will cost, known before it starts."""

    parameters: int
    train_pictures: int
    val_pictures: int
    stages: tuple[StageCost, ...]
    epochs_done: int
    device: str
    threads: int
    processes: int

    @property
    def steps(self) -> int:
        """Number of steps of all stages."""
        return sum(stage.epochs * stage.steps_per_epoch for stage in self.stages)

    @property
    def steps_done(self) -> int:
        """Number of steps of the epochs that are done."""
        done, epochs = 0, self.epochs_done
        for stage in self.stages:
            done += min(epochs, stage.epochs) * stage.steps_per_epoch
            epochs = max(0, epochs - stage.epochs)
        return done


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
    """Receives the progress of a training."""

    def started(self, plan: TrainingCost) -> None:
        """Take the plan, before the first step."""

    def stepped(self, step: Step) -> None:
        """Take a step, after it is done."""

    def epoch_done(self, row: dict[str, Any]) -> None:
        """Take an epoch's row of the log, after its checkpoint is on disk."""


class Trainer:
    """Trains a network, stage by stage, and keeps everything under one directory.

    Writes ``checkpoint.pt`` after every epoch, ``log.csv`` after it and ``curves.png`` now and then, ``recipe.json``,
    ``last.safetensors`` at each evaluation of the whole network and ``best.safetensors`` when the val mIoU of the averaged
    weights is the best so far. All writes are atomic, and training goes on from the checkpoint when there is one. The data
    set is read once, at the start.

    Parameters
    ----------
    recipe : Recipe
        The recipe of the training.
    train, val : Samples
        Labelled pictures; `val` is segmented at its own size, in float32. Without a `val`, ``last.safetensors`` is written as
        often, but nothing is judged, nor called best.
    directory : str or Path
        Directory that everything is kept in.
    fresh : bool
        Whether to start over even if there is a checkpoint.
    network : str
        Name of the network, a key of `enet_tvm.networks.table.NETWORKS`.
    processes : Processes, optional
        Device to train on and the processes that share it; by default one process on the CPU.
    start : str or Path, optional
        Weights of the same network to start from, instead of random ones; see `enet_tvm.training.start`. A training that goes
        on from a checkpoint leaves them alone.
    data : dict of str to str, optional
        Descriptions of the pictures of `train` and `val`, for the notes of the weights.
    compile_step : bool
        Whether `torch.compile` fuses the passes of the trained module; see `enet_tvm.training.compiled`.

    Attributes
    ----------
    network : nn.Module
        Module that the current stage trains.
    epoch : int
        Number of epochs done, over all stages.
    saved_epochs : int
        Number of epochs whose checkpoint is on disk.
    started : Start or None
        Network and layers taken from the weights to start from; None without such weights, or after going on from a checkpoint.

    Raises
    ------
    UserError
        When there is no such network or it lacks the parts that the recipe trains, the processes cannot share a batch
        evenly, or the checkpoint there is broken or of another recipe, class set, network or data; from `run`, when the loss is
        no longer finite or the directory cannot be written: the last checkpoint stays.
    """

    def __init__(
        self,
        recipe: Recipe,
        train: Samples,
        val: Samples | None,
        directory: str | Path,
        *,
        fresh: bool = False,
        network: str = DEFAULT_NETWORK,
        processes: Processes | None = None,
        start: str | Path | None = None,
        data: dict[str, str] | None = None,
        compile_step: bool = False,
    ) -> None:
        definition = require_network(network)
        self.network_name = network
        self.recipe = recipe
        self.data = data or {}
        self.compile_step = compile_step
        self.stages = recipe.in_order()
        self.directory = Path(directory)
        check_place(self.directory)
        self.class_set = train.class_set
        self.processes = processes or Processes()
        checkpoint = None if fresh else self._find_checkpoint()
        # Before the pictures are read, which takes longer than to say that the weights do not serve.
        torch.manual_seed(recipe.seed)
        self.started = read_start(start, network, self.class_set) if start is not None and checkpoint is None else None
        joined = WithDrawn(train, recipe.drawn_streets) if recipe.drawn_streets else train
        self.samples = PackedSamples(joined, self.class_set)
        if checkpoint is not None:
            self._check_same_pictures(checkpoint)
        for stage in self.stages:
            shared_batch(len(self.samples), stage.batch_size, self.processes)
            explicit_class_weights(stage.loss, self.class_set)
        self.val = [val[i] for i in range(len(val))] if val is not None and self.processes.leads else []
        judged = val is not None and self.processes.leads
        if judged and not any((labels != self.class_set.ignore_index).any() for _, labels in self.val):
            raise UserError("the val split has no labelled pixel, so no weights could be called best; check its label files")
        if self.started is None:
            torch.manual_seed(recipe.seed)
        self.variant = self.started.variant if self.started else checkpoint.variant if checkpoint else {}
        self.origin = self.started.name if self.started else checkpoint.started_from if checkpoint else None
        self.whole: nn.Module = self.started.network if self.started else definition.new(len(self.class_set), self.variant)
        self.dropouts = [(module, module.p) for module in self.whole.modules() if isinstance(module, nn.Dropout2d)]
        self.whole = self.processes.share_batch_norms(self.whole)
        self.epoch = self.saved_epochs = 0
        self._drawn = time.monotonic()
        self.seconds = 0.0
        self.history: list[dict[str, Any]] = []
        self.begin_stage(0 if checkpoint is None else self._stage_of(checkpoint.epoch - 1))
        if checkpoint is not None:
            self._restore(checkpoint)

    def _stage_of(self, epoch: int) -> int:
        """Return the number of the stage that holds an epoch, counted from 0."""
        for number, stage in enumerate(self.stages):
            if epoch < stage.epochs:
                return number
            epoch -= stage.epochs
        return len(self.stages) - 1

    def begin_stage(self, number: int) -> None:
        """Set up a stage: what it trains starts from the weights that `whole` has."""
        self.stage_number = number
        self.stage = self.stages[number]
        self.stage_start = sum(stage.epochs for stage in self.stages[:number])
        if number:
            torch.manual_seed(self.recipe.seed)
        for module, probability in self.dropouts:
            module.p = probability * self.stage.dropout
        self.network = trained_part(self.whole, self.stage.part, supervise_encoder=self.stage.loss.encoder > 0)
        self.network.to(self.processes.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = WeightAverage(self.network, self.stage.average_decay)
        self.optimiser = _optimiser(self.network, self.stage)
        weights = explicit_class_weights(self.stage.loss, self.class_set)
        void = self.class_set.ignore_index
        self.loss = SegmentationLoss(self.stage.loss, self.samples.histogram, void, self.processes, weights)
        self.loss.to(self.processes.device)
        plain = self.stage.loss.model_copy(update={"lovasz": 0.0})
        self.encoder_loss = SegmentationLoss(plain, self.samples.histogram, self.class_set.ignore_index, self.processes)
        self.encoder_loss.to(self.processes.device)
        self.together = self.processes.together(self.network)
        if self.compile_step:
            self.together = compiled(self.together, self.processes.device)

    @property
    def best(self) -> dict[str, Any] | None:
        """Row of the log with the best val mIoU of the whole network so far."""
        whole = {stage.name for stage in self.stages if stage.part == "network"}
        rated = [row for row in self.history if row["val_miou"] is not None and row["stage"] in whole]
        return max(rated, key=lambda row: row["val_miou"]) if rated else None

    def run(self, observer: Observer | None = None) -> dict[str, Any]:
        """Train to the recipe's last epoch and return the best row of the log.

        Of several processes, only the one that leads hears of the result and has an observer; the others return the row
        of their last epoch.
        """
        if self.processes.leads:
            write_json(self.directory / "recipe.json", self.recipe.model_dump(mode="json"))
        if observer:
            observer.started(self._plan())
        row: dict[str, Any] = self.history[-1] if self.history else {}
        while self.epoch < self.recipe.total_epochs:
            if self.epoch == self.stage_start + self.stage.epochs:
                self.network.load_state_dict(self.average.network.state_dict())
                self.begin_stage(self.stage_number + 1)
            row = self._epoch(observer)
            if observer:
                observer.epoch_done(row)
        return self.best or row

    def _plan(self) -> TrainingCost:
        return TrainingCost(
            parameters=sum(p.numel() for p in self.whole.parameters()),
            train_pictures=len(self.samples),
            val_pictures=len(self.val),
            stages=tuple(StageCost(stage.name, stage.epochs, self._steps(stage)) for stage in self.stages),
            epochs_done=self.epoch,
            device=str(self.processes.device),
            threads=torch.get_num_threads(),
            processes=self.processes.count,
        )

    def _steps(self, settings: Settings) -> int:
        return batches_per_epoch(len(self.samples), settings.batch_size)

    def _epoch(self, observer: Observer | None) -> dict[str, Any]:
        started = time.monotonic()
        torch.manual_seed(self.recipe.seed * 1_000_003 + self.epoch + self.processes.rank * 7_368_787)
        self.network.train()
        plan, steps, in_stage = self._plan(), self._steps(self.stage), self.epoch - self.stage_start
        losses = []
        step_started = started
        batches = epoch_batches(self.samples, self.stage, self.recipe.seed, self.epoch, self.processes)
        if self.processes.device.type != "cpu":  # where the cores have nothing else to do
            batches = prefetched(batches)
        for number, (pictures, labels) in enumerate(batches):
            rate = learning_rate(self.stage, (in_stage * steps + number) / steps, self.stage.epochs)
            losses.append(self.step(pictures, labels, rate))
            if observer:
                now = time.monotonic()
                speed = len(labels) * self.processes.count / max(1e-9, now - step_started)
                step_started = now
                observer.stepped(Step(self.epoch, plan.steps_done + number + 1, plan.steps, losses[-1], rate, speed))
        self.epoch += 1
        due = (in_stage + 1) % self.stage.evaluate_every == 0 or in_stage + 1 == self.stage.epochs
        kept = self._kept() if due else None
        metrics = self.evaluate(kept) if kept is not None and self.val else None
        self.seconds += time.monotonic() - started
        row = {
            "epoch": self.epoch,
            "stage": self.stage.name,
            "loss": float(np.mean(losses)),
            "learning_rate": rate,
            "seconds": round(self.seconds, 1),
            "val_miou": metrics.miou if metrics else None,
            "val_class_average": metrics.class_average if metrics else None,
            "val_global_accuracy": metrics.global_accuracy if metrics else None,
        }
        if self.processes.leads:
            self._save(row, metrics, kept)
        return row

    def step(self, pictures: Tensor, labels: Tensor, rate: float) -> float:
        """Train on a batch of normalised pictures, N x 3 x H x W, and labels, N x H x W; return the loss."""
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        device = self.processes.device
        reduced = self.stage.precision == "bfloat16" and has_bfloat16(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=reduced):
            output = self.together(pictures)
        logits, *encoder = output if isinstance(output, tuple) else (output,)
        loss = self.loss(logits, _labels_for(logits, labels))
        for logits in encoder:
            loss = loss + self.stage.loss.encoder * self.encoder_loss(logits, _labels_for(logits, labels))
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.stage.optimiser.clip_norm or math.inf)
        value = float(self.processes.sum(loss.detach())) / self.processes.count
        if not (math.isfinite(value) and norm.isfinite()):
            kept = f"the checkpoint of epoch {self.epoch} is intact" if self.epoch else "nothing was written"
            raise UserError(
                f"the loss or its gradient is no longer finite in epoch {self.epoch + 1} ({kept}); "
                "lower the recipe's learning rate and start over with --fresh"
            )
        self.optimiser.step()
        self.average.update(self.network)
        return value

    def _kept(self) -> nn.Module:
        """Return the network to evaluate and write: averaged weights, with their own statistics if the recipe says so."""
        network = without_supervision(self.average.network)
        if not self.stage.batch_norm_batches:
            return network
        plain = self.stage.model_copy(update={"augmentation": _PLAIN, "rare": RareRecipe()})
        batches = epoch_batches(self.samples, plain, self.recipe.seed, self.epoch, self.processes)
        return with_statistics_of(network, (pictures for pictures, _ in islice(batches, self.stage.batch_norm_batches)))

    def evaluate(self, network: nn.Module) -> SegmentationMetrics:
        """Return a network's metrics on the val pictures, in float32."""
        return evaluate(torch_forward(network), self.val, self.class_set, MEAN, STD)

    def _save(self, row: dict[str, Any], metrics: SegmentationMetrics | None, kept: nn.Module | None) -> None:
        before = self.best
        self.history.append(row)
        if kept is not None and self.stage.part == "network":
            notes: dict[str, Any] = {"recipe": self.recipe.model_dump(mode="json"), "epoch": self.epoch}
            notes |= {"started_from": self.origin} if self.origin else {}
            notes |= {"data": self.data} if self.data else {}
            notes |= {"val": metrics.to_dict()} if metrics else {}
            info = WeightsInfo(
                network=self.network_name,
                classes=self.class_set.names,
                palette=self.class_set.palette,
                mean=MEAN,
                std=STD,
                notes=notes,
                variant=self.variant,
            )
            save_network(kept, info, self.directory / "last.safetensors")
            if metrics is not None and (before is None or metrics.miou > before["val_miou"]):
                save_network(kept, info, self.directory / "best.safetensors")
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
                pictures=len(self.samples),
                histogram=self.samples.histogram.tolist(),
                variant=self.variant,
                started_from=self.origin,
            ),
            self.directory / "checkpoint.pt",
        )
        self.saved_epochs = self.epoch
        with atomic_file(self.directory / "log.csv") as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, row.keys())
            writer.writeheader()
            writer.writerows(self.history)
        now = time.monotonic()
        if self.epoch == self.recipe.total_epochs or now - self._drawn > CURVES_SECONDS:
            draw_curves(self.history, self.directory / "curves.png")
            self._drawn = now

    def _find_checkpoint(self) -> Checkpoint | None:
        path = self.directory / "checkpoint.pt"
        if not path.exists():
            return None
        checkpoint = load_checkpoint(path)
        if (difference := _difference(checkpoint.recipe, self.recipe)) is not None:
            raise UserError(
                f"{path} was trained with another recipe{difference}; give that one, another --out, or --fresh to start over"
            )
        if checkpoint.network_name != self.network_name:
            raise UserError(f"{path} is a training of {checkpoint.network_name}; give another --out, or --fresh to start over")
        if checkpoint.classes != list(self.class_set.names):
            raise UserError(f"{path} was trained on other classes; give that data set, another --out, or --fresh to start over")
        return checkpoint

    def _check_same_pictures(self, checkpoint: Checkpoint) -> None:
        """Refuse to go on with other pictures: a checkpoint from before they were noted is trusted."""
        pictures, histogram = len(self.samples), self.samples.histogram.tolist()
        noted = (checkpoint.pictures or pictures, checkpoint.histogram or histogram)
        if noted != (pictures, histogram):
            what = f"{noted[0]} pictures, now there are {pictures}" if noted[0] != pictures else f"{pictures} with other labels"
            raise UserError(
                f"the data set has changed since {self.directory / 'checkpoint.pt'} was written (it was trained on {what}); "
                "give the same data, another --out, or --fresh to start over"
            )

    def _restore(self, checkpoint: Checkpoint) -> None:
        self.network.load_state_dict(checkpoint.network)
        self.average.network.load_state_dict(checkpoint.average)
        self.average.updates = checkpoint.updates
        self.optimiser.load_state_dict(checkpoint.optimiser)
        self.epoch = self.saved_epochs = checkpoint.epoch
        self.seconds = checkpoint.seconds
        # Checkpoints made before recipes had stages lack their names.
        self.history = [{"epoch": row["epoch"], "stage": self.stage.name} | row for row in checkpoint.history]


def _difference(stored: str, recipe: Recipe, most: int = 3) -> str | None:
    """Return in words where a checkpoint's recipe, which may lack newer keys, is another; None if it is not."""
    try:
        old, new = Recipe.model_validate_json(stored).essence(), recipe.essence()
    except ValidationError:
        return ""
    keys = [key for key in old | new if old.get(key) != new.get(key)]
    if not keys:
        return None
    if len({frozenset(key.partition(".")[0] for key in one) for one in (old, new)}) > 1:
        return ", of other stages"
    told = [f"{key.removeprefix('network.')} was {old.get(key)} and is {new.get(key)}" for key in keys[:most]]
    return f" ({'; '.join([*told, *([f'and {len(keys) - most} keys more'] if len(keys) > most else [])])})"


def _labels_for(logits: Tensor, labels: Tensor) -> Tensor:
    """Return labels at the resolution of the logits."""
    same = logits.shape[2:] == labels.shape[1:]
    return labels if same else reduce_labels(labels, logits.shape[2], logits.shape[3])


def learning_rate(settings: Settings, epoch: float, epochs: int) -> float:
    """Return the learning rate after `epoch` (a fraction is part of one) of `epochs`."""
    section = settings.optimiser
    warmup = min(section.warmup_epochs, epochs)
    if epoch < warmup:
        return section.learning_rate * max(0.01, epoch / warmup)
    progress = (epoch - warmup) / max(1e-9, epochs - warmup)
    factor = {"constant": 1.0, "cosine": (1 + math.cos(math.pi * progress)) / 2, "poly": (1 - progress) ** 0.9}[
        section.schedule
    ]
    return section.learning_rate * factor


def _optimiser(network: nn.Module, settings: Settings) -> torch.optim.Optimizer:
    section = settings.optimiser
    trained = [p for p in network.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": section.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": section.weight_decay * (section.decay == "all")},
    ]
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[section.name]
    return kind(groups, lr=section.learning_rate)
