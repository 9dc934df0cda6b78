"""Comparing runners: parity first, then latency, alternating in one run, then what each takes by itself."""

from __future__ import annotations

import contextlib
import datetime
import importlib.metadata
import math
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from enet_tvm.bench.conditions import Conditions, read_conditions, slowdowns
from enet_tvm.bench.energy import open_meters
from enet_tvm.bench.footprint import Footprint, measure_footprint, measure_on_device
from enet_tvm.bench.latency import STEADY, Latency, PassTimes, alternate
from enet_tvm.bench.machine_description import MachineDescription, describe_machine
from enet_tvm.bench.profile import Roofline, measure_roofline
from enet_tvm.bench.runners import Runner, RunnerMissingError, Workload, open_runner
from enet_tvm.files import sha256
from enet_tvm.networks import load_network
from enet_tvm.networks.summary import summarise
from enet_tvm.targets import load_target
from enet_tvm.version import __version__, stack_versions

FORMAT = 2
"""Of the JSON; 1 was without machine descriptions, hashes and footprints."""

REFERENCE = "torch"
"""The runner whose logits the others' are judged by."""

MIN_AGREEMENT = {"float32": 0.9999, "bfloat16": 0.97, "int8": 0.9}
"""Share of pixels that must get the reference's label for a runner's speed to count, by what it computes in.

Below float32 it only tells wrong arithmetic from rounding, which decides the many close labels of a random input: whether the
rounding is acceptable is said by the mIoU on pictures.
"""

_PEERS = ("numpy", "torch", "onnx", "onnxruntime", "openvino")


