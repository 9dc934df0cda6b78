from __future__ import annotations

import io
import json
import subprocess
import sys

from enet_tvm.bench.measure.worker import serve
from enet_tvm.bench.runners import Case
from enet_tvm.compiler.workload import Workload
from enet_tvm.size import Size
from enet_tvm.targets import load_target


def answers_to(commands: str, **job) -> list[dict]:
    out = io.StringIO()
    serve({"warm_up": 0, **job}, io.StringIO(commands), out)
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_it_runs_as_often_as_it_is_told(compiled_enet, tmp_path):
    case = Case(
        Workload(compiled_enet.weights, Size(64, 48), load_target("native"), 1), tmp_path, artifact=compiled_enet.directory
    )
    ready, short, long = answers_to("run 0\nrun 0.2\n", runner="tvm", case=case.to_dict())
    assert ready["load_seconds"] > 0
    assert ready["first_seconds"] > 0
    assert short["passes"] == 1
    assert long["passes"] > 1
    assert long["seconds"] >= 0.2


def test_what_is_wrong_is_answered(tmp_path):
    case = Case(Workload(tmp_path / "weights", Size(64, 48), load_target("native"), 1), tmp_path, artifact=tmp_path)
    (answer,) = answers_to("", runner="tvm", case=case.to_dict())
    assert "manifest" in answer["problem"]


def test_ours_needs_neither_torch_nor_a_compiler(compiled_enet, tmp_path):
    """Else their memory would be there, and nobody could say what is beyond the libraries."""
    case = Case(
        Workload(compiled_enet.weights, Size(64, 48), load_target("native"), 1), tmp_path, artifact=compiled_enet.directory
    )
    code = (
        "import io, json, sys\n"
        "from enet_tvm.bench.measure.worker import serve\n"
        "serve(json.loads(sys.argv[1]), io.StringIO(''), io.StringIO())\n"
        "assert not {'torch', 'tvm', 'onnx'} & sys.modules.keys(), sys.modules.keys()\n"
    )
    job = json.dumps({"runner": "tvm", "case": case.to_dict(), "warm_up": 0})
    subprocess.run([sys.executable, "-c", code, job], check=True, timeout=120)
