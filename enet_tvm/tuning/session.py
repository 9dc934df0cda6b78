"""A tuning session from the untuned network to its log.

`store` keeps measurements on disk, `budget` divides trials and time, `search` chooses the next points, `contest` times the best
of them against the default, and `judge` decides whether the network is faster and still right.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from enet_tvm.artifact import Manifest
from enet_tvm.compiler.compile import CompileRequest, compile_artifact
from enet_tvm.compiler.kernels.common.launch import Launch
from enet_tvm.compiler.kernels.cpu.register_tile import VectorUnit
from enet_tvm.compiler.pipeline import Compiled
from enet_tvm.compiler.tuning_log import LoggedWorkload, LogTarget
from enet_tvm.compiler.workload import Workload
from enet_tvm.errors import UserError
from enet_tvm.networks import read_info
from enet_tvm.places import find_file
from enet_tvm.tuning.baseline import Baseline
from enet_tvm.tuning.budget import Budget, Effort
from enet_tvm.tuning.contest import Contest
from enet_tvm.tuning.judge import Judge
from enet_tvm.tuning.measure import Fleet, Measurer, Timing
from enet_tvm.tuning.metaschedule import load_meta_schedule
from enet_tvm.tuning.prediction import PredictedPlace
from enet_tvm.tuning.report import Listener, Result, plan_of
from enet_tvm.tuning.search import Search
from enet_tvm.tuning.store import Store, identity_of
from enet_tvm.tuning.tasks import GenericTask, Recorder, find_gpu_tasks, find_tasks
from enet_tvm.tuning.trials import KernelTimer, Trials
from enet_tvm.tuning.where import find_place
from enet_tvm.version import check_stack


@dataclass(frozen=True)
class TuneRequest:
    """The network to tune, where, and for how long.

    Attributes
    ----------
    workload : Workload
        Network, whose weights are a safetensors file, with its input size, target (a CPU of this machine's kind, or of the
        devices', or a GPU, at hand or not), threads and data type.
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
    effort : Effort
        Sizes of rounds and of the contest.
    simulate : bool
        Whether kernels for an ARM processor are ranked by a simulation, where there is none to measure on.
    """

    workload: Workload
    trials: int | None = None
    minutes: float | None = 5.0
    out: Path = Path("tuning_logs")
    fleet: Fleet | None = None
    timing: Timing = field(default_factory=Timing)
    fresh: bool = False
    effort: Effort = field(default_factory=Effort)
    simulate: bool = False


def tune(request: TuneRequest, listener: Listener | None = None) -> Result | None:
    """Tune a network and write its log.

    Returns
    -------
    Result or None
        Result of the session; None when no trials were asked for, and the plan is all.

    Raises
    ------
    UserError
        When the target cannot be tuned from here, its log was measured and there is nothing to measure on, a device is lost, or
        every trial fails. What was measured is kept.
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
        target = request.workload.target
        self._place = find_place(request.workload, request.fleet, listener.note, simulate=request.simulate)
        self._weights = _weights(request.workload)
        self._logged = LoggedWorkload.of(read_info(self._weights).network, request.workload)
        self.store = Store(request.out / target.name / self._logged.folder, self._place.modelled)
        load_meta_schedule()
        self._target = target.to_tvm()
        self._trials: Trials | None = None
        self._launches: dict[str, tuple[Launch, ...]] = {}

    def run(self) -> Result | None:
        """Run all stages of the session; see `tune`."""
        store, budget, listener, place = self.store, self._budget, self.listener, self._place
        if place.modelled:
            store.require_no_measured_log()
        logged_target = LogTarget.of(self.request.workload.target)
        identity = identity_of(self._logged, logged_target, place.processor)
        store.begin(identity, listener.note, fresh=self.request.fresh)

        baseline = self._measure_baseline()
        store.open_records(self._target, {task.key for task in baseline.tasks})
        budget.share_out(baseline)
        listener.plan(plan_of(baseline, budget, store, place))
        if self.request.trials == 0:
            store.remove_if_idle()
            return None

        trials = self._trials = Trials(self._make_timer(), budget)
        Search(baseline, store, budget, trials, self._target, listener).run()
        choices = Contest(baseline, store, trials, budget.effort, listener, place.modelled).hold()
        judge = Judge(
            *(self._logged, logged_target, place, self._weights, self._compile),
            *(baseline, store, budget, listener),
        )
        return judge.judge(choices)

    def close(self) -> None:
        """End the workers."""
        if self._trials is not None:
            self._trials.close()
        self._place.close()

    def _measure_baseline(self) -> Baseline:
        asked = Recorder()
        began = time.monotonic()
        self.listener.note("compiling the untuned network")
        untuned = self._compile("untuned", asked)
        compile_seconds = time.monotonic() - began
        if self.request.workload.target.gpu is not None:
            tasks = find_gpu_tasks(self._launches["untuned"])
            generic: list[GenericTask] = []
        else:
            tasks, generic = find_tasks(asked, untuned.kernels, VectorUnit.of(self._target).lanes)
            if self._place.modelled:
                generic = []  # MetaSchedule's own rules try more schedules than a model is worth
        if not self._place.modelled:
            self.listener.note("measuring the untuned network")
        launch_seconds, seconds = self._place.launch_seconds(self.store.work / "untuned")
        return Baseline(tasks, generic, launch_seconds, seconds, compile_seconds)

    def _compile(self, name: str, choices: Any) -> Manifest:
        """Compile the network into a folder of the session."""
        request, artifact = CompileRequest(self.request.workload, command="enet-tvm tune"), self.store.work / name

        def take(compiled: Compiled) -> None:
            self._launches[name] = compiled.launches
            self._place.take(artifact, compiled)

        return compile_artifact(request, artifact, choices=choices, made=take)

    def _make_timer(self) -> KernelTimer:
        workload, fleet, timing = self.request.workload, self.request.fleet, self.request.timing
        target, libraries = workload.target, self.store.libraries
        if isinstance(self._place, PredictedPlace):
            return self._place.timer(libraries)
        return Measurer(
            self._target,
            target.triple,
            target.toolchain,
            workload.thread_count,
            libraries,
            fleet,
            timing,
            gpu=target.gpu,
            cores=target.core_list,
        )


def _weights(workload: Workload) -> Path:
    """Return the weights file of a network that can be tuned.

    Raises
    ------
    UserError
        When it is missing or an ONNX file, or the network is in memory.
    """
    if workload.weights_file is None:
        raise UserError("the network is in memory, and a log is of weights on disk; save them, and name their file")
    weights = find_file(workload.weights_file)
    if weights.suffix == ".onnx":
        raise UserError(f"{weights} is an ONNX file; tune the weights that it came from, its compilation takes their log")
    return weights


__all__ = ["Session", "TuneRequest", "tune"]
