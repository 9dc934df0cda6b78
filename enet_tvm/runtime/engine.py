"""One compiled library in TVM's virtual machine, on a thread and a thread pool of its own.

TVM keeps one pool per calling thread, fixes its size when that thread first needs it, and takes half the logical
processors on x86-64. So every engine calls the machine from a thread that belongs to it: its pool has exactly the
size that was asked for, whatever else in the process uses TVM; any thread may call the engine; and `close` ends them.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from enet_tvm.errors import UserError
from enet_tvm.machine import usable_cpus
from enet_tvm.runtime.gpu import CUDA, DeviceMemory, load_cuda
from enet_tvm.runtime.libraries import load_runtime

_CPU = 1  # kDLCPU of DLPack
_POOLED_ALLOCATOR = 2  # tvm::runtime::memory::AllocatorType::kPooled
_SHARE_ALL_CORES = -3  # ThreadGroup::AffinityMode::kSpecifyThreadShareAllCore
ALIGNMENT = 64
"""Bytes to which TVM's kernels assume their buffers to be aligned."""


def aligned_empty(shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return an uninitialised float32 array that a kernel can read in place (numpy aligns to 16 bytes only)."""
    size = int(np.prod(shape, dtype=np.int64)) * 4
    memory = np.empty(size + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + size].view(np.float32).reshape(shape)


_loaded: dict[str, list[tuple[int, int]]] = {}
_loaded_lock = threading.Lock()


def _spelling(library: Path) -> str:
    """Return a path of `library` by which the dynamic loader knows no other file.

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


class Engine:
    """The compiled function ``main`` of a library.

    Parameters
    ----------
    library : Path
        A shared library with a Relax executable, checked beforehand.
    threads : int or None
        Threads that a forward pass uses; None for one per processor that the calling thread may run on.
    device : {"cpu", "cuda"}
        What the library was compiled for. Inputs and outputs are the host's in either case.

    Raises
    ------
    UserError
        When `threads` is not between 1 and that number, the library cannot be loaded, or there is no such device.
    """

    def __init__(self, library: Path, threads: int | None = None, device: Literal["cpu", "cuda"] = "cpu") -> None:
        cpus = usable_cpus()
        if threads is None:
            threads = len(cpus)
        if not 1 <= threads <= len(cpus):
            raise UserError(
                f"cannot use {threads} threads; give between 1 and {len(cpus)}, the processors this process may use"
            )
        self.threads = threads
        self._ffi = load_runtime()
        self._codes = [_CPU]
        self._memory: DeviceMemory | None = None
        if device == "cuda":
            load_cuda(self._ffi)
            self._codes = [CUDA, _CPU]
            self._memory = DeviceMemory(self._ffi, device)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="enet-tvm")
        try:
            self._thread.submit(self._load, library, cpus).result()
        except BaseException:
            self.close()
            raise

    def _load(self, library: Path, cpus: list[int]) -> None:
        configure = self._ffi.get_global_func("runtime.config_threadpool")
        # The list's length becomes the size of the new pool, and the affinity of its threads; the second call
        # gives them back all the processors there are, of which `taskset` may have left only some.
        configure(_SHARE_ALL_CORES, self.threads, [str(cpu) for cpu in cpus[: self.threads]])
        configure(_SHARE_ALL_CORES, self.threads, [str(cpu) for cpu in cpus])
        if (actual := self._ffi.get_global_func("runtime.NumThreads")()) != self.threads:
            raise RuntimeError(f"TVM made a pool of {actual} threads instead of {self.threads}")
        try:
            self._new_machine = self._ffi.load_module(_spelling(library)).get_function("vm_load_executable")
        except (RuntimeError, OSError, AttributeError) as error:
            raise UserError(f"cannot load {library} ({error}); make the artifact again with 'enet-tvm compile'") from error
        self._machine = self._start_machine()
        self._main = self._machine["main"]

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
            Float32, of exactly the compiled shape; copied only if it is not contiguous and aligned to 64 bytes.

        Returns
        -------
        ndarray
            The output, float32 logits or uint8 labels, in memory that TVM gives back when the array is freed.
        """
        return self._thread.submit(self._run, x).result()

    def _run(self, x: NDArray[np.float32]) -> NDArray[Any]:
        return self._as_array(self._main(self._as_tensor(x)))

    def run_timed(self, x: NDArray[np.float32]) -> tuple[NDArray[np.float32], float, float]:
        """Run one forward pass as `run` does, part after part.

        Returns
        -------
        output : ndarray
            As of `run`.
        device, transfer : float
            Seconds of computing, and of moving input and output between host and device: 0 on the processor.
        """
        return self._thread.submit(self._run_timed, x).result()

    def _run_timed(self, x: NDArray[np.float32]) -> tuple[NDArray[np.float32], float, float]:
        wait = self._memory.wait if self._memory is not None else lambda: None
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
        return self._thread.submit(self._run_instrumented, x).result()

    def _run_instrumented(self, x: NDArray[np.float32]) -> list[tuple[str, NDArray[Any]]]:
        outputs: list[tuple[str, NDArray[Any]]] = []

        def after_call(_function: Any, name: str, before: bool, _result: Any, *arguments: Any) -> int:
            # Everything else that the machine calls is bookkeeping of its own: allocation, shapes, null values.
            if not before and not name.startswith("vm.builtin."):
                # The memory is reused by later kernels, so the output is copied now.
                outputs.append((str(name), self._as_array(arguments[-1]).copy()))
            return 0

        # An instrument cannot be taken off again, so it goes into a machine of its own.
        machine = self._start_machine()
        machine["set_instrument"](self._ffi.convert_func(after_call))
        machine["main"](self._as_tensor(x))
        return outputs

    def time_kernels(self, x: NDArray[np.float32], passes: int) -> list[list[tuple[str, float]]]:
        """Run several forward passes and return the name and duration, in seconds, of every kernel in each."""
        return self._thread.submit(self._time_kernels, x, passes).result()

    def _time_kernels(self, x: NDArray[np.float32], passes: int) -> list[list[tuple[str, float]]]:
        times: list[tuple[str, float]] = []
        start = 0

        def around_call(_function: Any, name: str, before: bool, *_rest: Any) -> int:
            nonlocal start
            if self._memory is not None:
                self._memory.wait()
            if before:
                start = time.perf_counter_ns()
            elif not name.startswith("vm.builtin."):
                times.append((str(name), (time.perf_counter_ns() - start) * 1e-9))
            return 0

        machine, tensor = self._start_machine(), self._as_tensor(x)
        machine["set_instrument"](self._ffi.convert_func(around_call))
        results = []
        for _ in range(passes):
            times = []
            machine["main"](tensor)
            results.append(times)
        return results

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
        """End the engine's threads; it cannot run afterwards."""
        self._thread.shutdown(wait=True)
