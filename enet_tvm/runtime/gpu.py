"""An NVIDIA GPU as TVM's runtime reaches it: opening it, and moving tensors there and back."""

from __future__ import annotations

import ctypes
import importlib.util
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from enet_tvm.errors import UserError
from enet_tvm.runtime.libraries import runtime_folder
from enet_tvm.runtime.queues import RUNTIME

CUDA = 2  # kDLCUDA of DLPack
_EXISTS = 0  # tvm::runtime::DeviceAttrKind::kExist
_CAPABILITY = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR
_MULTIPROCESSORS = 16  # CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT
_DRIVER = "libcuda.so.1"
_BACKEND = "libtvm_runtime_cuda.so"
_opened_by: int | None = None
"""Id of the process that opened the driver: processes forked from it cannot use it."""


def missing_driver() -> str | None:
    """Return why this machine cannot run what was compiled for a GPU, in a clause; None if it has a driver and a GPU."""
    try:
        count = ctypes.c_int()
        driver = ctypes.CDLL(_DRIVER)
        # Stand-ins of a driver, which a process that compiles for GPUs has loaded, lack these functions.
        status = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
    except (OSError, AttributeError):
        return "this machine has no CUDA driver"
    if status or not count.value:
        return f"this machine's CUDA driver finds no GPU (error {status})"
    return None


def gpu_arch() -> str | None:
    """Return the architecture of this machine's first GPU, such as ``sm_53``; None where there is no driver or no GPU."""
    if missing_driver() is not None:
        return None
    driver, device = ctypes.CDLL(_DRIVER), ctypes.c_int()
    figures = (ctypes.c_int(), ctypes.c_int())
    if driver.cuDeviceGet(ctypes.byref(device), 0):
        return None
    for figure, attribute in zip(figures, _CAPABILITY, strict=True):
        if driver.cuDeviceGetAttribute(ctypes.byref(figure), attribute, device):
            return None
    return f"sm_{figures[0].value}{figures[1].value}"


def gpu_multiprocessors() -> int | None:
    """Return how many multiprocessors this machine's first GPU has; None where there is no driver or no GPU."""
    if missing_driver() is not None:
        return None
    driver, device, count = ctypes.CDLL(_DRIVER), ctypes.c_int(), ctypes.c_int()
    if driver.cuDeviceGet(ctypes.byref(device), 0) or driver.cuDeviceGetAttribute(
        ctypes.byref(count), _MULTIPROCESSORS, device
    ):
        return None
    return count.value


def gpu_name() -> str | None:
    """Return what this machine's first GPU is called; None where there is no driver or no GPU."""
    if missing_driver() is not None:
        return None
    driver, device, name = ctypes.CDLL(_DRIVER), ctypes.c_int(), ctypes.create_string_buffer(256)
    if driver.cuDeviceGet(ctypes.byref(device), 0) or driver.cuDeviceGetName(name, len(name), device):
        return None
    return name.value.decode(errors="replace")


def load_cuda(ffi: ModuleType) -> None:
    """Load TVM's CUDA runtime into this process, beside the runtime that `load_runtime` loaded.

    It needs the driver, and NVIDIA's runtime library of CUDA 13: the system's, the one in NVIDIA's Python package, or the one
    that a board's bundle brings beside TVM's.

    Raises
    ------
    UserError
        When there is no driver, no GPU, or one of the libraries is missing.
    """
    global _opened_by
    if _opened_by not in (None, os.getpid()):
        raise UserError(
            "the process that this one was forked from had opened the GPU, so this one cannot; open it in one of them alone, "
            "or start this one with the method 'spawn'"
        )
    if (why := missing_driver()) is not None:
        raise UserError(f"{why}, and this network was compiled for one; run it on the device, or compile with --target native")
    _opened_by = os.getpid()
    folder = runtime_folder()
    for name, cure in (
        (RUNTIME, "run: pip install 'nvidia-cuda-runtime==13.*'"),
        (_BACKEND, "install apache-tvm again"),
    ):
        places = runtime_places(folder) if name == RUNTIME else [str(folder / name)]
        if not any(_opens(place) for place in places):
            raise UserError(f"{name} is missing or does not load on this machine; {cure}")
    if not ffi.get_global_func("runtime.GetDeviceAttr")(CUDA, 0, _EXISTS):
        raise UserError("TVM's CUDA runtime finds no GPU here; its libcudart.so.13 wants the NVIDIA driver 580 or later")


def runtime_places(folder: Path) -> list[str]:
    """Return where NVIDIA's runtime library of CUDA 13 may be, in the order in which the places are to be tried.

    Beside TVM's in a board's `folder`, where the dynamic loader finds it, and in NVIDIA's Python packages: those of CUDA 13
    share the folder ``nvidia/cu13``, those before had one each.
    """
    packaged = importlib.util.find_spec("nvidia")
    roots = list(packaged.submodule_search_locations or ()) if packaged is not None else []
    found = [str(path) for root in roots for path in sorted(Path(root).glob(f"*/lib/{RUNTIME}"))]
    return [str(folder / RUNTIME), RUNTIME, *found]


def _opens(path: str) -> bool:
    try:
        # Global symbols: the library opened next is linked against this one by name alone.
        ctypes.CDLL(path, ctypes.RTLD_GLOBAL)
    except OSError:
        return False
    return True


class DeviceMemory:
    """Tensors on a device, in TVM's runtime.

    Parameters
    ----------
    ffi : ModuleType
        Module ``tvm_ffi``.
    kind : str
        DLPack's name of the device; "cuda", or "cpu", for which it does the same.
    """

    def __init__(self, ffi: ModuleType, kind: str) -> None:
        self._ffi = ffi
        self._device = ffi.device(kind, 0)
        self._allocate = ffi.get_global_func("runtime.TVMTensorAllocWithScope")
        self._copy = ffi.get_global_func("runtime.TVMTensorCopyFromTo")
        self._wait = ffi.get_global_func("runtime.Device_StreamSync")
        self._kept: Any = None

    def put(self, tensor: Any) -> Any:
        """Copy a tensor of the host to the device, always into the same memory, and return it there."""
        if self._kept is None or tuple(self._kept.shape) != tuple(tensor.shape):
            self._kept = self._allocate(self._ffi.Shape(tensor.shape), tensor.dtype, self._device, None)
        self._copy(tensor, self._kept)
        return self._kept

    def get(self, tensor: Any) -> NDArray[Any]:
        """Return a tensor of the device as an array, once the device has computed it."""
        array = np.empty(tuple(tensor.shape), str(tensor.dtype))
        self._copy(tensor, self._ffi.from_dlpack(array))
        self.wait()
        return array

    def wait(self) -> None:
        """Wait until the device has done all that it was given."""
        self._wait(self._device, 0)
