"""An artifact on a device: uploaded, loaded and called through a session, as `enet_tvm.runtime` does it on this machine."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Never, Self

import numpy as np
from numpy.typing import NDArray

from enet_tvm.artifact import FRAME_FUNCTION, Manifest, read_manifest
from enet_tvm.compatibility import Machine, find_mismatch
from enet_tvm.errors import UserError
from enet_tvm.files import sha256
from enet_tvm.rpc.address import Address
from enet_tvm.rpc.gpu import device_arch, open_gpu
from enet_tvm.rpc.messages import parse_kernel_names, parse_kernel_times
from enet_tvm.rpc.session import DeviceSession, open_session
from enet_tvm.rpc.session_process import KEEP_OUTPUTS, KERNEL_OUTPUT, LAST_OUTPUT, TIME_CALL, TIME_KERNELS
from enet_tvm.runtime import forking
from enet_tvm.runtime.protocol import Capability, require
from enet_tvm.runtime.segmenter import Segmenter

_POOLED_ALLOCATOR = 2  # tvm::runtime::memory::AllocatorType::kPooled
_START_OURS = "serve the device with 'enet-tvm device serve' or a bundle of this release"
_DEVICE_TYPES = {"cpu": 1, "cuda": 2}  # DLPack's numbers


@dataclass(frozen=True)
class PassSeconds:
    """Durations of one forward pass, in seconds.

    Attributes
    ----------
    device : float
        Computing on the device, by its own clock where its server has one for it, else by this machine's, less a round trip; on
        a GPU by CUDA's events after `RemoteEngine.run_timed`.
    upload, download : float
        Sending the input there, and fetching the logits.
    """

    device: float
    upload: float
    download: float


class RemoteEngine:
    """The compiled function ``main`` of an artifact, on a device: an `enet_tvm.runtime.protocol.Engine`.

    Parameters
    ----------
    session : DeviceSession
        Open session on the device; not closed by the engine.
    directory : Path
        Directory of the artifact.
    manifest : Manifest
        Manifest of the artifact.
    threads : int or None
        Number of threads on the device, at most as many as it has processors; None for all.
    timeout : float
        Seconds that a forward pass may take, transfer included.

    Attributes
    ----------
    threads : int
        Number of threads that a forward pass uses.
    cores : str
        Processors that its threads are bound to, or why they are not; empty where the target names none.
    facts : dict
        Facts that the device reports of itself; see `enet_tvm.rpc.session_process.device_facts`.
    load_seconds : float
        Seconds that uploading and loading the library took.
    last : PassSeconds or None
        Durations of the last forward pass; None before the first.
    capabilities : frozenset of Capability
        Timed passes on any device, and kernel by kernel what its server has functions for.

    Raises
    ------
    UserError
        When the library was not made for such a device, or the device is lost.
    """

    def __init__(
        self, session: DeviceSession, directory: Path, manifest: Manifest, threads: int | None = None, timeout: float = 120.0
    ) -> None:
        self.session = session
        self.facts = session.facts()
        self._timeout = timeout
        self._manifest = manifest
        self.last: PassSeconds | None = None
        library = directory / manifest.library
        if not library.is_file() or sha256(library) != manifest.hashes.library:
            raise UserError(f"{library} is missing or not the file its manifest was written for; compile it again")
        _check_device(manifest, Machine.of_facts(self.facts), session.name)  # whose GPU is asked for by opening it
        if manifest.target.device == "cuda":
            open_gpu(self.session)
            _check_device(manifest, Machine.of_facts(self.facts, self._gpu_arch), session.name)
        start = time.perf_counter()
        self._library = session.load_module(session.upload(library))
        wanted = manifest.target.core_list
        self.cores = session.bind_cores(wanted, threads) if wanted else ""
        self.threads = session.set_threads(threads or self.facts.get("cpus") or 1 << 10)
        with session.within(60, "setting up the network"):
            self._device = session.remote.device(manifest.target.device, 0)
            self._machine = self._start_machine()
            self._input = self._new_tensor(manifest.input.shape, manifest.input.dtype)
            self._evaluator: Callable[[], float] | None = None
            self._frame = self._find_frame() if manifest.target.device == "cuda" else None
            self._call = self._timed_there() if manifest.target.device == "cpu" else None
            if self._call is None:
                self._call = self._timed_here()
            self._time_kernels = session.find(TIME_KERNELS)
            self._keep_outputs, self._kernel_output = session.find(KEEP_OUTPUTS), session.find(KERNEL_OUTPUT)
        self.capabilities = frozenset({Capability.TIMED_PASSES, *self._offered()})
        self.load_seconds = time.perf_counter() - start
        forking.follow(self)

    @property
    def name(self) -> str:
        """Key and address of the device."""
        return self.session.name

    @property
    def threads_now(self) -> int:
        """Threads of a forward pass: a device uses them all, whatever else it does."""
        return self.threads

    def after_fork(self) -> None:
        """Let go, in a forked process, of what lives on the device, without a word to it."""
        functions = self._time_kernels, self._keep_outputs, self._kernel_output
        forking.leak(
            self._library, self._machine, self._input, self._call, self._frame, self._evaluator, self._device, *functions
        )
        self.close()

    def _gpu_arch(self) -> str:
        with self.session.within(60, "asking what its GPU is"):
            return device_arch(self.session.remote.device("cuda", 0))

    def _offered(self) -> Iterator[Capability]:
        """Yield the capabilities that the device's server has functions for."""
        if self._time_kernels is not None:
            yield Capability.KERNEL_TIMES
        if self._keep_outputs is not None and self._kernel_output is not None:
            yield Capability.KERNEL_OUTPUTS

    def _start_machine(self) -> Any:
        machine = self._library["vm_load_executable"]()
        kinds = dict.fromkeys((self._manifest.target.device, "cpu"))  # the processor, at the end, computes shapes
        machine["vm_initialization"](*(value for kind in kinds for value in (_DEVICE_TYPES[kind], 0, _POOLED_ALLOCATOR)))
        return machine

    def _new_tensor(self, shape: tuple[int, ...], dtype: str) -> Any:
        import tvm

        return tvm.runtime.empty(shape, dtype, self._device)

    def _find_frame(self) -> Callable[[Any], Any] | None:
        """Return a call of the network as one graph, which writes into a tensor of its own; None for a library without one."""
        try:
            function = self._machine[FRAME_FUNCTION]
        except AttributeError:
            return None
        output = self._new_tensor(self._manifest.output.shape, self._manifest.output.dtype)
        function(self._input, output)  # which captures it
        self._device.sync()
        evaluator = self._machine.time_evaluator(FRAME_FUNCTION, self._device, number=1, repeat=1)
        self._evaluator = lambda: float(evaluator(self._input, output).mean)

        def call(x: Any) -> Any:
            function(x, output)
            return output

        return call

    def _timed_there(self) -> Callable[[], tuple[Any, float]] | None:
        """Return a call that the device's own clock times; None where its server knows no such thing."""
        timed, output = self.session.find(TIME_CALL), self.session.find(LAST_OUTPUT)
        if timed is None or output is None:
            return None

        def call() -> tuple[Any, float]:
            seconds = float(timed(self._machine, "main", self._input))
            return output(), seconds

        return call

    def _timed_here(self) -> Callable[[], tuple[Any, float]]:
        main, ping = self._frame or self._machine["main"], self.session.remote.get_function("runtime.NumThreads")

        def trip() -> float:
            start = time.perf_counter()
            ping()
            return time.perf_counter() - start

        round_trip = statistics.median(trip() for _ in range(9))

        def call() -> tuple[Any, float]:
            start = time.perf_counter()
            output = main(self._input)
            self._device.sync()
            return output, max(1e-9, time.perf_counter() - start - round_trip)

        return call

    def run(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run one forward pass on an input of exactly the compiled shape and return the logits; `last` says what it took.

        Raises
        ------
        UserError
            When the device is lost, crashes or takes too long.
        """
        with self._using("running the network"):
            assert self._call is not None
            start = time.perf_counter()
            self._input.copyfrom(np.ascontiguousarray(x))
            sent = time.perf_counter()
            output, seconds = self._call()
            computed = time.perf_counter()
            logits: NDArray[np.float32] = output.numpy()
            self.last = PassSeconds(seconds, sent - start, time.perf_counter() - computed)
        return logits

    def run_timed(self, x: NDArray[np.float32]) -> tuple[NDArray[np.float32], float, float]:
        """Run one forward pass as `run` does; return its output, the seconds on the device, and those of moving data there.

        What is one graph on a GPU is run again for its time, by CUDA's events there.
        """
        logits = self.run(x)
        assert self.last is not None
        if self._evaluator is not None:
            with self._using("timing the network"):
                self.last = replace(self.last, device=self._evaluator())
        return logits, self.last.device, self.last.upload + self.last.download

    def run_instrumented(self, x: NDArray[np.float32]) -> list[tuple[str, NDArray[Any]]]:
        """Run one forward pass and return the name and a copy of the output of every kernel, in launch order.

        The device keeps all of them until they are fetched, one by one.

        Raises
        ------
        UserError
            When the device is lost, crashes or takes too long, or its server cannot do it.
        """
        require(self, Capability.KERNEL_OUTPUTS, _START_OURS)
        with self._using("running the network kernel by kernel"):
            self._input.copyfrom(np.ascontiguousarray(x))
            answer = self._keep_outputs(self._start_machine(), "main", self._input, self._manifest.target.device)
            names = parse_kernel_names(str(answer))
        outputs = []
        for number, kernel in enumerate(names):
            with self._using(f"sending what {kernel} wrote"):
                outputs.append((kernel, self._kernel_output(number).numpy()))
        return outputs

    def time_kernels(self, x: NDArray[np.float32], passes: int) -> list[list[tuple[str, float]]]:
        """Run several forward passes; return the name and duration of every kernel in each, in seconds of the device's clock.

        Raises
        ------
        UserError
            When the device is lost, crashes or takes too long, or its server cannot do it.
        """
        require(self, Capability.KERNEL_TIMES, _START_OURS)
        with self._using("setting up the network"):
            self._input.copyfrom(np.ascontiguousarray(x))
            machine = self._start_machine()
        times = []
        for _ in range(passes):
            with self._using("timing the network's kernels"):
                answer = self._time_kernels(machine, "main", self._input, self._manifest.target.device)
                times.append(parse_kernel_times(str(answer)))
        return times

    @contextlib.contextmanager
    def _using(self, doing: str) -> Iterator[None]:
        with self.session.within(self._timeout, doing):
            if self._call is None:
                raise UserError(f"the network on {self.session.name} was closed; open it again")
            yield

    def close(self) -> None:
        """Let go of what lives on the device; the session stays open."""
        self._library = self._machine = self._input = self._call = self._frame = self._evaluator = None
        self._time_kernels = self._keep_outputs = self._kernel_output = None


class DeviceSegmenter(Segmenter):
    """An artifact on a device, with a session of its own: called like a segmenter on this machine.

    Make one with `DeviceSegmenter.open`.

    Attributes
    ----------
    engine : RemoteEngine
        Engine of the artifact on the device.
    session : DeviceSession
        Session on the device, closed with the segmenter.
    """

    def __init__(self, manifest: Manifest, engine: RemoteEngine) -> None:
        super().__init__(manifest, engine)
        self.engine = engine
        self.session = engine.session

    @classmethod
    def load(cls, directory: str | Path, threads: int | None = None, *, adaptive: bool = True) -> Never:
        """Refuse: on a device, an artifact is opened with `open`."""
        raise UserError("a DeviceSegmenter runs on a device; make one with DeviceSegmenter.open, or load a Segmenter")

    @classmethod
    def open(
        cls,
        directory: str | Path,
        tracker: Address,
        key: str,
        *,
        threads: int | None = None,
        wait: float = 30.0,
        session_seconds: float = 600.0,
        timeout: float = 120.0,
    ) -> Self:
        """Get a device from a tracker, upload an artifact and load it.

        Parameters
        ----------
        directory : str or Path
            Directory of the artifact.
        tracker : Address
            Address of the tracker.
        key : str
            Name of the kind of device.
        threads : int or None
            Number of threads on the device; None for one on each of its processors.
        wait : float
            Seconds to wait for a device that is free.
        session_seconds : float
            Seconds after which the device ends the session.
        timeout : float
            Seconds that a forward pass may take.

        Raises
        ------
        UserError
            When there is no such device, the artifact does not fit it, or it is lost.
        """
        directory = Path(directory).expanduser()
        manifest = read_manifest(directory)
        session = open_session(tracker, key, wait=wait, session_seconds=session_seconds)
        try:
            return cls(manifest, RemoteEngine(session, directory, manifest, threads, timeout))
        except BaseException:
            session.close()
            raise

    def close(self) -> None:
        """Give the device back."""
        self.engine.close()
        self.session.close()


def open_for_target(directory: str | Path, tracker: Address, key: str | None, threads: int | None = None) -> DeviceSegmenter:
    """Open an artifact on a device of the kind that its target names, unless a key is given.

    Raises
    ------
    UserError
        As `DeviceSegmenter.open`; also when no key is given and the target is not known here.
    """
    from enet_tvm.targets import load_target

    if key is None:
        key = load_target(read_manifest(directory).target.name).rpc_key
    return DeviceSegmenter.open(directory, tracker, key, threads=threads)


def _check_device(manifest: Manifest, machine: Machine, name: str) -> None:
    """Refuse a library that the device cannot run, as far as the device says what it is."""
    mismatch = find_mismatch(manifest.requirements, machine)
    if mismatch is None:
        return
    target, again = manifest.target, "compile it for this device with --target"
    match mismatch.kind:
        case "versions":
            raise UserError(
                f"the library was compiled with {mismatch.needed}, and {name} has {mismatch.found}; "
                "make its bundle again with 'enet-tvm device bundle'"
            )
        case "architecture":
            made = f"{target.name} ({mismatch.needed})"
            raise UserError(f"the library was compiled for {made}, and {name} is {mismatch.found}; {again}")
        case "gpu_arch":
            made = f"{target.name} ({mismatch.needed})"
            raise UserError(f"the library was compiled for {made}, and the GPU of {name} is {mismatch.found}; {again}")
        case _:
            raise UserError(f"the library was compiled for {target.name}, and {name} lacks {mismatch.needed}; {again}")
