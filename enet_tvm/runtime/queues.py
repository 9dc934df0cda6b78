"""Queues of a device: copies, calls and time stamps, done in the order in which they were put in, beside other queues.

TVM's own copies go through the one queue of a GPU that all share. Those here go through one of their own, so that a frame's
copies, its network and its times are in order among themselves alone. `HostQueue` does the same at once, on the processor.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import re
import time
from collections.abc import Iterator
from types import ModuleType
from typing import Any, Protocol

RUNTIME = "libcudart.so.13"
"""Name of NVIDIA's runtime library that TVM's CUDA runtime is linked against; in a board's bundle it is a stand-in of ours."""

_CPU, _CUDA, _CUDA_HOST = 1, 2, 3  # kDLCPU, kDLCUDA and kDLCUDAHost of DLPack
_TO_DEVICE, _TO_HOST = 1, 2  # cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost


class Clock(Protocol):
    """Time stamps of a device, taken without waiting for it."""

    def mark(self) -> Any:
        """Return a stamp of the moment when the device has done all that it was given so far."""

    def wait(self) -> None:
        """Wait until the device has done all that it was given."""

    def seconds(self, start: Any, end: Any) -> float:
        """Return the seconds between two stamps, once the device has passed both."""


class HostClock:
    """The processor's clock, which has done what it was given when the call returns."""

    def mark(self) -> int:
        """Return the time in nanoseconds."""
        return time.perf_counter_ns()

    def wait(self) -> None:
        """Return at once."""

    def seconds(self, start: int, end: int) -> float:
        """Return the seconds between two stamps."""
        return (end - start) * 1e-9


class EventClock:
    """CUDA's events in a stream of this machine's GPU.

    Parameters
    ----------
    stream : int
        Handle of the stream; 0 for the one that TVM uses by default.
    """

    def __init__(self, stream: int = 0) -> None:
        self._cuda = _CudaRuntime()
        self._stream = ctypes.c_void_p(stream)

    def mark(self) -> _Event:
        """Record an event and return it."""
        event = _Event(self._cuda)
        self._cuda.check(self._cuda.library.cudaEventRecord(event.handle, self._stream))
        return event

    def wait(self) -> None:
        """Wait until the stream has done all that it was given."""
        self._cuda.check(self._cuda.library.cudaStreamSynchronize(self._stream))

    def seconds(self, start: _Event, end: _Event) -> float:
        """Return the seconds between two events, which CUDA tells to about half a microsecond."""
        milliseconds = ctypes.c_float()
        self._cuda.check(self._cuda.library.cudaEventElapsedTime(ctypes.byref(milliseconds), start.handle, end.handle))
        return milliseconds.value * 1e-3


class _CudaRuntime:
    def __init__(self) -> None:
        self.library = ctypes.CDLL(RUNTIME)  # which `enet_tvm.runtime.gpu.load_cuda` has opened, from wherever it is
        self.library.cudaGetErrorString.restype = ctypes.c_char_p

    def check(self, status: int) -> None:
        if status:
            text = self.library.cudaGetErrorString(status) or b"unknown"
            raise RuntimeError(f"CUDA says: {text.decode(errors='replace')} (error {status})")


class _Event:
    def __init__(self, cuda: _CudaRuntime) -> None:
        self.handle = ctypes.c_void_p()
        self._destroy = cuda.library.cudaEventDestroy
        cuda.check(cuda.library.cudaEventCreate(ctypes.byref(self.handle)))

    def __del__(self) -> None:
        if self.handle.value is not None:
            self._destroy(self.handle)


class Queue(Clock, Protocol):
    """A queue of a device, and memory that its copies reach."""

    def allocate(self, shape: tuple[int, ...], dtype: str) -> Any:
        """Return an uninitialised tensor on the device."""

    def allocate_host(self, shape: tuple[int, ...], dtype: str) -> Any:
        """Return an uninitialised tensor of the host that the device can read and write by itself."""

    def copy(self, source: Any, target: Any) -> None:
        """Put in a copy of a tensor to another of as many bytes, one of the host and one of the device."""

    def current(self) -> contextlib.AbstractContextManager[None]:
        """Return a context in which what this thread calls of TVM is put in here."""

    def close(self) -> None:
        """Let go of the queue, which is empty."""


class _TvmMemory:
    """Tensors of TVM's runtime, on a device and on the host."""

    def __init__(self, ffi: ModuleType, device: int, host: int) -> None:
        self._ffi = ffi
        self._devices = device, host
        self._allocate = ffi.get_global_func("runtime.TVMTensorAllocWithScope")

    def allocate(self, shape: tuple[int, ...], dtype: str) -> Any:
        """Return an uninitialised tensor on the device."""
        return self._allocate(self._ffi.Shape(shape), dtype, self._ffi.device(self._devices[0], 0), None)

    def allocate_host(self, shape: tuple[int, ...], dtype: str) -> Any:
        """Return an uninitialised tensor of the host."""
        return self._allocate(self._ffi.Shape(shape), dtype, self._ffi.device(self._devices[1], 0), None)


class CudaQueue(_TvmMemory, EventClock):
    """A stream of this machine's GPU, which waits for no other; its host memory is page-locked.

    Parameters
    ----------
    ffi : ModuleType
        Module ``tvm_ffi``, TVM's CUDA runtime loaded (`enet_tvm.runtime.gpu.load_cuda`).
    """

    def __init__(self, ffi: ModuleType) -> None:
        _TvmMemory.__init__(self, ffi, _CUDA, _CUDA_HOST)
        self._gpu = ffi.device(_CUDA, 0)
        self._set_stream = ffi.get_global_func("runtime.Device_SetStream")
        self._free_stream = ffi.get_global_func("runtime.Device_StreamFree")
        self._handle: int = ffi.get_global_func("runtime.Device_StreamCreate")(self._gpu)
        EventClock.__init__(self, self._handle)

    def copy(self, source: Any, target: Any) -> None:
        """Put in a copy between the host and the GPU."""
        kind = _TO_HOST if source.device.dlpack_device_type() == _CUDA else _TO_DEVICE
        arguments = (ctypes.c_void_p(target.data_ptr()), ctypes.c_void_p(source.data_ptr()), ctypes.c_size_t(_size(source)))
        self._cuda.check(self._cuda.library.cudaMemcpyAsync(*arguments, kind, self._stream))

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        """Let TVM use the stream in this thread, and afterwards the default one again."""
        self._set_stream(self._gpu, self._handle)
        try:
            yield
        finally:
            self._set_stream(self._gpu, 0)

    def close(self) -> None:
        """Destroy the stream."""
        if self._handle:
            self._free_stream(self._gpu, self._handle)
            self._handle = 0


class HostQueue(_TvmMemory, HostClock):
    """The processor in a GPU's place: all is done at once."""

    def __init__(self, ffi: ModuleType) -> None:
        super().__init__(ffi, _CPU, _CPU)

    def copy(self, source: Any, target: Any) -> None:
        """Copy between two tensors."""
        ctypes.memmove(target.data_ptr(), source.data_ptr(), _size(source))

    def current(self) -> contextlib.AbstractContextManager[None]:
        """Return a context that changes nothing."""
        return contextlib.nullcontext()

    def close(self) -> None:
        """Do nothing: there is nothing to let go of."""


def _size(tensor: Any) -> int:
    bits = int(re.sub(r"\D+", "", str(tensor.dtype)))  # by hand: a board that serves RPC alone has no NumPy
    return math.prod(map(int, tensor.shape)) * bits // 8
