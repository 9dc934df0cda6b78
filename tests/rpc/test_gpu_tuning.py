"""Calibrating and tuning on the GPU of a device behind a tracker, whose driver records what it is called for."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import tiny_tuning
from recording_driver import RecordingDriver, recorded_target
from torch import nn

from enet_tvm.compiler import compile as compiler
from enet_tvm.compiler.cuda.tools import CudaTools
from enet_tvm.errors import UserError
from enet_tvm.evaluation import parity
from enet_tvm.targets import load_target
from enet_tvm.tuning import gpu_calibration
from enet_tvm.tuning.budget import Effort
from enet_tvm.tuning.gpu_calibration import calibrate_gpu
from enet_tvm.tuning.measure import Fleet, Timing
from enet_tvm.tuning.report import Listener
from enet_tvm.tuning.session import tune

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

TIMING = Timing(repeats=2, milliseconds=1, timeout=60.0)


@pytest.fixture
def board(tools: CudaTools, farm: Any, tmp_path: Path) -> Fleet:
    """A device with that GPU."""
    for name in ("cloudpickle", "xgboost"):
        pytest.importorskip(name)
    try:
        recording = RecordingDriver.build(tmp_path / "driver")
    except UserError as error:
        pytest.skip(str(error))
    _, tracker = farm.start_tracker()
    farm.start_server(tracker, environment={**os.environ, "LD_LIBRARY_PATH": str(recording.folder)})
    return Fleet(tracker, "board")


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """The network of `tiny_request` is two convolutions."""
    layers = nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 2, 1)
    monkeypatch.setattr(tiny_tuning, "tiny_network", lambda: nn.Sequential(*layers).eval())
    for module in (compiler, parity):
        monkeypatch.setattr(module, "load_network", module.load_network)  # to be put back


def test_calibrating(board: Fleet, monkeypatch: pytest.MonkeyPatch):
    benchmarks = gpu_calibration.microbenchmarks
    monkeypatch.setattr(gpu_calibration, "microbenchmarks", lambda _, one: benchmarks(1, one))
    found = calibrate_gpu(recorded_target(), board, timing=TIMING)
    assert (found.gpu, found.arch, found.multiprocessors) == ("Fake 0", "sm_53", 1016)
    assert found.constants.launch_us == pytest.approx(0.1)
    with pytest.raises(UserError, match="rtx-3090 has a GPU of sm_86, and Fake 0 is sm_53; name its own target"):
        calibrate_gpu(load_target("rtx-3090"), board)


@pytest.mark.usefixtures("tiny")
def test_tuning(board: Fleet, tmp_path: Path):
    class Heard(Listener):
        def __init__(self) -> None:
            self.notes: list[str] = []

        def note(self, sentence: str) -> None:
            self.notes.append(sentence)

    heard = Heard()
    effort = Effort(round=6, turns=2, finalists=1, comparison=0.2)
    request = tiny_tuning.tiny_request(tmp_path, target=recorded_target(), fleet=board, trials=6, effort=effort, timing=TIMING)
    result = tune(request, heard)
    assert result is not None
    assert "measuring the network with and without the log, in turns" in heard.notes
    assert result.failures == {}
    assert result.log.trials == 6
    assert not result.log.modelled
    assert result.log.host == "Fake 0"
    assert all(0 < kernel.default_us <= 1500 for kernel in result.log.kernels)
    # Nothing computes there.
    assert result.parity_failed
    with pytest.raises(UserError, match="rtx-3090 has a GPU of sm_86, and Fake 0 is sm_53; name its own target"):
        tune(tiny_tuning.tiny_request(tmp_path, target=load_target("rtx-3090"), fleet=board))
