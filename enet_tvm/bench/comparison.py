"""Comparing runners: parity first, then latency, alternating in one run, then memory, throughput and energy of each alone."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from enet_tvm.agreement import NOISE
from enet_tvm.bench.machine.conditions import Conditions, read_conditions, slowdowns
from enet_tvm.bench.machine.description import MachineDescription, describe_machine, is_gpu
from enet_tvm.bench.machine.nvml import GpuUnknownError, NvidiaGpu, open_gpu
from enet_tvm.bench.machine.system_files import SystemFiles
from enet_tvm.bench.measure.footprint import Footprint, measure_footprint, measure_on_device
from enet_tvm.bench.measure.latency import STEADY, Latency, alternate
from enet_tvm.bench.measure.meters import open_meters
from enet_tvm.bench.measure.roofline import (
    MEASURED,
    PROMISED,
    Roofline,
    gpu_roofline,
    measure_roofline,
    promised_roofline,
)
from enet_tvm.bench.report.results import Comparison, Entry
from enet_tvm.bench.runners import Case, Runner, RunnerMissingError, open_runner
from enet_tvm.bench.runners.base import PassTimes
from enet_tvm.files import sha256
from enet_tvm.machine import bound_to, choose_cores
from enet_tvm.networks import load_network
from enet_tvm.networks.summary import summarise

REFERENCE = "torch"
"""Name of the runner whose logits the others are compared with."""


@dataclass
class _Opened:
    """A runner that is ready, and what was measured of it so far."""

    runner: Runner
    output: NDArray[np.float32]
    ready_seconds: float
    first_seconds: float
    agreement: float = 0.0
    before: Conditions | None = None
    after: Conditions | None = None

    @property
    def passes(self) -> bool:
        return self.agreement >= NOISE[self.runner.precision]


def compare(
    names: Sequence[str],
    case: Case,
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
    case : Case
        Network, input size and threads that each runner runs.
    seconds : float
        Duration of the timing, warm-up aside.
    streams : sequence of int
        Numbers of independent instances whose throughput is wanted; each is measured for a quarter of `seconds`. An empty
        sequence leaves out memory and energy as well, all of which take new processes.
    command : str
        The command line, for the record.
    report : callable
        Called with a clause on each step.

    Raises
    ------
    UserError
        When a name is unknown, the weights do not serve, or a device is lost.
    """
    x = np.random.default_rng(0).standard_normal(case.input_shape, np.float32)
    opened: dict[str, _Opened] = {}
    missing: dict[str, str] = {}
    footprints: dict[str, Footprint] = {}
    apart = seconds / 4
    # Those of one kind for all of them, not for ours alone; a device binds its own.
    cores = choose_cores(() if case.tracker else case.target.core_list, case.threads)
    with bound_to(cores.bound), contextlib.ExitStack() as outer:
        with contextlib.ExitStack() as stack:
            for name in dict.fromkeys([*names, REFERENCE]):
                report(f"getting {name} ready")
                try:
                    opened[name] = _open(stack, name, case, x)
                except RunnerMissingError as error:
                    missing[name] = str(error)
            for each in opened.values():
                each.agreement = agreement(each.output, opened[REFERENCE].output)
            chosen = {name: opened[name] for name in names if name in opened}
            timed = {name: each for name, each in chosen.items() if each.passes}
            gpu, not_measured = _watch_gpu(outer, timed)
            machine = describe_machine(gpu=gpu, cores=cores)
            report(f"timing {', '.join(timed)} in turns")
            before = read_conditions(gpu=gpu)
            _note_conditions(timed, "before")
            calls = {name: _call(each.runner, x) for name, each in timed.items()}
            latencies = alternate(calls, seconds=seconds) if calls else {}
            after = read_conditions(gpu=gpu)
            _note_conditions(timed, "after")
            for name, each in timed.items() if streams else ():
                if each.runner.remote:
                    report(f"running {name} alone")
                    footprints[name] = measure_on_device(each.runner, x, each.runner.threads or case.threads, seconds=apart)
            devices = {name: _device(each.runner) for name, each in chosen.items()}
        if streams:
            with open_meters(gpu=gpu) as meters:
                for name, each in timed.items():
                    if not each.runner.remote:
                        report(f"running {name} alone, in a process of its own")
                        footprints[name] = measure_footprint(name, case, streams, seconds=apart, meters=meters)
        here = [each for each in timed.values() if not each.runner.remote]
        roofline, roofline_source = _roofline(here, case, gpu)
    return Comparison(
        case=case,
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
        roofline=roofline,
        roofline_source=roofline_source,
        flops=summarise(load_network(case.weights), case.size).total.flops,
        machine=machine,
        before=before,
        after=after,
        warnings=(
            *_fewer_threads(chosen, case.threads),
            *_warnings(timed, latencies, footprints, slowdowns(before, after) if here else []),
        ),
        seconds=seconds,
        command=command,
        not_measured=not_measured,
        driver=gpu.driver if gpu is not None else "",
    )


def _watch_gpu(stack: contextlib.ExitStack, timed: Mapping[str, _Opened]) -> tuple[NvidiaGpu | None, tuple[str, ...]]:
    """Return this machine's GPU if a runner computes there and NVML knows it, and sentences on what is not measured."""
    if not any(each.runner.on_gpu for each in timed.values()) or any(map(is_gpu, SystemFiles().find("/sys/class/devfreq/*"))):
        return None, ()  # a Jetson's is among the kernel's files, and NVML does not know it
    try:
        gpu = stack.enter_context(open_gpu())
    except GpuUnknownError as error:
        return None, (f"energy, clocks and temperature of the GPU are not measured, because {error}",)
    if gpu.microjoules() is None and gpu.watts() is None:
        return gpu, (f"energy of the GPU is not measured, because driver {gpu.driver} does not tell it of {gpu.name}",)
    return gpu, ()


def _roofline(here: Sequence[_Opened], case: Case, gpu: NvidiaGpu | None) -> tuple[Roofline | None, str]:
    """Return the roofline of the processor or GPU timed here, or else the one that the target promises, and its source."""
    if any(each.runner.on_gpu for each in here):
        return gpu_roofline(gpu, case.target.roofline)
    if here:
        return measure_roofline(case.threads), MEASURED
    return promised_roofline(case.target.roofline), PROMISED


def agreement(output: NDArray[np.float32], reference: NDArray[np.float32]) -> float:
    """Return the share of pixels whose largest logit (N x C x H x W) is that of the same class; 0 if one is not finite."""
    if output.shape != reference.shape or not np.isfinite(output).all():
        return 0.0
    return float((output.argmax(1) == reference.argmax(1)).mean())


def _open(stack: contextlib.ExitStack, name: str, case: Case, x: NDArray[np.float32]) -> _Opened:
    start = time.perf_counter()
    runner = stack.enter_context(open_runner(name, case))
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
