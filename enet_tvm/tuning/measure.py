"""Building and timing single kernels, by workers and runners of MetaSchedule: every trial has an end and an explanation.

Everything at the top level here is sent by name to worker processes, so they import this module: it must stay light.
"""

from __future__ import annotations

import functools
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from enet_tvm.machine import bind_thread, choose_cores, default_threads

if TYPE_CHECKING:
    import tvm

    from enet_tvm.rpc.address import Address
    from enet_tvm.targets.spec import GpuSpec

_SHARE_ALL_CORES = -3  # ThreadGroup::AffinityMode::kSpecifyThreadShareAllCore
_USES_OF_BUILDER = 100
_TURN = 3
"""Number of trials for each device between two checks whether all devices are lost."""
_REMOTE_ERRORS = "enet-tvm: the device "
"""Beginning of the message of a failure that says nothing of the kernel."""


@dataclass(frozen=True)
class Outcome:
    """The result of a trial: times, or the reason of a failure.

    Attributes
    ----------
    seconds : tuple of float
        Duration of a call, averaged over many, one for each repetition; empty when the trial failed.
    reason : str
        Reason of the failure, as a clause; empty when the trial succeeded.
    of_kernel : bool
        Whether the kernel is to blame, rather than a device that was lost.
    """

    seconds: tuple[float, ...] = ()
    reason: str = ""
    of_kernel: bool = True


@dataclass(frozen=True)
class Timing:
    """How long to time a kernel.

    Attributes
    ----------
    repeats : int
        Number of repetitions, each of which is an average over many calls.
    milliseconds : int
        Least duration of a repetition, in milliseconds.
    timeout : float
        Seconds after which a trial is given up.
    """

    repeats: int = 5
    milliseconds: int = 10
    timeout: float = 20.0


@dataclass(frozen=True)
class Fleet:
    """Devices of one kind at a tracker: its address, their key there, and their number."""

    tracker: Address
    key: str
    devices: int = 1


