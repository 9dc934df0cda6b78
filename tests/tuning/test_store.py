"""What is kept on disk: by whom it is used again, and what becomes of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from enet_tvm.artifact import LIBRARY_NAME
from enet_tvm.compiler.tuning_keys import point_dict
from enet_tvm.compiler.tuning_log import LOG_NAME, KernelChoice, LoggedWorkload, LogTarget, Parity, TuningLog, read_log
from enet_tvm.errors import UserError
from enet_tvm.targets import load_target
from enet_tvm.tuning.records import TRIALS, WORKLOADS
from enet_tvm.tuning.store import FAILURES, IDENTITY, Store, identity_of
from enet_tvm.version import stack_versions
from tests.tuning.conftest import TARGET, conv2d_task

pytestmark = pytest.mark.usefixtures("meta_schedule")

NETWORK = LoggedWorkload(network="tiny", width=40, height=16, batch=1, threads=1)


def identity(processor: str = "a processor") -> dict:
    return identity_of(NETWORK, LogTarget.of(load_target("x86-64-v3")), processor)


def begun(directory: Path, heard: list[str] | None = None, **options) -> Store:
    """A session of one task, whose folder is made."""
    store = Store(directory)
    said: list[str] = [] if heard is None else heard
    store.begin(options.pop("identity", identity()), said.append, **options)
    store.open_records(TARGET, {conv2d_task().key})
    return store


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "logs" / "native" / "tiny"


@pytest.fixture
def interrupted(directory: Path) -> Store:
    """A session of one trial that ran and one that failed, and of a kernel that was built."""
    store, task = begun(directory), conv2d_task()
    store.records.add(task, task.points[0], [1e-3], [])
    store.records.add(task, task.points[1], [], [])
    store.add_failure(task.name, str(task.points[1]), "it crashed")
    store.libraries.mkdir()
    (store.libraries / LIBRARY_NAME).write_bytes(b"kernel")
    return store


def log_of(store: Store) -> TuningLog:
    stack, task = stack_versions(), conv2d_task()
    point = point_dict(task.default)
    return TuningLog(
        workload=NETWORK,
        target=LogTarget.of(load_target("x86-64-v3")),
        apache_tvm=stack["apache-tvm"],
        apache_tvm_ffi=stack["apache-tvm-ffi"],
        enet_tvm="1",
        host=store.processor,
        date="2026-01-01T00:00:00+00:00",
        trials=store.trials,
        failed=len(store.failures),
        minutes=1.0,
        before_ms=2.0,
        after_ms=1.0,
        parity=Parity(pictures=1, inputs="", label_agreement=1.0, max_abs_logit_diff=0.0),
        kernels=(
            KernelChoice(
                **{"key": task.key, "name": task.name, "launches": 1, "point": point, "default": point},
                **{"point_us": 1.0, "default_us": 1.0, "trials": 2},
            ),
        ),
        functions=(),
    )


def test_an_interrupted_session_goes_on(interrupted: Store, directory: Path):
    said: list[str] = []
    store = begun(directory, said)
    assert store.trials == 2
    assert store.failure_counts() == {"it crashed": 1}
    assert said == []
    assert not store.libraries.exists()
    assert store.kept() == f"2 trials are kept in {directory.parent / '.tiny.unfinished'}"
    assert store.goes_on("gone").startswith("gone; 2 trials are kept in ")


def test_another_processor_measures_anew_and_says_so(interrupted: Store, directory: Path):
    said: list[str] = []
    store = begun(directory, said, identity=identity("another"))
    assert (store.trials, store.failures) == (0, [])
    assert said == [f"{store.work} is of another processor: its measurements are not used"]
    assert store.processor == "another"


def test_fresh_forgets(interrupted: Store, directory: Path):
    store = begun(directory, fresh=True)
    assert (store.trials, store.failures) == (0, [])


@pytest.mark.parametrize("content", ["", "[]", "{", "\0"])
def test_an_identity_that_is_broken_is_none(interrupted: Store, directory: Path, content: str):
    (interrupted.work / IDENTITY).write_text(content)
    assert begun(directory).trials == 0


def test_a_log_with_its_measurements_takes_its_place_and_is_gone_on_from(interrupted: Store, directory: Path):
    log = log_of(interrupted)
    interrupted.finish(log)
    assert read_log(directory) == log
    assert {path.name for path in directory.iterdir()} == {LOG_NAME, WORKLOADS, TRIALS, IDENTITY, FAILURES}
    assert json.loads((directory / FAILURES).read_text())[0]["reason"] == "it crashed"
    assert not interrupted.work.exists()
    store = begun(directory)
    assert store.trials == 2
    assert read_log(directory) == log  # until another takes its place


def test_nothing_is_left_of_a_session_that_measured_nothing(directory: Path, tmp_path: Path):
    begun(directory).remove_if_idle()
    assert not (tmp_path / "logs").exists()


def test_trials_that_are_nowhere_else_stay(interrupted: Store, directory: Path):
    interrupted.remove_if_idle()
    assert interrupted.work.is_dir()
    interrupted.finish(log_of(interrupted))
    again = begun(directory)
    again.remove_if_idle()
    assert not again.work.exists()
    assert read_log(directory)


def test_a_modelled_session_leaves_what_was_measured(interrupted: Store, directory: Path):
    modelled = Store(directory, modelled=True)
    said: list[str] = []
    modelled.begin(identity("a model"), said.append, fresh=True)
    assert said == []
    assert begun(directory).trials == 2
    interrupted.finish(log_of(interrupted))
    assert not modelled.work.exists()


def test_a_log_that_cannot_be_read_may_have_been_measured(directory: Path):
    store = Store(directory, modelled=True)
    store.require_no_measured_log()
    directory.mkdir(parents=True)
    (directory / "log.json").write_text("{")
    with pytest.raises(UserError, match=r"log\.json.* it may have been measured: move it away"):
        store.require_no_measured_log()


def test_an_old_log_counts_if_it_chose_for_one_of_the_tasks(interrupted: Store, directory: Path):
    assert interrupted.old_log({"a"}) is None
    log = log_of(interrupted)
    interrupted.finish(log)
    assert Store(directory).old_log({"a"}) is None
    assert Store(directory).old_log({"a", conv2d_task().key}) == log


def test_trials_before_there_are_any(tmp_path: Path):
    store = Store(tmp_path / "tiny")
    assert store.trials == 0
    with pytest.raises(UserError):
        read_log(store.directory)
