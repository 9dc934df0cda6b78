from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from PIL import Image

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "latency.py"
TINY = ("--size", "64x48", "--size", "96x64", "--threads", "1", "--seconds", "0.1", "--runner", "tvm", "--runner", "torch")


def measure(out: Path) -> str:
    command = [sys.executable, str(SCRIPT), *TINY, "--out", str(out)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=500).stdout


def test_table_figures_and_plot_and_a_second_run_that_goes_on(tmp_path):
    measure(tmp_path)
    results = json.loads((tmp_path / "latency.json").read_text())
    assert [result["size"] for result in results] == ["64x48", "96x64"]
    assert all(entry["latency"]["median_ms"] > 0 for result in results for entry in result["entries"])
    table = (tmp_path / "latency.md").read_text()
    assert table.count("| 64x48 | 1 |") == 1
    assert "ours / best peer" in table
    assert Image.open(tmp_path / "latency.png").size[0] > 300

    (tmp_path / "latency.json").write_text(json.dumps(results[:1]))
    assert "64x48 on 1 threads: measured already" in measure(tmp_path)
    assert len(json.loads((tmp_path / "latency.json").read_text())) == 2