class Measurer:
    """Builds modules of one function ``main`` and times them.

    Parameters
    ----------
    target : tvm.target.Target
        Target to compile for.
    triple, toolchain : str
        Platform and linker, as `enet_tvm.compiler.linking.host_linker` takes them. Libraries are linked here also for a
        device, which needs no linker.
    threads : int
        Number of threads that a kernel runs on.
    directory : Path
        Directory for the libraries.
    fleet : Fleet, optional
        Devices to run the kernels on; by default this machine.
    timing : Timing
        Repetitions and limits of timing a kernel.
    workers : int, optional
        Number of processes that build at once; by default `enet_tvm.machine.default_threads`.
    build_timeout, device_wait : float
        Seconds after which a build, or waiting for a free device, is given up.
    gpu : GpuSpec, optional
        The GPU that the kernels run on; by default they run on the processor.
    cores : tuple of int
        Numbers of the processors that the target names, to which threads are bound.
    """

    def __init__(
        self,
        target: tvm.target.Target,
        triple: str,
        toolchain: str,
        threads: int,
        directory: Path,
        fleet: Fleet | None = None,
        timing: Timing | None = None,
        workers: int | None = None,
        build_timeout: float = 60.0,
        device_wait: float = 60.0,
        gpu: GpuSpec | None = None,
        cores: tuple[int, ...] = (),
    ) -> None:
        from enet_tvm.tuning.metaschedule import lean_workers, load_meta_schedule

        ms = load_meta_schedule()
        self.target = target
        self.timing = timing or Timing()
        self._kind = "cpu" if gpu is None else "cuda"
        self._devices = fleet.devices if fleet else 0
        self._lean = lean_workers
        directory.mkdir(parents=True, exist_ok=True)
        with lean_workers():
            self._runner = self._make_runner(ms, threads, fleet, device_wait, cores)
        self._builders = builder_pool(build_timeout, workers or default_threads().threads)
        self._build_one = functools.partial(
            build, target=target, directory=str(directory), triple=triple, toolchain=toolchain, gpu=gpu
        )
        self._build_timeout = build_timeout

    def _make_runner(self, ms: Any, threads: int, fleet: Fleet | None, device_wait: float, cores: tuple[int, ...]) -> Any:
        timing = self.timing
        config = ms.runner.EvaluatorConfig(number=1, repeat=timing.repeats, min_repeat_ms=timing.milliseconds)
        if fleet is None:
            return ms.runner.LocalRunner(
                timeout_sec=timing.timeout,
                evaluator_config=config,
                f_alloc_argument=allocate,
                f_run_evaluator=functools.partial(evaluate, threads=threads, cores=cores),
                initializer=open_gpu if self._kind == "cuda" else None,
            )
        runner = ms.runner.RPCRunner(
            rpc_config=ms.runner.RPCConfig(
                tracker_host=fleet.tracker.host,
                tracker_port=fleet.tracker.port,
                tracker_key=fleet.key,
                session_timeout_sec=int(timing.timeout) + 30,
            ),
            evaluator_config=config,
            f_create_session=functools.partial(
                create_session, wait=device_wait, seconds=timing.timeout, gpu=self._kind == "cuda"
            ),
            f_upload_module=upload,
            f_alloc_argument=allocate_remote,
            f_run_evaluator=functools.partial(evaluate_remote, threads=threads, cores=cores),
            f_cleanup=clean_up,
            max_workers=fleet.devices,
        )
        # Its pool waits for ever. The sessions have ends of their own; this is for what they cannot see.
        runner.pool._timeout = timing.timeout + device_wait + 60
        return runner

    def build(self, modules: Sequence[tvm.IRModule]) -> list[Path | Outcome]:
        """Compile and link modules, several at once; a failure takes the place of the library."""
        with self._lean():
            results = list(self._builders.map_with_error_catching(self._build_one, modules))
        return [built_or_failed(result, self._build_timeout) for result in results]

    def run(self, libraries: Sequence[Path], arguments: Sequence[Any]) -> list[Outcome]:
        """Time libraries, one after the other on each device.

        Parameters
        ----------
        libraries : sequence of Path
            Libraries that `build` made.
        arguments : sequence of list of ArgInfo
            Shapes and dtypes of the arguments of each library.

        Returns
        -------
        list of Outcome
            Outcome of each library; once every device is lost, all that were not run count as lost too.
        """
        from tvm.s_tir.meta_schedule.runner import RunnerInput

        if not libraries:
            return []
        inputs = [RunnerInput(str(library), self._kind, info) for library, info in zip(libraries, arguments, strict=True)]
        outcomes: list[Outcome] = []
        with self._lean():
            # Where the devices are gone, each trial would wait for one to come back.
            turn = _TURN * self._devices if self._devices else len(inputs)
            for start in range(0, len(inputs), turn):
                futures = self._runner.run(inputs[start : start + turn])
                results = [future.result() for future in futures]
                outcomes += [_outcome(r.run_secs, r.error_msg, self.timing) for r in results]
                if all_lost(outcomes[start:]):
                    break
        return outcomes + [outcomes[-1]] * (len(inputs) - len(outcomes))

    def close(self) -> None:
        """End the workers, whatever they are doing."""
        for pool in (self._builders, self._runner.pool):
            # What still waits in its queue would start them again.
            pool._threadpool.shutdown(wait=False, cancel_futures=True)
            pool.shutdown(wait=False)


def builder_pool(timeout: float, workers: int) -> Any:
    """Return a pool of processes that compile, each for many kernels.

    MetaSchedule's own builder ends its workers after every round, because they leak, and a new one imports TVM for seconds. Its
    default build would import all tensor intrinsics in each, which takes longer than its timeout, and its default export leaves
    it to the runner, or the device, to link.

    Parameters
    ----------
    timeout : float
        Seconds after which a kernel is given up.
    workers : int
        Number of processes.
    """
    from tvm.support.popen_pool import PopenPoolExecutor

    return PopenPoolExecutor(max_workers=workers, timeout=timeout, maximum_process_uses=_USES_OF_BUILDER)


