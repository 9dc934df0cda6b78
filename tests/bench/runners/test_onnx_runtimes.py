from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from enet_tvm.agreement import NOISE
from enet_tvm.bench.runners import RunnerMissingError, open_runner


@pytest.mark.slow
def test_onnx_runtime_runs_what_is_exported(case, small_network):
    x = np.random.default_rng(3).standard_normal(case.input_shape, np.float32)
    with torch.inference_mode(), open_runner("onnxruntime", case) as runner:
        np.testing.assert_allclose(runner.forward(x), small_network(torch.from_numpy(x)).numpy(), rtol=0, atol=1e-5)


def test_openvino_if_it_is_here(case):
    pytest.importorskip("openvino", reason="openvino is an optional peer")
    with open_runner("openvino", case) as runner:
        assert runner.forward(np.zeros(case.input_shape, np.float32)).shape == (1, 11, 48, 64)


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_openvino_in_shorter_numbers_if_it_is_here(precision, case, small_network):
    openvino = pytest.importorskip("openvino", reason="openvino is an optional peer")
    able = {"float16": "FP16", "bfloat16": "BF16"}[precision] in openvino.Core().get_property(
        "CPU", "OPTIMIZATION_CAPABILITIES"
    )
    if not able:
        with pytest.raises(RunnerMissingError, match=f"does not compute in {precision} on this processor; leave it out"):
            open_runner(f"openvino-{precision}", case)
        return
    x = np.random.default_rng(3).standard_normal(case.input_shape, np.float32)
    with torch.inference_mode(), open_runner(f"openvino-{precision}", case) as runner:
        assert runner.precision == precision
        expected, logits = small_network(torch.from_numpy(x)).numpy(), runner.forward(x)
    assert np.abs(logits - expected).max() > 1e-5  # it is not float32 after all
    assert (logits.argmax(1) == expected.argmax(1)).mean() >= NOISE[precision]


@pytest.mark.parametrize("name", ["openvino", "openvino-bfloat16", "openvino-int8"])
def test_without_openvino(name, case, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(RunnerMissingError, match=r"^openvino is not installed; run: pip install openvino$"):
        open_runner(name, case)
