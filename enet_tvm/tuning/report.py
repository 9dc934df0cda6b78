"""The reports of a session: its plan, its progress, its result."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from enet_tvm.compiler.tuning_log import TuningLog
from enet_tvm.tuning.baseline import Baseline
from enet_tvm.tuning.budget import Budget
from enet_tvm.tuning.network import Place
from enet_tvm.tuning.store import Store


@dataclass(frozen=True)
class PlannedTask:
    """A task in the plan of a session.

    Attributes
    ----------
    name : str
        Name of the kernel or function.
    launches : int
        Number of its launches in a forward pass.
    share : float
        Share of the untuned network's time.
    points : int or None
        Number of points to choose from; None for MetaSchedule's own rules, whose space is open.
    """

    name: str
    launches: int
    share: float
    points: int | None


@dataclass(frozen=True)
class SessionCost:
    """The plan of a session: tasks, number of trials and time.

    Attributes
    ----------
    tasks : tuple of PlannedTask
        Tasks of the network, the largest share of its time first.
    untuned_ms : float
        Duration of a forward pass before tuning.
    trials, measured : int
        Number of trials in all, and of those made in earlier sessions.
    minutes : float
        Estimate of the time left, including the judgement at the end.
    directory : Path
        Directory that the log is written to.
    modelled : bool
        Whether all times are those of a model.
    units : tuple of str
        What a millisecond and a microsecond are called: of a simulation, which has no clock, cycles.
    """

    tasks: tuple[PlannedTask, ...]
    untuned_ms: float
    trials: int
    measured: int
    minutes: float
    directory: Path
    modelled: bool = False
    units: tuple[str, str] = ("ms", "us")


@dataclass(frozen=True)
class Progress:
    """The state of a session.

    Attributes
    ----------
    stage : str
        Name of the stage that the session is in.
    done, total : int
        Number of trials, or of turns of the contest, made and to be made in the end.
    failed : int
        Number of trials that did not compile or run.
    untuned_ms, predicted_ms : float
        Duration of a forward pass before, and its prediction with the best point of each kernel so far.
    best : tuple of (str, float, float)
        Name of each task whose default was measured, with microseconds of the default and of the best point.
    """

    stage: str
    done: int
    total: int
    failed: int
    untuned_ms: float
    predicted_ms: float
    best: tuple[tuple[str, float, float], ...]


@dataclass(frozen=True)
class Result:
    """The result of a session.

    Attributes
    ----------
    log : TuningLog
        The new log.
    written : bool
        Whether the log was written.
    reason : str
        Reason why it was not written; empty when it was.
    parity_failed : bool
        Whether the reason is that the tuned network does not agree with PyTorch.
    directory : Path
        Directory of the log.
    changed : int
        Number of kernels for which something better than the default was found.
    failures : dict of str to int
        Number of failed trials, by reason.
    old_ms : float or None
        Duration of a forward pass with the log that was there before; None without one.
    """

    log: TuningLog
    written: bool
    reason: str
    parity_failed: bool
    directory: Path
    changed: int
    failures: dict[str, int]
    old_ms: float | None = None


class Listener:
    """Receiver of what a session reports; the base class ignores all of it."""

    def note(self, sentence: str) -> None:
        """Take a remark."""

    def plan(self, plan: SessionCost) -> None:
        """Take the plan, before the first trial."""

    def progress(self, progress: Progress) -> None:
        """Take the state after each round."""


def plan_of(baseline: Baseline, budget: Budget, store: Store, place: Place) -> SessionCost:
    """Return the plan of a session."""
    planned = [PlannedTask(t.name, len(t.launches), baseline.share_of(t), len(t.points)) for t in baseline.tasks]
    planned += [PlannedTask(t.name, len(t.launches), baseline.share_of(t), None) for t in baseline.generic]
    return SessionCost(
        tuple(sorted(planned, key=lambda task: -task.share)),
        1e3 * baseline.seconds,
        budget.trials,
        store.trials,
        budget.minutes_left(store.trials),
        store.directory,
        place.modelled,
        place.units,
    )


def progress_of(stage: str, done: int, total: int, baseline: Baseline, store: Store) -> Progress:
    """Return the state of a session that has done `done` of `total` in a stage."""
    best = []
    for task in baseline.tasks:
        measured = store.records.measured(task)
        if task.default in measured:
            best.append((task.name, 1e6 * measured[task.default], 1e6 * min(measured.values())))
    saved = sum(baseline.seconds_of(task) * (1 - store.records.gain(task)) for task in baseline.tasks)
    share = 1 - saved / max(sum(baseline.launch_seconds), 1e-12)
    untuned = 1e3 * baseline.seconds
    return Progress(stage, done, total, len(store.failures), untuned, untuned * share, tuple(best))
