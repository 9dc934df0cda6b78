"""Tuning for a GPU that is not at hand, by its model; and for one that a recording driver stands in for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny_tuning
from cuda_network import launches
from recording_driver import RecordingDriver
from torch import nn

from enet_tvm.compiler import roofline
from enet_tvm.compiler.compile import CompileRequest, compile_artifact
from enet_tvm.compiler.cuda.calibration import Calibration
from enet_tvm.compiler.cuda.cost import Chip, kernel_bounds
from enet_tvm.compiler.cuda.device_compiler import kernel_ptx
from enet_tvm.compiler.cuda.machine_code import read_machine_code
from enet_tvm.compiler.cuda.ptxas import assembled
from enet_tvm.compiler.cuda.tools import CudaTools
from enet_tvm.compiler.frontend.torch_import import from_torch
from enet_tvm.compiler.kernels.gpu.conv2d import GpuConv2DTemplate, GpuConvolutionTemplate
from enet_tvm.compiler.kernels.gpu.geometry import geometry_of
from enet_tvm.compiler.kernels.gpu.tile import GpuTile, GpuUnit
from enet_tvm.compiler.ops import FusedConv2D
from enet_tvm.compiler.pipeline import Numerics
from enet_tvm.compiler.tuning_log import TuningLog, read_log
from enet_tvm.compiler.workload import Workload
from enet_tvm.errors import UserError
from enet_tvm.targets import load_target
from enet_tvm.tuning.budget import Effort
from enet_tvm.tuning.measure import Outcome
from enet_tvm.tuning.modelled import Modelled, ModelledKernels
from enet_tvm.tuning.session import tune
from enet_tvm.tuning.tasks import alone, find_gpu_tasks

TX1 = load_target("jetson-tx1")
FOLDER = Path("jetson-tx1/tiny-40x16-4threads")

pytestmark = pytest.mark.usefixtures("tools")


@pytest.mark.slow
def test_kernels_are_what_the_model_makes_of_them(tools: CudaTools, tmp_path: Path):
    assert TX1.gpu is not None
    spec = FusedConv2D((1, 16, 24, 40), (1, 16, 24, 40), (3, 3), (1, 1), (1, 1), (1, 1))
    template, chip = GpuConv2DTemplate(spec, GpuUnit.of(TX1.gpu)), Chip.of(TX1)
    good, other, crowded = GpuTile(4, 8, 64, 1), GpuTile(2, 4, 32, 4), GpuTile(16, 16, 32, 1)
    kernels = ModelledKernels(TX1, chip, tmp_path / "libraries", workers=1)
    try:
        built = kernels.build([alone(template.kernel(tile)) for tile in (good, other, crowded)])
    finally:
        kernels.close()
    failure = built.pop()
    assert isinstance(failure, Outcome)
    assert failure.reason in ("it spills registers", "it takes more than 128 registers")
    first, second = kernels.run([path for path in built if isinstance(path, Path)], [[], []])
    kernel = template.kernel(good)
    made = assembled(kernel_ptx(kernel, TX1.to_tvm(), "sm_53"), "sm_53", tools)
    (code,) = read_machine_code(made.cubins, "sm_53").values()
    bounds = kernel_bounds(code, made.resources[0], geometry_of(kernel), chip)
    assert first.seconds == pytest.approx((1e-6 * bounds.longest,))
    assert second.seconds != first.seconds


def test_with_float16_what_is_ranked_is_what_runs():
    """Kernels with the tensors of float16 that the network has, and with arithmetic in it; what is outside stays float32."""
    network = nn.Sequential(
        *(nn.Conv2d(3, 16, 3, padding=1), nn.PReLU(16), nn.Conv2d(16, 16, 3, padding=1), nn.PReLU(16)),
        *(nn.Conv2d(16, 64, 1), nn.PReLU(64), nn.Conv2d(64, 16, 3, padding=1)),
    )
    imported = from_torch(network.eval(), (1, 3, 16, 24))
    tasks = find_gpu_tasks(launches(imported, "jetson-tx1", numerics=Numerics("float16")))
    shorts = []
    for task in tasks:
        parameters = task.module(task.default)["main"].params
        shorts.append({str(each.name) for each in parameters if str(each.ty.dtype) == "float16"})
    assert shorts == [{"out"}, {"data", "out"}, {"data"}]
    kinds = ["GpuConv2DTemplate", "GpuHalf2BottleneckTemplate", "GpuHalf2Conv2DTemplate"]
    assert [type(task.template).__name__ for task in tasks] == kinds
    plain = find_gpu_tasks(launches(imported, "jetson-tx1"))
    assert not any("float16" in str(each.ty) for task in plain for each in task.module(task.default)["main"].params)


def test_a_model_with_other_figures_is_another_one():
    """So that what was modelled with the figures of a data sheet is not taken for what calibrated ones say."""
    place = Modelled(TX1)
    before = place.processor
    assert place.modelled
    place.chip = replace(place.chip, gbps=place.chip.gbps / 2)
    assert place.processor != before


def test_a_calibration_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """By tuning and by predictions, which say so."""
    monkeypatch.chdir(tmp_path)
    constants = {"ghz": 0.9, "gbps": 12.5, "l1_bytes": 50, "shared_bytes": 100, "l2_bytes": 20}
    latencies = {"latency": 90, "memory_latency": 600, "launch_us": 9}
    facts = {"target": "jetson-tx1", "arch": "sm_53", "gpu": "Tegra X1", "date": "2026-11-26T00:00:00+00:00", "enet_tvm": "0"}
    made = Calibration.model_validate({**facts, "multiprocessors": 2, "constants": {**constants, **latencies}})
    made.write(tmp_path / "calibrations" / "jetson-tx1.toml")
    place = Modelled(TX1)
    assert (place.chip.gbps, place.chip.multiprocessor.launch_us) == (12.5, 9)
    assert "as measured on Tegra X1 on 2026-11-26" in place.source
    monkeypatch.setattr(roofline, "compile_untuned", lambda workload: None)
    monkeypatch.setattr(roofline, "predict_compiled", lambda compiled, chip: ())
    prediction = roofline.predict(Workload(Path("weights"), None, TX1))
    assert prediction.chip == place.chip
    assert prediction.source in place.source


def two_convolutions() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 2, 1)).eval()


@pytest.fixture
def modelled_request(tiny_request: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Makes ``modelled_request()`` the tuning of two convolutions for a Jetson TX1, whose defaults are their worst points."""
    monkeypatch.setattr(tiny_tuning, "tiny_network", two_convolutions)
    points = GpuConvolutionTemplate.points
    monkeypatch.setattr(GpuConvolutionTemplate, "default", property(lambda template: points(template)[-1]))
    monkeypatch.setattr(GpuConvolutionTemplate, "points", lambda template: list(reversed(points(template)))[:4])
    return lambda **changes: tiny_request(**{"target": TX1, "threads": None, "effort": Effort(round=4), **changes})


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_session(modelled_request: Callable[..., Any], heard: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    class Stopping(type(heard)):  # type: ignore[misc]
        def progress(self, progress: Any) -> None:
            raise KeyboardInterrupt

    request, directory = modelled_request(), tmp_path / "logs" / FOLDER
    stopped = Stopping()
    with pytest.raises(KeyboardInterrupt):
        tune(request, stopped)
    assert not directory.exists()
    assert "nothing will be measured, kernels are ranked by the model of 'enet-tvm roofline' for sm_53" in stopped.notes[0]

    result = tune(request, heard)
    assert result is not None
    (plan,) = heard.plans
    assert plan.modelled
    assert plan.measured == 4
    assert plan.trials == 8
    assert result.written
    log = read_log(directory)
    assert log == result.log
    assert log.modelled
    assert log.parity is None
    assert log.host.startswith("the model of jetson-tx1")
    assert log.target.gpu == "sm_53"
    assert log.after_ms < log.before_ms
    assert any(kernel.point != kernel.default for kernel in log.kernels)

    monkeypatch.chdir(tmp_path)
    said: list[str] = []
    chosen = CompileRequest(request.workload, tuning_log=directory)
    manifest = compile_artifact(chosen, tmp_path / "artifact", say=said.append)
    assert manifest.tuning is not None
    assert manifest.tuning.modelled
    assert said == [f"tuning: 2 of 2 kernels by {directory} of {log.date[:10]}, which is modelled, not measured"]

    fields = log.model_dump(mode="json")
    parity = {"pictures": 1, "inputs": "", "label_agreement": 1.0, "max_abs_logit_diff": 0.0}
    measured = TuningLog.model_validate({**fields, "modelled": False, "parity": parity, "host": "a board"})
    (directory / "log.json").write_text(measured.model_dump_json())
    with pytest.raises(UserError, match="was measured on a board, and what a model says does not take its place"):
        tune(request, heard)
    assert read_log(directory) == measured


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_session_where_nothing_is_better(modelled_request: Callable[..., Any], heard: Any, tmp_path: Path):
    """Because the defaults alone are tried."""
    result = tune(modelled_request(trials=2), heard)
    assert result is not None
    assert not result.written
    assert "no kernel is faster" in result.reason
    assert not (tmp_path / "logs" / FOLDER).exists()


MEASURED = """
import tiny_tuning
from recording_driver import recorded_target
from torch import nn
from enet_tvm.tuning.budget import Effort
from enet_tvm.tuning.report import Listener
from enet_tvm.tuning.session import tune

class Heard(Listener):
    plans, notes = [], []
    def plan(self, plan):
        self.plans.append(plan)
    def note(self, sentence):
        self.notes.append(sentence)

tiny_tuning.tiny_network = lambda: nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 2, 1)).eval()
heard = Heard()
effort = Effort(round=6, turns=2, finalists=1, comparison=0.2)
request = tiny_tuning.tiny_request(sys.argv[2], target=recorded_target(), trials=6, effort=effort)
result = tune(request, heard)
answer(
    plan=heard.plans[0].untuned_ms,
    modelled=heard.plans[0].modelled,
    notes=heard.notes,
    parity_failed=result.parity_failed,
    log=result.log.model_dump(mode="json"),
    failures=result.failures,
)
"""


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> RecordingDriver:
    try:
        return RecordingDriver.build(tmp_path_factory.mktemp("cuda"))
    except UserError as error:
        pytest.skip(str(error))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_session_on_a_gpu_that_is_at_hand(recording: RecordingDriver, tmp_path: Path):
    """All of it but the arithmetic: that is for a GPU, and what this one returns is not what PyTorch computes."""
    path = tiny_tuning.environment()["PYTHONPATH"]
    got = recording.run(MEASURED, str(tmp_path), seconds=500, PYTHONPATH=path)
    assert got["modelled"] is False
    assert "measuring the network with and without the log, in turns" in got["notes"]
    # An event of the driver's is 1.5 ms after the one before it, however many launches are between.
    assert got["plan"] == pytest.approx(1.5)
    assert got["failures"] == {}
    assert got["log"]["modelled"] is False
    assert got["log"]["host"] == "Fake 0"
    assert got["log"]["trials"] == 6
    assert {kernel["trials"] for kernel in got["log"]["kernels"]} == {3}
    assert all(0 < kernel["default_us"] <= 1500 for kernel in got["log"]["kernels"])
    assert got["parity_failed"] is True
