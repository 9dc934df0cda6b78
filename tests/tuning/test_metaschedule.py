"""Workers start without PyTorch, which takes longer to import than all that they need."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from enet_tvm.tuning.metaschedule import lean_workers

ASK = "import sys, tvm.exec.popen_worker; print('torch' in sys.modules)"


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


@pytest.mark.parametrize("module", ["measure", "modelled", "simulated"])
def test_what_workers_import_needs_no_pytorch(module: str):
    with lean_workers():
        subprocess.run([sys.executable, "-c", f"import tvm, enet_tvm.tuning.{module}"], check=True)
