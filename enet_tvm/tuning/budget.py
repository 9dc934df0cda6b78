"""The number of trials of a session, their division among the tasks, and the time at which it must end."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from enet_tvm.tuning.baseline import Baseline

_GENERIC_TRIALS = 48
"""Largest number of schedules of a function without a template that are worth measuring."""
_LEAST_SHARE = 0.01
"""Share of a forward pass up to which such a function is left as it is."""
_SECONDS_OF_TRIAL = 0.35
_SECONDS_OF_RUN = 0.12
"""First estimates of the seconds of a trial, and of timing its kernel alone, until some were made."""


@dataclass(frozen=True)
class Effort:
    """Sizes of a session's rounds of trials, of its contest, and of its judgement.

    Attributes
    ----------
    round : int
        Number of trials of a round, after which they are written down: a killed session loses one, some ten seconds.
    turns : int
        Number of turns of the contest.
    finalists : int
        Number of points of each kernel that meet the default in the contest: one sample of each decides nothing.
    comparison : float
        Seconds for which the network is measured with and without the log, in turns.
    """

    round: int = 32
    turns: int = 5
    finalists: int = 2
    comparison: float = 8.0


class Budget:
    """The trials and the time that a session has, and estimates of what is left of them.

    Parameters
    ----------
    trials : int or None
        Number of trials to have made in the end, those of earlier sessions included; None for as many as time allows.
    minutes : float or None
        Time from now until the log is to be written; None for as long as the trials take.
    effort : Effort
        Sizes of rounds, of the contest and of the judgement.
    clock : callable
        Returns the time in seconds.

    Attributes
    ----------
    points : int
        Number of template points to have measured in the end; 0 before `share_out`.
    schedules : dict of str to int
        Number of schedules to have measured of each function without a template, by task key; empty before `share_out`.
    """

    def __init__(
        self,
        trials: int | None = None,
        minutes: float | None = None,
        effort: Effort | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.effort = effort or Effort()
        self._asked, self._minutes, self._clock = trials, minutes, clock
        self._start = clock()
        self._seconds_of_trial, self._seconds_of_run = _SECONDS_OF_TRIAL, _SECONDS_OF_RUN
        self._kernels, self._compile_seconds = 0, 0.0
        self.points = 0
        self.schedules: dict[str, int] = {}

    def share_out(self, baseline: Baseline) -> None:
        """Divide the trials: functions without a template get their share of a forward pass, template points the rest."""
        points = sum(len(task.points) for task in baseline.tasks)
        budget = self._asked or points + _GENERIC_TRIALS * len(baseline.generic)
        shares = {task.key: baseline.share_of(task) for task in baseline.generic}
        self.schedules = {
            key: min(_GENERIC_TRIALS, int(budget * share)) for key, share in shares.items() if share > _LEAST_SHARE
        }
        self.points = min(points, budget - sum(self.schedules.values()))
        self._kernels, self._compile_seconds = len(baseline.tasks) + len(baseline.generic), baseline.compile_seconds

    @property
    def trials(self) -> int:
        """Number of trials to have made in the end, of points and of schedules."""
        return self.points + sum(self.schedules.values())

    @property
    def seconds(self) -> float:
        """Seconds since the session began."""
        return self._clock() - self._start

    def learn(self, *, of_trial: float | None = None, of_run: float | None = None) -> None:
        """Update the estimates by the seconds that a trial took, or that timing its kernel alone took."""
        if of_trial is not None:
            self._seconds_of_trial = 0.5 * self._seconds_of_trial + 0.5 * of_trial
        if of_run is not None:
            self._seconds_of_run = 0.5 * self._seconds_of_run + 0.5 * of_run

    def minutes_left(self, made: int) -> float:
        """Return an estimate of the minutes left of the session after `made` trials, the judgement included."""
        seconds = max(0, self.trials - made) * self._seconds_of_trial + self._seconds_after()
        if self._minutes is not None:
            seconds = min(seconds, 60 * self._minutes - self.seconds)
        return max(0.0, seconds) / 60

    def is_over(self, trials: int) -> bool:
        """Whether so many more trials would leave too little time for contest and judgement."""
        if self._minutes is None:
            return False
        return self.seconds + self._seconds_after() + trials * self._seconds_of_trial > 60 * self._minutes

    def _seconds_after(self) -> float:
        """Return an estimate of the seconds that contest, compilation and judgement will take."""
        contest = self._kernels * (1 + self.effort.finalists) * self.effort.turns * self._seconds_of_run
        return contest + 1.2 * self._compile_seconds + 2.5 * self.effort.comparison
