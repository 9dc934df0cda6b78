"""PyTorch on a GPU, as far as it can be tried without one: that its absence is said, and its passes, on the processor."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from enet_tvm.bench.runners import RunnerMissingError, open_runner
from enet_tvm.bench.runners.pytorch import best_form
from enet_tvm.bench.runners.pytorch_cuda import PyTorchCudaRunner


@pytest.mark.parametrize("name", ["torch-cuda", "torch-cuda-compile"])
def test_a_build_without_cuda_is_missing_and_says_what_to_do(case, name, monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(RunnerMissingError, match=r"is built without CUDA; install its build with CUDA, as https://pytorch.org"):
        open_runner(name, case)


def test_a_machine_without_a_gpu_is_missing(case, monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RunnerMissingError, match="finds no GPU that it can use here; see to its driver"):
        open_runner("torch-cuda", case)


def test_a_pass_tells_computing_and_transfer_apart(case):
    seen = []

    def module(x):
        seen.append((x.is_contiguous(memory_format=torch.channels_last), x.is_inference()))
        return best_form(case)(x)

    x = np.random.default_rng(3).standard_normal(case.input_shape, np.float32)
    runner = PyTorchCudaRunner("eager", module, case, device="cpu")
    assert runner.last_pass() is None
    with open_runner("torch", case) as reference:
        np.testing.assert_allclose(runner.forward(x), reference.forward(x), rtol=0, atol=1e-4)
    assert seen == [(True, True)]
    assert runner.last_pass().device > runner.last_pass().transfer > 0
    assert runner.on_gpu
    assert runner.artifact_files() == (case.weights,)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU, or PyTorch is built without CUDA")
@pytest.mark.parametrize("name", ["torch-cuda", "torch-cuda-compile"])
def test_on_a_gpu_it_agrees_with_the_processor(case, name):
    x = np.random.default_rng(3).standard_normal(case.input_shape, np.float32)
    with open_runner("torch", case) as reference, open_runner(name, case) as runner:
        np.testing.assert_allclose(runner.forward(x), reference.forward(x), rtol=0, atol=1e-3)
