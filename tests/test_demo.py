from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from commands import check_command
from PIL import Image

from enet_tvm import demo
from enet_tvm.agreement import PICTURES, PICTURES_MIOU
from enet_tvm.artifact import read_manifest


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["demo", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        demo.main()
    return int(caught.value.code or 0)


@pytest.mark.slow
def test_main_job(compiled_enet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    picture = tmp_path / "picture.png"
    Image.new("RGB", (90, 60), (90, 120, 150)).save(picture)
    options = ["--weights", compiled_enet.weights, "--size", "64x48", "--seconds", "0.1", "--picture", picture]
    assert run(monkeypatch, *options, "--output", tmp_path / "out") == 0

    with Image.open(tmp_path / "out/overlay.png") as overlay:
        assert overlay.size == (180, 60)
    figures = json.loads((tmp_path / "out/verify.json").read_text())
    assert figures["label_agreement"] >= PICTURES["float32"]
    assert figures["miou_diff"] <= PICTURES_MIOU["float32"]
    assert 0 <= figures["max_abs_logit_diff"] < 1e-3
    assert read_manifest(tmp_path / "out/artifact").input.shape == (1, 3, 48, 64)
    printed = capsys.readouterr().out
    assert "PyTorch eager" in printed
    assert "compiled" in printed
    check_next_commands(printed, picture, tmp_path / "out")


def check_next_commands(printed: str, picture: Path, output: Path) -> None:
    """The demo ends with three commands that parse, and the first of them works as it is."""
    commands = printed.split("next:\n")[1].splitlines()
    assert len(commands) == 3
    for command in commands:
        assert check_command(command.strip()) == ["enet-tvm"]
    assert str(picture) in shlex.split(commands[0], comments=True)
    subprocess.run(commands[0], shell=True, check=True, capture_output=True, timeout=120)
    assert list((output / "run").glob("*.png"))


def test_next_commands_are_of_the_demos_own_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/enet-tvm").touch()
    monkeypatch.setattr(sys, "executable", str(tmp_path / ".venv/bin/python"))
    _, command = demo.next_commands(Path("my demo"))[0]
    assert command == ".venv/bin/enet-tvm run 'my demo/artifact' 'my demo/picture.png' -o 'my demo/run'"


@pytest.mark.parametrize("features", [{"uint8"}, {"int8"}, {"bfloat16"}, set()])
def test_int8_is_named_where_the_processor_has_it(features: set[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(demo, "dot_products", lambda target: frozenset(features))
    named = any("--dtype int8" in command for _, command in demo.next_commands(Path("out")))
    assert named == bool(features & {"uint8", "int8"})


def test_bad_picture(compiled_enet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    options = ["--weights", compiled_enet.weights, "--picture", tmp_path / "none.png", "--output", tmp_path / "out"]
    assert run(monkeypatch, *options) == 2
    assert capsys.readouterr().err.startswith("error: there is no file")
    assert not (tmp_path / "out").exists()
