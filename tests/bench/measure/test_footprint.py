from __future__ import annotations

import os
import signal
from dataclasses import replace

import pytest

from enet_tvm.bench.measure.energy import PowerMeter
from enet_tvm.bench.measure.footprint import Worker, WorkerError, measure_footprint
from enet_tvm.bench.runners import Case
from enet_tvm.compiler.workload import Workload
from enet_tvm.size import Size
from enet_tvm.targets import load_target


@pytest.fixture
def case(compiled_enet, tmp_path):
    return Case(
        Workload(compiled_enet.weights, Size(64, 48), load_target("native"), 1), tmp_path, artifact=compiled_enet.directory
    )


@pytest.fixture
def worker(case):
    worker = Worker("tvm", case, warm_up=0)
    yield worker
    worker.close()
    assert worker.process.poll() is not None


@pytest.mark.slow
def test_alone_and_in_streams(case):
    meter = PowerMeter("VDD_IN", lambda: 4.0)
    footprint = measure_footprint("tvm", case, [2], seconds=0.2, meters=[meter])
    assert footprint.problem == ""
    assert [(rate.streams, rate.threads) for rate in footprint.rates] == [(1, 1), (2, 1)]
    assert all(rate.images_per_second > 0 for rate in footprint.rates)
    assert footprint.load_seconds > 0
    assert footprint.first_seconds > 0
    (energy,) = footprint.energies
    assert energy.watts == pytest.approx(4)
    figures = footprint.to_dict()
    assert figures["energy"][0]["joules_per_pass"] == pytest.approx(energy.joules / footprint.passes)
    assert figures["throughput"][1]["streams"] == 2


def test_a_runner_that_does_not_start_is_a_problem_said(case, compiled_enet):
    footprint = measure_footprint("tvm", replace(case, workload=replace(case.workload, size=Size(96, 64))), [1], seconds=0)
    assert footprint.problem.startswith(f"tvm did not start: {compiled_enet.directory} takes 1 pictures of 64x48")
    assert footprint.rates == ()


@pytest.mark.slow
def test_one_that_dies_while_it_runs(worker):
    worker.answer(timeout=300)
    os.kill(worker.process.pid, signal.SIGSEGV)
    worker.run(1)
    with pytest.raises(WorkerError, match="was ended by SIGSEGV"):
        worker.answer(timeout=60)


def test_one_that_takes_too_long(worker):
    with pytest.raises(WorkerError, match="gave no answer within 0 s"):
        worker.answer(timeout=0.001)


def test_one_that_fails(worker):
    worker.answer(timeout=300)
    worker.process.stdin.write("run away\n")
    worker.process.stdin.flush()
    with pytest.raises(WorkerError, match="failed: ValueError: could not convert string to float: 'away"):
        worker.answer(timeout=60)


@pytest.mark.slow
def test_our_runtime_stays_within_64_mb_beyond_the_libraries(compiled_enet, tmp_path):
    from enet_tvm.bench.runners.tvm_local import artifact_of

    case = Case(Workload(compiled_enet.weights, Size(640, 360), load_target("native"), 1), tmp_path)
    artifact_of(case)
    footprint = measure_footprint("tvm", case, [1], seconds=0)
    assert footprint.problem == ""
    if footprint.memory_bytes is None:
        pytest.skip("the kernel does not let the peak be reset")
    # At least its input and its logits, else it is not measured.
    assert (3 + 11) * 640 * 360 * 4 < footprint.memory_bytes < 64 * 2**20
