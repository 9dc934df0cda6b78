from __future__ import annotations

import numpy as np
import pytest
import torch

from enet_tvm.bench.runners import open_runner


def test_onnx_runtime_runs_what_is_exported(case, monkeypatch):
    """A small network in place of the one of the weights, which takes longer to export than all else here."""
    small = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(4, 11, 1)).eval()
    monkeypatch.setattr("enet_tvm.networks.load_network", lambda path: small)
    x = np.random.default_rng(3).standard_normal(case.input_shape, np.float32)
    with torch.inference_mode(), open_runner("onnxruntime", case) as runner:
        np.testing.assert_allclose(runner.forward(x), small(torch.from_numpy(x)).numpy(), rtol=0, atol=1e-5)


def test_openvino_if_it_is_here(case):
    pytest.importorskip("openvino", reason="openvino is an optional peer")
    with open_runner("openvino", case) as runner:
        assert runner.forward(np.zeros(case.input_shape, np.float32)).shape == (1, 11, 48, 64)
