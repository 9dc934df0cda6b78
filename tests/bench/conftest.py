from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from enet_tvm.bench.runners import Case
from enet_tvm.compiler.workload import Workload
from enet_tvm.device_bundle.building import compile_c
from enet_tvm.machine import architecture
from enet_tvm.size import Size
from enet_tvm.targets import load_target


@pytest.fixture
def case(compiled_enet, tmp_path) -> Case:
    """Ours is compiled already: that it is compiled where it must be is tested in `test_baseline.py`."""
    return Case(
        Workload(compiled_enet.weights, Size(64, 48), load_target("native"), 1), tmp_path, artifact=compiled_enet.directory
    )


@pytest.fixture
def small_network(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A small network in place of the one of the weights, which takes longer to export than all else in these tests."""
    import torch

    small = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(4, 11, 1)).eval()
    monkeypatch.setattr("enet_tvm.networks.load_network", lambda path: small)
    return small


@pytest.fixture(scope="session")
def fake_gpu(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """Runs a script on a machine whose driver has a GPU such as is told, and returns what the script prints as JSON."""
    pytest.importorskip("pynvml", reason="nvidia-ml-py is of the extra 'cuda'")
    folder, source = tmp_path_factory.mktemp("driver"), Path(__file__).parent / "machine" / "fake_gpu.c"
    for library in ("libcuda.so.1", "libnvidia-ml.so.1"):
        soname = f"-Wl,-soname,{library}"
        compile_c(architecture(), "-shared", "-fPIC", "-D_GNU_SOURCE", soname, str(source), "-o", str(folder / library))

    def run(script: str, *arguments: str, **told: object) -> Any:
        environment = {
            **os.environ,
            "LD_LIBRARY_PATH": str(folder),
            **{f"FAKE_{key}": str(value) for key, value in told.items()},
        }
        command = [sys.executable, "-c", script, *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run
