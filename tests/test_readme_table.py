"""benchmarks/readme_table.py: from the results of benchmarks/latency.py to the table of the README."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from scripts import load_script, run_script

from enet_tvm.bench.runners.registry import RUNNERS
from enet_tvm.errors import UserError

SCRIPT = Path(__file__).parents[1] / "benchmarks/readme_table.py"
script = load_script(SCRIPT)


NAMES = script.COLUMNS[script.Kind.LATENCY]


def result(size: str, threads: int, **times: float) -> dict[str, Any]:
    medians = dict.fromkeys(NAMES, 40.0) | {name.replace("_", "-"): time for name, time in times.items()}
    entries = [
        {"name": name, "description": "", "latency": dict.fromkeys(("median_ms", "p10_ms", "p90_ms"), time) if time else None}
        for name, time in medians.items()
    ]
    return {
        **{"size": size, "threads": threads, "entries": entries, "limit_ms": 12.5},
        **{"machine": {"processor": "a processor"}, "versions": {"torch": "1"}},
    }


def run(tmp_path: Path, results: Any, readme: str) -> Any:
    (tmp_path / "results.json").write_text(json.dumps(results))
    (tmp_path / "README.md").write_text(readme)
    places = ["--figures", tmp_path / "latency.json", "--readme", tmp_path / "README.md"]
    return run_script(script, tmp_path / "results.json", *places)


def test_a_table_in_its_place(tmp_path: Path):
    old = script.table({"rows": []}, NAMES)
    results = [result("64x48", 1, tvm=10.04, torch_compile=30.0), result("96x64", 2), result("64x48", 2, tvm=8)]
    assert run(tmp_path, results, f"before\n\n{old}\n| old |\n\nafter\n").exit_code == 0
    text = (tmp_path / "README.md").read_text()
    assert text.startswith("before\n\n| size | threads | enet-tvm | LiteRT |")
    assert text.endswith(
        "| 64x48 | 2 | **8.0** | 40.0 | 40.0 | 40.0 | 40.0 | 40.0 | 40.0 | 40.0 | 40.0 | 12.5 | 0.20 | 0.64 |\n"
        "| 96x64 | 2 | **40.0** | 40.0 | 40.0 | 40.0 | 40.0 | 40.0 | 40.0 | 40.0 | 40.0 | 12.5 | 1.00 | 3.20 |\n"
        "| 64x48 | 1 | **10.0** | 40.0 | 40.0 | 30.0 | 40.0 | 40.0 | 40.0 | 40.0 | 40.0 | 12.5 | 0.33 | 0.80 |\n\nafter\n"
    )
    kept = json.loads((tmp_path / "latency.json").read_text())
    assert (kept["origin"], kept["versions"]) == ("benchmarks/latency.py on a processor", {"torch": "1"})
    assert script.replace_table(text, script.table(kept, NAMES)) == text


def shorter(size: str, threads: int, **times: float | None) -> dict[str, Any]:
    entries = [
        {
            "name": name.replace("_", "-"),
            "label_agreement": 0.95 + threads / 100,
            "latency": dict.fromkeys(("median_ms", "p10_ms", "p90_ms"), time) if time else None,
        }
        for name, time in times.items()
    ]
    return result(size, threads) | {"entries": entries}


def test_shorter_numbers_beside_each_other():
    results = [
        shorter("96x64", 2, tvm_bfloat16=9.0, openvino_bfloat16=20.0, tvm_int8=5.0, onnxruntime_int8=None),
        shorter("64x48", 2, openvino_bfloat16=10.0, tvm_bfloat16=4.04, tvm_int8=5.0),
        shorter("64x48", 1, tvm_float16=9.0, tvm_bfloat16=9.0),
    ]
    kept = script.summarise_precisions(results)
    assert kept["threads"] == 2
    assert script.table_of_precisions(kept).split("\n") == [
        "| data type | runtime | PyTorch's labels on noise | 64x48 | 96x64 |",
        "|---|---|--:|--:|--:|",
        "| bfloat16 | enet-tvm | 97.0 % | **4.0** | **9.0** |",
        "| bfloat16 | OpenVINO | 97.0 % | 10.0 (0.40) | 20.0 (0.45) |",
        "| int8 | enet-tvm | 97.0 % | **5.0** | **5.0** |",
        "| int8 | ONNX Runtime | 97.0 % | - | fails parity |",
    ]
    with pytest.raises(UserError, match="on 1 threads have no time of ours in float16 or bfloat16 or int8"):
        script.summarise_precisions([result("64x48", 1)])


def test_every_table_has_its_runners_headings_and_figures() -> None:
    for names in script.COLUMNS.values():
        assert names[0] == "tvm"
        assert set(names) <= script.HEADINGS.keys() & RUNNERS.keys()
    for kind in script.Kind:
        assert (SCRIPT.parents[1] / f"docs/{kind}.json").is_file()


@pytest.mark.parametrize(
    ("results", "readme", "sentence"),
    [
        ([result("64x48", 1, openvino=0)], "", "64x48 on 1 threads has no time of openvino; measure it"),
        ([result("64x48", 1) | {"limit_ms": None}], "", "has no limit"),
        ([result("64x48", 1)], "no table here\n", "no tables that begin with"),
        ({"size": 1}, "", "holds no results of a benchmark"),
    ],
)
def test_nothing_is_written_where_something_is_missing(results: Any, readme: str, sentence: str, tmp_path: Path):
    said = run(tmp_path, results, readme)
    assert said.exit_code == 2
    assert sentence in said.output
    assert (tmp_path / "README.md").read_text() == readme
    assert not (tmp_path / "latency.json").exists()
