"""One compiled library in TVM's virtual machine, on a thread and a thread pool of its own.

TVM keeps one pool per calling thread, fixes its size when that thread first needs it, and takes half the logical
processors on x86-64. So every engine calls the machine from a thread that belongs to it: its pool has exactly the
size that was asked for, whatever else in the process uses TVM; any thread may call the engine; and `close` ends them.
In a process forked from the one that loaded it, an engine makes both anew when it is first called there.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
import time
from collections.abc import Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from enet_tvm.artifact import FRAME_FUNCTION
from enet_tvm.errors import UserError
from enet_tvm.machine import bind_thread, choose_cores, default_threads, usable_cpus
from enet_tvm.runtime import forking, instrument
from enet_tvm.runtime.frame import EXCLUSIVE, Frame
from enet_tvm.runtime.gpu import CUDA, DeviceMemory, load_cuda
from enet_tvm.runtime.libraries import load_runtime
from enet_tvm.runtime.load import ProcessorWatch, fitting_threads
from enet_tvm.runtime.protocol import Capability
from enet_tvm.runtime.queues import Clock, CudaQueue, EventClock, HostClock

T = TypeVar("T")

GRAPH_VARIABLE = "ENET_TVM_CUDA_GRAPH"
"""Environment variable that, set to 0, lets networks on a GPU be launched kernel by kernel: should a driver fail at graphs."""

_CPU = 1  # kDLCPU of DLPack
_POOLED_ALLOCATOR = 2  # tvm::runtime::memory::AllocatorType::kPooled
_SHARE_ALL_CORES = -3  # ThreadGroup::AffinityMode::kSpecifyThreadShareAllCore
ALIGNMENT = 64
"""Bytes to which TVM's kernels assume their buffers to be aligned."""


@dataclass(frozen=True)
class Signature:
    """Shapes of a compiled network: of its input, float32, and of its output, with its data type."""

    shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    output_dtype: str


