"""Where a network is tuned: on this machine, on devices behind a tracker, or by the model of a GPU that is not at hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from enet_tvm.compatibility import Machine, Mismatch, Requirements, find_mismatch
from enet_tvm.compiler.workload import Workload
from enet_tvm.errors import UserError
from enet_tvm.runtime.gpu import gpu_arch, gpu_name, missing_driver
from enet_tvm.targets import TargetSpec
from enet_tvm.tuning.measure import Fleet
from enet_tvm.tuning.modelled import Modelled
from enet_tvm.tuning.network import Here, Place, There


def find_place(workload: Workload, fleet: Fleet | None, note: Callable[[str], None]) -> Place:
    """Return where a network is to be tuned.

    Parameters
    ----------
    workload : Workload
        Network with its target.
    fleet : Fleet or None
        Devices that were asked for.
    note : callable
        Called with a sentence that says so where kernels will be ranked by a model.

    Raises
    ------
    UserError
        When the target is a CPU that this machine is not, and there are no devices; or a GPU of which too little is known.
    """
    target, threads = workload.target, workload.thread_count
    if fleet is not None:
        return There(threads, fleet)
    if target.gpu is None:
        check_runs_here(target.architecture, target.cpu_features, target.name)
        return Here(threads)
    why = missing_gpu(target)
    if why is None:
        return Here(threads, gpu_name())
    place = Modelled(target)
    note(f"{why}: nothing will be measured, kernels are ranked by {place.source}")
    return place


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
    raise UserError(f"{why}; tune on the device: give --tracker HOST:PORT")
