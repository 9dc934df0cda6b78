"""The footprint of a runner: start-up time, memory, energy, and the throughput of several instances side by side.

Each runs in processes of its own, so that no runner's memory or threads are counted as another's, and so that independent
streams share nothing but the machine.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import enet_tvm
from enet_tvm.bench.measure.energy import Energy, EnergyRecorder, Meter, energy_figures
from enet_tvm.bench.measure.meters import find_meters
from enet_tvm.bench.runners.base import Case, Runner

READY_WITHIN = 900.0
"""Seconds within which a runner must be warm: torch.compile takes minutes on a slow machine."""

_END_WITHIN = 10.0
"""Seconds that an idle worker gets to end by itself."""

_GRACE = 60.0
"""Seconds that a pass which has begun may take beyond the time that was asked for."""


@dataclass(frozen=True)
class StreamRate:
    """Independent instances of a runner, all fed at once.

    Attributes
    ----------
    streams, threads : int
        Number of instances, and number of threads of each.
    images_per_second : float
        Throughput of all instances together.
    """

    streams: int
    threads: int
    images_per_second: float


@dataclass(frozen=True)
class Footprint:
    """Start-up time, memory, throughput and energy of a runner.

    Attributes
    ----------
    load_seconds, first_seconds : float or None
        Time in a new process until the network is loaded, and duration of the first forward pass after that.
    memory_bytes : int or None
        Peak memory beyond its libraries, input included; on another machine, peak memory of the whole process. None where
        it is not known.
    rates : tuple of StreamRate
        Throughput for each number of streams.
    energies : tuple of Energy
        Energy of a single stream, one for each rail; empty where the machine does not measure it.
    passes : int
        Number of forward passes that `energies` covers.
    problem : str
        Sentence on why something is missing; empty when nothing is.
    """

    load_seconds: float | None = None
    first_seconds: float | None = None
    memory_bytes: int | None = None
    rates: tuple[StreamRate, ...] = ()
    energies: tuple[Energy, ...] = ()
    passes: int = 0
    problem: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as JSON takes them."""
        return {
            "load_seconds": self.load_seconds,
            "first_ms": None if self.first_seconds is None else 1e3 * self.first_seconds,
            "memory_bytes": self.memory_bytes,
            "throughput": [vars(rate) for rate in self.rates],
            "energy": energy_figures(self.energies, self.passes),
            "problem": self.problem,
        }


class WorkerError(Exception):
    """A worker that failed or took too long; its message is the end of a sentence."""


