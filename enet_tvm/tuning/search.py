"""The order of trials until the budget is used up: points of templates, then schedules of MetaSchedule's."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import tvm

from enet_tvm.errors import UserError
from enet_tvm.tuning.baseline import Baseline
from enet_tvm.tuning.budget import Budget
from enet_tvm.tuning.cost_model import CostModel, Trial
from enet_tvm.tuning.generic import ROUND as GENERIC_ROUND
from enet_tvm.tuning.generic import GenericSearch
from enet_tvm.tuning.measure import all_lost
from enet_tvm.tuning.report import Listener, progress_of
from enet_tvm.tuning.store import Store
from enet_tvm.tuning.tasks import GenericTask
from enet_tvm.tuning.trials import Trials, arguments_of


@dataclass(frozen=True)
class Search:
    """The trials of a session.

    Attributes
    ----------
    baseline : Baseline
        Untuned network, with the tasks to tune.
    store : Store
        Records of the trials, those of earlier sessions included.
    budget : Budget
        Number of trials, and time, that the session has.
    trials : Trials
        Builder and timer of the kernels.
    target : tvm.target.Target
        Target that the kernels are compiled for.
    listener : Listener
        Receiver of the progress after each round.
    """

    baseline: Baseline
    store: Store
    budget: Budget
    trials: Trials
    target: tvm.target.Target
    listener: Listener

    def run(self) -> None:
        """Make all trials.

        Raises
        ------
        UserError
            When a device is lost, or all trials of a round fail. What was measured before is kept.
        """
        self.search_points()
        self.search_schedules()

    def search_points(self) -> None:
        """Measure points of templates, round by round."""
        records, model = self.store.records, CostModel(self.baseline.tasks, self.target)
        taught: dict[Trial, float] = {}
        for task in self.baseline.tasks:
            taught |= {Trial(task, point): seconds for point, seconds in records.measured(task).items()}
        model.teach(taught)
        size, first = self.budget.effort.round, True
        others = sum(max(0, self._schedules_left(task)) for task in self.baseline.generic)
        while (left := self.budget.points - records.points) > 0 and (first or not self.budget.is_over(size + others)):
            first = False
            trials = self.promising(model)[: min(size, left)]
            if not trials:
                break
            began = time.monotonic()
            measured = self.measure(trials)
            self.budget.learn(of_trial=(time.monotonic() - began) / len(trials))
            model.teach(measured)
            self._report("trials")

    def promising(self, model: CostModel) -> list[Trial]:
        """Return the trials left, the most promising first.

        The defaults come first, then the points that the cost model ranks highest or, before it is ready, the first points of
        the kernels that take longest.
        """
        baseline, records = self.baseline, self.store.records
        pending = [Trial(t, p) for t in baseline.tasks for p in t.points if not records.samples(t, p)]
        seconds = {task.key: baseline.seconds_of(task) * records.gain(task) for task in baseline.tasks}
        rank = {task.key: {point: place for place, point in enumerate(task.points)} for task in baseline.tasks}
        if model.ready:
            worth = model.promise(pending, seconds)
        else:
            worth = [seconds[trial.task.key] / (1 + rank[trial.task.key][trial.point]) for trial in pending]
        order = sorted(range(len(pending)), key=lambda i: (pending[i].point != pending[i].task.default, -worth[i]))
        return [pending[i] for i in order]

    def measure(self, trials: Sequence[Trial]) -> dict[Trial, float]:
        """Build and time points, write down the outcomes, and return the least seconds of those that ran."""
        outcomes = self.trials.measure(trials)
        if all_lost(outcomes):
            raise UserError(self.store.goes_on(outcomes[0].reason))
        if len(trials) > 1 and not any(outcome.seconds for outcome in outcomes):
            lost = next((outcome for outcome in outcomes if not outcome.of_kernel), outcomes[0])
            raise UserError(
                f"all {len(trials)} trials of a round failed ({lost.reason}); nothing of it was written "
                f"down, and {self.store.kept()}: correct the cause, and the same command goes on from there"
            )
        times = {}
        for trial, outcome in zip(trials, outcomes, strict=True):
            if not outcome.of_kernel:
                continue
            # A point that cannot be generated has no arguments to write down.
            arguments = arguments_of(trial.task.module(trial.point)) if outcome.seconds else []
            self.store.records.add(trial.task, trial.point, outcome.seconds, arguments)
            if outcome.seconds:
                times[trial] = min(outcome.seconds)
            else:
                self.store.add_failure(trial.task.name, str(trial.point), outcome.reason)
        return times

    def search_schedules(self) -> None:
        """Give each function without a template its trials, those that take longest first."""
        for task in sorted(self.baseline.generic, key=lambda task: -self.baseline.seconds_of(task)):
            if self._schedules_left(task) > 0 and not self.budget.is_over(GENERIC_ROUND):
                self._search_schedules_of(task)

    def _schedules_left(self, task: GenericTask) -> int:
        return self.budget.schedules.get(task.key, 0) - self.store.records.schedules(task)

    def _search_schedules_of(self, task: GenericTask) -> None:
        search = GenericSearch(task, self.target, self.store.records, self._schedules_left(task))
        arguments = arguments_of(task.workload)
        while not self.budget.is_over(GENERIC_ROUND) and (candidates := search.next_round()):
            built = self.trials.build_modules([candidate.sch.mod for candidate in candidates])
            outcomes = self.trials.measure_modules(built, arguments)
            if all_lost(outcomes):
                raise UserError(self.store.goes_on(outcomes[0].reason))
            for outcome in outcomes:
                if outcome.of_kernel and not outcome.seconds:
                    self.store.add_failure(task.name, "a schedule of MetaSchedule's", outcome.reason)
            search.tell(candidates, [outcome.seconds if outcome.of_kernel else None for outcome in outcomes])
            self._report(f"{task.name}, by MetaSchedule's rules")
        if search.failure:
            self.listener.note(f"{search.failure}; it keeps its default schedule")

    def _report(self, stage: str) -> None:
        self.listener.progress(progress_of(stage, self.store.trials, self.budget.trials, self.baseline, self.store))
