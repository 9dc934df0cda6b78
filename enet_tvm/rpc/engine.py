"""An artifact on a device: uploaded, loaded and called through a session, as `enet_tvm.runtime` does it on this machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from enet_tvm.artifact import Manifest, read_manifest
from enet_tvm.errors import UserError
from enet_tvm.files import sha256
from enet_tvm.rpc.address import Address
from enet_tvm.rpc.session import DeviceSession, open_session
from enet_tvm.rpc.session_process import LAST_OUTPUT, OPEN_GPU, TIME_CALL
from enet_tvm.runtime import forking
from enet_tvm.runtime.segmenter import Segmenter

_POOLED_ALLOCATOR = 2  # tvm::runtime::memory::AllocatorType::kPooled
_DEVICE_TYPES = {"cpu": 1, "cuda": 2}  # DLPack's numbers


@dataclass(frozen=True)
class PassSeconds:
    """What one forward pass took.

    Attributes
    ----------
    device : float
        On the device, by its own clock where its server has one for it, else by this machine's, less a round trip.
    upload, download : float
        Moving the input there, and the logits back.
    """

    device: float
    upload: float
    download: float


class RemoteEngine:
    """The compiled function ``main`` of an artifact, on a device.

    Parameters
    ----------
    session : DeviceSession
        Open; not closed by this.
    directory : Path
        The artifact.
    manifest : Manifest
        Of it.
    threads : int or None
        On the device, at most as many as it has processors; None for all.
    timeout : float
        Seconds that a forward pass may take, transfer included.

    Attributes
    ----------
    threads : int
        That a forward pass uses.
    facts : dict
        What the device says of itself; see `enet_tvm.rpc.session_process.device_facts`.
    load_seconds : float
        For uploading and loading the library.
    last : PassSeconds or None
        Of the last forward pass.

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
        _check_device(manifest, self.facts, session.name)
        if manifest.target.device == "cuda":
            self._open_gpu()
        start = time.perf_counter()
        loaded = session.load_module(session.upload(library))
        self.threads = session.set_threads(threads or self.facts.get("cpus") or 1 << 10)
        device_type = _DEVICE_TYPES[manifest.target.device]
        with session.within(60, "setting up the network"):
            self._device = session.remote.device(manifest.target.device, 0)
            self._machine = loaded["vm_load_executable"]()
            devices = [device_type, 0, _POOLED_ALLOCATOR]
            if manifest.target.device != "cpu":
                devices += [_DEVICE_TYPES["cpu"], 0, _POOLED_ALLOCATOR]  # computes shapes
            self._machine["vm_initialization"](*devices)
            self._input = self._new_tensor(manifest.input.shape)
            self._call = self._timed_there() if manifest.target.device == "cpu" else None
            if self._call is None:
                self._call = self._timed_here()
        self.load_seconds = time.perf_counter() - start
        forking.follow(self)

    @property
    def threads_now(self) -> int:
        """Threads of a forward pass: a device uses them all, whatever else it does."""
        return self.threads

    def after_fork(self) -> None:
        """Let go, in a forked process, of what lives on the device, without a word to it."""
        forking.leak(self._machine, self._input, self._call, self._device)
        self.close()

    def _open_gpu(self) -> None:
        with self.session.within(60, "opening its GPU"):
            try:
                open_gpu = self.session.remote.get_function(OPEN_GPU)
            except (AttributeError, ValueError):
                return  # other servers open it when they start, or never
            open_gpu()

    def _new_tensor(self, shape: tuple[int, ...]) -> Any:
        import tvm

        return tvm.runtime.empty(shape, "float32", self._device)

    def _timed_there(self) -> Callable[[], tuple[Any, float]] | None:
        """Return a call that the device's own clock times; None where its server knows no such thing."""
        try:
            timed = self.session.remote.get_function(TIME_CALL)
            output = self.session.remote.get_function(LAST_OUTPUT)
        except (AttributeError, ValueError):
            return None

        def call() -> tuple[Any, float]:
            seconds = float(timed(self._machine, "main", self._input))
            return output(), seconds

        return call

    def _timed_here(self) -> Callable[[], tuple[Any, float]]:
        main, ping = self._machine["main"], self.session.remote.get_function("runtime.NumThreads")

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
        with self.session.within(self._timeout, "running the network"):
            if self._call is None or self._input is None:
                raise UserError(f"the network on {self.session.name} was closed; open it again")
            start = time.perf_counter()
            self._input.copyfrom(np.ascontiguousarray(x))
            sent = time.perf_counter()
            output, seconds = self._call()
            computed = time.perf_counter()
            logits: NDArray[np.float32] = output.numpy()
            self.last = PassSeconds(seconds, sent - start, time.perf_counter() - computed)
        return logits

    def close(self) -> None:
        """Let go of what lives on the device; the session stays open."""
        self._machine = self._input = self._call = None


class DeviceSegmenter(Segmenter):
    """An artifact on a device, with a session of its own: called like a segmenter on this machine.

    Make one with `DeviceSegmenter.open`.

    Attributes
    ----------
    engine : RemoteEngine
    session : DeviceSession
    """

    def __init__(self, manifest: Manifest, engine: RemoteEngine) -> None:
        super().__init__(manifest, engine)  # type: ignore[arg-type]  # has of an Engine what is asked of it
        self.engine = engine
        self.session = engine.session

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
            The artifact.
        tracker : Address
        key : str
            The kind of device.
        threads : int or None
            On the device; None for all of its processors.
        wait : float
            Seconds to wait for a device that is free.
        session_seconds : float
            After which the device ends the session.
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


def _check_device(manifest: Manifest, facts: dict[str, Any], name: str) -> None:
    """Refuse a library that the device cannot run, as far as the device says what it is."""
    target = manifest.target
    again = "compile it for this device with --target"
    if "architecture" in facts and facts["architecture"] != target.architecture:
        raise UserError(
            f"the library was compiled for {target.name} ({target.architecture}), and {name} is {facts['architecture']}; "
            f"{again}"
        )
    features = set(facts.get("cpu_features", ()))
    # An emulator shows the features of the machine that it runs on.
    known = "asimd" in features if target.architecture == "aarch64" else "sse2" in features
    if known and (lacking := sorted(set(target.cpu_features) - features)):
        raise UserError(f"the library was compiled for {target.name}, and {name} lacks {', '.join(lacking)}; {again}")
    versions = facts.get("versions", {})
    wanted = {"apache-tvm": manifest.versions.apache_tvm, "apache-tvm-ffi": manifest.versions.apache_tvm_ffi}
    for package, version in wanted.items():
        if versions.get(package, version) != version:
            raise UserError(
                f"the library was compiled with {package} {version}, and {name} has {versions[package]}; "
                "make its bundle again with 'enet-tvm device bundle'"
            )