class Worker:
    """A runner in a process of its own.

    Parameters
    ----------
    runner : str
        Name of the runner.
    case : Case
        Case that it runs.
    warm_up : float
        Longest warm-up, in seconds.
    """

    def __init__(self, runner: str, case: Case, warm_up: float) -> None:
        job = {"runner": runner, "case": case.to_dict(), "warm_up": warm_up}
        # The process must find this package wherever it runs from.
        paths = [str(Path(enet_tvm.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`
        self.process = subprocess.Popen(
            [sys.executable, "-m", "enet_tvm.bench.measure.worker", json.dumps(job)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        )
        self._idle = False
        self._answers: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._answers.put(line)
        self._answers.put("")  # it ended

    def answer(self, timeout: float) -> dict[str, Any]:
        """Return its next answer.

        Raises
        ------
        WorkerError
            When the worker ends or reports a problem instead, or `timeout` seconds pass.
        """
        try:
            line = self._answers.get(timeout=timeout)
        except queue.Empty:
            raise WorkerError(f"gave no answer within {timeout:.0f} s") from None
        if not line:
            raise WorkerError(self._ended())
        self._idle = True
        figures: dict[str, Any] = json.loads(line)
        if "problem" in figures:
            raise WorkerError(f"did not start: {figures['problem']}")
        return figures

    def run(self, seconds: float) -> None:
        """Let it run forward passes for so many seconds; `answer` then returns their number and duration."""
        assert self.process.stdin is not None
        self._idle = False
        with contextlib.suppress(BrokenPipeError):  # `answer` will say that it ended
            self.process.stdin.write(f"run {seconds}\n")
            self.process.stdin.flush()

    def close(self) -> None:
        """End the process: by itself when it is idle, so that it can end what it has started, else by SIGKILL."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            self.process.wait(_END_WITHIN if self._idle else 0)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._thread.join()
        self.process.stdout.close()
        self._errors.close()

    def _ended(self) -> str:
        status = self.process.wait()
        if status < 0:
            return f"was ended by {signal.Signals(-status).name}"
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines() or [f"exit status {status}"]
        return f"failed: {lines[-1][:200]}"


def measure_footprint(
    name: str, case: Case, streams: Sequence[int], *, seconds: float, meters: Sequence[Meter] = ()
) -> Footprint:
    """Run a runner of this machine in new processes, alone and in several streams.

    Parameters
    ----------
    name : str
        Name of the runner.
    case : Case
        Case to run, whose artifacts must have been made already. Several streams share its threads, each getting at
        least one.
    streams : sequence of int
        Numbers of instances to run side by side; one alone is always measured.
    seconds : float
        Duration of the measurement for each number of streams.
    meters : sequence of Meter
        Meters to read while one instance runs alone.

    Returns
    -------
    Footprint
        All that was measured; a process that fails is reported in `problem`, and raises nothing.
    """
    footprint = Footprint()
    for count in sorted({1, *streams}):
        threads = max(1, case.threads // count)
        workload = replace(case.workload, threads=threads)
        each = replace(case, workload=workload, tuned_for=case.tuned_for or case.threads)
        recorder = EnergyRecorder(meters if count == 1 else ())
        try:
            with _workers(name, each, count, warm_up=seconds) as workers:
                ready = [worker.answer(READY_WITHIN) for worker in workers]
                recorder.start()
                for worker in workers:
                    worker.run(seconds)
                runs = [worker.answer(seconds + _GRACE) for worker in workers]
                energies = recorder.stop()
        except WorkerError as error:
            recorder.stop()
            which = name if count == 1 else f"one of {count} streams of {name}"
            return replace(footprint, problem=f"{which} {error}")
        rate = StreamRate(count, threads, sum(run["passes"] / run["seconds"] for run in runs))
        footprint = replace(footprint, rates=(*footprint.rates, rate))
        if count == 1:
            footprint = replace(footprint, **ready[0], energies=energies, passes=runs[0]["passes"])
    return footprint


@contextlib.contextmanager
def _workers(name: str, case: Case, count: int, *, warm_up: float) -> Iterator[list[Worker]]:
    with contextlib.ExitStack() as stack:
        workers = []
        for _ in range(count):
            workers.append(Worker(name, case, warm_up))
            stack.callback(workers[-1].close)
        yield workers


def measure_on_device(runner: Runner, x: NDArray[np.float32], threads: int, *, seconds: float) -> Footprint:
    """Run a runner of another machine alone: it is there already, and cannot be opened again beside itself.

    Parameters
    ----------
    runner : Runner
        Runner that is open and warm.
    x : ndarray
        Input of a forward pass, N x 3 x H x W float32.
    threads : int
        Number of its threads, for the report.
    seconds : float
        Duration of the measurement; it makes one forward pass at least.
    """
    files = runner.files()
    meters = find_meters(files) if files else []
    # Its sensors are read through the connection that it runs through: in between, never beside.
    recorder = EnergyRecorder(meters, in_background=False)
    recorder.start()
    start, passes = time.perf_counter(), 0
    while passes == 0 or time.perf_counter() - start < seconds:
        runner.forward(x)
        recorder.sample()
        passes += 1
    rate = StreamRate(1, threads, passes / (time.perf_counter() - start))
    return Footprint(memory_bytes=runner.peak_memory(), rates=(rate,), energies=recorder.stop(), passes=passes)
