"""Comparing runners: parity first, then latency, alternating in one run."""

from __future__ import annotations

import contextlib
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from enet_tvm.bench.latency import Latency, alternate
from enet_tvm.bench.profile import Roofline, measure_roofline
from enet_tvm.bench.runners import Runner, RunnerMissingError, Workload, open_runner
from enet_tvm.networks import load_network
from enet_tvm.networks.summary import summarise
from enet_tvm.version import __version__, stack_versions

REFERENCE = "torch"
"""The runner whose logits the others' are judged by."""

MIN_AGREEMENT = 0.9999
"""Share of pixels that must get the reference's label for a runner's speed to count."""


@dataclass(frozen=True)
class Entry:
    """One runner's result.

    Attributes
    ----------
    name, description : str
        Which runner.
    agreement : float
        Share of pixels with the reference's label.
    max_abs_logit_diff : float
        Largest difference of a logit from the reference's.
    ready_seconds : float
        From nothing to the end of the first forward pass: compilation, loading, first run.
    latency : Latency or None
        None for a runner that fails parity: its speed is no result.
    """

    name: str
    description: str
    agreement: float
    max_abs_logit_diff: float
    ready_seconds: float
    latency: Latency | None

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as JSON takes them."""
        return {
            "name": self.name,
            "description": self.description,
            "label_agreement": self.agreement,
            "max_abs_logit_diff": self.max_abs_logit_diff,
            "ready_seconds": self.ready_seconds,
            "latency": self.latency.to_dict() if self.latency else None,
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
    roofline : Roofline
        Of the machine, in the same run.
    flops : int
        Of a forward pass.
    """

    workload: Workload
    entries: tuple[Entry, ...]
    missing: dict[str, str]
    roofline: Roofline
    flops: int

    @property
    def limit(self) -> float:
        """Seconds that the arithmetic alone takes at the rate of a large matrix product."""
        return self.flops / self.roofline.flops_per_second

    def fastest(self, *, besides: str) -> Entry | None:
        """Return the fastest runner but one."""
        others = [entry for entry in self.entries if entry.name != besides and entry.latency]
        return min(others, key=lambda entry: entry.latency.median if entry.latency else np.inf, default=None)

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as JSON takes them, with what they were measured on."""
        return {
            "size": str(self.workload.size),
            "threads": self.workload.threads,
            "target": self.workload.target,
            "flops": self.flops,
            "limit_ms": 1e3 * self.limit,
            "machine": {"processor": processor(), "platform": platform.platform(), "python": platform.python_version()},
            "versions": {"enet-tvm": __version__, **stack_versions()},
            "entries": [entry.to_dict() for entry in self.entries],
            "missing": self.missing,
        }


def compare(
    names: Sequence[str],
    workload: Workload,
    *,
    seconds: float = 20.0,
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
    report : callable
        Told what is being done.

    Raises
    ------
    UserError
        When a name is unknown, or the weights do not serve.
    """
    x = np.random.default_rng(0).standard_normal(workload.input_shape, np.float32)
    runners: dict[str, Runner] = {}
    ready: dict[str, float] = {}
    missing: dict[str, str] = {}
    outputs: dict[str, NDArray[np.float32]] = {}
    with contextlib.ExitStack() as stack:
        for name in dict.fromkeys([*names, REFERENCE]):
            report(f"getting {name} ready")
            start = time.perf_counter()
            try:
                runner = stack.enter_context(open_runner(name, workload))
            except RunnerMissingError as error:
                missing[name] = str(error)
                continue
            outputs[name] = runner.forward(x).copy()
            ready[name], runners[name] = time.perf_counter() - start, runner
        agreements = {name: _agreement(output, outputs[REFERENCE]) for name, output in outputs.items()}
        timed = {name: _call(runners[name], x) for name in names if name in runners and agreements[name] >= MIN_AGREEMENT}
        report(f"timing {', '.join(timed)} in turns")
        latencies = alternate(timed, seconds=seconds) if timed else {}
        entries = tuple(
            Entry(
                name,
                runners[name].description,
                agreements[name],
                float(np.abs(outputs[name] - outputs[REFERENCE]).max()),
                ready[name],
                latencies.get(name),
            )
            for name in names
            if name in runners
        )
    flops = summarise(load_network(workload.weights), workload.size).total.flops
    return Comparison(workload, entries, missing, measure_roofline(workload.threads), flops)


def processor() -> str:
    """Return the processor's name as the kernel gives it."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            key, _, value = line.partition(":")
            if key.strip() in ("model name", "Model", "Hardware"):
                return value.strip()
    return platform.processor() or platform.machine()


def _agreement(output: NDArray[np.float32], reference: NDArray[np.float32]) -> float:
    return float((output.argmax(1) == reference.argmax(1)).mean())


def _call(runner: Runner, x: NDArray[np.float32]) -> Callable[[], NDArray[np.float32]]:
    return lambda: runner.forward(x)
