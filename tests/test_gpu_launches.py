"""Kernels that a frame launches on a GPU, which the paper blames for ENet's speed there: pinned, lest more come unseen."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from cuda_network import launches
from gpu_enet import SIZE, launches_for_gpu
from gpu_targets import GPU_TARGETS

from enet_tvm.compiler.cuda.tools import find_cuda_tools
from enet_tvm.compiler.frontend.torch_import import from_torch
from enet_tvm.compiler.ops import PLANAR
from enet_tvm.compiler.pipeline import Numerics
from enet_tvm.errors import UserError
from enet_tvm.networks import ENet, ERFNet, SegNet


@pytest.fixture(scope="module", autouse=True)
def _cuda_compiler() -> None:
    try:
        find_cuda_tools()
    except UserError as error:
        pytest.skip(str(error))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "size", "count", "targets"),
    [
        (ENet, SIZE, 32, GPU_TARGETS),
        (ENet, (40, 64), 32, ("jetson-tx1", "h100")),
        (ERFNet, (360, 640), 74, ("jetson-tx1", "h100")),
        (SegNet, (360, 640), 36, ("jetson-tx1", "h100")),
    ],
    ids=["ENet at 640x360", "ENet at 64x40", "ERFNet", "SegNet"],
)
def test_launches(network: type, size: tuple[int, int], count: int, targets: Iterable[str]):
    if (network, size) == (ENet, SIZE):
        made = {target: launches_for_gpu(target) for target in targets}
    else:
        imported = from_torch(network(11).eval(), (1, 3, *size))
        made = {target: launches(imported, target) for target in targets}
    assert {target: len(each) for target, each in made.items()} == dict.fromkeys(made, count)
    everything = [launch for each in made.values() for launch in each]
    # Each is a template's: TVM's own kernels would be one for every operator.
    assert not [launch.ops for launch in everything if launch.template is None]
    modules = {name for name, _ in network(11).named_modules()}
    assert all(launch.layout == PLANAR for launch in everything)
    # Unpooling on its own is named by nothing in a network.
    named = [launch for launch in everything if launch.ops != ("max_unpool2d",)]
    assert all(launch.layers and set(launch.layers) <= modules for launch in named)


@pytest.mark.slow
def test_as_many_in_float16():
    # From the last on: `test_gpu_machine_code.py` may be compiling from the first.
    assert {target: len(launches_for_gpu(target, "float16")) for target in reversed(GPU_TARGETS)} == dict.fromkeys(
        GPU_TARGETS, 32
    )


@pytest.mark.slow
def test_as_many_for_labels():
    imported = from_torch(ENet(11).eval(), (1, 3, *SIZE))
    made = {target: len(launches(imported, target, numerics=Numerics(labels=True))) for target in GPU_TARGETS}
    assert made == dict.fromkeys(GPU_TARGETS, 32)
