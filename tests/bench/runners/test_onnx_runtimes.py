from __future__ import annotations

import numpy as np
import pytest
import torch

from enet_tvm.bench.runners import open_runner


@pytest.mark.slow
def test_onnx_runtime_runs_what_is_exported(case, small_network):
    x = np.random.default_rng(3).standard_normal(case.input_shape, np.float32)
    with torch.inference_mode(), open_runner("onnxruntime", case) as runner:
        np.testing.assert_allclose(runner.forward(x), small_network(torch.from_numpy(x)).numpy(), rtol=0, atol=1e-5)


def test_openvino_if_it_is_here(case):
    pytest.importorskip("openvino", reason="openvino is an optional peer")
    with open_runner("openvino", case) as runner:
        assert runner.forward(np.zeros(case.input_shape, np.float32)).shape == (1, 11, 48, 64)
