"""A tuning session from the untuned network to its log.

`store` keeps measurements on disk, `budget` divides trials and time, `search` chooses the next points, `contest` times the best
of them against the default, and `judge` decides whether the network is faster and still right.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from enet_tvm.artifact import Manifest
from enet_tvm.compiler.compile import CompileRequest, compile_artifact
from enet_tvm.compiler.kernels.cpu.register_tile import VectorUnit
from enet_tvm.compiler.tuning_log import LogTarget, Network, network_of
from enet_tvm.errors import UserError
from enet_tvm.networks import read_info
from enet_tvm.places import find_file
from enet_tvm.size import DEFAULT_SIZE, Size
from enet_tvm.targets import TargetSpec
from enet_tvm.tuning.baseline import Baseline
from enet_tvm.tuning.budget import Budget, Effort
from enet_tvm.tuning.contest import Contest
from enet_tvm.tuning.judge import Judge
from enet_tvm.tuning.measure import Fleet, Measurer, Timing
from enet_tvm.tuning.metaschedule import load_meta_schedule
from enet_tvm.tuning.network import Here, Place, There, check_runs_here
from enet_tvm.tuning.report import Listener, Result, plan_of
from enet_tvm.tuning.search import Search
from enet_tvm.tuning.store import Store, identity_of
from enet_tvm.tuning.tasks import Recorder, find_tasks
from enet_tvm.tuning.trials import Trials
from enet_tvm.version import check_stack


@dataclass(frozen=True)
class TuneRequest:
    """The network to tune, where, and for how long.

    Attributes
    ----------
    weights : Path
        Weights file of the network, in safetensors.
    size : Size or None
        Width and height of the input; None for the target's, else 640x360.
    target : TargetSpec
        Target to tune for: a CPU of this machine's kind, or of the devices'.
    threads : int or None
        Number of threads that the network runs on; None for the target's cores.
    batch : int
        Number of pictures in an input.
    trials : int or None
        Number of trials to have made in the end, those of an interrupted session included; 0 for the plan alone, None for as
        many as time allows.
    minutes : float or None
        Time until the log is to be written; None for as long as the trials take.
    out : Path
        Directory of all tuning logs.
    fleet : Fleet or None
        Devices to run on; None for this machine.
    timing : Timing
        Repetitions and limits of timing a kernel.
    fresh : bool
        Whether to forget earlier measurements.
    dtype : {"float32", "bfloat16", "int8"}
        Data type that the network computes in.
    calibration : Path or None
        Calibration file for int8, as in `CompileRequest`; None for the one beside the weights.
    effort : Effort
        Sizes of rounds and of the contest.
    """

    weights: Path
    size: Size | None
    target: TargetSpec
    threads: int | None = None
    batch: int = 1
    trials: int | None = None
    minutes: float | None = 5.0
    out: Path = Path("tuning_logs")
    fleet: Fleet | None = None
    timing: Timing = field(default_factory=Timing)
    fresh: bool = False
    dtype: Literal["float32", "bfloat16", "int8"] = "float32"
    calibration: Path | None = None
    effort: Effort = field(default_factory=Effort)


def tune(request: TuneRequest, listener: Listener | None = None) -> Result | None:
    """Tune a network and write its log.

    Returns
    -------
    Result or None
        Result of the session; None when no trials were asked for, and the plan is all.

    Raises
    ------
    UserError
        When the target cannot be tuned from here, a device is lost, or every trial fails. What was measured is kept.
    """
    session = Session(request, listener or Listener())
    store = session.store
    try:
        return session.run()
    except UserError as error:
        if request.fleet is None or store.trials == 0 or store.kept() in str(error):
            raise
        raise UserError(store.goes_on(str(error))) from error
    except KeyboardInterrupt:
        session.listener.note(f"{store.kept()}; the same command goes on from there")
        raise
    finally:
        session.close()


class Session:
    """One run of `tune`.

    Attributes
    ----------
    store : Store
        Measurements on disk, which are kept if the session is interrupted.
    """

    def __init__(self, request: TuneRequest, listener: Listener) -> None:
        check_stack()
        self.request, self.listener = request, listener
        self._budget = Budget(request.trials, request.minutes, request.effort)
        weights = _check(request)
        target = request.target
        self._size = request.size or target.size or DEFAULT_SIZE
        threads = request.threads or target.cores
        self._network: Network = network_of(read_info(weights).network, self._size, request.batch, threads, request.dtype)
        self._place: Place = Here(threads) if request.fleet is None else There(threads, request.fleet)
        self.store = Store(request.out / target.name / self._network.folder)
        load_meta_schedule()
        self._target = target.to_tvm()
        self._trials: Trials | None = None

    def run(self) -> Result | None:
        """Run all stages of the session; see `tune`."""
        store, budget, listener = self.store, self._budget, self.listener
        logged_target = LogTarget.of(self.request.target)
        identity = identity_of(self._network, logged_target, self._place.processor)
        store.begin(identity, listener.note, fresh=self.request.fresh)

        baseline = self._measure_baseline()
        store.open_records(self._target, {task.key for task in baseline.tasks})
        budget.share_out(baseline)
        listener.plan(plan_of(baseline, budget, store))
        if self.request.trials == 0:
            store.remove_if_idle()
            return None

        trials = self._trials = Trials(self._make_measurer(), budget)
        Search(baseline, store, budget, trials, self._target, listener).run()
        choices = Contest(baseline, store, trials, budget.effort, listener).hold()
        judge = Judge(
            *(self._network, logged_target, self._place, self.request.weights, self._compile),
            *(baseline, store, budget, listener),
        )
        return judge.judge(choices)

    def close(self) -> None:
        """End the workers."""
        if self._trials is not None:
            self._trials.close()

    def _measure_baseline(self) -> Baseline:
        asked = Recorder()
        began = time.monotonic()
        self.listener.note("compiling the untuned network")
        untuned = self._compile("untuned", asked)
        compile_seconds = time.monotonic() - began
        tasks, generic = find_tasks(asked, untuned.kernels, VectorUnit.of(self._target).lanes)
        self.listener.note("measuring the untuned network")
        launch_seconds, seconds = self._place.launch_seconds(self.store.work / "untuned")
        return Baseline(tasks, generic, launch_seconds, seconds, compile_seconds)

    def _compile(self, name: str, choices: Any) -> Manifest:
        """Compile the network into a folder of the session."""
        request = self.request
        compilation = CompileRequest(
            *(request.weights, self._size, request.target, request.batch),
            command="enet-tvm tune",
            dtype=request.dtype,
            calibration=request.calibration,
        )
        return compile_artifact(compilation, self.store.work / name, choices=choices)

    def _make_measurer(self) -> Measurer:
        request, threads, libraries = self.request, self._network.threads, self.store.libraries
        triple, toolchain = request.target.triple, request.target.toolchain
        return Measurer(self._target, triple, toolchain, threads, libraries, request.fleet, request.timing)


def _check(request: TuneRequest) -> Path:
    """Return the weights file if its network can be tuned from here.

    Raises
    ------
    UserError
        When the target is a GPU, this machine cannot run its kernels and no devices are given, or the weights are missing or
        an ONNX file.
    """
    target = request.target
    if getattr(target, "gpu", None) is not None:
        raise UserError(f"{target.name} is a GPU, whose kernels 'enet-tvm compile' fits to its registers untuned")
    if request.fleet is None:
        check_runs_here(target.architecture, target.cpu_features, target.name)
    weights = find_file(request.weights)
    if weights.suffix == ".onnx":
        raise UserError(f"{weights} is an ONNX file; tune the weights that it came from, its compilation takes their log")
    return weights


__all__ = ["Session", "TuneRequest", "tune"]
