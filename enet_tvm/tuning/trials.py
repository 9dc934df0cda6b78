"""Trials of points: each is built once, timed as often as is asked for, and always has an outcome."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import tvm

from enet_tvm.tuning.budget import Budget
from enet_tvm.tuning.cost_model import Trial
from enet_tvm.tuning.measure import Outcome


class KernelTimer(Protocol):
    """Builder and timer of modules: `enet_tvm.tuning.measure.Measurer`, or a model in its place."""

    def build(self, modules: Sequence[tvm.IRModule]) -> list[Path | Outcome]:
        """Build modules of one function ``main``; a failure takes the place of what was made."""

    def run(self, libraries: Sequence[Path], arguments: Sequence[Any]) -> list[Outcome]:
        """Time what was made, given the `ArgInfo` of each one's arguments."""

    def close(self) -> None:
        """End the workers."""


class Trials:
    """Builds and times the points of templates, and other kernels.

    Parameters
    ----------
    measurer : KernelTimer
        Builder and timer of modules.
    budget : Budget
        Budget that learns how long timing takes.
    """

    def __init__(self, measurer: KernelTimer, budget: Budget) -> None:
        self._measurer, self._budget = measurer, budget
        self._libraries: dict[tuple[str, str], Path] = {}

    def close(self) -> None:
        """End the workers."""
        self._measurer.close()

    def build(self, trials: Sequence[Trial]) -> dict[int, Outcome]:
        """Build the points that were not built before, all at once; return the failures by index in `trials`."""
        outcomes: dict[int, Outcome] = {}
        missing = []
        for place, trial in enumerate(trials):
            if _name(trial) in self._libraries:
                continue
            try:
                missing.append((place, trial.task.module(trial.point)))
            except (ValueError, RuntimeError, TypeError) as error:
                outcomes[place] = Outcome(reason=f"cannot be generated: {str(error).splitlines()[-1][:200]}")
        for (place, _), built in zip(missing, self._measurer.build([module for _, module in missing]), strict=True):
            if isinstance(built, Outcome):
                outcomes[place] = built
            else:
                self._libraries[_name(trials[place])] = built
        return outcomes

    def measure(self, trials: Sequence[Trial]) -> list[Outcome]:
        """Build and time points, and return their outcomes in order."""
        outcomes = self.build(trials)
        places = [place for place in range(len(trials)) if place not in outcomes]
        libraries = [self._libraries[_name(trials[place])] for place in places]
        modules = [trials[place].task.module(trials[place].point) for place in places]
        began = time.monotonic()
        results = self._measurer.run(libraries, [arguments_of(module) for module in modules])
        if libraries:
            self._budget.learn(of_run=(time.monotonic() - began) / len(libraries))
        outcomes |= dict(zip(places, results, strict=True))
        return [outcomes[place] for place in range(len(trials))]

    def build_modules(self, modules: Sequence[tvm.IRModule]) -> list[Path | Outcome]:
        """Build modules other than those of points; a failure takes the place of the library."""
        return self._measurer.build(modules)

    def measure_modules(self, built: Sequence[Path | Outcome], arguments: Any) -> list[Outcome]:
        """Time built modules that all take the same arguments, and return their outcomes in order, failed builds included."""
        libraries = [library for library in built if isinstance(library, Path)]
        ran = iter(self._measurer.run(libraries, [arguments] * len(libraries)))
        return [next(ran) if isinstance(library, Path) else library for library in built]


def arguments_of(module: tvm.IRModule) -> list[Any]:
    """Return shapes and dtypes of a module's arguments; those of packed weights depend on the point."""
    from tvm.s_tir.meta_schedule.arg_info import ArgInfo

    return list(ArgInfo.from_prim_func(module["main"]))


def _name(trial: Trial) -> tuple[str, str]:
    return trial.task.key, str(trial.point)
