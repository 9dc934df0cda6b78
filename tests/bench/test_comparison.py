from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from enet_tvm.bench.comparison import compare
from enet_tvm.bench.machine.system_files import SystemFiles
from enet_tvm.bench.measure.roofline import PROMISED
from enet_tvm.bench.report.notes import notes
from enet_tvm.bench.report.tables import tables
from enet_tvm.bench.runners import RUNNERS, Runner, RunnerMissingError, open_runner
from enet_tvm.bench.runners.base import PassTimes
from enet_tvm.files import sha256
from enet_tvm.machine import usable_cpus
from enet_tvm.targets import load_target


class Wrong(Runner):
    description = "always class 0"

    def forward(self, x):
        logits = np.zeros((1, 11, *x.shape[2:]), np.float32)
        logits[:, 0] = 1
        return logits


@pytest.mark.slow
def test_speed_of_a_wrong_runner_is_no_result(case, monkeypatch):
    monkeypatch.setitem(RUNNERS, "wrong", lambda _: Wrong())
    result = compare(["wrong", "torch"], case, seconds=0.1)
    wrong, reference = result.entries
    assert wrong.latency is None
    assert wrong.agreement < 0.9
    assert reference.latency is not None
    assert reference.agreement == 1
    assert result.fastest(besides="torch") is None


@pytest.mark.slow
def test_a_missing_runner_is_said(case, monkeypatch):
    def missing(_):
        raise RunnerMissingError("it is not installed; run: pip install it")

    monkeypatch.setitem(RUNNERS, "it", missing)
    result = compare(["it", "torch"], case, seconds=0.1)
    assert result.missing == {"it": "it is not installed; run: pip install it"}
    assert [entry.name for entry in result.entries] == ["torch"]
    assert json.loads(json.dumps(result.to_dict()))["missing"]


def test_logits_that_are_no_numbers_never_agree(case, monkeypatch):
    class Broken(Wrong):
        def forward(self, x):
            return np.full((1, 11, *x.shape[2:]), np.nan, np.float32)

    monkeypatch.setitem(RUNNERS, "broken", lambda _: Broken())
    result = compare(["broken"], case, seconds=0)
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


@pytest.mark.slow
def test_a_runner_on_a_device_tells_its_own_times_and_machine(case, monkeypatch, tmp_path):
    monkeypatch.setitem(RUNNERS, "board", lambda w: OnDevice(open_runner("torch", w), tmp_path / "board"))
    result = compare(["board"], case, seconds=0.1, streams=[1, 4])
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
    assert result.roofline_source == PROMISED
    assert result.limit is None


def test_figures_carry_what_they_were_measured_with(case):
    result = compare(["torch"], case, seconds=0, command="enet-tvm bench")
    figures = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert figures["weights"] == {"file": str(case.weights), "sha256": sha256(case.weights)}
    assert figures["entries"][0]["artifact_sha256"] == {case.weights.name: sha256(case.weights)}
    assert figures["entries"][0]["artifact_bytes"] == case.weights.stat().st_size
    assert figures["entries"][0]["first_ms"] > 0
    assert figures["versions"]["torch"] == torch.__version__
    assert figures["machine"]["processor"]
    assert {"before", "after"} <= figures["machine"].keys()
    assert figures["limit_ms"] > 0
    assert figures["command"] == "enet-tvm bench"


ON_GPU = """
import json, os, sys
import torch
from enet_tvm.bench.comparison import compare
from enet_tvm.bench.runners import Case
from enet_tvm.bench.runners.pytorch import PyTorchRunner
# The GPU being a processor: its driver is asked all the same.
PyTorchRunner.on_gpu = True
torch.cuda.is_available = lambda: False
forward = PyTorchRunner.forward
def warmer(self, x):
    os.environ["FAKE_REASONS"] = "0x20"
    return forward(self, x)
PyTorchRunner.forward = warmer
result = compare(["torch"], Case.from_dict(json.loads(sys.argv[1])), seconds=0.4, streams=[1])
print(json.dumps(result.to_dict(), allow_nan=False))
"""
FAKE = {"CORES": 1000, "MAX_SM_MHZ": 1000, "MAX_MEMORY_MHZ": 1000, "BUS": 128, "SM_MHZ": 900, "CELSIUS": 70}


@pytest.mark.slow
def test_a_gpu_here_is_asked_for_energy_clocks_throttling_and_its_limit(fake_gpu, case):
    job = json.dumps(replace(case, workload=replace(case.workload, target=load_target("h100"))).to_dict())
    figures = fake_gpu(ON_GPU, job, **FAKE, COUNTED_WATTS=300)
    (entry,) = figures["entries"]
    (energy, *_) = entry["footprint"]["energy"]
    assert energy["meter"] == "NVIDIA Fake (NVML)"
    assert energy["watts"] == pytest.approx(300, rel=0.1)
    machine = figures["machine"]
    assert "NVIDIA Fake" in machine["gpus"]
    assert machine["before"]["mhz"]["NVIDIA Fake"] == 900
    assert machine["after"]["celsius"]["NVIDIA Fake"] == 70
    assert "while timing, NVIDIA Fake says that it is too warm for its full clock" in figures["warnings"]
    assert figures["limit_ms"] == pytest.approx(1e3 * figures["flops"] / 2e12)
    assert (figures["limit_measured"], figures["limit_source"]) == (False, "the GPU's cores and highest clocks")
    assert figures["not_measured"] == []
    assert figures["versions"]["NVIDIA driver"] == "580.65.06"
    latency, footprint = tables(figures)
    assert latency.title.endswith(" ms by the GPU's cores and highest clocks")
    assert footprint.headings[-1] == "J/image, NVIDIA Fake (NVML)"
    assert any("NVIDIA Fake 900 MHz and 70 °C before" in note for note in notes(figures))


@pytest.mark.slow
def test_a_gpu_that_is_silent_is_said_and_the_target_promises(fake_gpu, case):
    job = json.dumps(replace(case, workload=replace(case.workload, target=load_target("h100"))).to_dict())
    figures = fake_gpu(ON_GPU, job)
    assert figures["not_measured"] == [
        "energy of the GPU is not measured, because driver 580.65.06 does not tell it of NVIDIA Fake"
    ]
    assert figures["limit_ms"] == pytest.approx(1e3 * figures["flops"] / 51.218e12)
    why = fake_gpu(ON_GPU, job, NOT_LOADED=1)
    assert why["not_measured"] == [
        "energy, clocks and temperature of the GPU are not measured, because "
        "NVML, the library of NVIDIA's driver, does not start (Driver Not Loaded)"
    ]
    assert why["not_measured"][0] in notes(why)


class Affinity(Wrong):
    """Tells the processors that it may run on, in its description."""

    def __init__(self):
        self.description = f"on {usable_cpus()}"


def test_all_runners_run_on_the_cores_that_the_target_names(case, monkeypatch):
    monkeypatch.setitem(RUNNERS, "affinity", lambda _: Affinity())
    before = usable_cpus()
    target = case.target.model_copy(update={"cores": 1, "core_list": before[-1:]})
    bound = replace(case, workload=replace(case.workload, target=target, threads=1))
    result = compare(["affinity"], bound, seconds=0)
    assert result.entries[0].description == f"on {before[-1:]}"
    assert usable_cpus() == before
    assert any(f"cores {before[-1]}" in note for note in notes(result.to_dict()) if note.startswith("host: "))
