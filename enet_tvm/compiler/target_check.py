"""What this machine lacks to compile for a target, and to run what was compiled."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from enet_tvm.compatibility import Machine, Mismatch, find_mismatch
from enet_tvm.compiler.cuda.tools import find_cuda_tools
from enet_tvm.compiler.linking import host_linker
from enet_tvm.errors import UserError
from enet_tvm.runtime.gpu import gpu_arch, missing_driver
from enet_tvm.targets import TargetSpec, load_target, target_file
from enet_tvm.version import check_stack


@dataclass(frozen=True)
class TargetCheck:
    """What was found about one target.

    Attributes
    ----------
    name : str
        Name by which the check was asked for.
    linker : str or None
        Command that would link; None if there is none.
    problems : tuple of str
        Reasons why it cannot be compiled for here: a sentence each, with what to do about it.
    obstacles : tuple of str
        Reasons why what is compiled for it cannot run on this machine; none if it can.
    """

    name: str
    linker: str | None
    problems: tuple[str, ...]
    obstacles: tuple[str, ...]

    @property
    def compiles(self) -> bool:
        """Whether it can be compiled for here."""
        return not self.problems

    @property
    def runs_here(self) -> bool:
        """Whether what is compiled for it can run here."""
        return not self.problems and not self.obstacles

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON takes it."""
        return {**asdict(self), "compiles": self.compiles, "runs_here": self.runs_here}


def check_target(name: str) -> TargetCheck:
    """Find out what is missing on this machine for a target: its file, TVM, the processor's name, a linker.

    For a GPU the CUDA compiler is looked for, too.

    Parameters
    ----------
    name : str
        Name or path of the target, as `load_target` takes it.

    Raises
    ------
    UserError
        When there is no such target; what is wrong with one that there is, the result says.
    """
    target_file(name)
    try:
        spec = load_target(name)
    except UserError as error:
        return TargetCheck(name, None, (str(error),), ())
    problems: list[str] = []
    linker: str | None = None
    try:
        check_stack()
    except UserError as error:
        problems.append(str(error))
    try:
        spec.to_tvm()
    except UserError as error:
        problems.append(str(error))
    try:
        linker = str(host_linker(spec.triple, spec.toolchain))
    except UserError as error:
        problems.append(str(error))
    if spec.gpu is not None:
        try:
            find_cuda_tools()
        except UserError as error:
            problems.append(str(error))
    return TargetCheck(name, linker, tuple(problems), tuple(_obstacles(spec)))


def _obstacles(spec: TargetSpec) -> list[str]:
    match find_mismatch(spec.requirements, Machine.here(missing_driver, gpu_arch)):
        case None:
            return []
        case Mismatch("architecture", needed, found):
            return [f"it is {needed}, and this machine is {found}; copy the artifact to the device"]
        case Mismatch("cpu_features", needed):
            return [f"this processor lacks {needed}; compile with --target native for this machine"]
        case Mismatch("gpu_arch", needed, found):
            return [f"it is for {needed}, and this machine's GPU is {found}, which is older; copy the artifact to the device"]
        case mismatch:
            return [f"{mismatch.found}; copy the artifact to the device"]
