from __future__ import annotations

import json

import pytest

from enet_tvm.bench.machine.description import describe_machine, is_gpu, processor
from enet_tvm.bench.machine.system_files import SystemFiles
from enet_tvm.machine import choose_cores, default_threads, usable_cpus

PI = "processor\t: 0\nFeatures\t: fp asimd\nCPU part\t: 0xd08\n\nprocessor\t: 1\nCPU part\t: 0xd08\n"


def put(root, path, content):
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_bytes(content.encode())


def test_a_board(tmp_path):
    put(tmp_path, "proc/cpuinfo", PI)
    put(tmp_path, "proc/meminfo", "MemTotal:        3884360 kB\nMemFree: 1 kB\n")
    put(tmp_path, "proc/device-tree/model", "Raspberry Pi 4 Model B Rev 1.4\0")
    for cpu in (0, 1):
        put(tmp_path, f"sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor", "ondemand\n")
    (tmp_path / "sys/class/devfreq/17000000.gp10b").mkdir(parents=True)
    put(tmp_path, "proc/driver/nvidia/gpus/0000:01:00.0/information", "Model: \t\t NVIDIA H200\nIRQ: 1\n")
    put(tmp_path, "proc/sys/kernel/ostype", "Linux\n")
    put(tmp_path, "proc/sys/kernel/osrelease", "6.1.21-v8+\n")
    found = describe_machine(SystemFiles(tmp_path))
    assert found.to_dict() == {
        "processor": "Cortex-A72",
        "board": "Raspberry Pi 4 Model B Rev 1.4",
        "processors": 2,
        "usable": "",
        "memory_bytes": 3884360 * 1024,
        "gpus": ["NVIDIA H200", "integrated (17000000.gp10b)"],
        "governor": "ondemand",
        "system": "Linux 6.1.21-v8+",
    }
    json.dumps(found.to_dict())


@pytest.mark.parametrize(
    ("cpuinfo", "name"),
    [
        ("model name\t: AMD EPYC\n", "AMD EPYC"),
        ("CPU part\t: 0xd03\nCPU part\t: 0xd0b\n", "Cortex-A53, Cortex-A76"),
        ("CPU part\t: 0xd05\nCPU part\t: 0xd0b\n", "Cortex-A55, Cortex-A76"),
        ("CPU part\t: 0xfff\n", "ARM part 0xfff"),
        ("", ""),
    ],
)
def test_names_of_processors(tmp_path, cpuinfo, name):
    put(tmp_path, "proc/cpuinfo", cpuinfo)
    assert processor(SystemFiles(tmp_path)) == name


def test_cores_that_are_bound_to():
    """The words of the threads say it, or it is added to them."""
    last = usable_cpus()[-1]
    for choice in (choose_cores([last]), choose_cores([last, 1000]), choose_cores([1000])):
        usable = describe_machine(cores=choice).usable
        assert usable.startswith(str(default_threads(cores=choice.wanted)))
        assert usable.endswith(str(choice))


def test_gpus_among_other_devices():
    assert is_gpu("/sys/class/devfreq/57000000.gpu")
    assert is_gpu("/sys/class/devfreq/17000000.ga10b")
    assert not is_gpu("/sys/class/devfreq/soc:dmc")


def test_this_machine():
    found = describe_machine()
    assert found.processor
    assert found.processors >= len(usable_cpus())
    assert found.usable == str(default_threads())
    assert describe_machine(SystemFiles()).usable == "", "it may be another machine's files"
    assert found.memory_bytes
    assert found.memory_bytes > 1e8
