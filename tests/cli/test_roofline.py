from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from enet_tvm.cli.main import build_app
from enet_tvm.compiler import roofline
from enet_tvm.compiler.cuda.cost import Bounds, Chip
from enet_tvm.compiler.kernels.gpu.geometry import Geometry
from enet_tvm.compiler.roofline import KernelPrediction, Prediction
from enet_tvm.compiler.workload import Workload
from enet_tvm.errors import UserError


@pytest.fixture
def predicted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures of two kernels, one of them launched twice; what makes real ones is tested where it is."""

    def predict(workload: Workload) -> Prediction:
        convolution = KernelPrediction(
            *("conv", "layer.0", 64, Geometry(7, 128, 32, (3,)), 90, 1.25),
            bounds=Bounds(1, 2, 30, 0, 4, 5, 6),
            launch_us=5,
        )
        pooling = KernelPrediction(
            "pool", "layer.1", 0, Geometry(9, 256, 0, ()), 12, None, Bounds(0, 1, 2, 0, 4, 20, 6), launch_us=5
        )
        chip = Chip.of(workload.target)
        kernels = (convolution, pooling, convolution)
        return Prediction(workload.target.name, workload.input_size, chip, kernels, dtype=workload.dtype)

    monkeypatch.setattr(roofline, "predict", predict)


@pytest.mark.usefixtures("predicted")
def test_the_table_and_the_file(tmp_path: Path):
    file = tmp_path / "roofline.json"
    result = CliRunner(env={"COLUMNS": "200"}).invoke(
        build_app(), ["roofline", "--target", "jetson-tx1", "--size", "640x360", "--dtype", "float16", "--json", str(file)]
    )
    assert result.exit_code == 0, result.output
    assert "Prediction for jetson-tx1 at 640x360 in float16, not a measurement" in result.output
    first, second = (line.split() for line in result.output.splitlines() if line.split()[:1] in (["conv"], ["pool"]))
    assert first[:6] == ["conv", "2", "7", "128", "90", "1.25"]
    assert first[-3:] == ["L1", "0.060", "75.0"]
    assert second[-3:] == ["DRAM", "0.020", "25.0"]
    assert "predicted: 0.095 ms a frame, 0.08 ms of them in 3 kernels" in result.output
    assert "the paper measured at 640x360: Jetson TX1 69 ms, Titan X 21 ms" in result.output
    figures = json.loads(file.read_text())
    assert figures["milliseconds"] == pytest.approx(0.095)
    assert [each["binding"] for each in figures["kernels"]] == ["l1", "dram", "l1"]


@pytest.mark.usefixtures("predicted")
def test_each_launch_and_a_size_that_the_paper_has_not():
    result = CliRunner(env={"COLUMNS": "200"}).invoke(
        build_app(), ["roofline", "--target", "h100", "--size", "1920x1080", "--each"]
    )
    assert result.exit_code == 0, result.output
    assert [line.split()[0] for line in result.output.splitlines() if line.strip().startswith("layer.")] == [
        *("layer.0", "layer.1", "layer.0"),
    ]
    assert "the paper measured other sizes: 480x320, 640x360, 1280x720" in result.output


def test_a_target_without_a_gpu():
    result = CliRunner().invoke(build_app(), ["roofline", "--target", "rpi4"])
    assert isinstance(result.exception, UserError)
    assert "rpi4 has no GPU" in str(result.exception)
