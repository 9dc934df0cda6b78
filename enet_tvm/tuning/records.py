"""MetaSchedule's database on disk, as a session uses it: each trial is there before the next round begins."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import tvm

from enet_tvm.compiler.tuning_keys import fingerprint
from enet_tvm.files import atomic_file, parse_json
from enet_tvm.tuning.metaschedule import load_meta_schedule
from enet_tvm.tuning.tasks import KEY, POINT, GenericTask, Task, point_text

WORKLOADS = "database_workload.json"
TRIALS = "database_tuning_record.json"

FAILED = 1e10
"""Seconds that stand for a failed trial in MetaSchedule's database."""


class Records:
    """The measurements of a session, by task and point.

    Parameters
    ----------
    directory : Path
        Directory of the database, made if it is not there. Lines that an interrupted write left are removed.
    target : tvm.target.Target
        Target that the trials are compiled for.
    keys : collection of str
        Keys of the tasks; records of other kernels, such as those that templates no longer make, are removed.

    Attributes
    ----------
    database : JSONDatabase
        MetaSchedule's database of workloads and records.
    points : int
        Number of template points that were measured, failures included.
    """

    def __init__(self, directory: Path, target: tvm.target.Target, keys: Collection[str]) -> None:
        self._ms = load_meta_schedule()
        self._target = target
        directory.mkdir(parents=True, exist_ok=True)
        repair(directory)
        _forget_others(directory, keys, self._ms)
        self.database = self._ms.database.JSONDatabase(work_dir=str(directory))
        self._samples: dict[tuple[str, str], list[tuple[float, ...]]] = {}
        self.points = 0
        self._schedules: Counter[str] = Counter()
        for record in self.database.get_all_tuning_records():
            attributes = record.workload.mod["main"].attrs
            if attributes and KEY in attributes:
                self._remember(str(attributes[KEY]), _point_of(record), tuple(float(s) for s in record.run_secs))
            else:
                self._schedules[fingerprint(record.workload.mod["main"])] += 1

    @property
    def trials(self) -> int:
        """Number of template points, and of schedules of other functions, that were measured."""
        return self.points + self._schedules.total()

    def _remember(self, key: str, point: str, seconds: tuple[float, ...]) -> None:
        samples = self._samples.setdefault((key, point), [])
        self.points += not samples
        samples.append(() if seconds[0] >= FAILED else seconds)

    def samples(self, task: Task, point: Any) -> list[tuple[float, ...]]:
        """Return the seconds of every measurement of a point, in order; an empty one failed."""
        return self._samples.get((task.key, point_text(point)), [])

    def best_of(self, task: Task, point: Any) -> float | None:
        """Return the least seconds ever measured of a point, None when there are none or one trial of it failed."""
        samples = self.samples(task, point)
        return min(map(min, samples)) if samples and all(samples) else None

    def measured(self, task: Task) -> dict[Any, float]:
        """Return the points that ran without a failure, with their least seconds."""
        times = {point: self.best_of(task, point) for point in task.points}
        return {point: seconds for point, seconds in times.items() if seconds is not None}

    def gain(self, task: Task) -> float:
        """Return the best point's time so far as a share of the default's; 1 before the default was measured."""
        measured = self.measured(task)
        return min(measured.values()) / measured[task.default] if task.default in measured else 1.0

    def add(self, task: Task, point: Any, seconds: Sequence[float], arguments: Sequence[Any]) -> None:
        """Write down the seconds of a point; an empty sequence stands for a failure."""
        ms, seconds = self._ms, tuple(seconds) or (FAILED,)
        workload = self.database.commit_workload(task.workload)
        trace = task.schedule(point).trace
        self.database.commit_tuning_record(
            ms.database.TuningRecord(trace, workload, list(seconds), self._target, list(arguments))
        )
        self._remember(task.key, point_text(point), seconds)

    def add_schedule(self, task: GenericTask, candidate: Any, seconds: Sequence[float]) -> None:
        """Write down the seconds of a schedule of MetaSchedule's; an empty sequence stands for a failure."""
        workload = self.database.commit_workload(task.workload)
        run = list(seconds) or [FAILED]
        record = self._ms.database.TuningRecord(candidate.sch.trace, workload, run, self._target, candidate.args_info)
        self.database.commit_tuning_record(record)
        self._schedules[task.key] += 1

    def schedules(self, task: GenericTask) -> int:
        """Return the number of schedules of a function that were measured."""
        return self._schedules[task.key]

    def generic(self, task: GenericTask, count: int) -> list[Any]:
        """Return at most `count` of the fastest records of a function that no template made; never a failed one."""
        workload = self.database.commit_workload(task.workload)
        records = self.database.get_top_k(workload, count)
        return [record for record in records if float(record.run_secs[0]) < FAILED]


def _point_of(record: Any) -> str:
    for instruction in record.trace.insts:
        if str(instruction.kind.name) == "Annotate" and str(instruction.attrs[0]) == POINT:
            return str(instruction.inputs[1])
    return ""


def repair(directory: Path) -> int:
    """Remove from a database the lines that a killed process left incomplete, and records whose workload is lost.

    Returns
    -------
    int
        Number of lines removed.
    """
    workloads, trials = (_lines(directory / name) for name in (WORKLOADS, TRIALS))
    whole = []
    for line in workloads:
        # Records name workloads by their number, so nothing after a broken one counts.
        if _parsed(line) is None:
            break
        whole.append(line)
    kept = [line for line in trials if _workload_of(line) in range(len(whole))]
    removed = len(workloads) - len(whole) + len(trials) - len(kept)
    if removed:
        for name, lines in ((WORKLOADS, whole), (TRIALS, kept)):
            _write_lines(directory / name, lines)
    return removed


def _forget_others(directory: Path, keys: Collection[str], ms: Any) -> None:
    """Remove the records of templates' kernels that have none of these keys."""
    trials = _lines(directory / TRIALS)
    if not trials:
        return
    attributes = [ms.database.Workload.from_json(json.loads(line)).mod["main"].attrs for line in _lines(directory / WORKLOADS)]
    others = {place for place, found in enumerate(attributes) if found and KEY in found and str(found[KEY]) not in keys}
    kept = [line for line in trials if _workload_of(line) not in others]
    # Workloads stay where they are: records name them by their number.
    if len(kept) < len(trials):
        _write_lines(directory / TRIALS, kept)


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []


def _write_lines(path: Path, lines: Sequence[str]) -> None:
    with atomic_file(path) as temporary:
        temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _parsed(line: str) -> list[Any] | None:
    """Return the pair in a complete line of workloads or trials; None for a broken line."""
    try:
        content = parse_json(line)
    except ValueError:
        return None
    return content if isinstance(content, list) and len(content) == 2 else None


def _workload_of(line: str) -> int | None:
    """Return the number of the workload that a trial names; None for a broken line."""
    content = _parsed(line)
    return content[0] if content is not None and isinstance(content[0], int) else None
