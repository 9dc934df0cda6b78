"""benchmarks/arm_table.py: from the results of benchmarks/arm.py to the table of the README."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("arm_table")


def result(target: str, dtype: str, ours: int, theirs: int | None) -> dict[str, Any]:
    entries = {"ours": {"instructions": ours, "kinds": {"fma": ours // 2, "load": ours - ours // 2}, "labels": 0.9999}}
    if theirs is not None:
        entries["ncnn"] = {"instructions": theirs, "kinds": {}, "labels": 0.9}
    loops = [{"models": {"cortex-a72": {"busy": busy}, "cortex-a76": {"busy": 0.5}}} for busy in (0.8, 0.999)]
    return {"target": target, "emulated": "max", "size": "64x48", "dtype": dtype, "entries": entries, "loops": loops}


def run(script: Any, tmp_path: Path, *results: dict[str, Any]) -> Any:
    app = script.typer.Typer()
    app.command()(script.main)
    files = []
    for number, one in enumerate(results):
        files.append(tmp_path / f"{number}.json")
        files[-1].write_text(json.dumps({"results": [one]}))
    places = ["--figures", str(tmp_path / "arm.json"), "--readme", str(tmp_path / "README.md")]
    return CliRunner().invoke(app, [*map(str, files), *places])


def test_a_table_of_several_runs(script: Any, tmp_path: Path):
    (tmp_path / "README.md").write_text(f"before\n\n{script.table({'rows': []})}\n| old |\n\nafter\n")
    half, single = result("rpi5", "float16", 10_000_000, 20_000_000), result("rpi4", "float32", 30_000_000, 40_000_000)
    assert run(script, tmp_path, half, single).exit_code == 0
    text = (tmp_path / "README.md").read_text()
    assert text.endswith(
        "| `rpi4` | 64x48 | float32 | **30.0** | 50 % | 40.0 | 0.75 | 99.99 % | 80 to 100 % |\n"
        "| `rpi5` | 64x48 | float16 | **10.0** | 50 % | 20.0 | 0.50 | 99.99 % | 50 % |\n\nafter\n"
    )
    kept = json.loads((tmp_path / "arm.json").read_text())
    assert importlib.import_module("readme_table").replace_table(text, script.table(kept)) == text


@pytest.mark.parametrize(
    ("one", "sentence"),
    [
        (
            result("rpi4", "float32", 1, None),
            "rpi4 at 64x48 in float32 has no count of ncnn; run benchmarks/arm.py with --peer",
        ),
        (result("rpi3", "float32", 1, 1), "rpi3 at 64x48 in float32 has no loops that were modelled for cortex-a53"),
    ],
)
def test_what_is_missing(script: Any, tmp_path: Path, one: dict[str, Any], sentence: str):
    (tmp_path / "README.md").write_text(script.table({"rows": []}))
    done = run(script, tmp_path, one)
    assert done.exit_code == 2
    assert sentence in done.output
    assert not (tmp_path / "arm.json").exists()
