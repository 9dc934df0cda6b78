"""A tuning log: which point of each kernel was the fastest, and everything that says whether that still holds.

`compile` reads ``log.json`` alone; the database beside it is the evidence, and what further tuning begins with. Nothing
here imports MetaSchedule.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

import tvm
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from enet_tvm.artifact import TuningInfo
from enet_tvm.compatibility import find_mismatch
from enet_tvm.compiler.kernels.common.choices import Choices
from enet_tvm.compiler.kernels.common.template import Template
from enet_tvm.compiler.kernels.cpu.register_tile import VectorUnit
from enet_tvm.compiler.tuning_keys import fingerprint, plain, template_key
from enet_tvm.compiler.workload import Workload
from enet_tvm.errors import UserError
from enet_tvm.files import read_json
from enet_tvm.places import search_roots
from enet_tvm.targets import TargetSpec, known_targets, load_target
from enet_tvm.version import stack_versions

LOGS = "tuning_logs"
LOG_NAME = "log.json"
LOG_SCHEMA: Final = 1

_AGAIN = "make it again with 'enet-tvm tune'"
Say = Callable[[str], None]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Key = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class KernelChoice(_Part):
    """The fastest point of a template.

    Attributes
    ----------
    key : str
        Key of the template: see `enet_tvm.compiler.tuning_keys.template_key`.
    name : str
        Name of the kernel, for people.
    launches : int
        Launches of the kernel in a forward pass.
    point, default : dict
        The parameters that won, and those of the untuned kernel.
    point_us, default_us : float
        Durations of a call with either, in microseconds: the medians of measurements in turns.
    trials : int
        Number of points measured.
    """

    key: Key
    name: str
    launches: int
    point: dict[str, int | float | str | bool]
    default: dict[str, int | float | str | bool]
    point_us: Positive
    default_us: Positive
    trials: int


class FunctionChoice(_Part):
    """The fastest schedule of a function that no template made.

    Attributes
    ----------
    key : str
        Key of the function: see `enet_tvm.compiler.tuning_keys.fingerprint`.
    name, launches, trials
        Fields as in `KernelChoice`; trials are schedules measured.
    trace : list or None
        MetaSchedule's trace; None where nothing was faster than the untuned schedule.
    point_us, default_us : float
        Durations of a call with and without it, in microseconds.
    """

    key: Key
    name: str
    launches: int
    trace: list[Any] | None
    point_us: Positive
    default_us: Positive
    trials: int


class LogTarget(_Part):
    """The target of a log, as its file said when it was made: of a GPU its architecture, too."""

    name: str
    triple: str
    mcpu: str
    mattr: tuple[str, ...] = ()
    gpu: str = ""

    @classmethod
    def of(cls, spec: TargetSpec) -> LogTarget:
        """Return what a log keeps of a target."""
        gpu = "" if spec.gpu is None else spec.gpu.arch
        return cls(name=spec.name, triple=spec.triple, mcpu=spec.mcpu, mattr=spec.mattr, gpu=gpu)

    @property
    def description(self) -> str:
        """The processor with its features, and the GPU's architecture, as words."""
        return " ".join(word for word in (self.gpu, self.mcpu, *self.mattr) if word)

    @model_serializer(mode="wrap")
    def _without_what_is_not_there(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content: dict[str, Any] = write(self)
        return content if self.gpu else {key: value for key, value in content.items() if key != "gpu"}


class LoggedWorkload(_Part):
    """What a log keeps of a workload: the network's name, its input size, batch and dtype, and the number of threads."""

    network: str
    width: int
    height: int
    batch: int
    dtype: str = "float32"
    threads: int

    @classmethod
    def of(cls, network: str, workload: Workload) -> LoggedWorkload:
        """Return what a log keeps of the workload of a network with this name."""
        width, height = workload.input_size
        batch, dtype, threads = workload.batch, workload.dtype, workload.thread_count
        return cls(network=network, width=width, height=height, batch=batch, dtype=dtype, threads=threads)

    @property
    def folder(self) -> str:
        """Name of the log's directory."""
        batch = "" if self.batch == 1 else f"-batch{self.batch}"
        dtype = "" if self.dtype == "float32" else f"-{self.dtype}"
        return f"{self.stem}{batch}{dtype}-{self.threads}thread{'' if self.threads == 1 else 's'}"

    @property
    def stem(self) -> str:
        """Name of the network and of its input size."""
        return f"{self.network}-{self.width}x{self.height}"


class Parity(_Part):
    """Parity of the tuned network with PyTorch."""

    pictures: int
    inputs: str
    label_agreement: float
    max_abs_logit_diff: float


class TuningLog(_Part):
    """The result of one tuning.

    Attributes
    ----------
    workload : LoggedWorkload
        LoggedWorkload that was tuned, at its input size and number of threads.
    target : LogTarget
        Target that it was tuned for.
    apache_tvm, apache_tvm_ffi, enet_tvm : str
        Versions that it was tuned with.
    host : str
        Processor or GPU that it was measured on; of a modelled log, the model.
    date : str
        Date and time, as ISO 8601 in UTC.
    trials, failed : int
        Number of points measured in all, and of those that did not compile or run.
    minutes : float
        Duration of the session that wrote the log, in minutes.
    before_ms, after_ms : float
        Median durations of a forward pass without and with the log, in milliseconds, measured in turns.
    parity : Parity or None
        Parity with PyTorch of the network with the log; None where it did not run, of a modelled log.
    kernels, functions : tuple
        Fastest points of the templates, and fastest schedules of the other functions.
    modelled : bool
        Whether all times in it are those of a model, and none was measured: of a GPU's (`enet_tvm.compiler.cuda.cost`) or of
        an ARM processor's (`enet_tvm.compiler.arm.cost`).
    simulated : bool
        Whether it is modelled by what an emulated processor executed: its milliseconds are then millions of cycles.
    """

    schema_version: Literal[1] = LOG_SCHEMA
    workload: LoggedWorkload
    target: LogTarget
    apache_tvm: str
    apache_tvm_ffi: str
    enet_tvm: str
    host: str
    date: str
    trials: int
    failed: int
    minutes: float
    before_ms: Positive
    after_ms: Positive
    parity: Parity | None
    kernels: tuple[KernelChoice, ...]
    functions: tuple[FunctionChoice, ...] = ()
    modelled: bool = False
    simulated: bool = False

    @model_validator(mode="after")
    def _ran_if_measured(self) -> Self:
        if self.simulated and not self.modelled:
            raise ValueError("a log that was simulated is a modelled one")
        if self.parity is None and not self.modelled:
            raise ValueError("a log that was measured has its parity with PyTorch")
        return self


def read_log(directory: str | Path) -> TuningLog:
    """Read a log.

    Raises
    ------
    UserError
        When there is none, it does not parse, or is of another TVM.
    """
    path = Path(directory).expanduser() / LOG_NAME
    if not path.is_file():
        raise UserError(f"{directory} is not a tuning log: it has no {LOG_NAME}; give one that 'enet-tvm tune' wrote")
    content = read_json(path, _AGAIN)
    schema = content.get("schema_version") if isinstance(content, dict) else None
    if schema != LOG_SCHEMA:
        raise UserError(f"{path} has schema version {schema}, and this release reads {LOG_SCHEMA}; {_AGAIN}")
    try:
        log = TuningLog.model_validate_json(json.dumps(content))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(step) for step in first["loc"]) or "content"
        raise UserError(f"{path} is not a complete tuning log ({where}: {first['msg']}); {_AGAIN}") from error
    stack = stack_versions()
    if (log.apache_tvm, log.apache_tvm_ffi) != (stack["apache-tvm"], stack["apache-tvm-ffi"]):
        raise UserError(f"{path} was made with TVM {log.apache_tvm}, and {stack['apache-tvm']} is installed; {_AGAIN}")
    return log


