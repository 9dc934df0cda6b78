from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from enet_tvm.tuning.report import Listener, Plan, Progress

# Two convolutions that templates make, and softmax between them, which is MetaSchedule's affair.
TINY = """
import sys
from pathlib import Path
import torch
from torch import nn
from enet_tvm import compiler
from enet_tvm.bench import parity
from enet_tvm.networks import WeightsInfo, save_network
from enet_tvm.size import Size
from enet_tvm.targets import load_target
from enet_tvm.tuning.measure import Timing
from enet_tvm.tuning.session import TuneRequest

def tiny_network():
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 1), nn.Softmax(1), nn.Conv2d(32, 2, 1)
    return nn.Sequential(*layers).eval()

def tiny_request(directory, **changes):
    network = tiny_network()
    weights = Path(directory) / "tiny.safetensors"
    if not weights.is_file():
        save_network(network, WeightsInfo("tiny", ("road", "sky"), ((1, 2, 3), (4, 5, 6)), (0.1,) * 3, (0.4,) * 3), weights)
    compiler.load_network = parity.load_network = lambda path: tiny_network()
    timing = Timing(repeats=2, milliseconds=1, timeout=60.0)
    fields = dict(weights=weights, size=Size(40, 16), target=load_target("native"), threads=1, minutes=None,
                  out=Path(directory) / "logs", timing=timing)
    return TuneRequest(**{**fields, **changes})
"""


class Heard(Listener):
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.plans: list[Plan] = []
        self.states: list[Progress] = []

    def note(self, sentence: str) -> None:
        self.notes.append(sentence)

    def plan(self, plan: Plan) -> None:
        self.plans.append(plan)

    def progress(self, progress: Progress) -> None:
        self.states.append(progress)


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def tiny_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Makes ``tiny_request(trials=4)`` the tuning of a network of two kernels, which stands in for the one of the weights."""
    from enet_tvm import compiler
    from enet_tvm.bench import parity

    for module in (compiler, parity):
        monkeypatch.setattr(module, "load_network", module.load_network)  # to be put back
    names: dict[str, Any] = {}
    exec(TINY, names)
    return lambda **changes: names["tiny_request"](tmp_path, **changes)


@pytest.fixture
def tiny_process(tmp_path: Path) -> Callable[[str], subprocess.Popen[str]]:
    """Starts a process that runs code with ``tiny_request(DIRECTORY, ...)`` at hand."""

    def start(code: str) -> subprocess.Popen[str]:
        script = f"{TINY}\nDIRECTORY = {json.dumps(str(tmp_path))}\n{code}"
        return subprocess.Popen(
            [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=tmp_path, env=dict(os.environ)
        )

    return start
