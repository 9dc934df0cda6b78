"""`benchmarks/counting`: the runtimes that `benchmarks/arm.py` counts beside ours, and the board they are told they run on."""

from __future__ import annotations

import importlib
import importlib.util
import json
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from compiled import shipped_enet
from effort import shared_work
from scripts import load_script, run_script
from typer.testing import Result

from enet_tvm.artifact import Precision, read_manifest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
PEERS = ("ncnn", "mnn", "litert", "executorch", "onnxruntime")
HALF = ("ncnn", "mnn", "litert")
"""Those that compute in float16."""
EIGHT = ("mnn", "litert", "executorch")
"""Those that compute in int8."""

CONVERTERS = {
    ("executorch", "float32"): "executorch",
    ("executorch", "int8"): "executorch",
    ("litert", "int8"): "ai_edge_quantizer",
}
"""Modules that make a peer for a data type, which the script finds missing after it has counted ours; others are there."""

Entries = dict[str, Any]
"""What was counted of ours and of peers, by name."""


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


@pytest.fixture(scope="module")
def count(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path, str, Sequence[str]], Entries]:
    """Makes ``count(artifact, peer, peers)`` what the command line counts, in this process, which has imported PyTorch.

    All of `peers` are counted at once, as ours would be counted for each of them otherwise; one by one where that fails, so
    that each says for itself what is wrong.
    """
    script = load_script(BENCHMARKS / "arm.py")
    found: dict[Path, Entries] = {}

    def run(artifact: Path, peers: Sequence[str]) -> tuple[Result, Entries]:
        figures = tmp_path_factory.mktemp("counts") / "counts.json"
        options = ["--artifact", str(artifact), "--loops", "0", "--json", str(figures)]
        done = run_script(script, *options, *(text for peer in peers for text in ("--peer", peer)))
        return done, json.loads(figures.read_text())["results"][0]["entries"] if done.exit_code == 0 else {}

    def entries(artifact: Path, peer: str, peers: Sequence[str]) -> Entries:
        dtype = read_manifest(artifact).dtype
        missing = {
            name: module for (name, of), module in CONVERTERS.items() if of == dtype and not importlib.util.find_spec(module)
        }
        if peer in missing:
            pytest.skip(f"{missing[peer]} is not installed, which converts networks for {peer}")
        if artifact not in found:
            with shared_work():
                found[artifact] = run(artifact, [name for name in peers if name not in missing])[1]
        if peer in found[artifact]:
            return found[artifact]
        done, alone = run(artifact, [peer])
        if done.exit_code == 2 and any(words in done.stderr for words in ("is not installed", "here", "does not get")):
            pytest.skip(done.stderr)
        assert done.exit_code == 0, done.stderr or done.exception
        return alone

    return entries


@pytest.mark.emulated
@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", PEERS)
def test_a_forward_pass(count: Callable[[Path, str, Sequence[str]], Entries], name: str):
    """A peer has the labels of the form that it was given, else the script ends with an error, and is counted by kind."""
    entries = count(shipped_enet("rpi4"), name, PEERS)
    ours, theirs = entries["ours"], entries[name]
    assert theirs["form_labels"] >= 0.9999
    assert theirs["instructions"] == sum(theirs["kinds"].values())
    assert ours["instructions"] < theirs["instructions"] < 5 * ours["instructions"]
    assert theirs["kinds"]["fma"] > 0.25 * theirs["instructions"]


@pytest.mark.emulated
@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("dtype", "name", "peers", "labels"),
    [*(("float16", name, HALF, 0.97) for name in HALF), *(("int8", name, EIGHT, 0.9) for name in EIGHT)],
)
def test_a_peer_computes_in_the_type_that_it_is_asked_for(
    count: Callable[[Path, str, Sequence[str]], Entries], dtype: Precision, name: str, peers: Sequence[str], labels: float
):
    """Two or four numbers at once in the place of one: it takes far fewer multiply-adds than the same runtime in float32."""
    # Ours is of no interest here: one that is quickly made, and one that other tests have.
    artifacts = shipped_enet("rpi5", optimised=False), shipped_enet("rpi5", dtype=dtype)
    single, short = (count(artifact, name, peers)[name] for artifact in artifacts)
    assert single["form_labels"] > 0.9999 > short["form_labels"] > labels
    assert short["kinds"]["fma"] < 0.65 * single["kinds"]["fma"]
