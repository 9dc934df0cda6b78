"""ONNX Runtime on a GPU, as far as it can be tried without one: that its absence is said, and its passes, on the processor."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch

from enet_tvm.bench.runners import RunnerMissingError, open_runner
from enet_tvm.bench.runners.onnx_runtime_cuda import OnnxRuntimeCudaRunner
from enet_tvm.bench.runners.onnx_runtimes import exported


def test_a_build_without_cuda_is_missing_and_says_what_to_do(case, monkeypatch):
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(RunnerMissingError, match=r"is built without CUDA; run: .* pip install onnxruntime-gpu$"):
        open_runner("onnxruntime-cuda", case)


@pytest.mark.slow
def test_a_provider_that_does_not_load(case, monkeypatch, small_network):
    """It says so on its standard error alone, and takes the processor."""
    plain = onnxruntime.InferenceSession
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(
        onnxruntime, "InferenceSession", lambda path, providers: plain(path, providers=["CPUExecutionProvider"])
    )
    with pytest.raises(RunnerMissingError, match="CUDA provider does not load; install CUDA's and cuDNN's libraries"):
        open_runner("onnxruntime-cuda", case)


def test_no_driver(case, monkeypatch, small_network):
    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("CUDA failure 35: driver too old\nand more")

    exported(case)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "InferenceSession", fails)
    with pytest.raises(
        RunnerMissingError, match=r"cannot use this machine's GPU \(CUDA failure 35: driver too old\); see to its"
    ):
        open_runner("onnxruntime-cuda", case)


def test_a_pass_on_the_processor(case, small_network):
    runner = OnnxRuntimeCudaRunner(case, device="cpu")
    assert runner.last_pass() is None
    for seed in range(2):
        x = np.random.default_rng(seed).standard_normal(case.input_shape, np.float32)
        with torch.inference_mode():
            expected = small_network(torch.from_numpy(x)).numpy()
        np.testing.assert_allclose(runner.forward(x), expected, rtol=0, atol=1e-5)
    assert runner.last_pass().device > 0
    assert runner.last_pass().transfer > 0
    assert runner.on_gpu
    assert runner.artifact_files()[0].suffix == ".onnx"
