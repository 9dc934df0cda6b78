"""Trials and time: how they are shared out, and when it is enough."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enet_tvm.tuning.baseline import Baseline
from enet_tvm.tuning.budget import Budget, Effort


def task(key: str, place: int, points: int = 0) -> SimpleNamespace:
    return SimpleNamespace(key=key, launches=(place,), points=[None] * points)


def baseline(points: int = 40, launches: tuple[float, ...] = (0.6, 0.395, 0.005)) -> Baseline:
    """A kernel of a template, a function that takes two fifths of the time, and one that takes next to none."""
    return Baseline([task("kernel", 0, points)], [task("function", 1), task("small", 2)], launches, 1.0, compile_seconds=10.0)


def shared(trials: int | None = None, minutes: float | None = None, **options) -> Budget:
    budget = Budget(trials, minutes, **options)
    budget.share_out(baseline())
    return budget


def test_all_points_and_a_share_for_what_no_template_made():
    budget = shared()
    assert (budget.points, budget.schedules) == (40, {"function": 48})
    assert budget.trials == 88


def test_few_trials_are_shared_by_time():
    budget = shared(trials=20)
    assert budget.schedules == {"function": 7}
    assert budget.points == 13


@given(st.integers(1, 500), st.integers(1, 300), st.floats(0.01, 0.99))
def test_never_more_than_asked_for(trials: int, points: int, share: float):
    budget = Budget(trials)
    budget.share_out(baseline(points, (1 - share, share, 0.0)))
    assert budget.trials <= trials
    assert 0 <= budget.points <= points


def test_without_a_time_it_is_never_over():
    assert not shared().is_over(10**6)


def test_what_comes_after_the_trials_is_kept_free():
    now = [100.0]
    budget = shared(minutes=5, clock=lambda: now[0])
    # A contest of three kernels (3 x 5 runs of 0.12 s each), 1.2 compilations of 10 s, 2.5 comparisons of 8 s.
    after = 3 * 3 * 5 * 0.12 + 12 + 20
    assert not budget.is_over(0)
    now[0] += 300 - after - 0.1
    assert not budget.is_over(0)
    assert budget.is_over(1)
    now[0] += 0.2
    assert budget.is_over(0)
    assert budget.seconds == pytest.approx(300 - after + 0.1)


def test_less_effort_keeps_less_free():
    for effort, after in ((Effort(), 37.4), (Effort(turns=2, finalists=1), 33.44)):
        budget = shared(minutes=1, effort=effort, clock=lambda: 0.0)
        assert budget.is_over(round((60 - after) / 0.35) + 1)
        assert not budget.is_over(round((60 - after) / 0.35) - 1)


def test_it_learns_what_a_trial_takes():
    budget = shared(clock=lambda: 0.0)
    before = budget.minutes_left(0)
    for _ in range(20):
        budget.learn(of_trial=1.0)
    assert budget.minutes_left(0) - before == pytest.approx(88 * (1.0 - 0.35) / 60, rel=1e-3)
    assert budget.minutes_left(88) < budget.minutes_left(87)
    budget.learn(of_run=10.0)
    assert budget.minutes_left(88) > 3


def test_what_is_left_is_never_more_than_was_asked_for():
    now = [0.0]
    budget = shared(minutes=1, clock=lambda: now[0])
    assert budget.minutes_left(0) == pytest.approx(1)
    now[0] = 120.0
    assert budget.minutes_left(0) == 0
