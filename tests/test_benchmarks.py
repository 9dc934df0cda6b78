from __future__ import annotations

import copy
import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from scripts import load_script

from enet_tvm.bench.plan import plan_cases
from enet_tvm.bench.runners.registry import runners_at

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "latency.py"
TINY = ("--threads", "1", "--seconds", "0.1", "--runner", "tvm", "--runner", "tvm-untuned", "--runner", "torch")


def measure(out: Path, *sizes: str) -> str:
    options = [text for size in sizes for text in ("--size", size)]
    command = [sys.executable, str(SCRIPT), *TINY, *options, "--out", str(out)]
    environment = {name: value for name, value in os.environ.items() if name != "ENET_TVM_CAMVID"}  # the default of --data
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=500, env=environment).stdout


@pytest.mark.slow
def test_table_figures_and_plot_and_a_second_run_that_goes_on(tmp_path):
    assert "measured already" not in measure(tmp_path, "64x48")
    (first,) = json.loads((tmp_path / "latency.json").read_text())

    said = measure(tmp_path, "64x48", "96x64")
    assert "64x48 on 1 threads: measured already" in said
    assert "96x64 on 1 threads: measured already" not in said
    results = json.loads((tmp_path / "latency.json").read_text())
    assert results[0] == first
    assert [result["size"] for result in results] == ["64x48", "96x64"]
    assert all(entry["latency"]["median_ms"] > 0 for result in results for entry in result["entries"])
    table = (tmp_path / "latency.md").read_text()
    assert table.count("| 64x48 | 1 |") == 1
    assert "| size | threads | ours | PyTorch | limit | ours / best peer | ours / limit |" in table
    assert "- ours untuned is missing: it would be the same as tvm, which no tuning log fits" in table
    assert Image.open(tmp_path / "latency.png").size[0] > 300

    check_same(first, tmp_path)


def check_same(result: dict, directory: Path) -> None:
    """What was measured otherwise is no result of this run."""
    script = load_script(SCRIPT)
    names = ["tvm", "tvm-untuned", "torch"]
    (case,) = plan_cases(directory, runners=names, sizes=["64x48"], threads=[1]).cases
    assert script.is_same(result, case, names)
    assert not script.is_same(result, case, [*names, "openvino"])
    assert not script.is_same(result, dataclasses.replace(case, data="camvid"), names)
    for path, value in {("weights", "sha256"): "0" * 64, ("machine", "processor"): "another", ("target",): "rpi4"}.items():
        other = copy.deepcopy(result)
        place = other[path[0]] if len(path) > 1 else other
        place[path[-1]] = value
        assert not script.is_same(other, case, names)


def test_ratios_are_of_runners_that_compute_alike():
    times = {
        **{"tvm": ("float32", 4.0), "tvm-untuned": ("float32", 3.0), "tvm-float16": ("float16", 2.5)},
        **{"tvm-bfloat16": ("bfloat16", 2.0), "openvino": ("float32", 8.0), "openvino-int8": ("int8", 1.0)},
        **{"ncnn-bfloat16": ("bfloat16", 5.0), "openvino-float16": ("float16", 6.0)},
    }
    entries = [{"name": name, "precision": kind, "latency": {"median_ms": time}} for name, (kind, time) in times.items()]
    entries.append({"name": "litert-float16", "precision": "float16", "latency": None})  # fails parity
    script, result = load_script(SCRIPT), {"entries": entries}
    found = [script.best_times(result, kind) for kind in script.KINDS]
    assert found == [(4.0, 8.0), (2.0, 5.0), (None, 1.0)]


def test_every_runner_of_a_processor_is_a_column():
    assert list(load_script(SCRIPT).HEADINGS.keys() ^ set(runners_at("cpu"))) == []


@pytest.mark.slow
def test_video(tiny_artifact, tmp_path):
    options = ("--input", "64x48", "--input", "96x64", "--rounds", "2", "--seconds", "0.2", "--json", str(tmp_path / "v.json"))
    command = [sys.executable, str(SCRIPT.with_name("video.py")), "--artifact", str(tiny_artifact.directory), *options]
    said = subprocess.run(command, check=True, capture_output=True, text=True, timeout=200, env=os.environ | {"COLUMNS": "200"})
    assert "pre and post" in said.stdout
    found = json.loads((tmp_path / "v.json").read_text())
    assert [video["input"] for video in found["videos"]] == ["64x48", "96x64"]
    for video in found["videos"]:
        assert 0 < video["share"] < 1
        assert min(video["end_to_end"], video["alone"], video["one_by_one"], video["pre_ms"], video["post_ms"]) > 0
