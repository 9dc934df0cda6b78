from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tvm
from tiny_tuning import environment
from tiny_tuning import tiny_request as make_request

from enet_tvm.compiler.kernels.cpu.conv2d import Conv2DTemplate
from enet_tvm.compiler.kernels.cpu.register_tile import VectorUnit
from enet_tvm.compiler.ops import FusedConv2D, Layout
from enet_tvm.compiler.tuning_keys import template_key
from enet_tvm.tuning.metaschedule import load_meta_schedule
from enet_tvm.tuning.report import Listener, Progress, SessionCost
from enet_tvm.tuning.tasks import Task

TARGET = tvm.target.Target({"kind": "llvm", "num-cores": 1})


def conv2d_task(width: int = 14) -> Task:
    """Returns the task of a pointwise convolution."""
    spec = FusedConv2D(
        (1, 8, 5, width), (1, 16, 5, width), (1, 1), (1, 1), (0, 0), (1, 1), data_layout=Layout(4), out_layout=Layout(4)
    )
    template = Conv2DTemplate(spec, VectorUnit(4, 16))
    return Task(template_key(template), template.name, (0,), template)


class Heard(Listener):
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.plans: list[SessionCost] = []
        self.states: list[Progress] = []

    def note(self, sentence: str) -> None:
        self.notes.append(sentence)

    def plan(self, plan: SessionCost) -> None:
        self.plans.append(plan)

    def progress(self, progress: Progress) -> None:
        self.states.append(progress)


@pytest.fixture(scope="session")
def meta_schedule() -> None:
    """Load MetaSchedule, which takes seconds, so that no test is charged for it."""
    load_meta_schedule()


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def tiny_request(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Makes ``tiny_request(trials=4)`` the tuning of a network of two kernels, which stands in for the one of the weights."""
    from enet_tvm.compiler import compile as compiler
    from enet_tvm.evaluation import parity

    with pytest.MonkeyPatch.context() as patch:  # its own: a test may undo what it has patched, and ask again
        for module in (compiler, parity):
            patch.setattr(module, "load_network", module.load_network)  # to be put back
        yield lambda **changes: make_request(tmp_path, **changes)


@pytest.fixture
def tiny_process(tmp_path: Path) -> Callable[[str], subprocess.Popen[str]]:
    """Starts a program that can import `tiny_tuning`; its argument is the test's directory."""

    def start(code: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", code, str(tmp_path)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path, env=environment())

    return start
