"""Kernels that a frame launches on a GPU, which the paper blames for ENet's speed there: pinned, lest more come unseen."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from cuda_network import launches
from gpu_enet import SIZE, launches_for_gpu
from gpu_targets import GPU_TARGETS

from enet_tvm.compiler.frontend.torch_import import from_torch
from enet_tvm.compiler.kernels.common.launch import Launch
from enet_tvm.compiler.ops import PLANAR
from enet_tvm.compiler.pipeline import Numerics
from enet_tvm.networks import ENet, ERFNet, SegNet


def check(made: Sequence[Launch], network: type, count: int) -> None:
    assert len(made) == count
    # Each is a template's: TVM's own kernels would be one for every operator.
    assert not [launch.ops for launch in made if launch.template is None]
    modules = {name for name, _ in network(11).named_modules()}
    assert all(launch.layout == PLANAR for launch in made)
    # Unpooling on its own is named by nothing in a network.
    named = [launch for launch in made if launch.ops != ("max_unpool2d",)]
    assert all(launch.layers and set(launch.layers) <= modules for launch in named)


# From the last on: `test_gpu_machine_code.py`, beside it, begins with the first, and neither waits for what the other compiles.
@pytest.mark.slow
@pytest.mark.usefixtures("tools")
@pytest.mark.parametrize("target", [*reversed(GPU_TARGETS)])
def test_enet(target: str):
    check(launches_for_gpu(target), ENet, 32)
    assert len(launches_for_gpu(target, "float16")) == 32


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "size", "count"),
    [(ENet, (40, 64), 32), (ERFNet, SIZE, 74), (SegNet, SIZE, 36)],
    ids=["ENet at 64x40", "ERFNet", "SegNet"],
)
def test_other_networks(network: type, size: tuple[int, int], count: int):
    imported = from_torch(network(11).eval(), (1, 3, *size))
    for target in ("jetson-tx1", "h100"):
        check(launches(imported, target), network, count)


@pytest.mark.slow
def test_as_many_for_labels():
    imported = from_torch(ENet(11).eval(), (1, 3, *SIZE))
    made = {target: len(launches(imported, target, numerics=Numerics(labels=True))) for target in GPU_TARGETS}
    assert made == dict.fromkeys(GPU_TARGETS, 32)
