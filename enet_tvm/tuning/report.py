"""What a session tells of itself: its plan, its progress, its result."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from enet_tvm.compiler.tuning_log import TuningLog
from enet_tvm.tuning.baseline import Baseline
from enet_tvm.tuning.budget import Budget
from enet_tvm.tuning.store import Store


@dataclass(frozen=True)
class PlannedTask:
    """A line of the plan.

    Attributes
    ----------
    name : str
    launches : int
        In a forward pass.
    share : float
        Of the time of the untuned network.
    points : int or None
        To choose from; None for MetaSchedule's own rules, whose space is open.
    """

    name: str
    launches: int
    share: float
    points: int | None


@dataclass(frozen=True)
class SessionCost:
    """What a session is going to do.

    Attributes
    ----------
    tasks : tuple of PlannedTask
        The largest share first.
    untuned_ms : float
        A forward pass before tuning.
    trials, measured : int
        Points to be measured in all, and how many of them have been in earlier sessions.
    minutes : float
        An estimate of what remains, including the judgement at the end.
    directory : Path
        Where the log is going to be.
    """

    tasks: tuple[PlannedTask, ...]
    untuned_ms: float
    trials: int
    measured: int
    minutes: float
    directory: Path


@dataclass(frozen=True)
class Progress:
    """Where a session stands.

    Attributes
    ----------
    stage : str
        What is being done.
    done, total : int
        Trials, or turns of the contest.
    failed : int
        Trials that did not compile or run.
    untuned_ms, predicted_ms : float
        A forward pass before, and with the best of each kernel so far.
    best : tuple of (str, float, float)
        Of each task that was measured: name, microseconds of the default and of the best.
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
    """What came of a session.

    Attributes
    ----------
    log : TuningLog
        The new log.
    written : bool
        Whether it took its place.
    reason : str
        Why not.
    parity_failed : bool
        Whether the reason is that the network says something else.
    directory : Path
        Of the log.
    changed : int
        Kernels for which something better than the default was found.
    failures : dict of str to int
        Reasons of failed trials, with their number.
    old_ms : float or None
        A forward pass with the log that was there before.
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
    """Is told what a session does; by itself it says nothing."""

    def note(self, sentence: str) -> None:
        """Take a remark."""

    def plan(self, plan: SessionCost) -> None:
        """Take the plan, before the first trial."""

    def progress(self, progress: Progress) -> None:
        """Take the state after each round."""


def plan_of(baseline: Baseline, budget: Budget, store: Store) -> SessionCost:
    """Return what a session is going to do."""
    planned = [PlannedTask(t.name, len(t.launches), baseline.share_of(t), len(t.points)) for t in baseline.tasks]
    planned += [PlannedTask(t.name, len(t.launches), baseline.share_of(t), None) for t in baseline.generic]
    return SessionCost(
        tuple(sorted(planned, key=lambda task: -task.share)),
        1e3 * baseline.seconds,
        budget.trials,
        store.trials,
        budget.minutes_left(store.trials),
        store.directory,
    )


def progress_of(stage: str, done: int, total: int, baseline: Baseline, store: Store) -> Progress:
    """Return where a session stands, of whose stage so much is done."""
    best = []
    for task in baseline.tasks:
        measured = store.records.measured(task)
        if task.default in measured:
            best.append((task.name, 1e6 * measured[task.default], 1e6 * min(measured.values())))
    saved = sum(baseline.seconds_of(task) * (1 - store.records.gain(task)) for task in baseline.tasks)
    share = 1 - saved / max(sum(baseline.launch_seconds), 1e-12)
    untuned = 1e3 * baseline.seconds
    return Progress(stage, done, total, len(store.failures), untuned, untuned * share, tuple(best))
