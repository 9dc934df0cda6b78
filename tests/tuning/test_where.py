"""Where a network is tuned: here if this machine is what the target says, on devices, or by a model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from enet_tvm.compiler.workload import Workload
from enet_tvm.errors import UserError
from enet_tvm.machine import architecture
from enet_tvm.rpc.address import Address
from enet_tvm.targets import TargetSpec, load_target
from enet_tvm.tuning import where as module
from enet_tvm.tuning.measure import Fleet
from enet_tvm.tuning.modelled import Modelled
from enet_tvm.tuning.network import Here, There
from enet_tvm.tuning.where import find_place

WEIGHTS = Path("model/enet-camvid.safetensors")


@pytest.fixture
def at_hand(monkeypatch: pytest.MonkeyPatch) -> Callable[[str | None], None]:
    """Gives this machine a GPU of an architecture, or none."""

    def give(arch: str | None) -> None:
        monkeypatch.setattr(module, "missing_driver", lambda: None if arch else "this machine has no CUDA driver")
        monkeypatch.setattr(module, "gpu_arch", lambda: arch)
        monkeypatch.setattr(module, "gpu_name", lambda: "a GPU" if arch else None)

    return give


def here(name: str) -> TargetSpec:
    """Return a target's GPU beside this machine's processor."""
    native = load_target("native")
    same = {field: getattr(native, field) for field in ("triple", "mcpu", "mattr", "cpu_features")}
    return load_target(name).model_copy(update=same)


def place(target: TargetSpec, fleet: Fleet | None = None) -> tuple[Any, list[str]]:
    notes: list[str] = []
    return find_place(Workload(WEIGHTS, None, target), fleet, notes.append), notes


def test_a_processor():
    found, notes = place(load_target("native"))
    assert isinstance(found, Here)
    assert not found.modelled
    assert notes == []
    other = {"x86_64": "rpi4", "aarch64": "zen4"}[architecture()]
    with pytest.raises(UserError, match=r"tune on the device: give --tracker HOST:PORT"):
        place(load_target(other))


@pytest.mark.parametrize(
    ("target", "fleet", "sentence"),
    [
        ("zen4", None, "zen4 is x86_64, and --simulate is for 64-bit ARM processors; leave it out"),
        ("jetson-tx1", None, "jetson-tx1 has a GPU, which is modelled where it is not at hand; leave --simulate out"),
        ("rpi4", Fleet(Address("127.0.0.1", 1), "board"), "--simulate is for want of a device, and --tracker names one"),
        ("aarch64-generic", None, "LLVM has no model of generic; name a target with one of cortex-a53"),
    ],
)
def test_what_cannot_be_simulated(target: str, fleet: Fleet | None, sentence: str):
    with pytest.raises(UserError, match=sentence):
        find_place(Workload(WEIGHTS, None, load_target(target)), fleet, lambda note: None, simulate=True)


def test_a_gpu_that_is_at_hand(at_hand: Callable[[str | None], None]):
    at_hand("sm_86")
    found, notes = place(here("rtx-3090"))
    assert isinstance(found, Here)
    assert found.processor == "a GPU"
    assert notes == []


@pytest.mark.parametrize(
    ("arch", "why"),
    [
        (None, "this machine has no CUDA driver"),
        ("sm_75", "rtx-3090 has a GPU of sm_86 and this machine one of sm_75"),
        ("sm_90", "rtx-3090 has a GPU of sm_86 and this machine one of sm_90"),
    ],
    ids=["none", "earlier", "later"],
)
def test_a_gpu_that_is_not(at_hand: Callable[[str | None], None], arch: str | None, why: str):
    """A later one runs the kernels, but says nothing of how fast they are on the other."""
    at_hand(arch)
    found, notes = place(here("rtx-3090"))
    assert isinstance(found, Modelled)
    assert notes == [
        f"{why}: nothing will be measured, kernels are ranked by the model of 'enet-tvm roofline' for sm_86, as documents say"
    ]


def test_devices_come_first(at_hand: Callable[[str | None], None], monkeypatch: pytest.MonkeyPatch):
    at_hand(None)
    fleet = Fleet(Address("127.0.0.1", 1), "board")
    found, notes = place(load_target("rpi4"), fleet)
    assert isinstance(found, There)
    assert notes == []
    monkeypatch.setattr(module, "gpu_there", lambda target, _: module.Gpu("Tegra X1", target.gpu.arch, 2))
    found, notes = place(load_target("jetson-tx1"), fleet)
    assert isinstance(found, There)
    assert found.processor == "Tegra X1"
    assert notes == []


def test_a_gpu_of_which_too_little_is_known(at_hand: Callable[[str | None], None]):
    at_hand(None)
    with pytest.raises(UserError, match="a prediction takes the GPU's peak figures"):
        place(load_target("jetson-tx1").model_copy(update={"roofline": None}))
