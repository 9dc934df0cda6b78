from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from enet_tvm.artifact import MANIFEST_NAME, read_manifest
from enet_tvm.bench.comparison import compare
from enet_tvm.bench.latency import PassTimes
from enet_tvm.bench.runners import RUNNERS, Runner, RunnerMissingError, Workload, open_runner
from enet_tvm.bench.system_files import SystemFiles
from enet_tvm.errors import UserError
from enet_tvm.files import sha256
from enet_tvm.size import Size


@pytest.fixture
def workload(compiled_enet, tmp_path):
    """Ours is compiled already: that it is compiled where it must be is tested in `test_baseline.py`."""
    return Workload(compiled_enet.weights, Size(64, 48), threads=1, directory=tmp_path, artifact=compiled_enet.directory)


@pytest.mark.parametrize("name", ["tvm", "torch", "torch-channels-last", pytest.param("onnxruntime", marks=pytest.mark.slow)])
def test_runners_agree_with_pytorch(name, workload):
    from enet_tvm.networks import load_network

    x = np.random.default_rng(3).standard_normal(workload.input_shape, np.float32)
    with torch.inference_mode():
        expected = load_network(workload.weights)(torch.from_numpy(x)).numpy()
    with open_runner(name, workload) as runner:
        np.testing.assert_allclose(runner.forward(x), expected, rtol=0, atol=1e-4)
        assert runner.description


def test_onnx_runtime_runs_what_is_exported(workload, monkeypatch):
    """A small network in place of the one of the weights, which takes longer to export than all else here."""
    small = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(4, 11, 1)).eval()
    monkeypatch.setattr("enet_tvm.networks.load_network", lambda path: small)
    x = np.random.default_rng(3).standard_normal(workload.input_shape, np.float32)
    with torch.inference_mode(), open_runner("onnxruntime", workload) as runner:
        np.testing.assert_allclose(runner.forward(x), small(torch.from_numpy(x)).numpy(), rtol=0, atol=1e-5)


def test_torch_compile_compiles_once(workload, monkeypatch):
    """It compiles anew for another kind of tensor: the one that it is made ready with must be like those that follow."""
    kinds = []

    def compiled(module, dynamic):
        def call(x):
            kinds.append((x.is_inference(), x.requires_grad, x.dtype, x.stride(), torch.get_num_threads()))
            return module(x)

        return call

    monkeypatch.setattr(torch, "compile", compiled)
    with open_runner("torch-compile", workload) as runner:
        runner.forward(np.zeros(workload.input_shape, np.float32))
    made_ready, following = kinds
    assert made_ready == following


def test_a_compiler_that_fails_is_missing(workload, monkeypatch):
    def broken(module, dynamic):
        def call(x):
            raise RuntimeError("No working C++ compiler found\nand more")

        return call

    monkeypatch.setattr(torch, "compile", broken)
    with pytest.raises(RunnerMissingError, match=r"\(No working C\+\+ compiler found\); it needs a C\+\+ compiler"):
        open_runner("torch-compile", workload)


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


def test_logits_that_are_no_numbers_never_agree(workload, monkeypatch):
    class Broken(Wrong):
        def forward(self, x):
            return np.full((1, 11, *x.shape[2:]), np.nan, np.float32)

    monkeypatch.setitem(RUNNERS, "broken", lambda _: Broken())
    result = compare(["broken"], workload, seconds=0)
    assert result.entries[0].agreement == 0
    assert result.entries[0].latency is None
    (failure,) = result.failures
    assert failure.startswith("broken fails parity: 0.0000% of its labels are PyTorch's, 99.99% are needed")
    assert json.loads(json.dumps(result.to_dict(), allow_nan=False))["entries"][0]["max_abs_logit_diff"] is None


