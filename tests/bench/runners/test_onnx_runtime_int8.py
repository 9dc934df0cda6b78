from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from enet_tvm.bench.runners import open_runner
from enet_tvm.bench.runners.calibrating import calibration_inputs
from enet_tvm.bench.runners.onnx_runtime_int8 import quantised


def test_a_small_network(case, small_network):
    x = next(iter(calibration_inputs(case)))
    with open_runner("onnxruntime-int8", case) as runner, torch.inference_mode():
        assert runner.precision == "int8"
        assert runner.description.endswith("int8 calibrated on drawn streets")
        expected = small_network(torch.from_numpy(x)).numpy()
        difference = np.abs(runner.forward(x) - expected).max() / np.abs(expected).max()
        assert 1e-4 < difference < 0.03  # quantised, and right
        (file,) = runner.artifact_files()
    weights = [numpy_helper.to_array(each) for each in onnx.load(file).graph.initializer]
    assert [(each.dtype, each.shape) for each in weights if each.ndim == 4] == [
        (np.dtype(np.int8), (4, 3, 3, 3)),
        (np.dtype(np.int8), (11, 4, 1, 1)),
    ]
    assert {4, 11} <= {len(each) for each in weights if each.ndim == 1 and each.dtype == np.float32}  # a scale a channel


@pytest.mark.slow
def test_unpooling_is_not_quantised(case):
    """Codes of two values may be equal where the values are not."""
    graph = onnx.load(quantised(case)).graph
    made_by = {output: node for node in graph.node for output in node.output}
    rounded = [made_by[node.input[0]] for node in graph.node if node.op_type == "QuantizeLinear" and node.input[0] in made_by]
    assert {node.op_type for node in rounded} >= {"Conv", "MaxPool"}
    assert not {"Sub", "Clip"} & {node.op_type for node in rounded}
    assert sum(node.op_type == "Sub" for node in graph.node) == 2
