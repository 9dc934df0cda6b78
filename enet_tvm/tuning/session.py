"""A tuning session: rounds of trials, each on disk before the next, a contest of the best, and the network as the judge."""

from __future__ import annotations

import shutil
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import tvm

from enet_tvm.artifact import LIBRARY_NAME, Manifest
from enet_tvm.compiler import CompileRequest, compile_artifact
from enet_tvm.errors import UserError
from enet_tvm.files import atomic_directory, read_json, sha256, write_json
from enet_tvm.kernels.register_tile import VectorUnit
from enet_tvm.networks import read_info
from enet_tvm.places import find_file
from enet_tvm.size import DEFAULT_SIZE, Size
from enet_tvm.targets import TargetSpec
from enet_tvm.tuning.contest import choose
from enet_tvm.tuning.generic import ROUND as _GENERIC_ROUND
from enet_tvm.tuning.generic import GenericSearch, apply_trace, trace_json
from enet_tvm.tuning.keys import point_dict
from enet_tvm.tuning.log import (
    LOG_NAME,
    FunctionChoice,
    KernelChoice,
    LoggedChoices,
    LogTarget,
    Network,
    Parity,
    TuningLog,
    network_of,
    read_log,
)
from enet_tvm.tuning.measure import Fleet, Measurer, Outcome, Timing, all_lost
from enet_tvm.tuning.metaschedule import load_meta_schedule
from enet_tvm.tuning.model import CostModel, Trial
from enet_tvm.tuning.network import Here, Place, There, check_runs_here
from enet_tvm.tuning.records import TRIALS, WORKLOADS, Records
from enet_tvm.tuning.report import Listener, Plan, PlannedTask, Progress, Result
from enet_tvm.tuning.tasks import GenericTask, Recorder, Task, alone, find_tasks
from enet_tvm.version import __version__, check_stack, stack_versions

FAILURES = "failures.json"
IDENTITY = "session.json"

ROUND = 32
"""Trials between two writes: a killed session loses at most so many, some ten seconds."""
PASSES = 5
"""Turns of the contest."""
FINALISTS = 2
"""Points of each kernel that meet the default in the contest: one sample of each decides nothing."""
_GENERIC_TRIALS = 48
_LEAST_SHARE = 0.01
_SECONDS_OF_TRIAL = 0.35
_SECONDS_OF_RUN = 0.12
"""Guesses at what a trial takes, and timing its kernel alone, until some were made."""
_COMPARISON_SECONDS = 8.0