def built_or_failed(result: Any, timeout: float, failure: str = "does not compile: ") -> Path | Outcome:
    """Return the file that a worker of `builder_pool` has made, or why there is none: a failure's name and last line."""
    from tvm.support.popen_pool import StatusKind

    if result.status == StatusKind.COMPLETE:
        return Path(result.value)
    if result.status == StatusKind.TIMEOUT:
        return Outcome(reason=f"compiling took longer than {timeout:g} s")
    return Outcome(reason=f"{failure}{_last_line(str(result.value))}")


def all_lost(outcomes: Sequence[Outcome]) -> bool:
    """Return whether there are trials and each of them lost its device."""
    return bool(outcomes) and not any(outcome.of_kernel for outcome in outcomes)


def _outcome(seconds: Any, message: Any, timing: Timing) -> Outcome:
    if seconds:
        return Outcome(tuple(float(s) for s in seconds))
    message = str(message)
    if _REMOTE_ERRORS in message:
        return Outcome(reason=message[message.index(_REMOTE_ERRORS) + len("enet-tvm: ") :].strip(), of_kernel=False)
    if "Timeout" in message:
        return Outcome(reason=f"running took longer than {timing.timeout:g} s")
    if "Subprocess terminated" in message or "crashed" in message:
        return Outcome(reason="it crashed")
    return Outcome(reason=f"does not run: {_last_line(message)}")


def _last_line(message: str) -> str:
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    return re.sub(r"^[\w.]+(Error|Exception): ", "", lines[-1])[:200] if lines else "no reason was given"


def build(
    mod: tvm.IRModule, target: tvm.target.Target, directory: str, triple: str, toolchain: str, gpu: GpuSpec | None = None
) -> str:
    """Compile a module in a worker, link it into a shared library in a folder of its own, and return the library's path."""
    import tvm

    from enet_tvm.compiler.linking import host_linker

    path = Path(tempfile.mkdtemp(dir=directory)) / "kernel.so"
    if gpu is None:
        made = tvm.compile(mod, target)
    else:
        from enet_tvm.compiler.cuda.device_compiler import device_compiler

        with device_compiler(gpu.arch, gpu.ptx, gpu.max_registers, trial=True), target:
            made = tvm.compile(mod, target)
    made.export_library(str(path), fcompile=host_linker(triple, toolchain))
    return str(path)


def open_gpu() -> None:
    """Load TVM's CUDA runtime into a worker that times kernels."""
    import tvm_ffi

    from enet_tvm.runtime.gpu import load_cuda

    load_cuda(tvm_ffi)


def allocate(device: Any, arguments: Sequence[Sequence[Any]], count: int) -> list[list[Any]]:
    """Return arrays for a kernel's arguments: the same random numbers every time, in a network's range.

    TVM's own random fill makes floats between 1 and 10, which no activation ever zeroes, and lives in a library that
    a device need not have.
    """
    import tvm

    random = np.random.default_rng(0)

    def array(dtype: str, shape: Sequence[int]) -> np.ndarray:
        if dtype == "uint32":
            # Packed bfloat16, whose denormals or infinities might take longer than a network's values, or any four codes.
            high, low = (random.standard_normal(shape, np.float32).view(np.uint32) >> 16 for _ in range(2))
            return high << 16 | low
        if dtype.startswith(("int", "uint")):
            # Window positions.
            return random.integers(0, 4, shape).astype(dtype)
        return random.standard_normal(shape, np.float32)

    def tensor(dtype: str, shape: Sequence[int]) -> Any:
        if dtype == "bfloat16":
            # numpy has none: its bits are the upper half of a float32's.
            bits = (array("float32", shape).view(np.uint32) >> 16).astype(np.uint16)
            made = tvm.runtime.empty(tuple(shape), "bfloat16", device)
            made._create_view(made.shape, "uint16").copyfrom(bits)
            return made
        values = array(dtype, shape)
        return tvm.runtime.tensor(values if dtype != "float16" else values.astype(dtype), device)

    return [[tensor(str(dtype), [int(s) for s in shape]) for _, dtype, shape in arguments] for _ in range(count)]


