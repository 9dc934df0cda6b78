"""MetaSchedule's xgboost cost model on features of template and point: it ranks trials when not all can be made."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from enet_tvm.tuning.metaschedule import load_meta_schedule
from enet_tvm.tuning.tasks import KEY, POINT, Task

_LEAST_SAMPLES = 32
"""Least number of measurements for the model to learn anything."""

_DOUBT = 0.08
"""Relative error that is assumed of a prediction."""


@dataclass(frozen=True)
class Trial:
    """A point of a task that may be measured."""

    task: Task
    point: Any


class CostModel:
    """Predicts how fast points are, from those measured so far."""

    def __init__(self, tasks: Sequence[Task], target: Any) -> None:
        ms = load_meta_schedule()
        self._ms = ms
        self._features: dict[str, list[float]] = {}
        self._contexts = {task.key: ms.TuneContext(mod=task.workload, target=target, num_threads=1) for task in tasks}
        self._model = ms.cost_model.XGBModel(
            extractor=_extractor(ms, self._features),
            config=ms.cost_model.xgb_model.XGBConfig(nthread=1, seed=0),
            num_warmup_samples=_LEAST_SAMPLES,
            adaptive_training=False,
            verbose_eval=0,
        )
        self._taught = 0

    @property
    def ready(self) -> bool:
        """Whether enough was measured for predictions to be worth anything."""
        return self._taught >= _LEAST_SAMPLES

    def teach(self, measured: Mapping[Trial, float]) -> None:
        """Add measurements in seconds, and train on all there are."""
        from tvm.s_tir.meta_schedule.runner import RunnerResult

        by_task: dict[str, list[tuple[Trial, float]]] = {}
        for trial, seconds in measured.items():
            by_task.setdefault(trial.task.key, []).append((trial, seconds))
        groups = list(by_task.items())
        for number, (key, trials) in enumerate(groups):
            # Every update trains anew; once, after the last of them, is enough.
            self._model.adaptive_training = number < len(groups) - 1
            self._model.last_train_size = self._model.data_size * 100 if number < len(groups) - 1 else 0
            candidates = [self._candidate(trial) for trial, _ in trials]
            results = [RunnerResult([seconds], None) for _, seconds in trials]
            self._model.update(self._contexts[key], candidates, results)
            self._taught += len(trials)

    def predict(self, trials: Sequence[Trial]) -> list[float]:
        """Return for each trial the best known time of its task over its own: above 1 is a new best."""
        by_task: dict[str, list[int]] = {}
        for place, trial in enumerate(trials):
            by_task.setdefault(trial.task.key, []).append(place)
        scores = [0.0] * len(trials)
        for key, places in by_task.items():
            found = self._model.predict(self._contexts[key], [self._candidate(trials[place]) for place in places])
            for place, score in zip(places, found, strict=True):
                scores[place] = float(score)
        return scores

    def _candidate(self, trial: Trial) -> Any:
        schedule = trial.task.schedule(trial.point)
        self._features[_identity(schedule)] = trial.task.template.features(trial.point)
        return self._ms.search_strategy.MeasureCandidate(schedule, [])

    def promise(self, trials: Sequence[Trial], seconds: Mapping[str, float]) -> list[float]:
        """Return the seconds of a forward pass that each trial is expected to save, given the error of predictions.

        Parameters
        ----------
        trials : sequence of Trial
        seconds : mapping
            Best seconds so far of all launches of a task in a forward pass, by task key.
        """
        return [
            seconds[trial.task.key] * _DOUBT * math.log1p(math.exp(min((score - 1) / _DOUBT, 50)))
            for trial, score in zip(trials, self.predict(trials), strict=True)
        ]


def _identity(schedule: Any) -> str:
    function = schedule.mod["main"]
    return f"{function.attrs[KEY]} {function.body.block.annotations[POINT]}"


def _extractor(ms: Any, features: Mapping[str, list[float]]) -> Any:
    from tvm.ir.utils import derived_object
    from tvm.runtime import tensor

    @derived_object
    class Features(ms.feature_extractor.PyFeatureExtractor):
        """Extractor that returns one row for each candidate, the features that its template gives."""

        def extract_from(self, context: Any, candidates: Sequence[Any]) -> list[Any]:
            rows = [np.array([features[_identity(candidate.sch)]], "float32") for candidate in candidates]
            return [tensor(row) for row in rows]

    return Features()
