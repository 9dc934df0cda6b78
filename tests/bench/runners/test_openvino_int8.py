from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from enet_tvm.bench.runners import RunnerMissingError, open_runner
from enet_tvm.bench.runners.calibrating import calibration_inputs


def test_a_small_network(case, small_network, capfd):
    pytest.importorskip("nncf", reason="pip install 'enet-tvm[nncf]'")
    x = next(iter(calibration_inputs(case)))
    with open_runner("openvino-int8", case) as runner, torch.inference_mode():
        assert runner.precision == "int8"
        assert "int8 calibrated on drawn streets, the rest " in runner.description
        expected = small_network(torch.from_numpy(x)).numpy()
        difference = np.abs(runner.forward(x) - expected).max() / np.abs(expected).max()
        assert 1e-4 < difference < 0.03  # quantised, and right
        assert [file.name for file in runner.artifact_files()] == ["enet.xml", "enet.bin"]
        assert 'element_type="i8"' in runner.artifact_files()[0].read_text()
    assert capfd.readouterr().out == ""


def test_without_nncf(case, monkeypatch):
    pytest.importorskip("openvino", reason="pip install 'enet-tvm[bench]'")
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(RunnerMissingError, match=r"^nncf is not installed; run: pip install 'enet-tvm\[nncf\]'$"):
        open_runner("openvino-int8", case)