class LoggedChoices(Choices):
    """The choices of a log, and the defaults for the rest; keeps count of the kernels that the log knows.

    Parameters
    ----------
    log : TuningLog
    """

    def __init__(self, log: TuningLog) -> None:
        self._kernels = {choice.key: choice for choice in log.kernels}
        self._functions = {choice.key: choice for choice in log.functions}
        self.known: set[str] = set()
        self.asked: set[str] = set()
        self._points: dict[Template, Any] = {}

    def point(self, template: Template) -> Any:
        """Return the point that the log names, if it knows the template as it is today."""
        if template not in self._points:
            self._points[template] = self._look_up(template)
        return self._points[template]

    def _look_up(self, template: Template) -> Any:
        key = template_key(template)
        self.asked.add(key)
        choice = self._kernels.get(key)
        # Only a point of the template's own: a log that was edited cannot ask for a tile that does not exist.
        points = template.points() if choice else []
        for point in points:
            if choice is not None and point == _as_point(template, choice.point):
                self.known.add(key)
                return point
        return template.default

    def schedule(self, name: str, function: tvm.tirx.PrimFunc) -> tvm.tirx.PrimFunc | None:
        """Return the function scheduled by the log's trace, None without one."""
        from enet_tvm.compiler.passes.schedule_remaining import is_blocks
        from enet_tvm.compiler.traces import apply_trace

        if not self._functions or not is_blocks(function):
            return None
        key = fingerprint(plain(function))
        self.asked.add(key)
        choice = self._functions.get(key)
        if choice is None:
            return None
        self.known.add(key)
        if choice.trace is None:
            return None
        try:
            return apply_trace(function, choice.trace)
        except ValueError:
            self.known.discard(key)
            return None


def _as_point(template: Template, values: dict[str, Any]) -> Any:
    try:
        return template.point_type(**values)
    except TypeError:
        return None