@dataclass(frozen=True)
class TuneRequest:
    """What to tune, and how long.

    Attributes
    ----------
    weights : Path
        Of the network: a safetensors file.
    size : Size or None
        Of the input; None for the target's, else 640x360.
    target : TargetSpec
        A CPU: this machine's kind, or that of the devices.
    threads : int or None
        That the network runs on; None for the target's cores.
    batch : int
        Pictures at once.
    trials : int or None
        Points to have measured in all, those of an interrupted session included; None for as many as time allows.
    minutes : float or None
        Until the log is to be written; None for as long as the trials take.
    out : Path
        The directory of logs.
    fleet : Fleet or None
        Devices to run on; None for this machine.
    timing : Timing
        How long to time a kernel.
    fresh : bool
        Whether to forget earlier measurements.
    dtype : {"float32", "bfloat16", "int8"}
        In what the network computes.
    calibration : Path or None
        As of `CompileRequest`.
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


def tune(request: TuneRequest, listener: Listener | None = None) -> Result | None:
    """Tune a network and write its log.

    Returns
    -------
    Result or None
        None when no trials were asked for: the plan is all.

    Raises
    ------
    UserError
        When the target cannot be tuned from here, a device is lost, or every trial fails. What was measured is kept.
    """
    session = Session(request, listener or Listener())
    try:
        return session.run()
    except UserError as error:
        if request.fleet is None or session.trials == 0 or session.kept() in str(error):
            raise
        raise UserError(session.goes_on(str(error))) from error
    except KeyboardInterrupt:
        session.listener.note(f"{session.kept()}; the same command goes on from there")
        raise
    finally:
        session.close()


class Session:
    """One run of `tune`."""

    def __init__(self, request: TuneRequest, listener: Listener) -> None:
        check_stack()
        self.request = request
        self.listener = listener
        self._start = time.monotonic()
        target = request.target
        if getattr(target, "gpu", None) is not None:
            raise UserError(f"{target.name} is a GPU, whose kernels 'enet-tvm compile' fits to its registers untuned")
        if request.fleet is None:
            check_runs_here(target.architecture, target.cpu_features, target.name)
        weights = find_file(request.weights)
        if weights.suffix == ".onnx":
            raise UserError(f"{weights} is an ONNX file; tune the weights that it came from, its compilation takes their log")
        self._size = request.size or target.size or DEFAULT_SIZE
        threads = request.threads or target.cores
        self.network: Network = network_of(read_info(weights).network, self._size, request.batch, threads, request.dtype)
        self.place: Place = Here(threads) if request.fleet is None else There(threads, request.fleet)
        self.directory = request.out / target.name / self.network.folder
        self.work = self.directory.with_name(f".{self.network.folder}.unfinished")
        load_meta_schedule()
        self._target = target.to_tvm()
        self._failures: list[dict[str, str]] = []
        self._libraries: dict[tuple[str, str], Path] = {}
        self._seconds_of_trial, self._seconds_of_run = _SECONDS_OF_TRIAL, _SECONDS_OF_RUN
        self._measurer: Measurer | None = None
        self._records: Records | None = None

    @property
    def trials(self) -> int:
        """Trials on disk."""
        return self._records.trials if self._records else 0

    def kept(self) -> str:
        """Return what would be lost if the session ended now, in words."""
        return f"{self.trials} trials are kept in {self.work}"

    def goes_on(self, reason: str) -> str:
        """Return in a sentence that the session ends for a reason that is not its own."""
        return f"{reason}; {self.kept()}, and the same command goes on from there"

    def close(self) -> None:
        """End the workers."""
        if self._measurer is not None:
            self._measurer.close()

    # -- before ------------------------------------------------------------------------------------------------------

    def run(self) -> Result | None:
        """Do everything; see `tune`."""
        self._prepare()
        asked = Recorder()
        began = time.monotonic()
        self.listener.note("compiling the untuned network")
        untuned = self._compile("untuned", asked)
        self._compile_seconds = time.monotonic() - began
        lanes = VectorUnit.of(self._target).lanes
        self.tasks, self.generic = find_tasks(asked, untuned.kernels, lanes)
        self.listener.note("measuring the untuned network")
        self._launch_seconds, self.untuned = self.place.launch_seconds(self.work / "untuned")
        self.records = self._records = Records(self.work, self._target, {task.key for task in self.tasks})
        self._plan()
        if self.request.trials == 0:
            self._leave_nothing_behind()
            return None
        self._measurer = self._make_measurer()
        self._search()
        self._search_generic()
        choices = self._contest()
        return self._judge(choices)

    def _prepare(self) -> None:
        """Make the directory of the session: that of an interrupted one, or of the log that is there, if it is the same."""
        if not self.request.fresh:
            identity = self._identity()
            for source in (self.work, self.directory):
                known = _read_json(source / IDENTITY, dict)
                if known is None:
                    continue
                if known != identity:
                    different = [key for key in identity if known.get(key) != identity[key]]
                    self.listener.note(f"{source} is of another {', '.join(different)}: its measurements are not used")
                    continue
                if source != self.work:
                    self._copy_measurements(source)
                self._failures = _read_json(source / FAILURES, list) or []
                break
            else:
                shutil.rmtree(self.work, ignore_errors=True)
        else:
            identity = self._identity()
            shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(self.work / "libraries", ignore_errors=True)
        write_json(self.work / IDENTITY, identity)

    def _copy_measurements(self, source: Path) -> None:
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir(parents=True)
        for name in (WORKLOADS, TRIALS):
            if (source / name).is_file():
                shutil.copyfile(source / name, self.work / name)

    def _leave_nothing_behind(self) -> None:
        """Remove what a dry run made."""
        if self.records.trials == 0 or (self.directory / IDENTITY).is_file():
            shutil.rmtree(self.work, ignore_errors=True)
            for folder in (self.directory.parent, self.request.out):
                if folder.is_dir() and not any(folder.iterdir()):
                    folder.rmdir()

    def _identity(self) -> dict[str, Any]:
        """Return what two sessions must have in common to share measurements."""
        target, stack = LogTarget.of(self.request.target), stack_versions()
        return {
            "network": self.network.model_dump(mode="json"),
            "target": target.model_dump(mode="json"),
            "processor": self.place.processor,
            "TVM": stack["apache-tvm"],
        }

    def _compile(self, name: str, choices: Any) -> Manifest:
        request = self.request
        compilation = CompileRequest(
            *(request.weights, self._size, request.target, request.batch),
            command="enet-tvm tune",
            dtype=request.dtype,
            calibration=request.calibration,
        )
        return compile_artifact(compilation, self.work / name, choices=choices)

    def _make_measurer(self) -> Measurer:
        request = self.request
        triple, toolchain = request.target.triple, request.target.toolchain
        libraries = self.work / "libraries"
        return Measurer(self._target, triple, toolchain, self.network.threads, libraries, request.fleet, request.timing)

    def _seconds(self, task: Task | GenericTask) -> float:
        """Return what all launches of a task take in an untuned pass."""
        return sum(self._launch_seconds[place] for place in task.launches)

    def _plan(self) -> None:
        whole = sum(self._launch_seconds)
        planned = [
            PlannedTask(task.name, len(task.launches), self._seconds(task) / whole, len(task.points)) for task in self.tasks
        ] + [PlannedTask(task.name, len(task.launches), self._seconds(task) / whole, None) for task in self.generic]
        points = sum(len(task.points) for task in self.tasks)
        shares = {task.key: self._seconds(task) / whole for task in self.generic}
        budget = self.request.trials or points + _GENERIC_TRIALS * len(self.generic)
        # A share of the trials for a share of the time; what takes next to none is left as it is.
        self._schedules = {
            key: min(_GENERIC_TRIALS, int(budget * share)) for key, share in shares.items() if share > _LEAST_SHARE
        }
        self._points = min(points, budget - sum(self._schedules.values()))
        self._trials = self._points + sum(self._schedules.values())
        left = max(0, self._trials - self.records.trials)
        seconds = left * self._seconds_of_trial + self._seconds_after()
        if self.request.minutes is not None:
            seconds = min(seconds, self.request.minutes * 60 - (time.monotonic() - self._start))
        self.listener.plan(
            Plan(
                tuple(sorted(planned, key=lambda task: -task.share)),
                1e3 * self.untuned,
                self._trials,
                self.records.trials,
                max(0.0, seconds) / 60,
                self.directory,
            )
        )

    def _seconds_after(self) -> float:
        """Return what contest, compilation and judgement are going to take."""
        contest = (len(self.tasks) + len(self.generic)) * (1 + FINALISTS) * PASSES * self._seconds_of_run
        return contest + 1.2 * self._compile_seconds + 2.5 * _COMPARISON_SECONDS

    def _time_is_up(self, trials: int) -> bool:
        """Whether so many trials would leave too little time for the judgement."""
        if self.request.minutes is None:
            return False
        used = time.monotonic() - self._start
        return used + self._seconds_after() + trials * self._seconds_of_trial > 60 * self.request.minutes

    # -- trials ------------------------------------------------------------------------------------------------------

    def _search(self) -> None:
        model = CostModel(self.tasks, self._target)
        taught: dict[Trial, float] = {}
        for task in self.tasks:
            taught |= {Trial(task, point): seconds for point, seconds in self.records.measured(task).items()}
        model.teach(taught)
        first = True
        others = sum(max(0, self._schedules.get(task.key, 0) - self.records.schedules(task)) for task in self.generic)
        while (left := self._points - self.records.points) > 0 and (first or not self._time_is_up(ROUND + others)):
            first = False
            trials = self._choose(model)[: min(ROUND, left)]
            if not trials:
                break
            began = time.monotonic()
            measured = self._round(trials)
            self._seconds_of_trial = 0.5 * self._seconds_of_trial + 0.5 * (time.monotonic() - began) / len(trials)
            model.teach(measured)
            self._report("trials", self.records.trials, self._trials)

    def _choose(self, model: CostModel) -> list[Trial]:
        """Return the trials left, the most promising first.

        The defaults, then what the model says or, before it knows anything, the points nearest to the default of the
        kernels that take longest.
        """
        pending = [Trial(t, p) for t in self.tasks for p in t.points if not self.records.samples(t, p)]
        seconds = {task.key: self._seconds(task) * self._gain(task) for task in self.tasks}
        rank = {task.key: {point: place for place, point in enumerate(task.points)} for task in self.tasks}
        if model.ready:
            worth = model.promise(pending, seconds)
        else:
            worth = [seconds[trial.task.key] / (1 + rank[trial.task.key][trial.point]) for trial in pending]
        order = sorted(range(len(pending)), key=lambda i: (pending[i].point != pending[i].task.default, -worth[i]))
        return [pending[i] for i in order]

    def _gain(self, task: Task) -> float:
        """Return the time of the best point so far over that of the default."""
        measured = self.records.measured(task)
        return min(measured.values()) / measured[task.default] if task.default in measured else 1.0

    def _round(self, trials: Sequence[Trial]) -> dict[Trial, float]:
        """Build and time points, write all of it down, and return the times."""
        outcomes = self._measure(trials)
        if all_lost(outcomes):
            raise UserError(self.goes_on(outcomes[0].reason))
        if len(trials) > 1 and not any(outcome.seconds for outcome in outcomes):
            lost = next((outcome for outcome in outcomes if not outcome.of_kernel), outcomes[0])
            raise UserError(
                f"all {len(trials)} trials of a round failed ({lost.reason}); nothing of it was written "
                f"down, and {self.kept()}: correct the cause, and the same command goes on from there"
            )
        times = {}
        for trial, outcome in zip(trials, outcomes, strict=True):
            if not outcome.of_kernel:
                continue
            # A point that cannot be generated has no arguments to write down.
            arguments = _arguments(trial.task.module(trial.point)) if outcome.seconds else []
            self.records.add(trial.task, trial.point, outcome.seconds, arguments)
            if outcome.seconds:
                times[trial] = min(outcome.seconds)
            else:
                self._failed(trial.task.name, str(trial.point), outcome.reason)
        return times

    def _failed(self, task: str, point: str, reason: str) -> None:
        self._failures.append({"kernel": task, "point": point, "reason": reason})
        write_json(self.work / FAILURES, self._failures)

    def _build(self, trials: Sequence[Trial]) -> dict[int, Outcome]:
        """Build what was not built before, all at once; returns the failures by their place."""
        assert self._measurer is not None
        outcomes: dict[int, Outcome] = {}
        missing = []
        for place, trial in enumerate(trials):
            if self._library_key(trial) in self._libraries:
                continue
            try:
                missing.append((place, trial.task.module(trial.point)))
            except (ValueError, RuntimeError, TypeError) as error:
                outcomes[place] = Outcome(reason=f"cannot be generated: {str(error).splitlines()[-1][:200]}")
        for (place, _), built in zip(missing, self._measurer.build([module for _, module in missing]), strict=True):
            if isinstance(built, Outcome):
                outcomes[place] = built
            else:
                self._libraries[self._library_key(trials[place])] = built
        return outcomes

    def _measure(self, trials: Sequence[Trial]) -> list[Outcome]:
        """Return what becomes of points."""
        assert self._measurer is not None
        outcomes = self._build(trials)
        places = [place for place in range(len(trials)) if place not in outcomes]
        libraries = [self._libraries[self._library_key(trials[place])] for place in places]
        modules = [trials[place].task.module(trials[place].point) for place in places]
        began = time.monotonic()
        results = self._measurer.run(libraries, [_arguments(module) for module in modules])
        if libraries:
            self._seconds_of_run = 0.5 * self._seconds_of_run + 0.5 * (time.monotonic() - began) / len(libraries)
        outcomes |= dict(zip(places, results, strict=True))
        return [outcomes[place] for place in range(len(trials))]

    @staticmethod
    def _library_key(trial: Trial) -> tuple[str, str]:
        return trial.task.key, str(trial.point)

    def _search_generic(self) -> None:
        """Give each function without a template its trials, those that take longest first."""
        assert self._measurer is not None
        for task in sorted(self.generic, key=lambda task: -self._seconds(task)):
            budget = self._schedules.get(task.key, 0) - self.records.schedules(task)
            if budget <= 0 or self._time_is_up(_GENERIC_ROUND):
                continue
            search = GenericSearch(task, self._target, self.records, budget)
            arguments = _arguments(task.workload)
            while not self._time_is_up(_GENERIC_ROUND) and (candidates := search.next_round()):
                outcomes = self._run_modules([candidate.sch.mod for candidate in candidates], arguments)
                if all_lost(outcomes):
                    raise UserError(self.goes_on(outcomes[0].reason))
                for outcome in outcomes:
                    if outcome.of_kernel and not outcome.seconds:
                        self._failed(task.name, "a schedule of MetaSchedule's", outcome.reason)
                search.tell(candidates, [outcome.seconds if outcome.of_kernel else None for outcome in outcomes])
                self._report(f"{task.name}, by MetaSchedule's rules", self.records.trials, self._trials)
            if search.failure:
                self.listener.note(f"{search.failure}; it keeps its default schedule")

    def _run_modules(self, modules: Sequence[Any], arguments: Any) -> list[Outcome]:
        assert self._measurer is not None
        built = self._measurer.build(modules)
        libraries = [library for library in built if isinstance(library, Path)]
        ran = iter(self._measurer.run(libraries, [arguments] * len(libraries)))
        return [next(ran) if isinstance(b, Path) else b for b in built]

    def _report(self, stage: str, done: int, total: int) -> None:
        best = []
        for task in self.tasks:
            measured = self.records.measured(task)
            if task.default in measured:
                best.append((task.name, 1e6 * measured[task.default], 1e6 * min(measured.values())))
        saved = sum(self._seconds(task) * (1 - self._gain(task)) for task in self.tasks)
        share = 1 - saved / max(sum(self._launch_seconds), 1e-12)
        untuned = 1e3 * self.untuned
        self.listener.progress(Progress(stage, done, total, len(self._failures), untuned, untuned * share, tuple(best)))

    # -- the contest -------------------------------------------------------------------------------------------------

    def _contest(self) -> tuple[list[KernelChoice], list[FunctionChoice]]:
        """Measure the best points of each kernel and its default again, in turns, and choose."""
        entrants: dict[Task, list[Any]] = {}
        for task in sorted(self.tasks, key=lambda task: -self._seconds(task)):
            measured = self.records.measured(task)
            rivals = sorted((point for point in measured if point != task.default), key=measured.__getitem__)
            if rivals and task.default in measured:
                entrants[task] = [task.default, *rivals[:FINALISTS]]
        times: dict[Task, dict[Any, list[float]]] = {task: {p: [] for p in points} for task, points in entrants.items()}
        # Libraries of a session that was interrupted are gone.
        self._build([Trial(task, point) for task, points in entrants.items() for point in points])
        for turn in range(PASSES):
            for task, points in entrants.items():
                turned = points[turn % len(points) :] + points[: turn % len(points)]
                trials = [Trial(task, point) for point in turned]
                for trial, outcome in zip(trials, self._measure(trials), strict=True):
                    if not outcome.of_kernel:
                        raise UserError(self.goes_on(outcome.reason))
                    times[task][trial.point].append(min(outcome.seconds, default=float("inf")))
            self._report("contest of the best", turn + 1, PASSES)
        kernels = [self._kernel_choice(task, times.get(task, {})) for task in self.tasks]
        functions = [choice for task in self.generic if (choice := self._function_choice(task))]
        return [kernel for kernel in kernels if kernel is not None], functions

    def _kernel_choice(self, task: Task, times: dict[Any, list[float]]) -> KernelChoice | None:
        default = task.default
        measured = self.records.measured(task)
        if default not in measured:
            return None
        base = times.get(default) or [measured[default]]
        rivals = {point: seconds for point, seconds in times.items() if point != default}
        point = choose(base, rivals) or default
        won = times.get(point) or [measured[point]]
        return KernelChoice(
            key=task.key,
            name=task.name,
            launches=len(task.launches),
            point=point_dict(point),
            default=point_dict(default),
            point_us=1e6 * statistics.median(won),
            default_us=1e6 * statistics.median(base),
            trials=len(measured),
        )

    def _function_choice(self, task: GenericTask) -> FunctionChoice | None:
        records = self.records.generic(task, FINALISTS)
        if not records:
            return None
        assert self._measurer is not None
        arguments, traces = _arguments(task.workload), [trace_json(record) for record in records]
        modules = [task.default_module, *(alone(apply_trace(task.function, trace)) for trace in traces)]
        built = self._measurer.build(modules)
        libraries = {place: library for place, library in enumerate(built) if isinstance(library, Path)}
        times: dict[int, list[float]] = {place: [] for place in libraries}
        for _ in range(PASSES):
            ran = self._measurer.run(list(libraries.values()), [arguments] * len(libraries))
            for place, outcome in zip(libraries, ran, strict=True):
                if not outcome.of_kernel:
                    raise UserError(self.goes_on(outcome.reason))
                times[place].append(min(outcome.seconds, default=float("inf")))
        if 0 not in times or min(times[0]) == float("inf"):
            return None
        best = choose(times[0], {place: seconds for place, seconds in times.items() if place}) or 0
        return FunctionChoice(
            key=task.key,
            name=task.name,
            launches=len(task.launches),
            trace=traces[best - 1] if best else None,
            point_us=1e6 * statistics.median(times[best]),
            default_us=1e6 * statistics.median(times[0]),
            trials=self.records.schedules(task),
        )

    # -- judgement ---------------------------------------------------------------------------------------------------

    def _judge(self, choices: tuple[list[KernelChoice], list[FunctionChoice]]) -> Result:
        """Compile the network with the new log, measure it against without and with the old one, verify it, decide."""
        kernels, functions = choices
        self.listener.note("compiling the tuned network")
        draft = self._log(kernels, functions, self.untuned, self.untuned, _NO_PARITY)
        self._compile("tuned", LoggedChoices(draft))
        artifacts = {"untuned": self.work / "untuned", "tuned": self.work / "tuned"}
        old = self._old_log()
        if old is not None:
            self._compile("old", LoggedChoices(old))
            artifacts["old"] = self.work / "old"
        self.listener.note("measuring the network with and without the log, in turns")
        same = {name: sha256(path / LIBRARY_NAME) for name, path in artifacts.items()}
        # Equal libraries are one contestant: of two, one would be slower.
        distinct = {digest: name for name, digest in same.items()}
        found = self.place.compare({name: artifacts[name] for name in distinct.values()}, _COMPARISON_SECONDS)
        medians = {name: found[distinct[digest]] for name, digest in same.items()}
        self.listener.note("comparing the tuned network with PyTorch")
        parity, agrees = self.place.parity(artifacts["tuned"], artifacts["untuned"], self.request.weights)
        log = self._log(kernels, functions, medians["untuned"], medians["tuned"], parity)
        reason = ""
        if not agrees:
            reason = f"the tuned network does not agree with PyTorch: {parity.label_agreement:.4%} of the labels are the same"
        elif medians["tuned"] > medians["untuned"]:
            reason = f"the tuned network takes {1e3 * medians['tuned']:.2f} ms, not less than the untuned one"
        elif old is not None and medians["tuned"] > medians["old"]:
            reason = f"with the log that is there the network takes {1e3 * medians['old']:.2f} ms, which is less"
        if not reason:
            self._write(log)
        changed = sum(kernel.point != kernel.default for kernel in kernels) + sum(f.trace is not None for f in functions)
        counted = dict(Counter(failure["reason"] for failure in self._failures).most_common())
        old_ms = 1e3 * medians["old"] if "old" in medians else None
        return Result(log, not reason, reason, not agrees, self.directory, changed, counted, old_ms)

    def _old_log(self) -> TuningLog | None:
        try:
            log = read_log(self.directory)
        except UserError:
            return None
        known = {task.key for task in self.tasks} | {task.key for task in self.generic}
        return log if known & ({choice.key for choice in log.kernels} | {choice.key for choice in log.functions}) else None

    def _log(
        self,
        kernels: list[KernelChoice],
        functions: list[FunctionChoice],
        before: float,
        after: float,
        parity: Parity,
    ) -> TuningLog:
        stack = stack_versions()
        return TuningLog(
            workload=self.network,
            target=LogTarget.of(self.request.target),
            apache_tvm=stack["apache-tvm"],
            apache_tvm_ffi=stack["apache-tvm-ffi"],
            enet_tvm=__version__,
            host=str((_read_json(self.work / IDENTITY, dict) or {}).get("processor", "")),
            date=datetime.now(UTC).isoformat(timespec="seconds"),
            trials=self.records.trials,
            failed=len(self._failures),
            minutes=round((time.monotonic() - self._start) / 60, 2),
            before_ms=round(1e3 * before, 4),
            after_ms=round(1e3 * after, 4),
            parity=parity,
            kernels=tuple(kernels),
            functions=tuple(functions),
        )

    def _write(self, log: TuningLog) -> None:
        with atomic_directory(self.directory) as temporary:
            for name in (WORKLOADS, TRIALS, IDENTITY, FAILURES):
                if (self.work / name).is_file():
                    shutil.copyfile(self.work / name, temporary / name)
            (temporary / LOG_NAME).write_text(log.model_dump_json(indent=2) + "\n", encoding="utf-8")
        shutil.rmtree(self.work, ignore_errors=True)


_NO_PARITY = Parity(pictures=0, inputs="", label_agreement=0.0, max_abs_logit_diff=0.0)


def _arguments(module: tvm.IRModule) -> list[Any]:
    """Return shapes and dtypes of what a module is called with; those of packed weights depend on the point."""
    from tvm.s_tir.meta_schedule.arg_info import ArgInfo

    return list(ArgInfo.from_prim_func(module["main"]))


def _read_json(path: Path, kind: type[Any]) -> Any:
    """Return what an earlier session wrote; None if that is not there, or no longer what it was."""
    try:
        content = read_json(path, "tune again")
    except UserError:
        return None
    return content if isinstance(content, kind) else None


__all__ = ["Session", "TuneRequest", "tune"]
