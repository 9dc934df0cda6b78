"""NVML through NVIDIA's own binding, over a driver that tells what the test says: its functions are real, its GPU is not."""

from __future__ import annotations

import sys

import pytest

from enet_tvm.bench.machine.nvml import GpuUnknownError, open_gpu

H100 = {
    **{"CORES": 16896, "MAX_SM_MHZ": 1980, "MAX_MEMORY_MHZ": 2619, "BUS": 5120},
    **{"SM_MHZ": 1755, "CELSIUS": 61, "CELSIUS_LIMIT": 87, "MILLIWATTS": 350_500, "COUNTED_WATTS": 300},
}

ALL = """
import json
from enet_tvm.bench.machine.nvml import open_gpu
with open_gpu() as gpu:
    found = {name: getattr(gpu, name)() for name in (
        "watts", "clock", "celsius", "celsius_limit", "reasons", "held_back", "peak_flops", "peak_bytes")}
    print(json.dumps({**found, "name": gpu.name, "driver": gpu.driver, "counts": gpu.microjoules() is not None}))
"""

WHY = """
import json
from enet_tvm.bench.machine.nvml import GpuUnknownError, open_gpu
try:
    with open_gpu():
        print("null")
except GpuUnknownError as error:
    print(json.dumps(str(error)))
"""


def test_all_that_a_gpu_tells(fake_gpu):
    found = fake_gpu(ALL, **H100, REASONS=0x25, POWER_PERCENT=10)
    assert (found["name"], found["driver"]) == ("NVIDIA Fake", "580.65.06")
    assert (found["watts"], found["clock"], found["celsius"], found["celsius_limit"]) == (350.5, 1755, 61, 87)
    assert found["counts"]
    # NVIDIA's data sheet: 67 TFLOP/s and 3.35 TB/s.
    assert found["peak_flops"] == pytest.approx(66.9e12, rel=1e-3)
    assert found["peak_bytes"] == pytest.approx(3.352e12, rel=1e-3)
    assert found["reasons"] == ["its power limit holds its clock down", "it is too warm for its full clock"]
    held, clock = found["held_back"]["its power limit"]
    assert held == pytest.approx(clock / 10)


def test_a_gpu_that_tells_nothing(fake_gpu):
    found = fake_gpu(ALL)
    assert found.pop("name") == "NVIDIA Fake"
    assert found.pop("driver") == "580.65.06"
    assert found.pop("reasons") == []
    assert found.pop("held_back") == {}
    assert not any(found.values())


def test_a_driver_that_does_not_start_or_finds_no_gpu(fake_gpu):
    assert fake_gpu(WHY) is None
    assert fake_gpu(WHY, NOT_LOADED=1) == "NVML, the library of NVIDIA's driver, does not start (Driver Not Loaded)"
    assert fake_gpu(WHY, NO_DEVICE=1) == ("NVML does not find the GPU that CUDA takes (its CUDA driver finds none, error 100)")


WITHOUT_DRIVER = """
import os, sys
os.environ["LD_LIBRARY_PATH"] = ""
os.execv(sys.executable, [sys.executable, "-c", sys.argv[1]])
"""


def test_no_driver(fake_gpu):
    found = fake_gpu(WITHOUT_DRIVER, WHY)
    if found is None:
        pytest.skip("this machine has an NVIDIA GPU")
    assert found.startswith("NVML, the library of NVIDIA's driver, does not start")


def test_no_binding(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with (
        pytest.raises(GpuUnknownError, match=r"nvidia-ml-py is not installed; run: pip install 'enet-tvm\[cuda\]'"),
        open_gpu(),
    ):
        pass


CONDITIONS = """
import json, os, sys, time
from enet_tvm.bench.machine.conditions import read_conditions, slowdowns
from enet_tvm.bench.machine.description import describe_machine
from enet_tvm.bench.machine.nvml import open_gpu
from enet_tvm.bench.machine.system_files import SystemFiles
nothing = SystemFiles(sys.argv[1])
with open_gpu() as gpu:
    before = read_conditions(nothing, gpu)
    os.environ.update(json.loads(sys.argv[2]))
    time.sleep(0.05)
    after = read_conditions(nothing, gpu)
    print(json.dumps([after.to_dict(), slowdowns(before, after), describe_machine(nothing, gpu).gpus]))
"""


def test_a_gpu_that_keeps_its_clock_is_not_slow(fake_gpu, tmp_path):
    state, slow, gpus = fake_gpu(CONDITIONS, str(tmp_path), "{}", **H100, REASONS=0x1, POWER_PERCENT=1)
    assert state == {"mhz": {"NVIDIA Fake": 1755}, "celsius": {"NVIDIA Fake": 61}, "gpu_reasons": []}
    assert slow == []
    assert gpus == ["NVIDIA Fake"]


def test_what_slows_a_gpu_down_is_said(fake_gpu, tmp_path):
    then = '{"FAKE_SM_MHZ": "1200", "FAKE_CELSIUS": "88", "FAKE_REASONS": "0x44"}'
    state, slow, _ = fake_gpu(CONDITIONS, str(tmp_path), then, **H100, REASONS=0, POWER_PERCENT=30)
    assert state["gpu_reasons"] == [
        "its power limit holds its clock down",
        "its hardware slows it down because it is too hot",
    ]
    assert slow == [
        "the clock of NVIDIA Fake fell from 1755 to 1200 MHz",
        "NVIDIA Fake is at 88 °C, from 87 °C it slows down",
        "NVIDIA Fake says that its power limit holds its clock down",
        "NVIDIA Fake says that its hardware slows it down because it is too hot",
        "NVIDIA Fake was held back 30% of the time by its power limit",
    ]
