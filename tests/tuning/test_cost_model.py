"""The cost model learns from some points which others are worth a trial."""

from __future__ import annotations

import random

import numpy as np
import pytest
import tvm

from enet_tvm.compiler.kernels.cpu.conv2d import Conv2DTemplate
from enet_tvm.compiler.kernels.cpu.register_tile import VectorUnit
from enet_tvm.compiler.ops import FusedConv2D, Layout
from enet_tvm.compiler.tuning_keys import template_key
from enet_tvm.tuning.cost_model import CostModel, Trial
from enet_tvm.tuning.tasks import Task

pytestmark = pytest.mark.usefixtures("meta_schedule")


def task(channels: int, width: int) -> Task:
    shape, layout = (1, channels, 45, width), Layout(16)
    spec = FusedConv2D(shape, shape, (1, 1), (1, 1), (0, 0), (1, 1), data_layout=layout, out_layout=layout)
    template = Conv2DTemplate(spec, VectorUnit(16, 32))
    return Task(template_key(template), template.name, (0,), template)


def invented_seconds(trial: Trial) -> float:
    """Best at 16 accumulators in one block, worse by up to a half elsewhere."""
    tile, channels = trial.point, trial.task.template.spec.out_shape[1]
    return 1e-6 * channels * (1 + abs(tile.pixels * tile.blocks - 16) / 20 + 0.3 * (tile.blocks > 1))


def test_predicts_what_it_has_not_seen():
    tasks = [task(channels, width) for channels in (16, 32, 64) for width in (80, 60, 50)]
    trials = [Trial(task, point) for task in tasks for point in task.points]
    random.Random(0).shuffle(trials)
    seen, unseen = trials[: len(trials) // 2], trials[len(trials) // 2 :]
    model = CostModel(tasks, tvm.target.Target({"kind": "llvm", "num-cores": 1}))
    assert not model.ready
    model.teach({trial: invented_seconds(trial) for trial in seen})
    assert model.ready
    best = {t.key: min(map(invented_seconds, (trial for trial in seen if trial.task is t))) for t in tasks}
    truth = [best[trial.task.key] / invented_seconds(trial) for trial in unseen]
    assert np.corrcoef(model.predict(unseen), truth)[0, 1] > 0.7
    # A trial of a kernel that takes a thousand times as long is worth more, whatever the model says.
    promising = model.promise(unseen, {t.key: 1e-3 if t is tasks[0] else 1e-6 for t in tasks})
    assert unseen[int(np.argmax(promising))].task is tasks[0]
