from __future__ import annotations

import numpy as np
import pytest
import torch

from enet_tvm.bench.runners import RUNNERS, open_runner
from enet_tvm.bench.runners.registry import LazyRunner, packages, runners_at
from enet_tvm.errors import UserError


@pytest.mark.parametrize("name", ["tvm", "torch", "torch-channels-last", pytest.param("onnxruntime", marks=pytest.mark.slow)])
def test_runners_agree_with_pytorch(name, case):
    from enet_tvm.networks import load_network

    x = np.random.default_rng(3).standard_normal(case.input_shape, np.float32)
    with torch.inference_mode():
        expected = load_network(case.weights)(torch.from_numpy(x)).numpy()
    with open_runner(name, case) as runner:
        np.testing.assert_allclose(runner.forward(x), expected, rtol=0, atol=1e-4)
        assert runner.description


def test_unknown_runner(case):
    with pytest.raises(UserError, match="there is no runner 'tensorflow'"):
        open_runner("tensorflow", case)


def test_a_line_of_the_table_is_all_that_a_runner_takes(monkeypatch):
    peer = LazyRunner("peer", "peer", ("gpu",), packages=("torch", "peer"))
    monkeypatch.setitem(RUNNERS, "peer", peer)
    assert "peer" in runners_at("gpu", by_default=True)
    assert "peer" not in runners_at("cpu")
    assert packages()[-1] == "peer"
    assert packages().count("torch") == 1


def test_every_runner_runs_somewhere_and_variants_where_they_are_asked_for():
    everywhere = {name for place in ("cpu", "gpu", "tracker") for name in runners_at(place)}
    assert everywhere == RUNNERS.keys()
    assert runners_at("tracker", by_default=True) == ["tvm-rpc"]
    assert runners_at("cpu", by_default=True)[0] == runners_at("gpu", by_default=True)[0] == "tvm"
    asked_for = set(runners_at("cpu")) - set(runners_at("cpu", by_default=True))
    forms = {"torch-compile-bfloat16", "onnxruntime-int8", "openvino-float16", "openvino-bfloat16", "openvino-int8"}
    forms |= {"ncnn-bfloat16", "mnn-int8", "litert-float16", "litert-int8", "executorch-int8"}
    assert asked_for == {"tvm-untuned", "tvm-float16", "tvm-bfloat16", "tvm-int8", *forms}
