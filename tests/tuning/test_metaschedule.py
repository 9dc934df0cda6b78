"""MetaSchedule starts without its intrinsics, and workers without PyTorch; both take longer to import than all else."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from enet_tvm.tuning.metaschedule import lean_workers

ASK = "import sys, tvm.exec.popen_worker; print('torch' in sys.modules)"


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("before", [None, "somewhere"])
def test_lean_workers(monkeypatch: pytest.MonkeyPatch, before: str | None):
    if before is None:
        monkeypatch.delenv("PYTHONPATH", raising=False)
    else:
        monkeypatch.setenv("PYTHONPATH", before)
    with lean_workers():
        assert subprocess.run([sys.executable, "-c", ASK], capture_output=True, text=True, check=True).stdout == "False\n"
        assert before is None or os.environ["PYTHONPATH"].split(os.pathsep)[1:] == [before]
    assert os.environ.get("PYTHONPATH") == before


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("module", ["measure", "modelled", "simulated"])
def test_what_workers_import_needs_no_pytorch(module: str):
    with lean_workers():
        subprocess.run([sys.executable, "-c", f"import tvm, enet_tvm.tuning.{module}"], check=True)


SEARCH = """
import sys
from enet_tvm.tuning.metaschedule import load_meta_schedule
ms = load_meta_schedule()
import tvm
from tvm import te
x = te.placeholder((16, 64), name="x")
function = te.create_prim_func([x, te.compute(x.shape, lambda i, j: te.exp(x[i, j]), name="y")])
space = ms.space_generator.PostOrderApply(sch_rules="llvm", postprocs="llvm", mutator_probs="llvm")
target = tvm.target.Target({"kind": "llvm", "num-cores": 2})
context = ms.TuneContext(function, target=target, space_generator=space, num_threads=1)
assert context.generate_design_space()
print("tvm.s_tir.tensor_intrin.cuda" in sys.modules)
from tvm.s_tir.tensor_intrin.x86 import VNNI_DOT_16x4_INTRIN
print(tvm.s_tir.TensorIntrin.get(VNNI_DOT_16x4_INTRIN) is not None)
"""


@pytest.mark.slow
def test_no_intrinsic_is_imported_before_it_is_asked_for():
    with lean_workers():
        found = subprocess.run([sys.executable, "-c", SEARCH], capture_output=True, text=True, check=True)
    assert found.stdout == "False\nTrue\n"
