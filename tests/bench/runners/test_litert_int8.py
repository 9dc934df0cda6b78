from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from enet_tvm.bench.runners import RunnerMissingError, open_runner
from enet_tvm.bench.runners.calibrating import calibration_inputs
from enet_tvm.bench.runners.litert import written


def require_quantiser() -> None:
    pytest.importorskip("ai_edge_quantizer", reason="pip install 'enet-tvm[litert-int8]'")


@pytest.mark.slow
def test_a_small_network(case, small_network, capfd):
    require_quantiser()
    x = next(iter(calibration_inputs(case)))
    with open_runner("litert-int8", case) as runner, torch.inference_mode():
        assert runner.precision == "int8"
        assert runner.description.endswith("XNNPACK, int8 calibrated on drawn streets")
        expected = small_network(torch.from_numpy(x)).numpy()
        difference = np.abs(runner.forward(x) - expected).max() / np.abs(expected).max()
        assert 1e-4 < difference < 0.03  # quantised, and right
        assert runner.artifact_files() != (written(case),)
    assert capfd.readouterr().out == ""


@pytest.mark.slow
def test_convolutions_are_quantised_and_nothing_else(case):
    """Unpooling compares values, which are equal more often when they are rounded."""
    require_quantiser()
    from ai_edge_litert import schema_py_generated as schema

    names = {number: name for name, number in vars(schema.BuiltinOperator).items() if isinstance(number, int)}
    model = schema.ModelT.InitFromPackedBuf(written(case, "int8").read_bytes())
    (graph,) = model.subgraphs
    kinds: dict[str, set[int]] = {}
    for operator in graph.operators:
        code = names[model.operatorCodes[operator.opcodeIndex].builtinCode]
        kinds.setdefault(code, set()).update(graph.tensors[number].type for number in operator.outputs)
    eight = {code for code, types in kinds.items() if schema.TensorType.INT8 in types}
    assert eight == {"QUANTIZE", "CONV_2D", "TRANSPOSE_CONV"}
    assert kinds["CONV_2D"] == kinds["TRANSPOSE_CONV"] == {schema.TensorType.INT8}
    assert {"PRELU", "SUB", "RELU_0_TO_1", "MAX_POOL_2D"} <= kinds.keys()


def test_without_the_quantiser(case, small_network, monkeypatch):
    pytest.importorskip("ai_edge_litert", reason="pip install 'enet-tvm[litert]'")
    for module in ("ai_edge_quantizer", *(each for each in sys.modules if each.startswith("ai_edge_quantizer."))):
        monkeypatch.setitem(sys.modules, module, None)
    said = r"^ai-edge-quantizer is not installed; run: pip install 'enet-tvm\[litert-int8\]'$"
    with pytest.raises(RunnerMissingError, match=said):
        open_runner("litert-int8", case)
