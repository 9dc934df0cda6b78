"""`enet-tvm targets` lists, shows, checks and writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from enet_tvm.cli.targets import app
from enet_tvm.compiler import linking as toolchain


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(app, arguments)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def row(output: str, name: str) -> str:
    return next(line for line in output.splitlines() if line.split()[:1] == [name])


def test_list(here: Path):
    (here / "targets").mkdir()
    (here / "targets" / "broken.toml").write_text("cores = many")
    run("new", "mine", "--like", "x86-64-v4", "--cores", "7")
    output = run("list", "--json", "list.json").output
    assert " ".join(row(output, "mine").split()) == "mine x86-64-v4 16 x float32, 32 registers 7 targets/mine.toml"
    assert "cortex-a72" in row(output, "rpi4")
    assert "this machine" in row(output, "native")
    assert "not valid" in row(output, "broken")
    figures = {target["name"]: target for target in json.loads((here / "list.json").read_text())}
    assert figures["mine"]["cores"] == 7
    assert figures["rpi4"]["vector_unit"] == {"lanes": 4, "registers": 32, "isa": "aarch64"}
    assert "not valid TOML" in figures["broken"]["error"]


def test_show(here: Path):
    output = run("show", "rpi3", "--json", "show.json").output
    for words in ("cortex-a53", "480x320", "38.4 GFLOP/s, 3.6 GB/s", "64-bit Raspberry Pi OS", "512 MB"):
        assert words in output
    assert "enet-tvm compile --target rpi3 -o rpi3" in output
    assert json.loads((here / "show.json").read_text())["roofline"]["gbps"] == 3.6
    assert "640x360" in run("show", "native").output


def test_check(here: Path):
    result = run("check", "native", "--json", "check.json")
    assert result.exit_code == 0
    assert "can be compiled for, and runs here" in result.output
    assert json.loads((here / "check.json").read_text())[0]["compiles"] is True


def test_check_of_all_fails_with_one(here: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(here))
    monkeypatch.setattr(toolchain.importlib.util, "find_spec", lambda name: None)
    result = run("check")
    assert result.exit_code == 1
    assert "rpi4 cannot be compiled for" in result.output
    assert "run: pip install ziglang" in result.output


def test_new_takes_every_key(here: Path):
    options = {
        "description": "a board", "triple": "aarch64-linux-gnu", "mcpu": "cortex-a55", "mattr": "+dotprod",
        "cpu-feature": "asimd", "cores": "8", "memory": "2048", "toolchain": "zig", "rpc-key": "farm", "size": "64x48",
        "note": "Cool it.",
    }  # fmt: skip
    output = run("new", "mine", *(word for key, value in options.items() for word in (f"--{key}", value))).output
    assert "wrote targets/mine.toml; next: enet-tvm targets check mine" in output
    run("show", "mine", "--json", "show.json")
    shown = json.loads((here / "show.json").read_text())
    wanted = {
        "mattr": ["+dotprod"], "cpu_features": ["asimd"], "cores": 8, "memory": 2048, "toolchain": "zig", "rpc_key": "farm",
        "size": "64x48", "notes": ["Cool it."],
    }  # fmt: skip
    assert {key: shown[key] for key in wanted} == wanted
