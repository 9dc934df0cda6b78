"""`enet-tvm compile` writes an artifact and says what it is of."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from torch import nn

from enet_tvm.artifact import LIBRARY_NAME, read_manifest
from enet_tvm.cli.main import main
from enet_tvm.compiler import compile as compiler
from enet_tvm.files import sha256
from enet_tvm.networks import WeightsInfo, save_network

INFO = WeightsInfo("tiny", ("road", "sky"), ((1, 2, 3), (4, 5, 6)), (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
BOARD = """
description = "a board"
triple = "x86_64-linux-gnu"
mcpu = "x86-64-v2"
size = "48x16"
cores = 2
"""


@pytest.fixture
def here(randomised, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with weights of a network that compiles in no time, and a target."""
    network = randomised(nn.Conv2d(3, 2, 3, padding=1))
    save_network(network, INFO, tmp_path / "tiny.safetensors")
    monkeypatch.setattr(compiler, "load_network", lambda path: network)
    (tmp_path / "board.toml").write_text(BOARD)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(line: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(shlex.split(line))
    return int(caught.value.code or 0)


def test_compile(here: Path, capsys: pytest.CaptureFixture[str]):
    assert run("compile --weights tiny.safetensors --size 24x16 --batch 2 -o new/artifact --json figures.json --untuned") == 0
    manifest = read_manifest("new/artifact")
    assert manifest.input.shape == (2, 3, 16, 24)
    assert manifest.target.name == "native"
    said = capsys.readouterr().out
    assert said.startswith("new/artifact: tiny with 2 classes at 24x16 in float32 for native")
    assert f"{manifest.kernel_count} kernels" in said
    figures = json.loads(Path("figures.json").read_text())
    library = here / "new" / "artifact" / LIBRARY_NAME
    assert figures["kernel_count"] == manifest.kernel_count
    assert figures["library_bytes"] == library.stat().st_size
    assert figures["hashes"] == {"weights": sha256("tiny.safetensors"), "library": sha256(library)}
    assert figures["seconds"] > 0
    assert figures["target"]["mcpu"] == manifest.target.mcpu


def test_a_target_of_ones_own(here: Path):
    """Its size is the default."""
    assert run("compile --weights tiny.safetensors --target board.toml -o artifact") == 0
    manifest = read_manifest("artifact")
    assert (manifest.target.name, manifest.target.mcpu, manifest.input.shape) == ("board", "x86-64-v2", (1, 3, 16, 48))


def test_dump(here: Path):
    assert run("compile --weights tiny.safetensors --size 16x8 --dump-ir ir -o artifact") == 0
    names = sorted(path.name for path in Path("ir").iterdir())
    assert names[0] == "00-import.py"
    assert names[-1] == f"{len(names) - 1:02d}-virtual-machine.py"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--size 20x8", "try 16x8"),
        ("--batch 0", "batch"),
        ("--target board", "there is no target 'board'"),
        ("--dump-ir tiny.safetensors/ir", "cannot write"),
    ],
)
def test_bad_options(here: Path, capsys: pytest.CaptureFixture[str], options: str, words: str):
    assert run(f"compile --weights tiny.safetensors -o artifact {options}") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert words in error
    assert not Path("artifact").exists()


def test_no_directory(here: Path, capsys: pytest.CaptureFixture[str]):
    assert run("compile --weights tiny.safetensors") == 2
    assert "--out" in capsys.readouterr().err


@pytest.mark.slow
def test_another_process_makes_the_same_bytes(compiled_enet, tmp_path: Path):
    """With other hash values and addresses; and the manifest says by which command."""
    command = ["compile", "--weights", str(compiled_enet.weights), "--size", "64x48", "--target", "native", "-o", "artifact"]
    executable = Path(sys.executable).with_name("enet-tvm")
    environment = {**os.environ, "PYTHONHASHSEED": "1"}
    subprocess.run([executable, *command], cwd=tmp_path, env=environment, check=True, capture_output=True)
    made, before = read_manifest(tmp_path / "artifact"), read_manifest(compiled_enet.directory)
    assert made.command == shlex.join(["enet-tvm", *command])
    assert made.hashes == before.hashes
    assert made.kernels == before.kernels
