"""Our own compiled network on a device behind an RPC tracker, as a runner."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from enet_tvm.artifact import MANIFEST_NAME, read_manifest
from enet_tvm.bench.machine.system_files import SystemFiles
from enet_tvm.bench.runners.base import Case, PassTimes, Runner
from enet_tvm.bench.runners.tvm_local import artifact_of
from enet_tvm.errors import UserError
from enet_tvm.rpc.address import parse_address
from enet_tvm.rpc.devices import require_device
from enet_tvm.rpc.engine import DeviceSegmenter
from enet_tvm.rpc.session import DeviceSession
from enet_tvm.rpc.session_process import FIND_FILES, READ_FILE
from enet_tvm.targets import load_target
from enet_tvm.text import printable

_SESSION_SECONDS = 3600.0
"""Length of a session, longer than any measurement: the server has a limit of its own."""


class RemoteFiles(SystemFiles):
    """The kernel's files of a device, read through its session."""

    def __init__(self, session: DeviceSession) -> None:
        super().__init__()
        self._session = session
        remote = session.remote
        self._find: Any = remote.get_function(FIND_FILES)
        self._read: Any = remote.get_function(READ_FILE)

    def read(self, path: str) -> str | None:
        """Return the text of a file there; None when there is none that can be read."""
        with self._session.within(15, f"reading {path}"):
            text = self._read(path)
            return None if text is None else printable(str(text), keep="\n\t")

    def find(self, pattern: str) -> tuple[str, ...]:
        """Return the paths there that match a shell pattern."""
        with self._session.within(15, f"looking for {pattern}"):
            return tuple(str(self._find(pattern)).splitlines())


class TvmRpcRunner(Runner):
    """An artifact on a device.

    Parameters
    ----------
    artifact : Path
        Directory that ``enet-tvm compile`` wrote.
    tracker, key : str
        HOST:PORT of the tracker, and the device's key there.
    threads : int
        Number of threads on the device, which uses at most as many as it has processors.
    wait : float
        Seconds to wait for a device that is free.

    Raises
    ------
    UserError
        When there is no such device, the artifact does not fit it, or it is lost; also from every call.
    """

    remote = True

    def __init__(self, artifact: Path, tracker: str, key: str, threads: int, wait: float = 60.0) -> None:
        self._directory = artifact
        self.segmenter = DeviceSegmenter.open(
            artifact, parse_address(tracker), key, threads=threads, wait=wait, session_seconds=_SESSION_SECONDS
        )
        self.manifest = self.segmenter.manifest
        target, engine = self.manifest.target, self.segmenter.engine
        self.threads, self.precision = engine.threads, self.manifest.dtype
        where = engine.facts.get("model") or self.segmenter.session.name
        self.description = (
            f"enet-tvm for {target.name} ({target.mcpu}) in {self.precision}, {self.manifest.kernel_count} kernels, "
            f"{engine.threads} threads{f' on {engine.cores}' if engine.cores else ''}, on {where} over RPC"
        )

    def forward(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the logits."""
        return self.segmenter.forward_timed(x)[0]  # timed by events, where it is on a GPU

    def last_pass(self) -> PassTimes | None:
        """Return the times of the last forward pass on the device, and of the transfer of its data."""
        last = self.segmenter.engine.last
        return None if last is None else PassTimes(last.device, last.upload + last.download)

    def files(self) -> SystemFiles | None:
        """Return the device's files; None when its server does not hand them out."""
        with self.segmenter.session.within(15, "looking for its sensors"):
            try:
                return RemoteFiles(self.segmenter.session)
            except (AttributeError, ValueError):
                return None  # a server of TVM's, or the one without Python

    def artifact_files(self) -> tuple[Path, ...]:
        """Return the library and the manifest."""
        return self._directory / self.manifest.library, self._directory / MANIFEST_NAME

    def peak_memory(self) -> int | None:
        """Return the most memory that the session's process on the device took, in bytes."""
        megabytes = self.segmenter.session.facts().get("peak_memory_mb")
        return None if megabytes is None else round(megabytes * 2**20)

    def close(self) -> None:
        """Give the device back."""
        self.segmenter.close()


def on_device(case: Case) -> Runner:
    """Return the case's artifact on the case's device; without one, the network compiled for its target."""
    if case.tracker is None:
        raise UserError("the runner 'tvm-rpc' runs on a device behind an RPC tracker; give --tracker HOST:PORT")
    key = case.key
    if key is None:
        # An artifact says itself what it was compiled for.
        name = case.target.name if case.artifact is None else read_manifest(case.artifact).target.name
        key = load_target(name).rpc_key
    require_device(parse_address(case.tracker), key)  # before it compiles for a minute
    return TvmRpcRunner(artifact_of(case), case.tracker, key, case.threads)
