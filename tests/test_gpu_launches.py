"""Kernels that a frame launches on a GPU, which the paper blames for ENet's speed there: pinned, lest more come unseen."""

from __future__ import annotations

import pytest
from cuda_network import launches

from enet_tvm.compiler.frontend.torch_import import from_torch
from enet_tvm.compiler.ops import PLANAR
from enet_tvm.networks import ENet, ERFNet, SegNet


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "size", "count"),
    [(ENet, (360, 640), 32), (ENet, (40, 64), 32), (ERFNet, (360, 640), 74), (SegNet, (360, 640), 36)],
    ids=["ENet at 640x360", "ENet at 64x40", "ERFNet", "SegNet"],
)
def test_launches(network: type, size: tuple[int, int], count: int):
    imported = from_torch(network(11).eval(), (1, 3, *size))
    made = {target: launches(imported, target) for target in ("jetson-tx1", "h100")}
    assert {target: len(each) for target, each in made.items()} == dict.fromkeys(made, count)
    everything = [launch for each in made.values() for launch in each]
    # Each is a template's: TVM's own kernels would be one for every operator.
    assert not [launch.ops for launch in everything if launch.template is None]
    modules = {name for name, _ in network(11).named_modules()}
    assert all(launch.layout == PLANAR for launch in everything)
    # Unpooling on its own is named by nothing in a network.
    named = [launch for launch in everything if launch.ops != ("max_unpool2d",)]
    assert all(launch.layers and set(launch.layers) <= modules for launch in named)
