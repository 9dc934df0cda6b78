from __future__ import annotations

from pathlib import Path

import pytest
from torch import nn

from enet_tvm.compiler.tuning_log import LoggedWorkload
from enet_tvm.compiler.workload import Workload
from enet_tvm.networks import NetworkInMemory, WeightsInfo
from enet_tvm.size import DEFAULT_SIZE, Size
from enet_tvm.targets import load_target

WEIGHTS = Path("weights.safetensors")
BOARD = load_target("rpi5")


@pytest.mark.parametrize(
    ("given", "of_target", "expected"),
    [
        (Size(64, 48), Size(320, 192), Size(64, 48)),
        (None, Size(320, 192), Size(320, 192)),
        (None, None, DEFAULT_SIZE),
    ],
)
def test_the_size_is_the_users_else_the_targets_else_the_papers(given: Size, of_target: Size, expected: Size):
    target = BOARD.model_copy(update={"size": of_target})
    assert Workload(WEIGHTS, given, target).input_size == expected


def test_threads_are_the_targets_cores_unless_given():
    assert Workload(WEIGHTS, None, BOARD).thread_count == BOARD.cores
    assert Workload(WEIGHTS, None, BOARD, 1).thread_count == 1


def test_a_network_in_memory_has_no_file():
    info = WeightsInfo("own", ("a", "b"), ((0, 0, 0), (1, 1, 1)), (0.5,) * 3, (0.2,) * 3)
    assert Workload(NetworkInMemory(nn.Conv2d(3, 2, 1), info), None, BOARD).weights_file is None
    assert Workload(WEIGHTS, None, BOARD).weights_file == WEIGHTS


def test_a_log_is_of_the_workload_that_is_compiled():
    logged = LoggedWorkload.of("enet", Workload(WEIGHTS, Size(64, 48), BOARD, 2, batch=4, dtype="int8"))
    assert logged == LoggedWorkload(network="enet", width=64, height=48, batch=4, dtype="int8", threads=2)
    assert logged.folder == "enet-64x48-batch4-int8-2threads"
