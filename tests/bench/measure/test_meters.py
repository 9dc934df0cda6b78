from __future__ import annotations

import time
from pathlib import Path

import pytest

from enet_tvm.bench.machine.system_files import SystemFiles
from enet_tvm.bench.measure.energy import EnergyRecorder
from enet_tvm.bench.measure.meters import find_meters, open_meters, parse_tegrastats


def write(root: Path, path: str, content: object) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(f"{content}\n")


def test_a_machine_that_says_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_meters(SystemFiles(tmp_path)) == []
    with open_meters(SystemFiles(tmp_path)) as meters:
        assert meters == []
        recorder = EnergyRecorder(meters)
        recorder.start()
        assert recorder.stop() == ()


def test_rapl_of_packages_and_their_wrap(tmp_path):
    for zone, name in (("intel-rapl:0", "package-0"), ("intel-rapl:0:0", "core"), ("intel-rapl:1", "psys")):
        write(tmp_path, f"sys/class/powercap/{zone}/name", name)
        write(tmp_path, f"sys/class/powercap/{zone}/energy_uj", 900)
        write(tmp_path, f"sys/class/powercap/{zone}/max_energy_range_uj", 1000)
    meters = find_meters(SystemFiles(tmp_path))
    assert [meter.name for meter in meters] == ["psys (RAPL)", "package-0 (RAPL)"]
    write(tmp_path, "sys/class/powercap/intel-rapl:1/energy_uj", 100)
    meters[0].sample()
    write(tmp_path, "sys/class/powercap/intel-rapl:1/energy_uj", 150)
    meters[0].sample()
    assert meters[0].joules == pytest.approx(250e-6)
    assert meters[1].joules == 0


def test_rapl_for_root_alone_is_left_out(tmp_path):
    write(tmp_path, "sys/class/powercap/intel-rapl:0/name", "package-0")
    (tmp_path / "sys/class/powercap/intel-rapl:0/energy_uj").mkdir()  # cannot be read by anybody
    assert find_meters(SystemFiles(tmp_path)) == []


def test_jetsons_ina3221_in_hwmon(tmp_path):
    chip = "sys/class/hwmon/hwmon3"
    write(tmp_path, f"{chip}/name", "ina3221")
    for rail, (label, millivolts, milliamperes) in enumerate([("VDD_CPU", 5000, 200), ("VDD_IN", 19000, 300)], 1):
        write(tmp_path, f"{chip}/in{rail}_label", label)
        write(tmp_path, f"{chip}/in{rail}_input", millivolts)
        write(tmp_path, f"{chip}/curr{rail}_input", milliamperes)
    write(tmp_path, f"{chip}/in4_input", 40)  # of a shunt
    write(tmp_path, f"{chip}/curr4_input", 500)  # a sum
    board, cpu = find_meters(SystemFiles(tmp_path))
    assert (board.name, cpu.name) == ("VDD_IN (ina3221)", "VDD_CPU (ina3221)")
    recorder = EnergyRecorder([board, cpu], in_background=False)
    recorder.start()
    time.sleep(0.02)
    whole, part = recorder.stop()
    assert whole.watts == pytest.approx(5.7)
    assert part.watts == pytest.approx(1.0)
    assert whole.seconds >= 0.02


def test_jetpack_4(tmp_path):
    chip = "sys/bus/i2c/drivers/ina3221x/1-0040/iio:device0"
    write(tmp_path, f"{chip}/rail_name_0", "POM_5V_IN")
    write(tmp_path, f"{chip}/in_power0_input", 2312)
    (meter,) = find_meters(SystemFiles(tmp_path))
    assert meter.name == "POM_5V_IN (ina3221x)"


