"""The contest: the best points of each kernel against its default, timed in turns to withstand other load on the machine."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from enet_tvm.compiler.traces import apply_trace
from enet_tvm.compiler.tuning_keys import point_dict
from enet_tvm.compiler.tuning_log import FunctionChoice, KernelChoice
from enet_tvm.errors import UserError
from enet_tvm.tuning.baseline import Baseline
from enet_tvm.tuning.budget import Effort
from enet_tvm.tuning.cost_model import Trial
from enet_tvm.tuning.generic import trace_json
from enet_tvm.tuning.measure import Outcome
from enet_tvm.tuning.report import Listener, progress_of
from enet_tvm.tuning.store import Store
from enet_tvm.tuning.tasks import GenericTask, Task, alone
from enet_tvm.tuning.trials import Trials, arguments_of

Choices = tuple[list[KernelChoice], list[FunctionChoice]]
"""Winners of the contest: points of template kernels, and schedules of other functions."""

MARGIN = 0.01
"""Share of the default's time by which a rival must be faster, in the median of all turns."""


def choose(default: Sequence[float], rivals: dict[Any, list[float]]) -> Any | None:
    """Return the rival that beats the default by more than the noise, the fastest if there are several, else None.

    Parameters
    ----------
    default : sequence of float
        Seconds of the default in each turn.
    rivals : dict
        Seconds of each rival in the same turns, infinite where it failed.
    """
    best, least = None, 1 - MARGIN
    for rival, seconds in rivals.items():
        ratios = [ours / base for ours, base in zip(seconds, default, strict=True)]
        # A burst of other work may spoil one turn, but what is faster is so in the others.
        won = sum(ratio < 1 for ratio in ratios) >= len(ratios) - len(ratios) // 4
        median = statistics.median(ratios)
        if won and median <= least and max(seconds) < float("inf"):
            best, least = rival, median
    return best


@dataclass(frozen=True)
class Contest:
    """The best points of each kernel against its default, measured again in turns.

    Attributes
    ----------
    baseline : Baseline
        Untuned network, with the tasks that compete.
    store : Store
        Measurements so far, from which the finalists are taken.
    trials : Trials
        Builder and timer of the kernels.
    effort : Effort
        Number of finalists and of turns.
    listener : Listener
        Receiver of the progress after each turn.
    modelled : bool
        Whether times are a model's, which has nothing to add to what it said.
    """

    baseline: Baseline
    store: Store
    trials: Trials
    effort: Effort
    listener: Listener
    modelled: bool = False

    def hold(self) -> Choices:
        """Time the finalists in turns, and return the winners.

        Raises
        ------
        UserError
            When a device is lost.
        """
        times = self._times_of_points()
        kernels = [self._kernel_choice(task, times.get(task, {})) for task in self.baseline.tasks]
        functions = [choice for task in self.baseline.generic if (choice := self._function_choice(task))]
        return [kernel for kernel in kernels if kernel is not None], functions

    def _times_of_points(self) -> dict[Task, dict[Any, list[float]]]:
        entrants: dict[Task, list[Any]] = {}
        for task in sorted(self.baseline.tasks, key=lambda task: -self.baseline.seconds_of(task)):
            measured = self.store.records.measured(task)
            rivals = sorted((point for point in measured if point != task.default), key=measured.__getitem__)
            if rivals and task.default in measured:
                entrants[task] = [task.default, *rivals[: self.effort.finalists]]
        if self.modelled:
            known = {task: self.store.records.measured(task) for task in entrants}
            return {task: {point: [known[task][point]] for point in points} for task, points in entrants.items()}
        times: dict[Task, dict[Any, list[float]]] = {task: {p: [] for p in points} for task, points in entrants.items()}
        # Libraries of a session that was interrupted are gone.
        self.trials.build([Trial(task, point) for task, points in entrants.items() for point in points])
        for turn in range(self.effort.turns):
            for task, points in entrants.items():
                turned = points[turn % len(points) :] + points[: turn % len(points)]
                outcomes = self.trials.measure([Trial(task, point) for point in turned])
                for point, seconds in zip(turned, self._seconds(outcomes), strict=True):
                    times[task][point].append(seconds)
            self.listener.progress(progress_of("contest of the best", turn + 1, self.effort.turns, self.baseline, self.store))
        return times

    def _seconds(self, outcomes: Sequence[Outcome]) -> list[float]:
        """Return the least seconds of each outcome, infinite where it failed."""
        if lost := next((outcome for outcome in outcomes if not outcome.of_kernel), None):
            raise UserError(self.store.goes_on(lost.reason))
        return [min(outcome.seconds, default=float("inf")) for outcome in outcomes]

    def _kernel_choice(self, task: Task, times: dict[Any, list[float]]) -> KernelChoice | None:
        default = task.default
        measured = self.store.records.measured(task)
        if default not in measured:
            return None
        base = times.get(default) or [measured[default]]
        rivals = {point: seconds for point, seconds in times.items() if point != default}
        point = choose(base, rivals) or default
        won = times.get(point) or [measured[point]]
        return KernelChoice(
            key=task.key,
            name=task.name,
            launches=len(task.launches),
            point=point_dict(point),
            default=point_dict(default),
            point_us=1e6 * statistics.median(won),
            default_us=1e6 * statistics.median(base),
            trials=len(measured),
        )

    def _function_choice(self, task: GenericTask) -> FunctionChoice | None:
        records = self.store.records.generic(task, self.effort.finalists)
        if not records:
            return None
        arguments, traces = arguments_of(task.workload), [trace_json(record) for record in records]
        built = self.trials.build_modules(
            [task.default_module, *(alone(apply_trace(task.function, trace)) for trace in traces)]
        )
        times: list[list[float]] = [[] for _ in built]
        for _ in range(self.effort.turns):
            for found, seconds in zip(times, self._seconds(self.trials.measure_modules(built, arguments)), strict=True):
                found.append(seconds)
        if min(times[0]) == float("inf"):
            return None
        best = choose(times[0], dict(enumerate(times[1:], 1))) or 0
        return FunctionChoice(
            key=task.key,
            name=task.name,
            launches=len(task.launches),
            trace=traces[best - 1] if best else None,
            point_us=1e6 * statistics.median(times[best]),
            default_us=1e6 * statistics.median(times[0]),
            trials=self.store.records.schedules(task),
        )
