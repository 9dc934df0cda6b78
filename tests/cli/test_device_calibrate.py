from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from enet_tvm.cli.main import build_app
from enet_tvm.compiler.cuda.calibration import Calibration, Constants, read_calibration
from enet_tvm.errors import UserError
from enet_tvm.tuning import gpu_calibration

FOUND = Calibration(
    target="jetson-tx1",
    arch="sm_53",
    gpu="Tegra X1",
    date="2026-11-26T03:04:05+00:00",
    enet_tvm="0.1.0",
    multiprocessors=2,
    constants=Constants(
        ghz=0.9, gbps=19.5, l1_bytes=60, shared_bytes=110, l2_bytes=25, latency=90, memory_latency=500, launch_us=4.5
    ),
)


def test_the_table_and_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(gpu_calibration, "calibrate_gpu", lambda *_: FOUND)
    result = CliRunner(env={"COLUMNS": "120"}).invoke(
        build_app(), ["device", "calibrate", "--target", "jetson-tx1", "--json", "it.json"]
    )
    assert result.exit_code == 0, result.output
    assert "Tegra X1, 2 multiprocessors of sm_53" in result.output
    rows = {line.split("  ")[0].strip(): line.split() for line in result.output.splitlines()}
    assert rows["main memory"][2:5] == ["25.6", "19.5", "GB/s"]
    assert rows["between two launches"][3:5] == ["5", "4.5"]
    assert "written: calibrations/jetson-tx1.toml" in result.output
    assert read_calibration(Path("calibrations/jetson-tx1.toml")) == FOUND
    assert json.loads(Path("it.json").read_text())["constants"]["gbps"] == 19.5


def test_without_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(build_app(), ["device", "calibrate", "--target", "jetson-tx1"])
    assert isinstance(result.exception, UserError)
    assert "give --tracker HOST:PORT" in str(result.exception)
    assert not Path("calibrations").exists()


def test_a_key_without_a_tracker():
    result = CliRunner().invoke(build_app(), ["device", "calibrate", "--target", "jetson-tx1", "--key", "board"])
    assert isinstance(result.exception, UserError)
    assert "--key names a device at a tracker" in str(result.exception)
