"""The tuning of a network of two kernels, which stands in for the one of the weights; also for programs that tests start."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import torch
from torch import nn

from enet_tvm.compiler import compile as compiler
from enet_tvm.compiler.workload import Workload
from enet_tvm.evaluation import parity
from enet_tvm.networks import WeightsInfo, save_network
from enet_tvm.size import Size
from enet_tvm.targets import load_target
from enet_tvm.tuning.budget import Effort
from enet_tvm.tuning.measure import Timing
from enet_tvm.tuning.session import TuneRequest

INFO = WeightsInfo("tiny", ("road", "sky"), ((1, 2, 3), (4, 5, 6)), (0.1,) * 3, (0.4,) * 3)


def environment(**variables: str) -> dict[str, str]:
    """Return the environment of a program that imports this module."""
    path = os.pathsep.join(filter(None, (str(Path(__file__).parent), os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path, **variables}


def tiny_network() -> nn.Module:
    """Return two convolutions that templates make, and softmax between them, which is MetaSchedule's affair."""
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 1), nn.Softmax(1), nn.Conv2d(32, 2, 1)
    return nn.Sequential(*layers).eval()


def tiny_request(directory: str | Path, **changes: Any) -> TuneRequest:
    """Return what tunes it with logs in a directory; from then on every file of weights is said to be of this network."""
    weights = Path(directory) / "tiny.safetensors"
    if not weights.is_file():
        save_network(tiny_network(), INFO, weights)
    for module in (compiler, parity):
        module.load_network = lambda path: tiny_network()  # type: ignore[attr-defined]
    fields = {
        "weights": weights,
        "size": Size(40, 16),
        "target": load_target("native"),
        "threads": 1,
        "minutes": None,
        "out": Path(directory) / "logs",
        "timing": Timing(repeats=2, milliseconds=1, timeout=60.0),
        "effort": Effort(comparison=2.0),
    }
    options = {**fields, **changes}
    workload = Workload(
        **{field.name: options.pop(field.name) for field in dataclasses.fields(Workload) if field.name in options}
    )
    return TuneRequest(workload, **options)
