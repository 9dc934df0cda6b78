"""benchmarks/arm_table.py: from the results of benchmarks/arm.py to the tables of README.md and docs/arm.md."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
from scripts import run_script

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("arm_table")


def kernel(name: str, fma: int, other: int, busy: float | None) -> dict[str, Any]:
    hottest = {"instructions": 4, "share": 0.5, "kinds": {"fma": 4}}
    if busy is not None:
        hottest |= {"model": "cortex-a72", "cycles": 4.0, "port": "unit", "busy": busy}
    return {"name": name, "instructions": fma + other, "kinds": {"fma": fma, "other": other}, "hottest": hottest}


def result(target: str, dtype: str, ours: int, kernels: list[dict[str, Any]], **peers: int) -> dict[str, Any]:
    entries = {"ours": {"instructions": ours, "kinds": {"fma": ours // 2, "other": ours - ours // 2}, "labels": 0.9999}}
    entries |= {name: {"instructions": count, "kinds": {}, "labels": 0.9} for name, count in peers.items()}
    place = {"target": target, "emulated": "max", "size": "64x48", "dtype": dtype}
    return {**place, "entries": entries, "loops": [], "kernels": kernels}


PLAIN = [kernel("conv2d_1x1_4to4_16x12_relu", 6_000_000, 2_000_000, 0.98), kernel("max_pool2d_with_window", 0, 1_000_000, 0.3)]
MANY = [
    kernel("conv2d_1x1_4to4_16x12_relu", 6_000_000, 2_000_000, 0.999),
    kernel("conv2d_3x3_d2_8to8_16x12_prelu_winograd", 2_000_000, 1_000_000, 0.8),
    kernel("conv2d_3x3_8to8_16x12", 1_000_000, 1_000_000, 0.9),
    kernel("conv2d_3x3_4to4_16x12", 10_000, 10_000, 0.1),
]


def run(script: Any, tmp_path: Path, *results: dict[str, Any], keep: bool = False) -> Any:
    files = []
    for number, one in enumerate(results):
        files.append(tmp_path / f"{number}.json")
        files[-1].write_text(json.dumps({"results": [one]}))
    for name, made in (("README.md", script.table), ("arm.md", script.kernel_table)):
        (tmp_path / name).write_text(f"before\n\n{made({'rows': []})}\n| old |\n\nafter\n")
    places = ["--figures", tmp_path / "arm.json", "--readme", tmp_path / "README.md", "--kernels", tmp_path / "arm.md"]
    return run_script(script, *files, *["--keep"] * keep, *places)


def test_tables_of_several_runs(script: Any, tmp_path: Path):
    """The port is that of the 1x1 and 3x3 kernels that matter; a peer that was not counted is a dash."""
    half = result("rpi5", "float16", 10_000_000, PLAIN, ncnn=20_000_000, litert=16_000_000)
    single = result("rpi4", "float32", 16_000_000, MANY, ncnn=32_000_000)
    whole = result("rpi5", "int8", 12_000_000, PLAIN)
    assert run(script, tmp_path, whole, half, single).exit_code == 0
    text = (tmp_path / "README.md").read_text()
    assert text.endswith(
        "| `rpi4` | 64x48 | float32 | **16.0** | 50 % | 32.0 | - | - | - | - | 0.50 | 99.99 % | 80 to 100 % |\n"
        "| `rpi5` | 64x48 | float16 | **10.0** | 50 % | 20.0 | - | 16.0 | - | - | 0.62 | 99.99 % | 98 % |\n"
        "| `rpi5` | 64x48 | int8 | **12.0** | 50 % | - | - | - | - | - | - | 99.99 % | 98 % |\n\nafter\n"
    )
    assert (
        (tmp_path / "arm.md")
        .read_text()
        .endswith(
            "| `rpi4` | float32 | 8.0, 75 %, 100 % | 3.0, 67 %, 80 % | 2.0, 50 %, 90 % | - | - | - | - | - | 3.0 |\n"
            "| `rpi5` | float16 | 8.0, 75 %, 98 % | - | - | - | - | - | - | 1.0, 0 %, 30 % | 1.0 |\n"
            "| `rpi5` | int8 | 8.0, 75 %, 98 % | - | - | - | - | - | - | 1.0, 0 %, 30 % | 3.0 |\n\nafter\n"
        )
    )
    kept = json.loads((tmp_path / "arm.json").read_text())
    assert importlib.import_module("readme_table").replace_table(text, script.table(kept)) == text


def test_rows_that_are_kept(script: Any, tmp_path: Path):
    single = result("rpi4", "float32", 16_000_000, MANY, ncnn=32_000_000)
    half = result("rpi5", "float16", 10_000_000, PLAIN, ncnn=20_000_000)
    assert run(script, tmp_path, half, single).exit_code == 0
    assert (
        run(script, tmp_path, half | {"entries": half["entries"] | {"mnn": single["entries"]["ncnn"]}}, keep=True).exit_code
        == 0
    )
    rows = [line for line in (tmp_path / "README.md").read_text().splitlines() if line.startswith("| `")]
    assert rows == [
        "| `rpi4` | 64x48 | float32 | **16.0** | 50 % | 32.0 | - | - | - | - | 0.50 | 99.99 % | 80 to 100 % |",
        "| `rpi5` | 64x48 | float16 | **10.0** | 50 % | 20.0 | 32.0 | - | - | - | 0.50 | 99.99 % | 98 % |",
    ]
    alone = half | {"entries": {"ours": half["entries"]["ours"] | {"instructions": 8_000_000, "labels": 0.5}}}
    assert run(script, tmp_path, alone, keep=True).exit_code == 0
    (row,) = [line for line in (tmp_path / "README.md").read_text().splitlines() if "`rpi5`" in line]
    assert row.startswith("| `rpi5` | 64x48 | float16 | **8.0** | ")
    assert "| 20.0 | 32.0 | - | - | - | 0.40 | 50.00 % |" in row
    (kept,) = [row for row in json.loads((tmp_path / "arm.json").read_text())["rows"] if row["target"] == "rpi5"]
    assert kept["labels"] == {"ours": 0.5}
    assert run(script, tmp_path, half).exit_code == 0
    assert "rpi4" not in (tmp_path / "README.md").read_text()


def test_a_row_that_was_counted_in_parts(script: Any, tmp_path: Path):
    """A peer at a time; the kernels are those of whichever run has them."""
    parts = [
        result("rpi4", "float32", 16_000_000, MANY, ncnn=32_000_000),
        result("rpi4", "float32", 16_000_100, [], mnn=40_000_000),
    ]
    assert run(script, tmp_path, *parts).exit_code == 0
    (row,) = [line for line in (tmp_path / "README.md").read_text().splitlines() if "`rpi4`" in line]
    assert "| 32.0 | 40.0 | - | - | - | 0.50 |" in row
    assert row.endswith("| 80 to 100 % |")


@pytest.mark.parametrize(
    ("results", "sentence"),
    [
        (
            [result("rpi4", "float32", 16_000_000, MANY), result("rpi4", "float32", 17_000_000, MANY)],
            "rpi4 at 64x48 in float32 was counted twice and ours has 16000000 and 17000000 instructions; count it again",
        ),
        (
            [result("rpi3", "float32", 16_000_000, [kernel("conv2d_1x1_4to4", 1_000_000, 0, None)])],
            "rpi3 at 64x48 in float32 has no kernels with a model; count it with this release's benchmarks/arm.py",
        ),
    ],
)
def test_what_is_missing(script: Any, tmp_path: Path, results: list[dict[str, Any]], sentence: str):
    done = run(script, tmp_path, *results)
    assert done.exit_code == 2
    assert sentence in done.output
    assert not (tmp_path / "arm.json").exists()
    assert "| old |" in (tmp_path / "README.md").read_text()