class OnDevice(Runner):
    """Stands for a board: its kernel's files are a tree, and its clock falls at the second look."""

    description = "a board"
    remote = True

    def __init__(self, reference, root):
        self.reference, self.root = reference, root
        self.looks = 0
        for path, content in {
            "proc/cpuinfo": "processor\t: 0\nCPU part\t: 0xd08\n",
            "sys/class/hwmon/hwmon0/name": "ina3221",
            "sys/class/hwmon/hwmon0/in1_label": "VDD_IN",
            "sys/class/hwmon/hwmon0/in1_input": "5000",
            "sys/class/hwmon/hwmon0/curr1_input": "1000",
        }.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(content)

    def forward(self, x):
        return self.reference.forward(x)

    def last_pass(self):
        return PassTimes(device=0.040, transfer=0.010)

    def files(self):
        clock = self.root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq"
        clock.parent.mkdir(parents=True, exist_ok=True)
        self.looks += 1
        clock.write_text(str(1_500_000 if self.looks == 1 else 900_000))
        return SystemFiles(self.root)

    def peak_memory(self):
        return 30_000_000


def test_a_runner_on_a_device_tells_its_own_times_and_machine(workload, monkeypatch, tmp_path):
    monkeypatch.setitem(RUNNERS, "board", lambda w: OnDevice(open_runner("torch", w), tmp_path / "board"))
    result = compare(["board"], workload, seconds=0.1, streams=[1, 4])
    (entry,) = result.entries
    assert entry.latency.median == pytest.approx(0.040)
    assert entry.latency.transfer == pytest.approx(0.010)
    assert entry.device.processor == "Cortex-A72"
    assert result.warnings == ("while timing board, the clock of cpu0 fell from 1500 to 900 MHz",)
    assert entry.footprint.memory_bytes == 30_000_000
    assert [rate.streams for rate in entry.footprint.rates] == [1]  # the board is there once
    (energy,) = entry.footprint.energies
    assert energy.meter == "VDD_IN (ina3221)"
    assert energy.watts == pytest.approx(5)
    device = json.loads(json.dumps(entry.to_dict()))["device"]
    assert (device["before"]["mhz"], device["after"]["mhz"]) == ({"cpu0": 1500}, {"cpu0": 900})
    assert not result.roofline_measured
    assert result.limit is None


@pytest.mark.usefixtures("processor_as_gpu")
def test_transfer_of_ours_on_a_gpu_is_told_apart(compiled_enet, workload, tmp_path):
    x = np.zeros(workload.input_shape, np.float32)
    with open_runner("tvm", workload) as runner:
        runner.forward(x)
        assert runner.last_pass() is None
    shutil.copytree(compiled_enet.directory, tmp_path / "gpu")
    manifest = read_manifest(tmp_path / "gpu")
    target = manifest.target.model_copy(update={"device": "cuda"})
    (tmp_path / "gpu" / MANIFEST_NAME).write_text(manifest.model_copy(update={"target": target}).model_dump_json())
    with open_runner("tvm", replace(workload, artifact=tmp_path / "gpu")) as runner:
        runner.forward(x)
        assert runner.last_pass().transfer > 0
        assert runner.last_pass().device > 0


def test_figures_carry_what_they_were_measured_with(workload):
    result = compare(["torch"], workload, seconds=0, command="enet-tvm bench")
    figures = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert figures["weights"] == {"file": str(workload.weights), "sha256": sha256(workload.weights)}
    assert figures["entries"][0]["artifact_sha256"] == {workload.weights.name: sha256(workload.weights)}
    assert figures["entries"][0]["artifact_bytes"] == workload.weights.stat().st_size
    assert figures["entries"][0]["first_ms"] > 0
    assert figures["versions"]["torch"] == torch.__version__
    assert figures["machine"]["processor"]
    assert {"before", "after"} <= figures["machine"].keys()
    assert figures["limit_ms"] > 0
    assert figures["command"] == "enet-tvm bench"


def test_an_artifact_of_other_weights_or_size_is_refused(workload, compiled_enet, tmp_path):
    with pytest.raises(UserError, match=r"takes 1 pictures of 64x48 at once, and 1 of 96x64 is to be timed"):
        open_runner("tvm", replace(workload, artifact=compiled_enet.directory, size=Size(96, 64)))
    other = tmp_path / "other.safetensors"
    other.write_bytes(b"other")
    with pytest.raises(UserError, match="was not compiled from"):
        open_runner("tvm", replace(workload, artifact=compiled_enet.directory, weights=other))


def test_workloads_travel_as_json(workload, compiled_enet):
    for each in (workload, replace(workload, artifact=compiled_enet.directory, tracker="localhost:9190", key="pi")):
        assert Workload.from_dict(json.loads(json.dumps(each.to_dict()))) == each
