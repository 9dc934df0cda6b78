"""Constants of the model of a GPU as `enet-tvm device calibrate` has measured them, in place of those of documents.

A calibration is a file ``calibrations/TARGET.toml`` in the directory in which one works, or beside the shipped targets. Who
predicts for a target asks `figures_of` for its GPU, and so takes the calibration where there is one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from enet_tvm.compiler.cuda.cost import Chip
from enet_tvm.errors import UserError
from enet_tvm.files import atomic_file, read_toml
from enet_tvm.places import search_roots
from enet_tvm.targets.spec import TargetSpec
from enet_tvm.toml_text import format_toml

CALIBRATIONS = "calibrations"

_AGAIN = "make it again with 'enet-tvm device calibrate'"
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Constants(BaseModel):
    """What was measured of a GPU; each has the meaning of its namesake in `Chip` and in `Multiprocessor`.

    Attributes
    ----------
    ghz : float
        Clock that the rate of multiply-adds amounts to, in 10**9 a second.
    gbps : float
        Bandwidth of the main memory, in 10**9 bytes a second.
    l1_bytes, shared_bytes, l2_bytes : float
        Bytes a clock of each multiprocessor.
    latency, memory_latency : float
        Clocks, with the arithmetic of an address, which a kernel's loads have, too.
    launch_us : float
        Microseconds from the end of a kernel to the start of the next one in a captured graph.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    ghz: Positive
    gbps: Positive
    l1_bytes: Positive
    shared_bytes: Positive
    l2_bytes: Positive
    latency: Positive
    memory_latency: Positive
    launch_us: Positive


class Calibration(BaseModel):
    """A calibration of a target's GPU.

    Attributes
    ----------
    target, arch : str
        Name of the target, and its GPU's architecture.
    gpu : str
        Name of the GPU that was measured.
    date : str
        Date and time, as ISO 8601 in UTC.
    enet_tvm : str
        Release that measured it.
    multiprocessors : int
        Number of multiprocessors that it has, which may be more than the target's least.
    constants : Constants
        What was measured.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    target: str
    arch: Annotated[str, Field(pattern=r"^sm_\d{2,3}$")]
    gpu: str
    date: str
    enet_tvm: str
    multiprocessors: Annotated[int, Field(ge=1)]
    constants: Constants

    def applied(self, chip: Chip) -> Chip:
        """Return a chip with what was measured in place of what documents say."""
        known = self.constants.model_dump()
        each = {name: known.pop(name) for name in known.copy() if name not in ("ghz", "gbps")}
        multiprocessor = replace(chip.multiprocessor, **each)
        return replace(chip, multiprocessors=self.multiprocessors, multiprocessor=multiprocessor, **known)

    def write(self, path: Path) -> None:
        """Write the file."""
        with atomic_file(path) as temporary:
            temporary.write_text(format_toml(self.model_dump(mode="json")), encoding="utf-8")


@dataclass(frozen=True)
class Figures:
    """The GPU of a target as predictions take it.

    Attributes
    ----------
    chip : Chip
        Its figures.
    source : str
        Where they are from, as a phrase such as ``as documents say`` or ``as measured on Tegra X1 on 2026-11-26``.
    """

    chip: Chip
    source: str


def figures_of(target: TargetSpec) -> Figures:
    """Return the figures of a target's GPU, measured ones where it was calibrated.

    Raises
    ------
    UserError
        When it has no GPU, too little is known of that (`Chip.of`), or its calibration is broken or of another GPU.
    """
    chip = Chip.of(target)
    path = calibration_file(target.name)
    if path is None:
        return Figures(chip, "as documents say")
    found = read_calibration(path)
    if (found.target, found.arch) != (target.name, chip.arch):
        raise UserError(f"{path} is of {found.target} with {found.arch}, and {target.name} has {chip.arch}; {_AGAIN}")
    return Figures(found.applied(chip), f"as measured on {found.gpu} on {found.date[:10]} ({path})")


def calibration_file(target: str) -> Path | None:
    """Return the calibration of a target, the user's before that which is shipped; None without one."""
    places = [root / CALIBRATIONS / f"{target}.toml" for root in search_roots()]
    return next((path for path in places if path.is_file()), None)


def read_calibration(path: Path) -> Calibration:
    """Read a calibration.

    Raises
    ------
    UserError
        When it is not valid.
    """
    content, _ = read_toml(path, _AGAIN)
    try:
        return Calibration.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(step) for step in first["loc"]) or "content"
        raise UserError(f"{path} is not a calibration ({where}: {first['msg']}); {_AGAIN}") from error


def constants_of(rates: Mapping[str, float], launch_us: float, chip: Chip) -> Constants:
    """Return the constants that the times of microbenchmarks amount to.

    Parameters
    ----------
    rates : mapping of str to float
        Of each of `enet_tvm.compiler.kernels.gpu.microbenchmarks.microbenchmarks`, how much of its work was done in a second.
    launch_us : float
        Microseconds between two kernels of a graph.
    chip : Chip
        The GPU, with its true number of multiprocessors; of its multiprocessor, the lanes are taken as known.

    Raises
    ------
    UserError
        When a rate is not a positive number.
    """
    for name, rate in [*rates.items(), ("launch", launch_us)]:
        if not 0 < rate < float("inf"):
            raise UserError(
                f"the time of the microbenchmark '{name}' makes no sense; calibrate again with nothing else running"
            )
    clock = rates["fma"] / (chip.multiprocessors * chip.multiprocessor.lanes)
    bytes_of = {name: rates[name] / (clock * chip.multiprocessors) for name in ("l1", "shared", "l2")}
    latency, step, far = (clock / rates[name] for name in ("latency", "step", "memory_latency"))
    return Constants(
        ghz=clock / 1e9,
        gbps=rates["dram"] / 1e9,
        l1_bytes=bytes_of["l1"],
        shared_bytes=bytes_of["shared"],
        l2_bytes=bytes_of["l2"],
        latency=latency,
        # The sums between two loads of a chain through memory are no part of their latency.
        memory_latency=max(latency, far - step + latency),
        launch_us=launch_us,
    )