@dataclass(frozen=True)
class Entry:
    """One runner's result.

    Attributes
    ----------
    name, description : str
        Which runner.
    precision : str
        What it computes in.
    agreement : float
        Share of pixels with the reference's label; 0 when a logit is not finite.
    max_abs_logit_diff : float
        Largest difference of a logit from the reference's.
    ready_seconds : float
        From nothing to the end of the first forward pass: compilation, loading, first run.
    first_seconds : float
        The first forward pass alone.
    artifact : mapping of str to (int, str)
        Bytes and SHA-256 of the files that it loads the network from, by name.
    latency : Latency or None
        None for a runner that fails parity: its speed is no result.
    footprint : Footprint or None
        None when it was not asked for, or for one that fails parity.
    device : MachineDescription or None
        The other machine that it computes on, if it does.
    before, after : Conditions or None
        That machine's clocks and temperatures around the timing.
    threads : int or None
        Threads that it ran on; None for those of the workload.
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
        """Whether its labels are the reference's."""
        return self.agreement >= MIN_AGREEMENT[self.precision]

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
    """Runners beside each other on one workload.

    Attributes
    ----------
    workload : Workload
        What they ran.
    entries : tuple of Entry
        In the order asked for.
    missing : dict of str to str
        Runners that are not here, and why.
    roofline : Roofline or None
        Of the machine in the same run; that promised for a target when nothing was timed here; None when nothing is known.
    roofline_measured : bool
        Whether it was measured.
    flops : int
        Of a forward pass.
    machine : MachineDescription
        This machine.
    before, after : Conditions
        Its clocks and temperatures around the timing.
    warnings : tuple of str
        Sentences on why figures may not be trusted.
    seconds : float
        How long was measured.
    command : str
        The command line, for the record.
    """

    workload: Workload
    entries: tuple[Entry, ...]
    missing: dict[str, str]
    roofline: Roofline | None
    roofline_measured: bool
    flops: int
    machine: MachineDescription
    before: Conditions
    after: Conditions
    warnings: tuple[str, ...]
    seconds: float
    command: str = ""

    @property
    def threads(self) -> int:
        """Threads that the runners ran on: those asked for, unless a device has fewer processors."""
        used = {entry.threads or self.workload.threads for entry in self.entries}
        return used.pop() if len(used) == 1 else self.workload.threads

    @property
    def limit(self) -> float | None:
        """Seconds that the arithmetic alone takes at the roofline's rate, for a matrix product if it was measured."""
        return self.flops / self.roofline.flops_per_second if self.roofline else None

    @property
    def failures(self) -> tuple[str, ...]:
        """Sentences on the runners that fail parity."""
        return tuple(
            f"{entry.name} fails parity: {entry.agreement:.4%} of its labels are PyTorch's, "
            f"{MIN_AGREEMENT[entry.precision]:.2%} are needed; its speed is no result"
            for entry in self.entries
            if not entry.passes
        )

    def fastest(self, *, besides: str) -> Entry | None:
        """Return the fastest runner but one."""
        others = [entry for entry in self.entries if entry.name != besides and entry.latency]
        return min(others, key=lambda entry: entry.latency.median if entry.latency else np.inf, default=None)

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as JSON takes them, with what they were measured on."""
        workload = self.workload
        return {
            "format": FORMAT,
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "command": self.command,
            "size": str(workload.size),
            "threads": self.threads,
            "target": workload.target,
            "seconds": self.seconds,
            "weights": {"file": str(workload.weights), "sha256": sha256(workload.weights)},
            "flops": self.flops,
            "limit_ms": None if self.limit is None else 1e3 * self.limit,
            "limit_measured": self.roofline_measured,
            "machine": {
                **self.machine.to_dict(),
                "platform": platform.platform(),
                **_moments(self.before, self.after),
            },
            "versions": {"enet-tvm": __version__, "python": platform.python_version(), **stack_versions(), **_versions()},
            "entries": [entry.to_dict() for entry in self.entries],
            "missing": self.missing,
            "warnings": list(self.warnings),
        }


@dataclass
class _Opened:
    """A runner that is ready, and what was noted of it so far."""

    runner: Runner
    output: NDArray[np.float32]
    ready_seconds: float
    first_seconds: float
    agreement: float = 0.0
    before: Conditions | None = None
    after: Conditions | None = None

    @property
    def passes(self) -> bool:
        return self.agreement >= MIN_AGREEMENT[self.runner.precision]


def compare(
    names: Sequence[str],
    workload: Workload,
    *,
    seconds: float = 20.0,
    streams: Sequence[int] = (),
    command: str = "",
    report: Callable[[str], None] = lambda _: None,
) -> Comparison:
    """Open the runners, judge each by the reference, and time those that agree with it, in turns.

    Parameters
    ----------
    names : sequence of str
        Keys of `RUNNERS`; the reference is opened in any case.
    workload : Workload
        What to run.
    seconds : float
        How long to measure, warm-up aside.
    streams : sequence of int
        Numbers of independent instances whose throughput is wanted; each is measured for a quarter of `seconds`. None of
        them leaves out memory and energy as well, all of which take new processes.
    command : str
        The command line, for the record.
    report : callable
        Told what is being done.

    Raises
    ------
    UserError
        When a name is unknown, the weights do not serve, or a device is lost.
    """
    x = np.random.default_rng(0).standard_normal(workload.input_shape, np.float32)
    opened: dict[str, _Opened] = {}
    missing: dict[str, str] = {}
    footprints: dict[str, Footprint] = {}
    machine, apart = describe_machine(), seconds / 4
    with contextlib.ExitStack() as stack:
        for name in dict.fromkeys([*names, REFERENCE]):
            report(f"getting {name} ready")
            try:
                opened[name] = _open(stack, name, workload, x)
            except RunnerMissingError as error:
                missing[name] = str(error)
        for each in opened.values():
            each.agreement = agreement(each.output, opened[REFERENCE].output)
        chosen = {name: opened[name] for name in names if name in opened}
        timed = {name: each for name, each in chosen.items() if each.passes}
        report(f"timing {', '.join(timed)} in turns")
        before = read_conditions()
        _note_conditions(timed, "before")
        calls = {name: _call(each.runner, x) for name, each in timed.items()}
        latencies = alternate(calls, seconds=seconds) if calls else {}
        _note_conditions(timed, "after")
        after = read_conditions()
        for name, each in timed.items() if streams else ():
            if each.runner.remote:
                report(f"running {name} alone")
                footprints[name] = measure_on_device(each.runner, x, each.runner.threads or workload.threads, seconds=apart)
        devices = {name: _device(each.runner) for name, each in chosen.items()}
    if streams:
        with open_meters() as meters:
            for name, each in timed.items():
                if not each.runner.remote:
                    report(f"running {name} alone, in a process of its own")
                    footprints[name] = measure_footprint(name, workload, streams, seconds=apart, meters=meters)
    here = [name for name in timed if not timed[name].runner.remote]
    return Comparison(
        workload=workload,
        entries=tuple(
            Entry(
                name=name,
                description=each.runner.description,
                precision=each.runner.precision,
                agreement=each.agreement,
                max_abs_logit_diff=float(np.abs(each.output - opened[REFERENCE].output).max()),
                ready_seconds=each.ready_seconds,
                first_seconds=each.first_seconds,
                artifact=_artifact(each.runner.artifact_files()),
                latency=latencies.get(name),
                footprint=footprints.get(name),
                device=devices[name],
                before=each.before,
                after=each.after,
                threads=each.runner.threads,
            )
            for name, each in chosen.items()
        ),
        missing=missing,
        roofline=measure_roofline(workload.threads) if here else _promised(workload.target),
        roofline_measured=bool(here),
        flops=summarise(load_network(workload.weights), workload.size).total.flops,
        machine=machine,
        before=before,
        after=after,
        warnings=(
            *_fewer_threads(chosen, workload.threads),
            *_warnings(timed, latencies, footprints, slowdowns(before, after) if here else []),
        ),
        seconds=seconds,
        command=command,
    )


def agreement(output: NDArray[np.float32], reference: NDArray[np.float32]) -> float:
    """Return the share of pixels whose largest logit (N x C x H x W) is that of the same class; 0 if one is not finite."""
    if output.shape != reference.shape or not np.isfinite(output).all():
        return 0.0
    return float((output.argmax(1) == reference.argmax(1)).mean())


def _open(stack: contextlib.ExitStack, name: str, workload: Workload, x: NDArray[np.float32]) -> _Opened:
    start = time.perf_counter()
    runner = stack.enter_context(open_runner(name, workload))
    loaded = time.perf_counter()
    output = runner.forward(x).copy()
    done = time.perf_counter()
    return _Opened(runner, output, done - start, done - loaded)


def _call(runner: Runner, x: NDArray[np.float32]) -> Callable[[], PassTimes | None]:
    def call() -> PassTimes | None:
        runner.forward(x)
        return runner.last_pass()

    return call


def _device(runner: Runner) -> MachineDescription | None:
    files = runner.files() if runner.remote else None
    return describe_machine(files) if files else None


def _moments(before: Conditions | None, after: Conditions | None) -> dict[str, Any]:
    return {name: state.to_dict() for name, state in (("before", before), ("after", after)) if state is not None}


def _note_conditions(timed: Mapping[str, _Opened], moment: str) -> None:
    for each in timed.values():
        files = each.runner.files() if each.runner.remote else None
        if files is not None:
            setattr(each, moment, read_conditions(files))


def _fewer_threads(chosen: Mapping[str, _Opened], wanted: int) -> list[str]:
    used = {name: each.runner.threads for name, each in chosen.items()}
    return [
        f"{name} ran on {threads} thread{'s' * (threads != 1)}: its device has no more processors, and {wanted} were wanted"
        for name, threads in used.items()
        if threads is not None and threads < wanted
    ]


def _warnings(
    timed: Mapping[str, _Opened], latencies: Mapping[str, Latency], footprints: Mapping[str, Footprint], here: Sequence[str]
) -> list[str]:
    found = [f"while timing, {text}" for text in here]
    for name, each in timed.items():
        if each.before is not None and each.after is not None:
            found += [f"while timing {name}, {text}" for text in slowdowns(each.before, each.after)]
    if restless := [name for name, latency in latencies.items() if not latency.steady]:
        found.append(
            f"the times of {', '.join(restless)} vary by more than {STEADY:.0%} of the median, too much to be trusted; "
            "stop what else the machine is doing, and measure again"
        )
    return found + [footprint.problem for footprint in footprints.values() if footprint.problem]


def _artifact(paths: Sequence[Path]) -> dict[str, tuple[int, str]]:
    return {path.name: (path.stat().st_size, sha256(path)) for path in paths}


def _promised(target: str) -> Roofline | None:
    figures = load_target(target).roofline
    if figures is None or figures.gflops is None:
        return None
    return Roofline(1e9 * figures.gflops, 1e9 * (figures.gbps or math.inf))


def _versions() -> dict[str, str]:
    """Return the versions of what is compared with, as far as it is here."""
    found = {}
    for name in _PEERS:
        # Without importing them: what was not asked for stays out of the process.
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found