def aligned_empty(shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return an uninitialised float32 array that a kernel can read in place (numpy aligns to 16 bytes only)."""
    size = int(np.prod(shape, dtype=np.int64)) * 4
    memory = np.empty(size + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + size].view(np.float32).reshape(shape)


_loaded: dict[str, list[tuple[int, int]]] = {}
_loaded_lock = threading.Lock()


def _spelling(library: Path) -> str:
    """Return a spelling of the path of `library` that the dynamic loader has not seen for another file.

    The loader takes a library that it opened by the same path for the same library, even if an artifact was compiled
    again in its place since; each new file at a path is therefore called by a new spelling of it.
    """
    library = library.resolve()
    stat = library.stat()
    with _loaded_lock:
        files = _loaded.setdefault(str(library), [])
        if (identity := (stat.st_dev, stat.st_ino)) not in files:
            files.append(identity)
        return f"{library.parent}/{'./' * files.index(identity)}{library.name}"


_numbers = itertools.count(1)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""  # of a thread that has ended


class LocalEngine:
    """The compiled function ``main`` of a library on this machine: an `enet_tvm.runtime.protocol.Engine`.

    Parameters
    ----------
    library : Path
        A shared library with a Relax executable, checked beforehand.
    threads : int or None
        Threads that a forward pass uses at most; None for `enet_tvm.machine.default_threads`.
    device : {"cpu", "cuda"}
        Kind of device that the library was compiled for. Inputs and outputs are the host's in either case.
    adaptive : bool
        Whether `run` uses fewer threads while other work leaves no processors for them.
    signature : Signature or None
        Shapes of input and output, for a GPU: `run` then launches the whole network as one graph, if the library has a function
        for it (see `enet_tvm.artifact.FRAME_FUNCTION`) and the environment variable ``ENET_TVM_CUDA_GRAPH`` is not 0. None to
        launch kernel by kernel.
    cores : collection of int
        Numbers of the processors that the target names: threads are bound to those (see `enet_tvm.machine.choose_cores`).

    Attributes
    ----------
    threads : int
        Threads that a forward pass uses at most.
    threads_now : int
        Threads that the last forward pass used.
    name : str
        Name for people: "this machine", or its GPU.
    capabilities : frozenset of Capability
        All capabilities, but to adapt threads on a GPU, and to run side by side where it has no graph.

    Raises
    ------
    UserError
        When `threads` is not between 1 and the number of processors that the calling thread may run on, the library cannot
        be loaded, or there is no such device.
    """

    def __init__(
        self,
        library: Path,
        threads: int | None = None,
        device: Literal["cpu", "cuda"] = "cpu",
        adaptive: bool = True,
        signature: Signature | None = None,
        cores: Collection[int] = (),
    ) -> None:
        cpus, default = usable_cpus(), default_threads(cores=cores)
        if threads is None:
            threads = default.threads
        if not 1 <= threads <= len(cpus):
            raise UserError(
                f"cannot use {threads} threads; give between 1 and {len(cpus)}, the processors this process may use "
                f"(by default {default})"
            )
        self._wanted_cores = cores
        self._choice = choose_cores(cores, threads)
        self.threads = self.threads_now = threads
        self._adaptive = adaptive and device == "cpu"
        self.name = "this machine" if device == "cpu" else "this machine's GPU"
        self._watch: ProcessorWatch | None = None
        self._ffi = load_runtime()
        self._codes = [_CPU]
        self._memory: DeviceMemory | None = None
        self._frame: Frame | None = None
        self._signature = signature if os.environ.get(GRAPH_VARIABLE) != "0" else None
        if device == "cuda":
            load_cuda(self._ffi)
            self._codes = [CUDA, _CPU]
            self._memory = DeviceMemory(self._ffi, device)
        self._lock = threading.RLock()  # a signal's handler may close it while its thread does
        self._callers: set[int] = set()
        self._closed = False
        self._orphaned: str | None = None
        self._thread: ThreadPoolExecutor | None = None
        forking.follow(self)
        try:
            self._do(self._load, library)
        except BaseException:
            self.close()
            raise
        lacking = {Capability.ADAPTIVE_THREADS} if not self._adaptive else set()
        lacking |= {Capability.SIDE_BY_SIDE} if device != "cpu" and self._frame is None else set()
        self.capabilities = frozenset(Capability) - lacking

    @property
    def cores(self) -> str:
        """Processors that its threads are bound to, or why they are not, in words; empty where the target names none."""
        return str(self._choice)

    def _do(self, job: Callable[..., T], *arguments: Any) -> T:
        """Return the result of a job done by the engine's thread, while which no other thread can fork."""

        def do() -> T:
            with forking.not_while_forking():
                return job(*arguments)

        self._callers.add(threading.get_ident())
        try:
            return self._submit(do).result()
        finally:
            self._callers.discard(threading.get_ident())
            if self._closed:
                self.close()

    def _submit(self, do: Callable[[], T]) -> Future[T]:
        with self._lock:
            if self._orphaned is not None:
                raise UserError(self._orphaned)
            if self._closed:
                raise UserError("the segmenter was closed; load the artifact again")
            try:
                if self._thread is None:
                    thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="enet-tvm")
                    thread.submit(self._make_pool).result()
                    self._thread = thread
                return self._thread.submit(do)
            except RuntimeError as error:
                if "interpreter shutdown" not in str(error):
                    raise
                raise UserError("Python is ending and starts no forward pass any more; call the segmenter before") from error

    def after_fork(self) -> None:
        """Forget the threads, in a forked process, where there are none; what they have loaded stays good, but for a GPU."""
        self._lock = threading.RLock()
        self._callers = set()
        self._thread = None
        if self._memory is not None:
            # Freeing what is on the GPU fails here.
            forking.leak(self._memory, *(vars(self).get(name) for name in ("_frame", "_new_machine", "_machine", "_main")))
            self._frame = None
            self._orphaned = (
                "a GPU opened before a fork cannot be used after it; load the artifact in the new process alone, "
                "or start that with the method 'spawn'"
            )
        elif forking.torn():
            self._orphaned = (
                f"this process was forked while a forward pass took more than {forking.PATIENCE:.0f} s, and cannot run any; "
                "load the artifact in a process started with the method 'spawn'"
            )

    def _make_pool(self) -> None:
        # A forked process may have been given fewer processors than its parent.
        self._choice = choose_cores(self._wanted_cores, self.threads)
        cpus = self._choice.cpus
        self.threads = min(self.threads, len(cpus))
        if self._choice.bound:
            bind_thread(cpus)
        self._cpus = [str(cpu) for cpu in cpus]
        self._configure = self._ffi.get_global_func("runtime.config_threadpool")
        name = f"enet-tvm {next(_numbers)}"
        with forking.not_while_forking():
            # The pool's threads inherit the name.
            with contextlib.suppress(OSError):
                Path(f"/proc/self/task/{threading.get_native_id()}/comm").write_text(name, encoding="ascii")
            # The list's length becomes the size of the new pool, and the affinity of its threads; the second call
            # gives them back all the processors there are, of which `taskset` may have left only some.
            self._configure(_SHARE_ALL_CORES, self.threads, self._cpus[: self.threads])
            self._configure(_SHARE_ALL_CORES, self.threads, self._cpus)
            if (actual := self._ffi.get_global_func("runtime.NumThreads")()) != self.threads:
                raise RuntimeError(f"TVM made a pool of {actual} threads instead of {self.threads}")
        self.threads_now = self.threads
        own = [int(path.parent.name) for path in Path("/proc/self/task").glob("*/comm") if _text(path).strip() == name]
        self._watch = ProcessorWatch(cpus, own) if self._adaptive and len(own) == self.threads > 1 else None

    def _adapt(self) -> None:
        """Use as many of the pool's threads as find a processor."""
        if self._watch is None or (available := self._watch.available()) is None:
            return
        if (wanted := fitting_threads(available, self.threads, self.threads_now)) != self.threads_now:
            self._configure(_SHARE_ALL_CORES, wanted, self._cpus)
            self.threads_now = wanted

    def _load(self, library: Path) -> None:
        try:
            self._new_machine = self._ffi.load_module(_spelling(library)).get_function("vm_load_executable")
        except (RuntimeError, OSError, AttributeError) as error:
            raise UserError(f"cannot load {library} ({error}); make the artifact again with 'enet-tvm compile'") from error
        with self._exclusive():
            self._machine = self._start_machine()
            self._main = self._machine["main"]
            if self._memory is not None:
                self._memory.wait()  # its constants went through another queue than a frame's kernels
        if self._memory is not None and self._signature is not None:
            self._frame = self._new_frame(self._signature)

    def _new_frame(self, signature: Signature) -> Frame | None:
        try:
            function = self._machine[FRAME_FUNCTION]
        except AttributeError:
            return None  # the library is of a release before graphs
        return Frame(CudaQueue(self._ffi), function, signature.shape, signature.output_shape, signature.output_dtype)

    def _exclusive(self) -> contextlib.AbstractContextManager[Any]:
        return contextlib.nullcontext() if self._memory is None else EXCLUSIVE

    def _start_machine(self) -> Any:
        machine = self._new_machine()
        # The processor comes last: it computes shapes, also for a GPU.
        machine["vm_initialization"](*(value for code in self._codes for value in (code, 0, _POOLED_ALLOCATOR)))
        return machine

    def run(self, x: NDArray[np.float32]) -> NDArray[Any]:
        """Run one forward pass.

        Parameters
        ----------
        x : ndarray
            float32 input of exactly the compiled shape, N x 3 x H x W; copied only if it is not contiguous and aligned to 64
            bytes.

        Returns
        -------
        ndarray
            N x classes x H x W float32 logits or N x H x W uint8 labels, in memory that TVM gives back when the array is freed.
        """
        return self._do(self._run, x)

    def _run(self, x: NDArray[np.float32]) -> NDArray[Any]:
        if self._frame is not None:
            return self._frame.run(x)
        self._adapt()
        with self._exclusive():
            return self._as_array(self._main(self._as_tensor(x)))

    def run_timed(self, x: NDArray[np.float32]) -> tuple[NDArray[np.float32], float, float]:
        """Run one forward pass as `run` does, and time its parts.

        Returns
        -------
        output : ndarray
            Logits or labels, as `run` returns them.
        device, transfer : float
            Duration in seconds of computing, and of moving input and output between host and device: 0 on the processor. Of a
            graph, by CUDA's events; the host waits once, at its end.
        """
        return self._do(self._run_timed, x)

    def _run_timed(self, x: NDArray[np.float32]) -> tuple[NDArray[np.float32], float, float]:
        if self._frame is not None:
            output, times = self._frame.run_timed(x)
            return output, times.device, times.transfer
        wait = self._memory.wait if self._memory is not None else lambda: None
        with self._exclusive():
            start = time.perf_counter()
            tensor = self._as_tensor(x)
            wait()
            uploaded = time.perf_counter()
            output = self._main(tensor)
            wait()
            computed = time.perf_counter()
            array = self._as_array(output)
            moved = uploaded - start + time.perf_counter() - computed
        return array, computed - uploaded, moved if self._memory is not None else 0.0

    def run_instrumented(self, x: NDArray[np.float32]) -> list[tuple[str, NDArray[Any]]]:
        """Run one forward pass and return the name and a copy of the output of every kernel, in launch order.

        Takes `x` as `run` does. A kernel's output is its last argument, in the kernel's own layout.
        """
        return self._do(self._run_instrumented, x)

    def _run_instrumented(self, x: NDArray[np.float32]) -> list[tuple[str, NDArray[Any]]]:
        def copy(tensor: Any) -> NDArray[Any]:
            return self._as_array(tensor).copy()

        with self._exclusive():
            return instrument.keep_outputs(self._ffi, self._start_machine(), "main", self._as_tensor(x), copy)

    def time_kernels(self, x: NDArray[np.float32], passes: int) -> list[list[tuple[str, float]]]:
        """Run several forward passes and return the name and duration, in seconds, of every kernel in each."""
        clock = EventClock() if self._memory is not None else HostClock()
        machine, tensor = self._do(self._prepare_timing, x)
        return [self._do(self._time_kernels, machine, tensor, clock) for _ in range(passes)]

    def _prepare_timing(self, x: NDArray[np.float32]) -> tuple[Any, Any]:
        with self._exclusive():
            return self._start_machine(), self._as_tensor(x)

    def _time_kernels(self, machine: Any, tensor: Any, clock: Clock) -> list[tuple[str, float]]:
        with self._exclusive():
            return instrument.time_kernels(self._ffi, machine, "main", tensor, clock)

    def _as_tensor(self, x: NDArray[np.float32]) -> Any:
        if not x.flags.c_contiguous or not x.flags.writeable or x.ctypes.data % ALIGNMENT:
            copy = aligned_empty(x.shape)
            copy[...] = x
            x = copy
        tensor = self._ffi.from_dlpack(x, require_alignment=ALIGNMENT, require_contiguous=True)
        return tensor if self._memory is None else self._memory.put(tensor)

    def _as_array(self, tensor: Any) -> NDArray[Any]:
        """Return a tensor as an array: in its own memory on the processor, copied from a GPU."""
        array: NDArray[Any] = np.from_dlpack(tensor) if self._memory is None else self._memory.get(tensor)
        return array

    def close(self) -> None:
        """End the engine's threads, after the passes that other threads have asked for; it cannot run afterwards."""
        self._closed = True
        if threading.get_ident() in self._callers:
            return  # by a signal's handler, in the middle of a call of this thread, which then closes it
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            thread.shutdown(wait=True)
        frame, self._frame = self._frame, None
        if frame is not None:
            frame.close()