def test_hwmon_power_and_energy(tmp_path):
    write(tmp_path, "sys/class/hwmon/hwmon0/name", "amdgpu")
    write(tmp_path, "sys/class/hwmon/hwmon0/power1_average", 30_000_000)
    write(tmp_path, "sys/class/hwmon/hwmon0/power1_input", 31_000_000)  # the same rail, noisier
    write(tmp_path, "sys/class/hwmon/hwmon1/name", "amd_energy")
    write(tmp_path, "sys/class/hwmon/hwmon1/energy1_input", 5_000_000)
    write(tmp_path, "sys/class/hwmon/hwmon1/energy1_label", "Esocket0")
    gpu, socket = find_meters(SystemFiles(tmp_path))
    assert (gpu.name, socket.name) == ("power1 (amdgpu)", "Esocket0 (amd_energy)")
    write(tmp_path, "sys/class/hwmon/hwmon1/energy1_input", 7_000_000)
    socket.sample()
    assert socket.joules == pytest.approx(2.0)


TEGRASTATS_NEW = (
    "11-22-2026 12:00:00 RAM 2000/7620MB (lfb 1x1MB) CPU [1%@729,off] EMC_FREQ 0% GR3D_FREQ 0% CPU@48.5C "
    "VDD_IN 4251mW/4250mW VDD_CPU_GPU_CV 480mW/480mW VDD_SOC 1400mW/1400mW"
)


TEGRASTATS_OLD = (
    "RAM 1000/3994MB (lfb 1x4MB) IRAM 0/252kB(lfb 252kB) CPU [2%@102] EMC_FREQ 0% POM_5V_IN 2312/2312 POM_5V_CPU 168/168"
)


def test_lines_of_tegrastats():
    assert parse_tegrastats(TEGRASTATS_NEW) == {"VDD_IN": 4.251, "VDD_CPU_GPU_CV": 0.48, "VDD_SOC": 1.4}
    assert parse_tegrastats(TEGRASTATS_OLD) == {"POM_5V_IN": 2.312, "POM_5V_CPU": 0.168}
    assert parse_tegrastats("") == {}


def test_tegrastats_is_asked_where_the_kernel_says_nothing(tmp_path, monkeypatch):
    program = tmp_path / "tegrastats"
    program.write_text(f'#!/bin/sh\necho $$ > {tmp_path}/pid\nwhile :; do echo "{TEGRASTATS_OLD}"; sleep 0.05; done\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with open_meters(SystemFiles(tmp_path / "empty")) as meters:
        assert [meter.name for meter in meters] == ["POM_5V_IN (tegrastats)", "POM_5V_CPU (tegrastats)"]
        recorder = EnergyRecorder(meters)
        recorder.start()
        time.sleep(0.15)
        assert recorder.stop()[0].watts == pytest.approx(2.312, rel=0.05)
    assert not Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}").exists()


GPU = """
import json, sys, time
from enet_tvm.bench.machine.nvml import open_gpu
from enet_tvm.bench.machine.system_files import SystemFiles
from enet_tvm.bench.measure.energy import EnergyRecorder
from enet_tvm.bench.measure.meters import open_meters
with open_gpu() as gpu, open_meters(SystemFiles(sys.argv[1]), gpu) as meters:
    recorder = EnergyRecorder(meters)
    recorder.start()
    time.sleep(0.2)
    print(json.dumps([[energy.meter, energy.watts] for energy in recorder.stop()]))
"""


def test_a_gpu_counts_its_energy_or_tells_its_power(fake_gpu, tmp_path):
    write(tmp_path, "sys/class/powercap/intel-rapl:1/name", "psys")
    write(tmp_path, "sys/class/powercap/intel-rapl:1/energy_uj", 900)
    counted, whole = fake_gpu(GPU, str(tmp_path), COUNTED_WATTS=300, MILLIWATTS=100_000)
    assert counted == ["NVIDIA Fake (NVML)", pytest.approx(300, rel=0.1)]
    assert whole[0] == "psys (RAPL)"
    power, _ = fake_gpu(GPU, str(tmp_path), MILLIWATTS=100_000)
    assert power == ["NVIDIA Fake (NVML)", pytest.approx(100)]
    (whole,) = fake_gpu(GPU, str(tmp_path))
    assert whole[0] == "psys (RAPL)"
