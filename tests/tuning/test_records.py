"""The database on disk: nothing that was written is lost, nothing that failed is best."""

from __future__ import annotations

from pathlib import Path

import pytest

from enet_tvm.tuning.records import TRIALS, WORKLOADS, Records, repair
from enet_tvm.tuning.tasks import Task
from tests.tuning.conftest import TARGET, conv2d_task

pytestmark = pytest.mark.usefixtures("meta_schedule")


@pytest.fixture
def filled(tmp_path: Path) -> tuple[Path, Task, Task]:
    """A database of two tasks: one point measured twice, one that failed, one of the other task."""
    first, second = conv2d_task(14), conv2d_task(20)
    records = Records(tmp_path, TARGET, {first.key, second.key})
    records.add(first, first.points[0], [3e-3, 2e-3], [])
    records.add(first, first.points[1], [], [])
    records.add(first, first.points[0], [4e-3], [])
    records.add(second, second.points[1], [1e-3], [])
    return tmp_path, first, second


def test_read_again(filled):
    directory, first, second = filled
    records = Records(directory, TARGET, {first.key, second.key})
    assert records.trials == records.points == 3
    once, twice = sorted(records.samples(first, first.points[0]), key=len)
    assert (once, twice) == (pytest.approx((4e-3,)), pytest.approx((3e-3, 2e-3)))
    assert records.best_of(first, first.points[0]) == pytest.approx(2e-3)
    assert records.measured(second) == {second.points[1]: pytest.approx(1e-3)}
    assert records.samples(second, second.points[0]) == []


def test_a_failed_trial_is_remembered_and_never_best(filled):
    directory, first, second = filled
    records = Records(directory, TARGET, {first.key, second.key})
    assert records.samples(first, first.points[1]) == [()]
    assert records.best_of(first, first.points[1]) is None
    assert list(records.measured(first)) == [first.points[0]]


def test_a_point_that_failed_once_is_never_best(filled):
    directory, first, second = filled
    records = Records(directory, TARGET, {first.key, second.key})
    records.add(first, first.points[0], [], [])
    assert records.measured(first) == {}
    assert Records(directory, TARGET, {first.key, second.key}).measured(first) == {}


def test_what_was_measured_of_other_kernels_is_removed(filled):
    """Those of templates as they were would count as trials of today's, and be in the log for ever."""
    directory, first, second = filled
    records = Records(directory, TARGET, {second.key})
    assert records.trials == 1
    assert records.measured(second) == {second.points[1]: pytest.approx(1e-3)}
    assert records.samples(first, first.points[0]) == []
    records.add(first, first.points[0], [5e-3], [])
    again = Records(directory, TARGET, {first.key, second.key})
    assert again.measured(first) == {first.points[0]: pytest.approx(5e-3)}
    assert again.points == 2


@pytest.mark.parametrize("kept", [-1, -40, -200])
def test_half_a_line_of_a_killed_process_is_removed(filled, kept):
    directory, first, second = filled
    path = directory / TRIALS
    path.write_bytes(path.read_bytes()[: kept - 1])
    records = Records(directory, TARGET, {first.key, second.key})
    assert records.points == 2
    records.add(second, second.points[1], [1e-3], [])
    assert Records(directory, TARGET, {first.key, second.key}).measured(second) == {second.points[1]: pytest.approx(1e-3)}
    assert records.best_of(first, first.points[0]) == pytest.approx(2e-3)


def test_records_of_a_lost_workload_are_removed(filled):
    directory, first, second = filled
    path = directory / WORKLOADS
    path.write_text(path.read_text()[:-30])
    assert repair(directory) == 2
    assert repair(directory) == 0
    records = Records(directory, TARGET, {first.key, second.key})
    assert records.measured(second) == {}
    assert records.best_of(first, first.points[0]) == pytest.approx(2e-3)


def test_garbage_is_no_database(tmp_path):
    (tmp_path / WORKLOADS).write_bytes(b"\xff\xfe\x00garbage\n[1]\n")
    (tmp_path / TRIALS).write_text("null\n{}\n")
    assert Records(tmp_path, TARGET, ()).trials == 0
