"""Which trials are next, and what becomes of rounds that go wrong. That rounds run is tested by whole sessions."""

from __future__ import annotations

from pathlib import Path

import pytest

from enet_tvm.errors import UserError
from enet_tvm.tuning.baseline import Baseline
from enet_tvm.tuning.budget import Budget
from enet_tvm.tuning.cost_model import CostModel, Trial
from enet_tvm.tuning.measure import Outcome
from enet_tvm.tuning.report import Listener
from enet_tvm.tuning.search import Search
from enet_tvm.tuning.store import Store
from tests.tuning.conftest import TARGET, conv2d_task

pytestmark = pytest.mark.usefixtures("meta_schedule")


class Answers:
    """Stands for devices: each trial ends as it is said."""

    def __init__(self, *outcomes: Outcome) -> None:
        self.outcomes = outcomes

    def measure(self, trials):
        return [self.outcomes[place % len(self.outcomes)] for place in range(len(trials))]


@pytest.fixture
def search(tmp_path: Path):
    """Makes the search of two convolutions, the second of which takes longer, by outcomes."""
    tasks = [conv2d_task(14), conv2d_task(20)]
    tasks[1] = type(tasks[1])(tasks[1].key, tasks[1].name, (1,), tasks[1].template)
    store = Store(tmp_path / "tiny")
    store.begin({"network": "tiny"}, print)
    store.open_records(TARGET, {task.key for task in tasks})
    baseline = Baseline(tasks, [], [1.0, 2.0], 3.0, 0.0)
    return lambda *outcomes: Search(baseline, store, Budget(), Answers(*outcomes), TARGET, Listener())


LOST = Outcome(reason="the device went away", of_kernel=False)
CRASHED = Outcome(reason="it crashed")
RAN = Outcome(seconds=(2e-3, 1e-3))


@pytest.mark.parametrize("count", [1, 3])
def test_a_device_that_is_gone_ends_the_session(search, count: int):
    with pytest.raises(UserError, match=r"^the device went away; 0 trials are kept in .*, and the same command goes on"):
        search(LOST).measure([Trial(None, None)] * count)


def test_a_round_that_fails_as_a_whole_is_not_the_kernels_fault(search):
    made = search(CRASHED)
    task = made.baseline.tasks[0]
    with pytest.raises(UserError, match=r"all 2 trials of a round failed \(it crashed\); nothing of it was written down"):
        made.measure([Trial(task, point) for point in task.points[:2]])
    assert (made.store.trials, made.store.failures) == (0, [])


def test_what_ran_and_what_failed_is_written_down_and_what_was_lost_is_not(search):
    made = search(RAN, CRASHED, LOST)
    task = made.baseline.tasks[0]
    trials = [Trial(task, point) for point in task.points[:3]]
    assert made.measure(trials) == {trials[0]: 1e-3}
    assert made.store.trials == 2
    assert made.store.records.samples(task, task.points[2]) == []
    assert [(failure["kernel"], failure["reason"]) for failure in made.store.failures] == [(task.name, "it crashed")]


def test_the_defaults_come_first_then_the_kernels_that_take_longest(search):
    made = search(RAN)
    quick, slow = made.baseline.tasks
    model = CostModel(made.baseline.tasks, TARGET)
    first, second, third, *_ = made.promising(model)
    assert [(trial.task, trial.point) for trial in (first, second)] == [(slow, slow.default), (quick, quick.default)]
    assert (third.task, third.point) == (slow, slow.points[1])
    made.measure([first])
    assert made.promising(model)[0] == second
    assert first not in made.promising(model)
