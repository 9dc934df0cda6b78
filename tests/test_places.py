"""Shipped files, from a checkout and from an installed package, beside what lies about in the working directory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from enet_tvm.errors import UserError
from enet_tvm.networks import read_info
from enet_tvm.networks.weights import DEFAULT_WEIGHTS
from enet_tvm.places import find_file, name_of, search_roots, shipped

ROOT = Path(__file__).resolve().parents[1]
WEIGHTS = "model/enet-camvid.safetensors"
PROGRAM = """
import json
from enet_tvm.networks import read_info
from enet_tvm.networks.weights import DEFAULT_WEIGHTS
from enet_tvm.places import find_file, shipped
from enet_tvm.targets import known_targets, target_file
print(json.dumps({
    "weights": str(DEFAULT_WEIGHTS), "found": str(find_file(DEFAULT_WEIGHTS)), "recipe": read_info().notes["recipe"],
    "rpi4": str(target_file("rpi4")), "targets": sorted(known_targets()), "again": str(target_file("rpi4")),
    "logs": sorted(path.name for path in shipped("tuning_logs").iterdir()),
}))
"""


def look(here: Path, path: Path) -> tuple[dict[str, object], str]:
    """Return what a program sees of shipped files, and its words."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=here, env=os.environ | {"PYTHONPATH": str(path)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the package is as a wheel holds it."""
    work = tmp_path_factory.mktemp("installed")
    steps = ["egg_info", "--egg-base", str(work), "build_py", "--build-lib", str(work / "lib")]
    done = subprocess.run([sys.executable, "setup.py", "-q", *steps], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return work / "lib"


@pytest.mark.slow
def test_an_installed_package_has_what_is_shipped(installed: Path, tmp_path: Path):
    share = installed / "enet_tvm/share"
    seen, said = look(tmp_path, installed)
    assert seen["weights"] == seen["found"] == str(share / WEIGHTS)
    assert seen["rpi4"] == str(share / "targets/rpi4.toml")
    assert seen["targets"] == sorted(path.stem for path in (ROOT / "targets").glob("*.toml"))
    assert set(seen["logs"]) >= {"x86-64-v3", "x86-64-v4", "zen4"}
    assert said == ""


@pytest.mark.slow
@pytest.mark.parametrize("from_checkout", [True, False])
def test_what_lies_about_is_taken_and_left_alone_with_a_word(installed: Path, tmp_path: Path, from_checkout: bool):
    (tmp_path / "model").mkdir()
    (tmp_path / WEIGHTS).write_bytes(b"stray")
    (tmp_path / "targets").mkdir()
    (tmp_path / "targets/rpi4.toml").write_text('description = "mine"')
    (tmp_path / "targets/mine.toml").write_text('description = "mine"')
    path = ROOT if from_checkout else installed
    # Neither is there a place beside the installed package that could be taken for a checkout.
    (installed / "model").mkdir(exist_ok=True)
    (installed / WEIGHTS).write_bytes(b"another package's")
    seen, said = look(tmp_path, path)
    assert seen["weights"] == str((ROOT if from_checkout else installed / "enet_tvm/share") / WEIGHTS)
    assert seen["recipe"] == read_info(ROOT / WEIGHTS).notes["recipe"]
    assert seen["rpi4"] == str(tmp_path / "targets/rpi4.toml")
    assert "mine" in seen["targets"]
    assert said.splitlines() == [
        f"{WEIGHTS} of this directory is left alone, the file of that name that is shipped is taken; name yours to take it",
        "targets/rpi4.toml of this directory is taken, and hides the file of that name that is shipped",
    ]


@pytest.mark.slow
def test_a_copy_of_what_is_shipped_is_worth_no_word(tmp_path: Path):
    (tmp_path / "model").mkdir()
    (tmp_path / WEIGHTS).write_bytes(DEFAULT_WEIGHTS.read_bytes())
    assert look(tmp_path, ROOT)[1] == ""


def test_a_file_that_is_named_is_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    monkeypatch.chdir(tmp_path)
    assert find_file(WEIGHTS) == DEFAULT_WEIGHTS == ROOT / WEIGHTS
    (tmp_path / "model").mkdir()
    (tmp_path / WEIGHTS).write_bytes(b"own")
    assert find_file(WEIGHTS) == tmp_path / WEIGHTS
    assert search_roots() == [tmp_path, ROOT]
    assert caplog.text == ""
    with pytest.raises(UserError, match=r"there is no file model/other\.safetensors; check the path"):
        find_file("model/other.safetensors")


def test_shipped_files_are_called_alike_everywhere(tmp_path: Path):
    assert name_of(DEFAULT_WEIGHTS) == WEIGHTS
    assert name_of(shipped("runs/best.safetensors")) == str(ROOT / "runs/best.safetensors")
    assert name_of("runs/best.safetensors") == "runs/best.safetensors"
    assert name_of(tmp_path / WEIGHTS) == str(tmp_path / WEIGHTS)
