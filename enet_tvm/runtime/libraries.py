"""Loading TVM's runtime without its compiler, and without the PyTorch that the bindings would import.

``import tvm`` loads the compiler (100 MB), so the runtime library is opened by itself and the device is driven
through ``tvm_ffi`` alone. ``import tvm_ffi`` in turn imports torch if it is installed (to avoid a symbol clash on
Windows, and to accept torch dtypes); on Linux neither is needed here, so torch is hidden while it is imported.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

from enet_tvm.errors import UserError
from enet_tvm.machine import tvm_num_threads
from enet_tvm.version import check_stack

SPIN_COUNT = 4000
"""Number of times that an idle worker yields before it sleeps: about 2 ms, so it stays awake between the kernels of a pass.

TVM's own 300 000 keep every core busy for 160 ms after each picture (measured), which takes power from a robot and
time from whatever is compared in the same process. No spin at all costs 10 us in each launch (measured: 1 ms in ENet's
ninety, more than half of a small picture's pass). A spinning thread gives way with every yield to whatever else wants to run,
for a whole time slice: beside other work, two threads then take up to five times as long as one, which is not left to the
spin but to `enet_tvm.runtime.load`. The environment's ``TVM_THREAD_POOL_SPIN_COUNT`` comes first.
"""


@functools.cache
def load_runtime() -> ModuleType:
    """Load ``libtvm_runtime.so`` once and return the ``tvm_ffi`` module that reaches it.

    Raises
    ------
    UserError
        When the TVM stack is missing or not the one that this release was tested with, or ``TVM_NUM_THREADS`` is no number.
    """
    check_stack()
    tvm_num_threads()
    os.environ.setdefault("TVM_THREAD_POOL_SPIN_COUNT", str(SPIN_COUNT))
    tvm_ffi = _import_tvm_ffi()
    library = _runtime_library()
    try:
        # Global symbols, because the compiled library refers to them. Opening it twice is harmless: if tvm was
        # imported already, this is the same file.
        ctypes.CDLL(str(library), ctypes.RTLD_GLOBAL)
    except OSError as error:
        raise UserError(f"cannot load {library} ({error}); install apache-tvm again") from error
    return tvm_ffi


def _import_tvm_ffi() -> ModuleType:
    if "tvm_ffi" in sys.modules or "torch" in sys.modules:
        return importlib.import_module("tvm_ffi")
    sys.modules["torch"] = None  # type: ignore[assignment]  # makes `import torch` raise ImportError
    try:
        return importlib.import_module("tvm_ffi")
    finally:
        del sys.modules["torch"]


def runtime_folder() -> Path:
    """Return the directory of TVM's runtime libraries.

    Raises
    ------
    UserError
        When there is none.
    """
    return _runtime_library().parent


def _runtime_library() -> Path:
    folders = [Path(chosen)] if (chosen := os.environ.get("TVM_LIBRARY_PATH")) else []
    # A board may have the libraries alone, without the Python package that usually holds them.
    if (spec := importlib.util.find_spec("tvm")) is not None and spec.origin is not None:
        folders.append(Path(spec.origin).parent / "lib")
    if not folders:
        raise UserError("apache-tvm is not installed; run: pip install enet-tvm")
    for folder in folders:
        if (library := folder / "libtvm_runtime.so").is_file():
            return library
    raise UserError(f"there is no libtvm_runtime.so in {folders[-1]}; install apache-tvm again")
