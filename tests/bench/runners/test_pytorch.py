from __future__ import annotations

import numpy as np
import pytest
import torch

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
