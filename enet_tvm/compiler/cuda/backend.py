"""TVM's CUDA backend on a machine without a CUDA driver.

TVM's code generator for CUDA prints C++ text, which takes no GPU. But before it calls a compiler for that text it looks for
the function ``ffi.Module.create.cuda``, which the library ``libtvm_runtime_cuda.so`` registers, and that one is linked against
the driver (libcuda.so.1) and NVIDIA's runtime (libcudart.so.13). Where they are missing, ``import tvm`` leaves the library out
without a word, no compiler is called, and what is exported carries source text that no device can load.

So here both are replaced by stand-ins: libraries of the same names whose functions all return 100, "no CUDA device". They are
compiled from a list of names read from TVM's own library, and opened with their symbols global; the dynamic loader then takes
them for the real ones when TVM's library is opened after them. The order of that and ``import tvm`` does not matter.

Nothing of this happens unless a GPU is compiled for, and a library that a machine has is never replaced: each is looked for
first where the runtime looks for it, so that a process that has compiled runs what it compiled. One that was given stand-ins
says "no device" of every GPU, as it would have without them.
"""

from __future__ import annotations

import ctypes
import functools
import tempfile
from pathlib import Path

from elftools.elf.elffile import ELFFile

from enet_tvm.compiler.linking import host_linker
from enet_tvm.errors import UserError
from enet_tvm.runtime.gpu import runtime_places
from enet_tvm.runtime.queues import RUNTIME

DRIVER = "libcuda.so.1"
BACKEND = "libtvm_runtime_cuda.so"
_NO_DEVICE = 100
"""cudaErrorNoDevice and CUDA_ERROR_NO_DEVICE."""


@functools.cache
def load_cuda_backend() -> tuple[str, ...]:
    """Make TVM's CUDA backend available in this process.

    Returns
    -------
    tuple of str
        The libraries that stand-ins were made for; none where this machine has both.

    Raises
    ------
    UserError
        When there is no linker, or TVM's library is missing or cannot be opened.
    """
    if _registered():
        return ()
    backend = backend_library()
    replaced = []
    with tempfile.TemporaryDirectory(prefix="enet-tvm-") as directory:
        for name in (DRIVER, RUNTIME):
            if not any(_opens(place) for place in _places(name, backend.parent)):
                stand_in = make_stand_in(name, backend, Path(directory))
                ctypes.CDLL(str(stand_in), ctypes.RTLD_GLOBAL)
                replaced.append(name)
    try:
        ctypes.CDLL(str(backend), ctypes.RTLD_GLOBAL)
    except OSError as error:
        raise UserError(f"cannot load {backend} ({error}); install apache-tvm again") from error
    if not _registered():
        raise UserError(f"{backend} does not register TVM's CUDA backend; install apache-tvm again")
    return tuple(replaced)


def make_stand_in(name: str, backend: Path, directory: Path) -> Path:
    """Compile a library called `name` with all the functions that `backend` wants of it, each returning "no device".

    Parameters
    ----------
    name : {"libcuda.so.1", "libcudart.so.13"}
        Library to stand in for.
    backend : Path
        TVM's library for CUDA devices, whose undefined symbols are those functions.
    directory : Path
        Directory to write the library to.

    Raises
    ------
    UserError
        When there is no working linker.
    """
    functions = wanted_functions(name, backend)
    source, versions, library = (directory / f"{name}{suffix}" for suffix in (".c", ".map", ""))
    source.write_text("".join(f"int {f}(void) {{ return {_NO_DEVICE}; }}\n" for f in functions), encoding="utf-8")
    # TVM's library asks for the runtime's functions by the symbol version of that name; the driver's have none.
    versions.write_text(f"{name} {{ global: *; }};\n", encoding="utf-8")
    options = [f"-Wl,-soname,{name}"] + ([f"-Wl,--version-script={versions}"] if name == RUNTIME else [])
    host_linker()(library, [str(source)], options)
    return library


def wanted_functions(name: str, backend: Path) -> list[str]:
    """Return the functions of the CUDA driver, or of its runtime, that TVM's library leaves to be found."""
    prefix = "cuda" if name == RUNTIME else "cu"
    with backend.open("rb") as file:
        table = ELFFile(file).get_section_by_name(".dynsym")
        undefined = sorted({symbol.name for symbol in table.iter_symbols() if symbol["st_shndx"] == "SHN_UNDEF"})
    return [f for f in undefined if f.startswith(prefix) and f.startswith("cuda") == (name == RUNTIME)]


def _registered() -> bool:
    import tvm

    return tvm.get_global_func("ffi.Module.create.cuda", allow_missing=True) is not None


def _places(name: str, folder: Path) -> list[str]:
    return runtime_places(folder) if name == RUNTIME else [name]


def _opens(name: str) -> bool:
    try:
        ctypes.CDLL(name, ctypes.RTLD_GLOBAL)
    except OSError:
        return False
    return True


def backend_library() -> Path:
    """Return TVM's library for CUDA devices.

    Raises
    ------
    UserError
        When the installed TVM has none.
    """
    from tvm import libinfo

    for folder in libinfo.package_lib_paths():
        if (library := Path(folder) / BACKEND).is_file():
            return library
    raise UserError(f"this apache-tvm has no {BACKEND}; install apache-tvm from PyPI again")
