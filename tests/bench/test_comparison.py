from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from enet_tvm.bench.comparison import compare
from enet_tvm.bench.runners import RUNNERS, Runner, RunnerMissingError, Workload, open_runner
from enet_tvm.errors import UserError
from enet_tvm.size import Size


@pytest.fixture
def workload(compiled_enet, tmp_path):
    return Workload(compiled_enet.weights, Size(64, 48), threads=1, directory=tmp_path)


@pytest.mark.parametrize("name", ["tvm", "torch", "torch-channels-last", "onnxruntime"])
def test_runners_agree_with_pytorch(name, workload):
    from enet_tvm.networks import load_network

    x = np.random.default_rng(3).standard_normal(workload.input_shape, np.float32)
    with torch.inference_mode():
        expected = load_network(workload.weights)(torch.from_numpy(x)).numpy()
    with open_runner(name, workload) as runner:
        np.testing.assert_allclose(runner.forward(x), expected, rtol=0, atol=1e-4)
        assert runner.description


def test_openvino_if_it_is_here(workload):
    pytest.importorskip("openvino", reason="openvino is an optional peer")
    with open_runner("openvino", workload) as runner:
        assert runner.forward(np.zeros(workload.input_shape, np.float32)).shape == (1, 11, 48, 64)


class Wrong(Runner):
    description = "always class 0"

    def forward(self, x):
        logits = np.zeros((1, 11, *x.shape[2:]), np.float32)
        logits[:, 0] = 1
        return logits


def test_speed_of_a_wrong_runner_is_no_result(workload, monkeypatch):
    monkeypatch.setitem(RUNNERS, "wrong", lambda _: Wrong())
    result = compare(["wrong", "torch"], workload, seconds=0.1)
    wrong, reference = result.entries
    assert wrong.latency is None
    assert wrong.agreement < 0.9
    assert reference.latency is not None
    assert reference.agreement == 1
    assert result.fastest(besides="torch") is None


def test_a_missing_runner_is_said(workload, monkeypatch):
    def missing(_):
        raise RunnerMissingError("it is not installed; run: pip install it")

    monkeypatch.setitem(RUNNERS, "it", missing)
    result = compare(["it", "torch"], workload, seconds=0.1)
    assert result.missing == {"it": "it is not installed; run: pip install it"}
    assert [entry.name for entry in result.entries] == ["torch"]
    assert json.loads(json.dumps(result.to_dict()))["missing"]


def test_unknown_runner(workload):
    with pytest.raises(UserError, match="there is no runner 'tensorflow'"):
        open_runner("tensorflow", workload)


def test_verb(compiled_enet, tmp_path):
    from enet_tvm.cli.main import build_app

    arguments = ["bench", "--weights", str(compiled_enet.weights), "--size", "64x48", "--threads", "1", "--seconds", "0.1"]
    files = ["--json", str(tmp_path / "b.json"), "--markdown", str(tmp_path / "b.md")]
    result = CliRunner().invoke(build_app(), [*arguments, "--runner", "tvm", "--runner", "torch", *files])
    assert result.exit_code == 0, result.output
    (figures,) = json.loads((tmp_path / "b.json").read_text())
    assert [entry["name"] for entry in figures["entries"]] == ["tvm", "torch"]
    assert all(entry["label_agreement"] >= 0.9999 for entry in figures["entries"])
    assert figures["limit_ms"] > 0
    assert "| tvm |" in (tmp_path / "b.md").read_text()
