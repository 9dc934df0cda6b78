"""Scripts of `benchmarks` and `tools` as modules, without running them."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import typer
from typer.testing import CliRunner, Result


def load_script(path: Path) -> ModuleType:
    """Return a script as a module; what it imports is looked for beside it, too, as Python does when it runs one."""
    spec = importlib.util.spec_from_file_location(f"_{path.stem}_script", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(path.parent))
    return module


def run_script(script: Path | ModuleType, *arguments: object) -> Result:
    """Run the command of a script in this process: a new one would take seconds to import PyTorch and TVM."""
    app = typer.Typer()
    app.command()((load_script(script) if isinstance(script, Path) else script).main)
    return CliRunner().invoke(app, [*map(str, arguments)])
