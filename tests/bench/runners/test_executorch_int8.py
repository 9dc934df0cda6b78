from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from enet_tvm.bench.runners import RunnerMissingError, open_runner
from enet_tvm.bench.runners.calibrating import calibration_inputs
from enet_tvm.networks import load_network
from enet_tvm.networks.portable import portable

pytestmark = pytest.mark.slow  # importing ExecuTorch is


def test_a_small_network(case, small_network):
    pytest.importorskip("executorch", reason="pip install 'enet-tvm[executorch]'")
    x = next(iter(calibration_inputs(case)))
    with open_runner("executorch-int8", case) as runner, open_runner("executorch", case) as exact, torch.inference_mode():
        assert (runner.precision, exact.precision) == ("int8", "float32")
        assert runner.description.endswith("XNNPACK, int8 calibrated on drawn streets")
        expected = small_network(torch.from_numpy(x)).numpy()
        difference = np.abs(runner.forward(x) - expected).max() / np.abs(expected).max()
        assert 1e-4 < difference < 0.03  # quantised, and right
        np.testing.assert_allclose(exact.forward(x), expected, rtol=0, atol=1e-5)
        assert runner.artifact_files() != exact.artifact_files()


def test_convolutions_are_quantised_and_nothing_else(case):
    """Unpooling compares values, which are equal more often when they are rounded."""
    pytest.importorskip("executorch", reason="pip install 'enet-tvm[executorch]'")
    from enet_tvm.bench.runners.executorch_int8 import quantised

    form = portable(load_network(case.weights))
    program = torch.export.export(form, (torch.zeros(case.input_shape),))
    nodes = [node for node in quantised(program, case).graph.nodes if node.op == "call_function"]
    convolutions = [node for node in nodes if str(node.target) in ("aten.conv2d.default", "aten.conv_transpose2d.input")]
    assert len(convolutions) == sum(isinstance(each, torch.nn.Conv2d | torch.nn.ConvTranspose2d) for each in form.modules())
    for node in convolutions:
        assert all("dequantize" in str(each.target) for each in node.args[:2])  # input and weights
    subtractions = [node for node in nodes if str(node.target) == "aten.sub.Tensor"]
    assert len(subtractions) == 2
    for node in subtractions:
        assert not any("quantize" in str(each.target) for each in (*node.all_input_nodes, *node.users))


def test_without_executorch(case, monkeypatch):
    for module in ("executorch", *(each for each in sys.modules if each.startswith("executorch."))):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(RunnerMissingError, match=r"^executorch is not installed; run: pip install 'enet-tvm\[executorch\]'$"):
        open_runner("executorch-int8", case)