def evaluate(
    module: Any, device: Any, config: Any, arguments: Sequence[Sequence[Any]], threads: int, cores: tuple[int, ...] = ()
) -> list[float]:
    """Return the seconds of ``main`` on so many threads of some cores; TVM's pool would take half the logical processors."""
    import tvm_ffi

    choice = choose_cores(cores, threads)
    if choice.bound:
        bind_thread(choice.bound)
    cpus = [str(cpu) for cpu in choice.cpus]
    configure = tvm_ffi.get_global_func("runtime.config_threadpool")
    configure(_SHARE_ALL_CORES, threads, cpus[:threads])
    configure(_SHARE_ALL_CORES, threads, cpus)
    return _time(module, device, config, arguments)


def _time(module: Any, device: Any, config: Any, arguments: Sequence[Sequence[Any]]) -> list[float]:
    evaluator = module.time_evaluator(
        "main", device, number=config.number, repeat=config.repeat, min_repeat_ms=config.min_repeat_ms
    )
    return [float(seconds) for given in arguments for seconds in evaluator(*given).results]


class _Remote:
    """A session on a device with a time limit, in the form that MetaSchedule's runner takes."""

    def __init__(self, session: Any, seconds: float) -> None:
        self.session = session
        self.seconds = seconds

    def device(self, kind: str, index: int) -> Any:
        """Return a device of the session."""
        return self.session.remote.device(kind, index)


def create_session(config: Any, wait: float, seconds: float, gpu: bool = False) -> _Remote:
    """Return a session on a device that the tracker has free, its GPU open where the kernels run there."""
    from enet_tvm.errors import UserError
    from enet_tvm.rpc.address import Address
    from enet_tvm.rpc.gpu import open_gpu
    from enet_tvm.rpc.session import open_session

    try:
        address = Address(config.tracker_host, int(config.tracker_port))
        session = open_session(address, config.tracker_key, wait=wait, session_seconds=config.session_timeout_sec)
        if gpu:
            try:
                open_gpu(session)
            except UserError:
                session.close()
                raise
    except UserError as error:
        raise RuntimeError(f"{_REMOTE_ERRORS}cannot be had: {error}") from None
    return _Remote(session, seconds)


def upload(remote: _Remote, local_path: str, remote_path: str) -> Any:
    """Send a library to the device and load it."""
    from enet_tvm.errors import UserError

    try:
        return remote.session.load_module(remote.session.upload(local_path, remote_path))
    except UserError as error:
        raise RuntimeError(f"{_REMOTE_ERRORS}does not take the kernel: {error}") from None


def allocate_remote(remote: _Remote, device: Any, arguments: Sequence[Sequence[Any]], count: int) -> list[list[Any]]:
    """Return arrays for a kernel's arguments on the device, as `allocate` makes them."""
    from enet_tvm.errors import UserError

    try:
        with remote.session.within(60.0, "receiving a kernel's arguments"):
            return allocate(device, arguments, count)
    except UserError as error:
        raise RuntimeError(f"{_REMOTE_ERRORS}takes no arguments: {error}") from None


def evaluate_remote(
    remote: _Remote,
    module: Any,
    device: Any,
    config: Any,
    arguments: Sequence[Sequence[Any]],
    threads: int,
    cores: tuple[int, ...] = (),
) -> list[float]:
    """Return the seconds of ``main`` on the device."""
    from enet_tvm.errors import UserError

    try:
        if cores:
            remote.session.bind_cores(cores, threads)
        remote.session.set_threads(threads)
        with remote.session.within(remote.seconds, "timing a kernel"):
            return _time(module, device, config, arguments)
    except UserError as error:
        if " was lost " in str(error):
            raise RuntimeError(f"{_REMOTE_ERRORS}went away: {error}") from None
        raise RuntimeError(str(error)) from None


def clean_up(remote: _Remote | None, _path: str | None) -> None:
    """Give the device back; its server removes what was uploaded."""
    if remote is not None:
        remote.session.close()
