from __future__ import annotations

import importlib.util
import platform
from pathlib import Path

import pytest

from enet_tvm import compatibility
from enet_tvm.compiler import target_check as checking
from enet_tvm.compiler.target_check import check_target
from enet_tvm.errors import UserError
from enet_tvm.targets import load_target

MACHINE = platform.machine()
FOREIGN = {"x86_64": "rpi4"}.get(MACHINE, "x86-64-v3")


def test_this_machine():
    found = check_target("native")
    assert found.compiles
    assert found.runs_here
    assert found.linker is not None
    assert found.to_dict()["runs_here"] is True


def test_another_machine():
    pytest.importorskip("ziglang")
    found = check_target(FOREIGN)
    assert found.compiles
    assert "ziglang" in str(found.linker)
    assert not found.runs_here
    assert f"this machine is {MACHINE}" in found.obstacles[0]


def test_without_any_linker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    found = check_target(FOREIGN)
    assert not found.compiles
    assert found.linker is None
    assert "pip install ziglang" in found.problems[0]


def test_features_that_this_processor_lacks(monkeypatch: pytest.MonkeyPatch):
    name = {"x86_64": "x86-64-v3"}.get(MACHINE, "rpi4")
    monkeypatch.setattr(compatibility, "cpu_features", lambda: frozenset(load_target(name).cpu_features[1:]))
    found = check_target(name)
    assert found.compiles
    assert not found.runs_here
    assert f"lacks {load_target(name).cpu_features[0]}; compile with --target native" in found.obstacles[0]


def test_all_problems_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    path = tmp_path / "odd.toml"
    path.write_text(f'description = "odd"\ntriple = "{MACHINE}-linux-gnu"\nmcpu = "abacus"\ntoolchain = "system"\n')
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    found = check_target(str(path))
    assert [any(words in problem for problem in found.problems) for words in ("no processor 'abacus'", "apt install gcc")] == [
        True,
        True,
    ]


def test_a_file_that_is_not_valid_is_a_problem(tmp_path: Path):
    path = tmp_path / "broken.toml"
    path.write_text("cores = many")
    found = check_target(str(path))
    assert not found.compiles
    assert "is not valid TOML" in found.problems[0]
    with pytest.raises(UserError, match="there is no target"):
        check_target("nowhere")


def test_a_gpu_without_the_cuda_compiler(monkeypatch: pytest.MonkeyPatch):
    """What compile says, too: one sentence with the command that cures it."""

    def missing() -> None:
        raise UserError("the CUDA compiler is not installed; run: pip install 'enet-tvm[cuda]'")

    monkeypatch.setattr(checking, "find_cuda_tools", missing)
    found = check_target("gtx-1080")
    assert not found.compiles
    assert found.problems == ("the CUDA compiler is not installed; run: pip install 'enet-tvm[cuda]'",)
    assert check_target("native").compiles


@pytest.mark.skipif(MACHINE != "x86_64", reason="the target is one for x86-64")
def test_a_gpu_that_is_not_here(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(checking, "find_cuda_tools", lambda: None)
    monkeypatch.setattr(checking, "missing_driver", lambda: "this machine has no CUDA driver")
    found = check_target("gtx-1080")
    assert found.compiles
    assert found.obstacles == ("this machine has no CUDA driver; copy the artifact to the device",)
    monkeypatch.setattr(checking, "missing_driver", lambda: None)
    assert check_target("gtx-1080").runs_here
