"""`tools/install`, with a project of its own, and packages from a directory instead of an index."""

from __future__ import annotations

import importlib.metadata
import os
import pty
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

INSTALL = Path(__file__).parents[2] / "tools" / "install"
NOWHERE = "http://127.0.0.1:9/simple"


def write_wheel(directory: Path, name: str, *needs: str) -> Path:
    """Version 1 of a package of one empty module."""
    requires = "".join(f"Requires-Dist: {need}\n" for need in needs)
    files = {
        f"{name}.py": "",
        f"{name}-1.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n{requires}",
        f"{name}-1.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{name}-1.dist-info/RECORD"] = "".join(f"{path},,\n" for path in files) + f"{name}-1.dist-info/RECORD,,\n"
    with zipfile.ZipFile(path := directory / f"{name}-1-py3-none-any.whl", "w") as wheel:
        for file, text in files.items():
            wheel.writestr(file, text)
    return path


def pack_again(directory: Path, name: str) -> Path:
    """The wheel that an installed pure package came from."""
    package = importlib.metadata.distribution(name)
    path = directory / f"{name}-{package.version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for file in package.files or ():
            if (
                ".." not in file.parts
                and file.suffix != ".pyc"
                and file.name not in ("INSTALLER", "REQUESTED", "direct_url.json")
            ):
                wheel.write(str(file.locate()), str(file))
    return path


def index_of(directory: Path, *wheels: Path) -> str:
    """The address of a package index of these wheels."""
    for wheel in wheels:
        (page := directory / wheel.name.split("-")[0]).mkdir(parents=True)
        (page / "index.html").write_text(f'<a href="{wheel.as_uri()}">{wheel.name}</a>')
    return directory.as_uri()


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment as `tools/install` makes it, to be copied: making it takes longer than the rest."""
    venv = tmp_path_factory.mktemp("environment") / "venv"
    subprocess.run([sys.executable, "-m", "venv", venv], check=True, timeout=300)
    return venv


@pytest.fixture
def project(environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project that needs torch, which needs leaf; two indexes hold them, one of them only torch."""
    (project := tmp_path / "project").mkdir()
    shutil.copytree(environment, project / "venv", symlinks=True)
    torch, leaf = write_wheel(tmp_path, "torch", "leaf"), write_wheel(tmp_path, "leaf")
    (project / "constraints.txt").write_text("torch==1\n")
    (project / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
        '[project]\nname = "small"\nversion = "1"\ndependencies = ["torch==1"]\n'
        "[project.optional-dependencies]\ntest = []\n[tool.setuptools]\npackages = []\n"
    )
    for name in [name for name in os.environ if name.startswith("PIP_") or name == "PYTHONPATH"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", index_of(tmp_path / "all", torch, leaf, pack_again(tmp_path, "setuptools")))
    monkeypatch.setenv("TORCH_INDEX", index_of(tmp_path / "pytorch", torch))
    return project


def command(project: Path) -> list[str]:
    return [str(INSTALL), sys.executable, "venv", "constraints.txt", "test"]


def install(project: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(project), cwd=project, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.slow
def test_one_line_a_step_and_no_conflict(project: Path):
    result = install(project)
    assert (result.returncode, result.stderr) == (0, "")
    lines = [line.split(": ")[0].strip() for line in result.stdout.splitlines()]
    assert lines[:2] == ["the build backend", f"torch==1 from {os.environ['TORCH_INDEX']}"]
    assert lines[2] == "enet-tvm and what it needs"
    assert lines[3].startswith("installed in")
    assert len(lines) == 4
    log = (project / "venv/install.log").read_text()
    assert "Successfully installed torch-1" in log
    assert "Successfully installed leaf-1 small-1" in log
    assert "ERROR" not in log


@pytest.mark.slow
def test_falls_back_where_the_index_of_pytorch_cannot_be_reached(project: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TORCH_INDEX", NOWHERE)
    result = install(project)
    assert (result.returncode, result.stderr) == (0, "")
    assert f"note: torch==1 is not to be had from {NOWHERE}; taking the build that pip is configured for" in result.stdout
    assert "leaf-1 small-1 torch-1" in (project / "venv/install.log").read_text()


@pytest.mark.slow
def test_a_failure_shows_the_end_of_the_log_and_says_where_it_is(project: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TORCH_INDEX", "")
    shutil.rmtree(project.parent / "all/leaf")
    result = install(project)
    assert result.returncode == 2
    assert "No matching distribution found for leaf" in result.stderr
    assert "venv/install.log" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("error: installing enet-tvm and what it needs failed; ")
    assert len(result.stderr.splitlines()) <= 14
    assert "installed in" not in result.stdout


@pytest.mark.slow
def test_one_line_in_all_in_a_terminal(project: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TORCH_INDEX", "")
    monkeypatch.setenv("TERM", "xterm")
    ours, theirs = pty.openpty()
    with subprocess.Popen(command(project), cwd=project, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        said = b""
        try:
            while part := os.read(ours, 4096):
                said += part
        except OSError:  # how Linux says that the other side has closed
            pass
    os.close(ours)
    assert process.returncode == 0
    text = said.decode()
    assert text.count("\n") == 1
    assert text.rstrip().splitlines()[-1].endswith("all that pip said is in venv/install.log")
    assert "\r\x1b[K  enet-tvm and what it needs: leaf" in text
