"""Where a network is tuned: on this machine, on devices behind a tracker, or by the model of what is not at hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from enet_tvm.compatibility import Machine, Mismatch, Requirements, find_mismatch
from enet_tvm.compiler.workload import Workload
from enet_tvm.errors import UserError
from enet_tvm.runtime.gpu import gpu_arch, gpu_name, missing_driver
from enet_tvm.targets import TargetSpec
from enet_tvm.tuning.measure import Fleet
from enet_tvm.tuning.modelled import Modelled
from enet_tvm.tuning.network import Here, Place, There
from enet_tvm.tuning.simulated import Simulated


@dataclass(frozen=True)
class Gpu:
    """A GPU that is at hand: its name, its architecture, and how many multiprocessors it has."""

    name: str
    arch: str
    multiprocessors: int


def find_place(workload: Workload, fleet: Fleet | None, note: Callable[[str], None], *, simulate: bool = False) -> Place:
    """Return where a network is to be tuned.

    Parameters
    ----------
    workload : Workload
        Network with its target.
    fleet : Fleet or None
        Devices that were asked for.
    note : callable
        Called with a sentence that says so where kernels will be ranked by a model.
    simulate : bool
        Whether kernels for an ARM processor are to be ranked by a simulation.

    Raises
    ------
    UserError
        When the target is a CPU that this machine is not, and there are no devices; a GPU of which too little is known; or one
        of another architecture than the devices'; or it cannot be simulated.
    """
    target, threads = workload.target, workload.thread_count
    if simulate:
        return _simulated(target, threads, fleet, note)
    if fleet is not None:
        return There(threads, fleet, None if target.gpu is None else gpu_there(target, fleet).name)
    if target.gpu is None:
        check_runs_here(target.architecture, target.cpu_features, target.name)
        return Here(threads)
    why = missing_gpu(target)
    if why is None:
        return Here(threads, gpu_name())
    place = Modelled(target)
    note(f"{why}: nothing will be measured, kernels are ranked by {place.source}")
    return place


def _simulated(target: TargetSpec, threads: int, fleet: Fleet | None, note: Callable[[str], None]) -> Simulated:
    if fleet is not None:
        raise UserError("--simulate is for want of a device, and --tracker names one; leave one of them out")
    if target.gpu is not None:
        raise UserError(f"{target.name} has a GPU, which is modelled where it is not at hand; leave --simulate out")
    if target.architecture != "aarch64":
        raise UserError(f"{target.name} is {target.architecture}, and --simulate is for 64-bit ARM processors; leave it out")
    place = Simulated(target, threads)
    note(f"nothing will be measured, kernels are ranked by {place.source}")
    return place


def gpu_there(target: TargetSpec, fleet: Fleet) -> Gpu:
    """Return the GPU of a device behind a tracker.

    Raises
    ------
    UserError
        When it has none, or one of another architecture than the target's; or it is lost.
    """
    from enet_tvm.rpc.gpu import device_arch, open_gpu
    from enet_tvm.rpc.session import open_session

    assert target.gpu is not None
    with open_session(fleet.tracker, fleet.key, wait=120.0, session_seconds=120.0) as session:
        open_gpu(session)
        with session.within(60, "saying what its GPU is"):
            device = session.remote.device("cuda", 0)
            found = Gpu(str(device.device_name), device_arch(device), int(device.multi_processor_count))
    if found.arch != target.gpu.arch:
        raise UserError(f"{target.name} has a GPU of {target.gpu.arch}, and {found.name} is {found.arch}; name its own target")
    return found


def missing_gpu(target: TargetSpec) -> str | None:
    """Return why the GPU of a target is not at hand on this machine, in a clause; None if it is.

    A later GPU runs what was compiled for an earlier one, but what is fast on it need not be on that.
    """
    match find_mismatch(target.requirements, Machine.here(missing_driver, gpu_arch)):
        case Mismatch("architecture", needed, found):
            return f"{target.name} is {needed} and this machine is {found}"
        case Mismatch("device", _, why):
            return why
        case Mismatch("gpu_arch", needed, found):
            return f"{target.name} has a GPU of {needed} and this machine one of {found}"
        case Mismatch(_, needed, _):
            return f"this machine lacks {needed} of {target.name}"
    arch = gpu_arch()
    if target.gpu is not None and arch != target.gpu.arch:
        return f"{target.name} has a GPU of {target.gpu.arch} and this machine one of {arch}"
    return None


def check_runs_here(architecture: str, features: Sequence[str], name: str) -> None:
    """Refuse to tune for a processor that this machine is not.

    Raises
    ------
    UserError
        When it is of another architecture, or lacks features.
    """
    match find_mismatch(Requirements(architecture, features), Machine.here()):
        case None:
            return
        case Mismatch("architecture", needed, found):
            why = f"{name} is {needed} and this machine is {found}"
        case mismatch:
            why = f"this machine lacks {mismatch.needed} of {name}"
    simulate = " (or, where there is none, --simulate)" if architecture == "aarch64" else ""
    raise UserError(f"{why}; tune on the device: give --tracker HOST:PORT{simulate}")
