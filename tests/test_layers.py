"""The order of the packages: that the imports keep it, and that CONTRIBUTING draws the one that is kept."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
LINT = "from importlinter.cli import lint_imports; raise SystemExit(lint_imports(no_cache=True))"


def lint(directory: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", LINT], cwd=directory, capture_output=True, text=True)


@pytest.fixture
def contracts() -> list[dict[str, Any]]:
    with open(ROOT / "pyproject.toml", "rb") as file:
        return tomllib.load(file)["tool"]["importlinter"]["contracts"]


def test_imports_keep_the_order():
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout


def test_an_import_against_the_order_is_found(contracts, tmp_path):
    """Of a package of two modules, the lower of which imports the upper one, under the project's own first contract."""
    contract = {**contracts[0], "containers": ["enet_tvm"], "layers": ["cli", "errors"]}
    package = tmp_path / "enet_tvm"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "cli.py").touch()
    (package / "errors.py").write_text("import enet_tvm.cli\n")
    lines = [f"{key} = {str(value).lower() if isinstance(value, bool) else value!r}" for key, value in contract.items()]
    text = "[tool.importlinter]\nroot_package = 'enet_tvm'\n[[tool.importlinter.contracts]]\n" + "\n".join(lines)
    (tmp_path / "pyproject.toml").write_text(text)
    done = lint(tmp_path)
    assert done.returncode == 1
    assert "enet_tvm.errors is not allowed to import enet_tvm.cli" in done.stdout


def test_contributing_draws_it(contracts):
    drawing = re.search(r"```text\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.DOTALL)
    assert drawing is not None
    lines = [line.strip() for line in drawing.group(1).splitlines() if line.strip()]
    outer, inner = contracts
    assert [re.split(r"\s{2,}", line)[0] for line in lines] == outer["layers"]
    (compiler,) = (line for line in lines if line.startswith("compiler"))
    assert re.split(r"\s{2,}", compiler)[1].split(" > ") == inner["layers"]
