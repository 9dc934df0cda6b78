"""Compiling the board's programs from the C sources of this package, for any architecture, with Zig's compiler."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from enet_tvm.compiler.linking import compile_with, ffi_headers, zig_linker
from enet_tvm.version import TESTED_STACK

SOURCES = Path(__file__).parent / "csrc"
PROGRAMS = {
    "enet-run": (
        *("enet_run", "camera", "capture", "cpus", "exif", "exits", "figures", "files", "image_output", "jpeg", "jpeg_idct"),
        *("jpeg_upsample", "json", "labels", "manifest", "network", "network_input", "npy", "overlay", "picture"),
        *("picture_file", "png", "pool", "ppm", "resample", "sha256", "text", "tvm_arguments", "tvm_call", "watch", "yuyv"),
    ),
    "enet-rpcd": (
        *("enet_rpcd", "address", "cpus", "facts", "greeting", "instrument", "json", "pool"),
        *("session_folder", "sockets", "text", "tracker", "tvm_arguments", "tvm_call", "upload_name"),
    ),
}
"""Names of the sources of each program."""

THIRD_PARTY = {
    "LICENSE": "bebfe904b14301657e4e5d655c811d51fd31b97c455b9cc2d8600d6bac6cff63",
    "stb_image.h": "594c2fe35d49488b4382dbfaec8f98366defca819d916ac95becf3e75f4200b3",
    "stb_image_write.h": "cbd5f0ad7a9cf4468affb36354a1d2338034f2c12473cf1a8e32053cb6914a05",
}
"""SHA-256 of the sources that are not ours: stb (github.com/nothings/stb, commit 31c1ad3), public domain or MIT."""

CUDA_RUNTIME = "libcudart.so.13"
"""Library that TVM's CUDA runtime was linked against."""

WARNINGS = ("-std=c11", "-O2", "-Wall", "-Wextra", "-Werror")


def build_program(name: str, libraries: Path, machine: str, output: Path) -> None:
    """Compile one of `PROGRAMS` against TVM's libraries.

    Parameters
    ----------
    name : str
        Name of the program.
    libraries : Path
        Folder with ``libtvm_runtime.so`` and ``libtvm_ffi.so`` of the board's architecture. On the board they are
        looked for in ``../lib``, seen from the program.
    machine : str
        ``x86_64`` or ``aarch64``.
    output : Path
        File to write.

    Raises
    ------
    UserError
        When Zig's compiler is missing or cannot be run.
    """
    compile_c(machine, *program_arguments(name, libraries), "-o", str(output))


def program_arguments(name: str, libraries: Path) -> list[str]:
    """Return what a C compiler is given to make one of `PROGRAMS`: all but its output; parameters as for `build_program`."""
    return [
        *source_arguments(PROGRAMS[name]),
        f"-I{ffi_headers()}",
        # What registers TVM's functions is their constructors: the libraries must be loaded even if no symbol of one is named.
        "-Wl,--no-as-needed",
        str(libraries / "libtvm_runtime.so"),
        str(libraries / "libtvm_ffi.so"),
        "-Wl,--allow-shlib-undefined",
        "-Wl,-rpath,$ORIGIN/../lib",
        *("-ldl", "-lm", "-lpthread"),
    ]


def source_arguments(sources: Sequence[str]) -> list[str]:
    """Return what a C compiler is given to compile some of the sources: their files, and the versions of TVM."""
    versions = [f'-D{key.upper().replace("-", "_")}="{version}"' for key, version in TESTED_STACK.items()]
    folders = [f"-I{SOURCES}", f"-isystem{SOURCES / 'third_party'}"]
    return [*versions, *folders, *(str(SOURCES / f"{source}.c") for source in sources)]


def build_cuda_runtime(machine: str, output: Path) -> None:
    """Compile the ``libcudart.so.13`` that works with drivers from CUDA 10.2 on (see ``csrc/cudart_shim.c``).

    Parameters
    ----------
    machine : str
        ``x86_64`` or ``aarch64``.
    output : Path
        File to write.

    Raises
    ------
    UserError
        When Zig's compiler is missing or cannot be run.
    """
    shared = ("-shared", "-fPIC")
    with tempfile.TemporaryDirectory(prefix="enet-tvm-") as directory:
        driver = Path(directory, "libcuda.so.1")
        compile_c(machine, *shared, str(SOURCES / "cuda_driver_stub.c"), f"-Wl,-soname,{driver.name}", "-o", str(driver))
        compile_c(
            machine,
            *shared,
            str(SOURCES / "cudart_shim.c"),
            f"-Wl,-soname,{CUDA_RUNTIME}",
            f"-Wl,--version-script={SOURCES / 'cudart_shim.map'}",
            "-Wl,-z,defs",
            str(driver),
            *("-o", str(output)),
        )


def compile_c(machine: str, *arguments: str) -> None:
    """Run Zig's C compiler for an architecture, with warnings as errors.

    Raises
    ------
    UserError
        When the compiler is missing, cannot be run, or refuses.
    """
    compile_with(zig_linker(machine), *WARNINGS, *arguments, "-Wl,--build-id=none")
