"""`benchmarks/counting`: the runtimes that `benchmarks/arm.py` counts beside ours, and the board they are told they run on."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def module(name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module(f"counting.{name}")


@pytest.mark.parametrize(
    ("processor", "register", "part"),
    [
        ("cortex-a72", "0x00000000410fd083", "0xd08"),
        ("cortex-a76", "0x00000000414fd0b1", "0xd0b"),
        ("neoverse-v1", "0x00000000411fd401", "0xd40"),
        ("another", "0x00000000410fd034", "0xd03"),
    ],
)
def test_a_board_says_which_processor_it_has(processor, register, part, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    device = tmp_path / "device"
    (device / "usr/bin").mkdir(parents=True)
    root = module("board_files", monkeypatch).board_root(tmp_path / "root", device, processor)
    assert f"CPU part\t: {part}\n" in (root / "proc/cpuinfo").read_text()
    cores = root / "sys/devices/system/cpu"
    assert (cores / "cpu0/regs/identification/midr_el1").read_text().strip() == register
    assert (cores / "present").read_text() == "0\n"
    assert (root / "usr/bin").is_dir()


def test_packages_of_the_device_are_the_pinned_ones(monkeypatch: pytest.MonkeyPatch):
    pinned = module("device_packages", monkeypatch).pinned
    assert pinned("MNN").startswith("MNN==")
    assert pinned("mnn") == pinned("MNN")


def test_a_package_that_is_not_to_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    packages = module("device_packages", monkeypatch)
    failed = subprocess.CompletedProcess([], 1, "", "WARNING: first\nERROR: No matching distribution found\n")
    monkeypatch.setattr(packages.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(packages.UnavailableError, match=r"pip does not get MNN==\S+ for aarch64: ERROR: No matching"):
        packages.device_package(tmp_path, "MNN")
    assert not (tmp_path / "packages" / packages.pinned("MNN")).exists()


def counted(figures: Path, *options: str) -> list[dict[str, Any]]:
    """What `benchmarks/arm.py` counts at 64x48."""
    command = [sys.executable, str(BENCHMARKS / "arm.py"), "--size", "64x48", "--loops", "0", "--json", str(figures), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1700, check=False)
    if done.returncode == 2 and ("is not installed" in done.stderr or "here" in done.stderr or "does not get" in done.stderr):
        pytest.skip(done.stderr)
    assert done.returncode == 0, done.stderr
    return json.loads(figures.read_text())["results"]


@pytest.mark.emulated
@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", ["ncnn", "mnn", "litert", "executorch", "onnxruntime"])
def test_a_forward_pass(name: str, tmp_path: Path):
    """A peer has the labels of the form that it was given, else the script ends with an error, and is counted by kind."""
    (result,) = counted(tmp_path / "counts.json", "--peer", name)
    ours, theirs = result["entries"]["ours"], result["entries"][name]
    assert theirs["form_labels"] >= 0.9999
    assert theirs["instructions"] == sum(theirs["kinds"].values())
    assert ours["instructions"] < theirs["instructions"] < 5 * ours["instructions"]
    assert theirs["kinds"]["fma"] > 0.25 * theirs["instructions"]


@pytest.mark.emulated
@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", ["ncnn", "mnn", "litert"])
def test_a_peer_that_is_asked_for_float16_computes_in_it(name: str, tmp_path: Path):
    """Two numbers at once in the place of one: it takes far fewer multiply-adds than the same runtime in float32."""
    options = ("--target", "rpi5", "--dtype", "float32", "--dtype", "float16", "--peer", name)
    single, half = (result["entries"][name] for result in counted(tmp_path / "counts.json", *options))
    assert single["form_labels"] > 0.9999 > half["form_labels"] > 0.97
    assert half["kinds"]["fma"] < 0.65 * single["kinds"]["fma"]


@pytest.mark.emulated
@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", ["mnn", "litert", "executorch"])
def test_a_peer_that_is_asked_for_int8_computes_in_it(name: str, tmp_path: Path):
    """A dot product of four bytes for each of four sums in the place of four multiply-adds."""
    options = ("--target", "rpi5", "--dtype", "float32", "--dtype", "int8", "--peer", name)
    single, eight = (result["entries"][name] for result in counted(tmp_path / "counts.json", *options))
    assert single["form_labels"] > 0.9999 > eight["form_labels"] > 0.9
    assert eight["kinds"]["fma"] < 0.65 * single["kinds"]["fma"]
