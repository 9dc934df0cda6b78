"""Whether a compiled library fits a machine: what it needs, what the machine has, and the first thing that is missing.

Everything in Python that asks this asks it here: loading an artifact, sending it to a device, packing it for a board, tuning,
and listing targets. The programs in C decide for themselves (``csrc/manifest.c``), held to the same verdicts by a test.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from enet_tvm.machine import architecture, cpu_features
from enet_tvm.version import stack_versions

_EVERY_PROCESSOR_HAS = {"x86_64": "sse2", "aarch64": "asimd"}
_COMPUTES_IN = {
    ("aarch64", "float16"): "asimdhp",
    ("aarch64", "bfloat16"): "bf16",
    ("aarch64", "int8"): "asimddp",
    ("x86_64", "float16"): "avx512_fp16",
    ("x86_64", "bfloat16"): "avx512_bf16",
    ("x86_64", "int8"): "avx512_vnni",
}
"""The feature, as ``/proc/cpuinfo`` spells it, of processors that compute in a data type, by architecture and type."""


@dataclass(frozen=True)
class Requirements:
    """What a library needs of the machine that loads it.

    Attributes
    ----------
    architecture : str
        Instruction set, as uname spells it.
    cpu_features : collection of str
        Instruction-set extensions, spelt as in ``/proc/cpuinfo``.
    device : {"cpu", "cuda"}
        Kind of processor that its kernels run on.
    versions : mapping of str to str
        Exact versions that it needs of TVM's stack, by name of the distribution.
    gpu_arch : str or None
        Architecture that its device code is for, such as ``sm_53``, which later GPUs translate and earlier ones refuse; None
        where it has none, or does not say.
    """

    architecture: str
    cpu_features: Collection[str] = ()
    device: Literal["cpu", "cuda"] = "cpu"
    versions: Mapping[str, str] = field(default_factory=dict)
    gpu_arch: str | None = None


def _nothing() -> str | None:
    return None


@dataclass(frozen=True)
class Machine:
    """What a machine has, as far as it is known; what is not known refuses no library.

    Attributes
    ----------
    architecture : str or None
        Instruction set, as uname spells it.
    cpu_features : frozenset of str or None
        Instruction-set extensions of all its processors.
    versions : mapping of str to str
        Installed versions of TVM's stack, by name of the distribution.
    missing_gpu : callable
        Returns why a GPU cannot be used, in a clause; None if one can. Called for a library that needs one alone.
    gpu_arch : callable
        Returns the architecture of its GPU, such as ``sm_53``; None where it is not known. Called as `missing_gpu` is.
    """

    architecture: str | None = None
    cpu_features: frozenset[str] | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    missing_gpu: Callable[[], str | None] = _nothing
    gpu_arch: Callable[[], str | None] = _nothing

    @classmethod
    def here(cls, missing_gpu: Callable[[], str | None] = _nothing, gpu_arch: Callable[[], str | None] = _nothing) -> Self:
        """Return the machine that this process runs on; the driver of its GPU is not looked at unless functions are given."""
        return cls(architecture(), cpu_features(), stack_versions(), missing_gpu, gpu_arch)

    @classmethod
    def of_facts(cls, facts: Mapping[str, Any], gpu_arch: Callable[[], str | None] = _nothing) -> Self:
        """Return a device by what it says of itself (see `enet_tvm.rpc.session_process.device_facts`), and of its GPU."""
        kind, features = facts.get("architecture"), frozenset(facts.get("cpu_features", ()))
        # An emulator shows the features of the machine that it runs on, which says nothing of the processor it emulates.
        known = _EVERY_PROCESSOR_HAS.get(kind or "") in features
        return cls(kind, features if known else None, facts.get("versions", {}), gpu_arch=gpu_arch)


def features_for(architecture: str, features: Sequence[str], dtype: str) -> tuple[str, ...]:
    """Return the features that a library needs which was compiled for some and computes in a data type.

    A target of a user's, or a processor that this machine's kernel tells little of, need not list what its data type takes.

    Parameters
    ----------
    architecture : str
        Instruction set, as uname spells it.
    features : sequence of str
        Features that its target lists.
    dtype : {"float32", "float16", "bfloat16", "int8"}
        Data type that its kernels on the CPU compute in.
    """
    needed = _COMPUTES_IN.get((architecture, dtype))
    return (*features, *([needed] if needed and needed not in features else []))


@dataclass(frozen=True)
class Mismatch:
    """The first thing in which a library does not fit a machine.

    Attributes
    ----------
    kind : {"versions", "architecture", "cpu_features", "device", "gpu_arch"}
        Kind of requirement that the machine does not meet.
    needed : str
        What the library needs and the machine lacks: ``apache-tvm 0.27.0``, ``aarch64``, ``avx2, fma``, ``cuda`` or ``sm_90``.
    found : str
        What the machine has instead: a version, an architecture, or a clause on its GPU; empty for features.
    """

    kind: Literal["versions", "architecture", "cpu_features", "device", "gpu_arch"]
    needed: str
    found: str = ""


def find_mismatch(requirements: Requirements, machine: Machine) -> Mismatch | None:
    """Return the first thing in which a library does not fit a machine, None if it fits.

    The order is: versions of TVM's stack, architecture, the processor's features, and at last the GPU, which is looked for, and
    its architecture.
    """
    for name, version in requirements.versions.items():
        if machine.versions.get(name, version) != version:
            return Mismatch("versions", f"{name} {version}", machine.versions[name])
    if machine.architecture not in (None, requirements.architecture):
        return Mismatch("architecture", requirements.architecture, str(machine.architecture))
    if machine.cpu_features is not None and (lacking := sorted(set(requirements.cpu_features) - machine.cpu_features)):
        return Mismatch("cpu_features", ", ".join(lacking))
    if requirements.device != "cpu" and (why := machine.missing_gpu()) is not None:
        return Mismatch("device", requirements.device, why)
    if requirements.device != "cpu" and (wanted := _capability(requirements.gpu_arch)):
        has = machine.gpu_arch()
        if (_capability(has) or wanted) < wanted:
            return Mismatch("gpu_arch", str(requirements.gpu_arch), str(has))
    return None


def _capability(arch: str | None) -> int:
    """Return the compute capability of an architecture, ten times: 53 for ``sm_53``; 0 where it is not known."""
    match = re.fullmatch(r"sm_(\d{2,3})[af]?", arch or "")
    return int(match[1]) if match else 0