@dataclass
class Lookup:
    """A log for a compilation, or why there is none.

    Attributes
    ----------
    choices : Choices
        Choices for the pipeline.
    directory : Path or None
        Directory of the log.
    log : TuningLog or None
        The log.
    problems : list of str
        A sentence for each log that was found and could not be used.
    """

    choices: Choices = field(default_factory=Choices)
    directory: Path | None = None
    log: TuningLog | None = None
    problems: list[str] = field(default_factory=list)

    def info(self) -> TuningInfo | None:
        """Return what the manifest says, after the pipeline has run."""
        if self.log is None or not isinstance(self.choices, LoggedChoices) or not self.choices.known:
            return None
        known, asked = len(self.choices.known), len(self.choices.asked)
        log, target = self.log, self.log.target.name
        return TuningInfo(
            log=f"{target}/{log.workload.folder}",
            kernels=known,
            of=asked,
            threads=log.workload.threads,
            date=log.date,
            modelled=log.modelled,
            simulated=log.simulated,
        )

    def sentence(self) -> str:
        """Return which log was used and how far it went, after the pipeline has run."""
        if self.log is None or self.directory is None or not isinstance(self.choices, LoggedChoices):
            return "tuning: no log for this network, size and target; the default kernels are used (see 'enet-tvm tune')"
        known, asked = len(self.choices.known), len(self.choices.asked)
        if not known:
            return (
                f"tuning: {self.directory} knows none of the {asked} kernels as this release makes them; "
                f"the default kernels are used; {_AGAIN}"
            )
        rest = "" if known == asked else f", the default for the other {asked - known}"
        kind = "simulated" if self.log.simulated else "modelled"
        how = f", which is {kind}, not measured" if self.log.modelled else ""
        return f"tuning: {known} of {asked} kernels by {self.directory} of {self.log.date[:10]}{how}{rest}"


def use_log(directory: Path) -> Lookup:
    """Return the log of a directory that the user named.

    Raises
    ------
    UserError
        See `read_log`.
    """
    log = read_log(directory)
    return Lookup(LoggedChoices(log), directory, log)


def find_log(wanted: LoggedWorkload, target: TargetSpec) -> Lookup:
    """Look for a log for a network on a target, with the nearest number of threads; of such logs, the user's comes first.

    A log that was measured comes before one that was modelled, wherever and of whatever number of threads they are. A log of
    ``native``, and one that was simulated, serve their target alone. Where a target has none of its own, those of targets will
    do whose vector registers are the same and whose extensions it has: a ``zen4`` takes those of ``x86-64-v4``.
    """
    problems: list[str] = []
    modelled: Lookup | None = None
    for name in itertools.chain([target.name], classes_of(target)):
        for directory in _directories(name, wanted):
            try:
                log = read_log(directory)
                _check(log, directory, wanted, target if name == target.name else load_target(name))
            except UserError as error:
                problems.append(str(error))
                continue
            if log.simulated and name != target.name:
                continue  # its model is of another processor
            found = Lookup(LoggedChoices(log), directory, log, problems)
            if not log.modelled:
                return found
            modelled = modelled or found
    return modelled or Lookup(problems=problems)


def classes_of(target: TargetSpec) -> Iterator[str]:
    """Return the named targets that another is one of, the most specific first; a GPU's kernels are those of its own target."""
    if target.gpu is not None:
        return
    unit, found = VectorUnit.of(target.to_tvm()), []
    for name in known_targets():
        try:
            spec = load_target(name)
            fits = spec.gpu is None and name != target.name and find_mismatch(spec.requirements, target.machine) is None
            if fits and VectorUnit.of(spec.to_tvm()) == unit:
                found.append((len(spec.cpu_features), name))
        except UserError:
            continue  # A file of the user's that is broken is no business of this compilation.
    yield from (name for _, name in sorted(found, reverse=True))


def _directories(target: str, wanted: LoggedWorkload) -> list[Path]:
    """Return the directories that may hold a log, the best first."""
    found = []
    for order, root in enumerate(search_roots()):
        for threads in range(1, 257):
            directory = root / LOGS / target / wanted.model_copy(update={"threads": threads}).folder
            if directory.is_dir():
                found.append((abs(math.log(threads / wanted.threads)), order, directory))
    return [directory for _, _, directory in sorted(found)]


def _check(log: TuningLog, directory: Path, wanted: LoggedWorkload, target: TargetSpec) -> None:
    if log.workload.model_copy(update={"threads": wanted.threads}) != wanted:
        raise UserError(f"{directory} is of {log.workload.folder}, and its directory is called otherwise; {_AGAIN}")
    here = LogTarget.of(target)
    if log.target != here:
        raise UserError(
            f"{directory} was made for {log.target.name} as {log.target.description}, which is {here.description} now; {_AGAIN}"
        )
