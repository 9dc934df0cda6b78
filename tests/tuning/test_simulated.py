"""Tuning for an ARM processor that is not at hand, by what an emulated one executes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_tuning
from torch import nn

from enet_tvm.compiler.arm.tools import arm_tools
from enet_tvm.compiler.compile import CompileRequest, compile_artifact
from enet_tvm.compiler.debian_packages import UnavailableError
from enet_tvm.compiler.kernels.cpu.conv2d import Conv2DTemplate, tiles_of
from enet_tvm.compiler.kernels.cpu.register_tile import RegisterTile
from enet_tvm.compiler.tuning_log import TuningLog, read_log
from enet_tvm.errors import UserError
from enet_tvm.targets import load_target
from enet_tvm.tuning.budget import Effort
from enet_tvm.tuning.measure import Outcome
from enet_tvm.tuning.session import tune
from enet_tvm.tuning.simulated import Simulated, SimulatedKernels

pytestmark = [pytest.mark.emulated, pytest.mark.slow, pytest.mark.timeout(600)]

RPI4 = load_target("rpi4")
FOLDER = Path("rpi4/tiny-40x16-2threads")


def two_convolutions() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 1), nn.ReLU(), nn.Conv2d(16, 2, 1)).eval()


@pytest.fixture
def simulated_request(tiny_request: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Makes ``simulated_request()`` the tuning of convolutions whose default is their smallest tile."""
    try:
        arm_tools()
    except UnavailableError as error:
        pytest.skip(str(error))
    monkeypatch.setattr(tiny_tuning, "tiny_network", two_convolutions)

    def smallest(template: Conv2DTemplate) -> list[RegisterTile]:
        return sorted(tiles_of(template.spec, template.unit), key=lambda tile: tile.pixels * tile.blocks)[:4]

    monkeypatch.setattr(Conv2DTemplate, "points", smallest)
    monkeypatch.setattr(Conv2DTemplate, "default", property(lambda template: template.points()[0]))
    return lambda **changes: tiny_request(
        **{"target": RPI4, "threads": 2, "simulate": True, "effort": Effort(round=4, comparison=2.0), **changes}
    )


def test_a_session(simulated_request: Callable[..., Any], heard: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    request, directory = simulated_request(), tmp_path / "logs" / FOLDER
    result = tune(request, heard)
    assert result is not None
    (plan,) = heard.plans
    assert plan.modelled
    assert plan.units == ("million cycles", "thousand cycles")
    assert result.written, result.reason
    log = read_log(directory)
    assert log == result.log
    assert log.modelled
    assert log.simulated
    assert log.parity is None
    assert log.host == "the simulation of cortex-a72 by LLVM's model of cortex-a72"
    assert log.after_ms < log.before_ms
    assert any(kernel.point != kernel.default and kernel.point_us < kernel.default_us for kernel in log.kernels)
    assert "nothing will be measured" in heard.notes[0]
    counts = next(note for note in heard.notes if note.startswith("instructions of the kernels on the busiest thread: "))
    untuned, tuned = (float(part.split()[0]) for part in counts.split(": ")[1].split(", "))
    assert tuned <= untuned

    monkeypatch.chdir(tmp_path)
    said: list[str] = []
    manifest = compile_artifact(CompileRequest(request.workload, tuning_log=directory), tmp_path / "artifact", say=said.append)
    assert manifest.tuning is not None
    assert manifest.tuning.simulated
    assert len(said) == 1
    assert said[0].endswith(f"by {directory} of {log.date[:10]}, which is simulated, not measured")

    parity = {"pictures": 1, "inputs": "", "label_agreement": 1.0, "max_abs_logit_diff": 0.0}
    fields = {**log.model_dump(mode="json"), "modelled": False, "simulated": False, "parity": parity, "host": "a board"}
    measured = TuningLog.model_validate(fields)
    (directory / "log.json").write_text(measured.model_dump_json())
    with pytest.raises(UserError, match="was measured on a board, and what a model says does not take its place"):
        tune(request, heard)
    assert read_log(directory) == measured


def test_a_session_where_nothing_is_better(simulated_request: Callable[..., Any], heard: Any, tmp_path: Path):
    """Because the defaults alone are tried."""
    result = tune(simulated_request(trials=1), heard)
    assert result is not None
    assert not result.written
    assert "no kernel is faster" in result.reason
    assert not (tmp_path / "logs" / FOLDER).exists()


def test_a_kernel_that_cannot_be_simulated(simulated_request: Callable[..., Any], heard: Any, monkeypatch: pytest.MonkeyPatch):
    failed = Outcome(reason="the emulator ended")
    monkeypatch.setattr(SimulatedKernels, "build", lambda kernels, modules: [failed] * len(modules))
    with pytest.raises(
        UserError, match=r"^\w*conv\w* cannot be simulated: the emulator ended; tune on a device: give --tracker"
    ):
        tune(simulated_request(), heard)


def test_the_name_says_the_model():
    assert Simulated(load_target("rpi5"), 4).processor == "the simulation of cortex-a76 by LLVM's model of neoverse-n1"
