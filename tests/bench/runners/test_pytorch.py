from __future__ import annotations

import numpy as np
import pytest
import torch

from enet_tvm.agreement import NOISE
from enet_tvm.bench.runners import RunnerMissingError, open_runner


def test_torch_compile_compiles_once(case, monkeypatch):
    """It compiles anew for another kind of tensor: the one that it is made ready with must be like those that follow."""
    kinds = []

    def compiled(module, dynamic):
        def call(x):
            kinds.append((x.is_inference(), x.requires_grad, x.dtype, x.stride(), torch.get_num_threads()))
            return module(x)

        return call

    monkeypatch.setattr(torch, "compile", compiled)
    with open_runner("torch-compile", case) as runner:
        runner.forward(np.zeros(case.input_shape, np.float32))
    made_ready, following = kinds
    assert made_ready == following


def test_a_compiler_that_fails_is_missing(case, monkeypatch):
    def broken(module, dynamic):
        def call(x):
            raise RuntimeError("No working C++ compiler found\nand more")

        return call

    monkeypatch.setattr(torch, "compile", broken)
    with pytest.raises(RunnerMissingError, match=r"\(No working C\+\+ compiler found\); it needs a C\+\+ compiler"):
        open_runner("torch-compile", case)


def test_under_autocast_convolutions_are_of_bfloat16(case, monkeypatch):
    monkeypatch.setattr("enet_tvm.bench.runners.pytorch.cpu_features", lambda: {"avx512_bf16"})
    monkeypatch.setattr(torch, "compile", lambda module, dynamic: module)
    x = np.random.default_rng(3).standard_normal(case.input_shape, np.float32)
    with open_runner("torch", case) as reference, open_runner("torch-compile-bfloat16", case) as runner:
        assert runner.precision == "bfloat16"
        expected, logits = reference.forward(x), runner.forward(x)
    assert logits.dtype == np.float32
    assert np.array_equal(logits, torch.from_numpy(logits).bfloat16().float().numpy())
    assert (logits.argmax(1) == expected.argmax(1)).mean() >= NOISE["bfloat16"]


def test_a_processor_without_bfloat16(case, monkeypatch):
    monkeypatch.setattr("enet_tvm.bench.runners.pytorch.cpu_features", lambda: {"avx2"})
    with pytest.raises(RunnerMissingError, match="no instructions for bfloat16"):
        open_runner("torch-compile-bfloat16", case)
