"""The results of a comparison, and their form as JSON."""

from __future__ import annotations

import contextlib
import datetime
import importlib.metadata
import math
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from enet_tvm.agreement import NOISE
from enet_tvm.bench.machine.conditions import Conditions
from enet_tvm.bench.machine.description import MachineDescription
from enet_tvm.bench.measure.footprint import Footprint
from enet_tvm.bench.measure.latency import Latency
from enet_tvm.bench.measure.roofline import MEASURED, Roofline
from enet_tvm.bench.runners import Case
from enet_tvm.bench.runners.registry import packages
from enet_tvm.files import sha256
from enet_tvm.version import __version__, stack_versions

FORMAT = 2
"""Version of the JSON's format; 1 was without machine descriptions, hashes and footprints."""


@dataclass(frozen=True)
class Entry:
    """The result of one runner.

    Attributes
    ----------
    name, description : str
        Name of the runner, and its runtime with the version.
    precision : str
        Data type that it computes in.
    agreement : float
        Share of pixels with the reference's label; 0 when a logit is not finite.
    max_abs_logit_diff : float
        Largest difference of a logit from the reference's.
    ready_seconds : float
        Time from the start to the end of the first forward pass: compilation, loading, first run.
    first_seconds : float
        Duration of the first forward pass alone.
    artifact : mapping of str to (int, str)
        Size in bytes and SHA-256 of the files that it loads the network from, by file name.
    latency : Latency or None
        Times of a forward pass; None for a runner that fails parity: its speed is no result.
    footprint : Footprint or None
        Footprint of the runner; None when it was not asked for, or for a runner that fails parity.
    device : MachineDescription or None
        Description of the other machine that it computes on; None if it computes here.
    before, after : Conditions or None
        Clocks and temperatures of that machine before and after the timing.
    threads : int or None
        Number of threads that it ran on; None for that of the case.
    """

    name: str
    description: str
    precision: str
    agreement: float
    max_abs_logit_diff: float
    ready_seconds: float
    first_seconds: float
    artifact: Mapping[str, tuple[int, str]]
    latency: Latency | None
    footprint: Footprint | None = None
    device: MachineDescription | None = None
    before: Conditions | None = None
    after: Conditions | None = None
    threads: int | None = None

    @property
    def passes(self) -> bool:
        """Whether its labels agree with the reference's."""
        return self.agreement >= NOISE[self.precision]

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as JSON takes them."""
        return {
            "name": self.name,
            "description": self.description,
            "threads": self.threads,
            "precision": self.precision,
            "label_agreement": self.agreement,
            "max_abs_logit_diff": self.max_abs_logit_diff if math.isfinite(self.max_abs_logit_diff) else None,
            "ready_seconds": self.ready_seconds,
            "first_ms": 1e3 * self.first_seconds,
            "artifact_bytes": sum(size for size, _ in self.artifact.values()) or None,
            "artifact_sha256": {name: digest for name, (_, digest) in self.artifact.items()},
            "latency": self.latency.to_dict() if self.latency else None,
            "footprint": self.footprint.to_dict() if self.footprint else None,
            "device": {**self.device.to_dict(), **_moments(self.before, self.after)} if self.device else None,
        }


@dataclass(frozen=True)
class Comparison:
    """Runners beside each other on one case.

    Attributes
    ----------
    case : Case
        Case that all of them ran.
    entries : tuple of Entry
        Results, in the order in which the runners were asked for.
    missing : dict of str to str
        Reasons why runners are not available here, by runner.
    roofline : Roofline or None
        Roofline of this machine's processor, or of its GPU where one was timed; that promised for the target when nothing
        was timed here; None when nothing is known.
    roofline_source : str
        Source of the roofline: `MEASURED`, in the same run, or what it was computed from.
    flops : int
        Floating-point operations of a forward pass.
    machine : MachineDescription
        Description of this machine.
    before, after : Conditions
        Clocks and temperatures of this machine before and after the timing.
    warnings : tuple of str
        Sentences on why figures may not be trusted.
    not_measured : tuple of str
        Sentences on what could not be measured on this machine.
    seconds : float
        Duration of the timing, warm-up aside.
    command : str
        The command line, for the record.
    driver : str
        Version of the GPU's driver; empty where NVML was not used.
    """

    case: Case
    entries: tuple[Entry, ...]
    missing: dict[str, str]
    roofline: Roofline | None
    roofline_source: str
    flops: int
    machine: MachineDescription
    before: Conditions
    after: Conditions
    warnings: tuple[str, ...]
    seconds: float
    command: str = ""
    not_measured: tuple[str, ...] = ()
    driver: str = ""

    @property
    def threads(self) -> int:
        """Threads that the runners ran on: those asked for, unless a device has fewer processors."""
        used = {entry.threads or self.case.threads for entry in self.entries}
        return used.pop() if len(used) == 1 else self.case.threads

    @property
    def limit(self) -> float | None:
        """Seconds that the arithmetic alone takes at the roofline's rate, for a matrix product if it was measured."""
        return self.flops / self.roofline.flops_per_second if self.roofline else None

    @property
    def failures(self) -> tuple[str, ...]:
        """Sentences on the runners that fail parity."""
        return tuple(
            f"{entry.name} fails parity: {entry.agreement:.4%} of its labels are PyTorch's, "
            f"{NOISE[entry.precision]:.2%} are needed; its speed is no result"
            for entry in self.entries
            if not entry.passes
        )

    def fastest(self, *, besides: str) -> Entry | None:
        """Return the entry of the fastest runner other than `besides`; None if no other was timed."""
        others = [entry for entry in self.entries if entry.name != besides and entry.latency]
        return min(others, key=lambda entry: entry.latency.median if entry.latency else np.inf, default=None)

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as JSON takes them, with what they were measured on."""
        case = self.case
        versions = {"enet-tvm": __version__, "python": platform.python_version(), **stack_versions(), **_versions()}
        if self.driver:
            versions["NVIDIA driver"] = self.driver
        return {
            "format": FORMAT,
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "command": self.command,
            "size": str(case.size),
            "threads": self.threads,
            "target": case.target.name,
            "seconds": self.seconds,
            "weights": {"file": str(case.weights), "sha256": sha256(case.weights)},
            "calibration_data": case.data,
            "flops": self.flops,
            "limit_ms": None if self.limit is None else 1e3 * self.limit,
            "limit_measured": self.roofline_source == MEASURED,
            "limit_source": self.roofline_source,
            "machine": {
                **self.machine.to_dict(),
                "platform": platform.platform(),
                **_moments(self.before, self.after),
            },
            "versions": versions,
            "entries": [entry.to_dict() for entry in self.entries],
            "missing": self.missing,
            "warnings": list(self.warnings),
            "not_measured": list(self.not_measured),
        }


def _moments(before: Conditions | None, after: Conditions | None) -> dict[str, Any]:
    return {name: state.to_dict() for name, state in (("before", before), ("after", after)) if state is not None}


def _versions() -> dict[str, str]:
    """Return the versions of numpy and of the runners' packages that are installed."""
    found = {}
    for name in ("numpy", *packages()):
        # Without importing them: what was not asked for stays out of the process.
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found
