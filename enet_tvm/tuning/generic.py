"""The search by MetaSchedule's own schedule rules, for the functions that no template made."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import tvm

from enet_tvm.tuning.metaschedule import load_meta_schedule
from enet_tvm.tuning.records import Records
from enet_tvm.tuning.tasks import GenericTask

ROUND = 8
"""Number of trials of a round, after which the search learns from them."""


class GenericSearch:
    """Evolutionary search over MetaSchedule's rules for one function.

    The default search costs as much as the measurements. A population of 128 instead of 512, and two generations
    instead of four, made a round five times as fast and found as good a schedule.

    Parameters
    ----------
    task : GenericTask
    target : tvm.target.Target
        Target to compile for; its number of cores decides how many parts a parallel loop gets.
    records : Records
        Earlier measurements, from which the search begins, and to which new ones are added.
    trials : int
        Largest number of trials.
    """

    def __init__(self, task: GenericTask, target: tvm.target.Target, records: Records, trials: int) -> None:
        ms = load_meta_schedule()
        self.task = task
        self._records = records
        # No tensor intrinsics: a worker would have to import them all, and the rules that use them want integers.
        space = ms.space_generator.PostOrderApply(sch_rules="llvm", postprocs="llvm", mutator_probs="llvm")
        search = ms.search_strategy.EvolutionarySearch(
            population_size=128, init_min_unmeasured=16, genetic_num_iters=2, genetic_max_fail_count=3
        )
        self._context = ms.TuneContext(
            mod=task.workload, target=target, space_generator=space, search_strategy=search, num_threads=1, rand_state=1
        )
        self._model = ms.cost_model.XGBModel(config=ms.cost_model.xgb_model.XGBConfig(nthread=1, seed=0), verbose_eval=0)
        self._trials = trials
        self._started = False
        self.done = False
        self.failure = ""

    def next_round(self) -> list[Any]:
        """Return the candidates to measure next; none when the search has ended, or no rule fits the function."""
        try:
            if not self._started:
                self._started = True
                self._context.pre_tuning(self._trials, ROUND, database=self._records.database, cost_model=self._model)
            candidates = self._context.generate_measure_candidates()
        except (RuntimeError, ValueError, TypeError) as error:
            # One such function would end a run of MetaSchedule's own scheduler.
            self.failure = f"no rule fits {self.task.name}: {str(error).strip().splitlines()[-1][:200]}"
            candidates = None
        self.done = not candidates
        return list(candidates or [])

    def tell(self, candidates: Sequence[Any], seconds: Sequence[Sequence[float] | None]) -> None:
        """Learn from the seconds of each candidate, in order, and write them down.

        An empty sequence stands for a failure; None for one that says nothing of the candidate, which is not written down.
        """
        from tvm.s_tir.meta_schedule.runner import RunnerResult

        results = [RunnerResult(list(s), None) if s else RunnerResult(None, "failed") for s in seconds]
        for candidate, times in zip(candidates, seconds, strict=True):
            if times is None:
                continue
            self._records.add_schedule(self.task, candidate, times)
        self._context.notify_runner_results(candidates, results)
        self._model.update(self._context, candidates, results)


def trace_json(record: Any) -> Any:
    """Return a record's trace as JSON takes it."""
    return json.loads(json.dumps(record.as_json()[0]))
