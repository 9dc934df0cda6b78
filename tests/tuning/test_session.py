"""Whole sessions with real builders and runners, on a network of two kernels."""

from __future__ import annotations

import json
import signal
import time

import pytest
from tiny_tuning import INFO
from torch import nn

from enet_tvm.agreement import PICTURES
from enet_tvm.compiler.compile import CompileRequest, compile_artifact
from enet_tvm.compiler.kernels.common.elements import dot_products
from enet_tvm.compiler.tuning_log import read_log
from enet_tvm.errors import UserError
from enet_tvm.networks import NetworkInMemory
from enet_tvm.targets import load_target
from enet_tvm.tuning.records import FAILED, TRIALS
from enet_tvm.tuning.search import Search
from enet_tvm.tuning.session import tune

pytestmark = pytest.mark.usefixtures("meta_schedule")

# Rounds of three, each of which is reported; the process is then waiting to be killed, or going on.
IN_ROUNDS = """
import sys
from tiny_tuning import tiny_request
from enet_tvm.tuning import session
from enet_tvm.tuning.budget import Effort
from enet_tvm.tuning.report import Listener

class Printing(Listener):
    def progress(self, progress):
        print(progress.stage, progress.done, flush=True)

session.tune(tiny_request(sys.argv[1], trials=16, effort=Effort(round=3, comparison=2.0)), Printing())
"""


def test_plan_alone_leaves_nothing(tiny_request, heard, tmp_path):
    request = tiny_request(trials=0)
    assert tune(request, heard) is None
    (plan,) = heard.plans
    assert {task.name for task in plan.tasks} >= {"conv2d_3x3_3to32_40x16_relu", "softmax"}
    assert sum(task.share for task in plan.tasks) == pytest.approx(1)
    assert [task.share for task in plan.tasks] == sorted((task.share for task in plan.tasks), reverse=True)
    assert plan.trials > 10
    assert plan.untuned_ms > 0
    assert plan.minutes > 0
    assert not request.out.exists()


@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_killed_and_resumed(tiny_request, tiny_process, heard, tmp_path, monkeypatch):
    process = tiny_process(IN_ROUNDS)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("trials 3"):
            break
    else:
        pytest.fail("the session ended before its first round")
    process.send_signal(signal.SIGKILL)
    process.wait()
    work = tmp_path / "logs" / "native" / ".tiny-40x16-1thread.unfinished"
    on_disk = len((work / TRIALS).read_text().splitlines())
    assert on_disk >= 3
    assert not (tmp_path / "logs" / "native" / "tiny-40x16-1thread").exists()
    # As if the kill had hit in the middle of a line.
    with open(work / TRIALS, "a") as file:
        file.write('[0,[[["GetSBl')

    # One kernel does not compile and another crashes at some point: they are counted, and never chosen.
    broken = sabotage(monkeypatch)
    for _ in range(3):
        # On a busy machine a tuned network of two kernels may look slower than it is; the session then only judges again.
        result = tune(tiny_request(trials=16), heard)
        assert result is not None
        if result.written:
            break
    assert heard.plans[0].measured == on_disk
    assert result.written, result.reason
    log = read_log(result.directory)
    assert result.log == log
    assert (log.workload.folder, log.trials) == ("tiny-40x16-1thread", 16)
    assert log.failed == len(json.loads((result.directory / "failures.json").read_text())) >= 1
    assert sum(result.failures.values()) == log.failed
    assert any("cannot be generated: on purpose" in reason for reason in result.failures)
    assert broken
    assert all((choice.name, str(choice.point)) not in broken for choice in log.kernels)
    assert all(choice.point_us < FAILED for choice in log.kernels)
    assert log.parity.label_agreement >= PICTURES["float32"]
    softmax = next(choice for choice in log.functions if choice.name == "softmax")
    (share,) = (task.share for task in heard.plans[0].tasks if task.name == "softmax")
    assert softmax.trials == int(16 * share) >= 1
    assert not work.exists()
    last = heard.states[-1]
    assert (last.stage, last.failed) == ("contest of the best", log.failed)
    assert 0 < last.predicted_ms <= last.untuned_ms * 1.001

    # What it wrote is what compile takes, and there is nothing left to measure.
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "logs").rename("tuning_logs")
    request = tiny_request(trials=16)
    said: list[str] = []
    manifest = compile_artifact(CompileRequest(request.workload), tmp_path / "artifact", say=said.append)
    assert manifest.tuning is not None
    assert manifest.tuning.kernels == len(log.kernels) + len(log.functions)
    assert said[0].startswith(f"tuning: {manifest.tuning.kernels} of ")


def sabotage(monkeypatch: pytest.MonkeyPatch) -> set[tuple[str, str]]:
    """Make every third point that has not been measured yet impossible to generate; returns those that were asked for."""
    from enet_tvm.tuning.tasks import Task

    original = Task.module
    asked: set[tuple[str, str]] = set()

    def module(self, point):
        if point != self.default and self.points.index(point) % 3 == 2 and (self.name, str(vars(point))) not in spared:
            asked.add((self.name, str(vars(point))))
            raise ValueError("on purpose")
        return original(self, point)

    spared: set[tuple[str, str]] = set()
    run = Search.run

    def search(self):
        for task in self.baseline.tasks:
            spared.update((task.name, str(vars(point))) for point in self.store.records.measured(task))
        run(self)

    monkeypatch.setattr(Task, "module", module)
    monkeypatch.setattr(Search, "run", search)
    return asked


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_log_of_another_dtype(tiny_request, heard):
    if "bfloat16" not in dot_products(load_target("native").to_tvm()):
        pytest.skip("this processor has no dot product of bfloat16")
    result = tune(tiny_request(trials=4, dtype="bfloat16"), heard)
    assert result is not None
    assert result.log.workload.dtype == "bfloat16"
    assert result.directory.name == "tiny-40x16-bfloat16-1thread"
    assert not result.parity_failed
    assert all(kernel.trials for kernel in result.log.kernels)


@pytest.mark.slow
def test_interrupted(tiny_process, tmp_path):
    process = tiny_process(IN_ROUNDS)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("trials"):
            break
    process.send_signal(signal.SIGINT)
    start = time.monotonic()
    assert process.wait(60) != 0
    assert time.monotonic() - start < 60
    work = tmp_path / "logs" / "native" / ".tiny-40x16-1thread.unfinished"
    assert len((work / TRIALS).read_text().splitlines()) >= 3
    assert (work / "session.json").is_file()


def test_what_cannot_be_tuned_here(tiny_request, tmp_path):
    for name in ("rpi4", "rpi5"):
        with pytest.raises(UserError, match="give --tracker HOST:PORT"):
            tune(tiny_request(target=load_target(name)))
    lacking = load_target("native").model_copy(update={"name": "better", "cpu_features": ("no_such_extension",)})
    with pytest.raises(UserError, match="lacks no_such_extension of better"):
        tune(tiny_request(target=lacking))
    onnx = tmp_path / "network.onnx"
    onnx.write_bytes(b"")
    with pytest.raises(UserError, match="tune the weights that it came from"):
        tune(tiny_request(weights=onnx))
    in_memory = NetworkInMemory(nn.Conv2d(3, 2, 1), INFO)
    with pytest.raises(UserError, match="in memory, and a log is of weights on disk"):
        tune(tiny_request(weights=in_memory))
