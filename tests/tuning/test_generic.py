"""MetaSchedule's own rules on one small function: searched, written down, found again, applied, and still right."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tvm
from tvm import te, topi

from enet_tvm.compiler.passes.schedule_remaining import SCHEDULED
from enet_tvm.compiler.traces import apply_trace
from enet_tvm.targets import load_target
from enet_tvm.tuning.generic import GenericSearch, trace_json
from enet_tvm.tuning.metaschedule import load_meta_schedule
from enet_tvm.tuning.records import Records
from enet_tvm.tuning.tasks import GenericTask, alone

pytestmark = pytest.mark.usefixtures("meta_schedule")


def pooling() -> tvm.tirx.PrimFunc:
    """3x3 pooling and ReLU, which TOPI marks with a schedule rule that TVM does not have for CPUs."""
    x = te.placeholder((1, 8, 16, 20), name="x")
    pooled = topi.nn.pool2d(x, (3, 3), (2, 2), (1, 1), (1, 1, 1, 1), "max")
    return te.create_prim_func([x, topi.nn.relu(pooled)])


@pytest.mark.slow
def test_search(tmp_path: Path):
    target = load_target("native").to_tvm()
    function = pooling()
    task = GenericTask.of("pool", (0,), function, 8)
    assert GenericTask.of("pool", (0,), pooling(), 8).key == task.key
    records = Records(tmp_path, target, ())
    search = GenericSearch(task, target, records, 12)
    rounds = 0
    while candidates := search.next_round():
        # The second is invented to be the fastest, the first to fail.
        seconds: list[tuple[float, ...]] = [(1e-3 * (2 + place),) for place in range(len(candidates))]
        seconds[0] = ()
        if rounds == 0:
            seconds[1] = (1e-5,)
        search.tell(candidates, seconds)
        rounds += 1
    assert rounds == 2
    assert search.done
    assert not search.failure
    again = Records(tmp_path, target, ())
    assert again.trials == again.schedules(task) == 12
    best, *others = again.generic(task, 100)
    assert float(best.run_secs[0]) < 2e-5
    assert len(others) == 9  # the failed ones are none of them

    scheduled = apply_trace(pooling(), json.loads(json.dumps(trace_json(best))))
    assert scheduled.attrs[SCHEDULED]
    x = np.random.default_rng(0).standard_normal((1, 8, 16, 20)).astype("float32")
    results = []
    for module in (alone(scheduled), task.default_module):
        out = tvm.runtime.tensor(np.zeros((1, 8, 8, 10), "float32"))
        tvm.compile(module, target)["main"](tvm.runtime.tensor(x), out)
        results.append(out.numpy())
    np.testing.assert_array_equal(*results)


@pytest.mark.slow
def test_what_says_nothing_of_a_candidate_is_not_written_down(tmp_path: Path):
    target = load_target("native").to_tvm()
    task = GenericTask.of("pool", (0,), pooling(), 8)
    records = Records(tmp_path, target, ())
    search = GenericSearch(task, target, records, 4)
    candidates = search.next_round()
    search.tell(candidates, [None, (), *[(1e-3,)] * (len(candidates) - 2)])
    assert records.schedules(task) == len(candidates) - 1 == Records(tmp_path, target, ()).trials


def test_what_no_rule_fits_ends_its_search_alone(tmp_path: Path, monkeypatch):
    target = load_target("native").to_tvm()
    task = GenericTask.of("pool", (0,), pooling(), 8)
    search = GenericSearch(task, target, Records(tmp_path, target, ()), 8)

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("ScheduleError: reverse-compute-at does not apply")

    monkeypatch.setattr(load_meta_schedule().TuneContext, "pre_tuning", fail)
    assert search.next_round() == []
    assert search.done
    assert "no rule fits pool" in search.failure
