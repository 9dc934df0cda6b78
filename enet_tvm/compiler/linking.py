"""Linking compiled kernels into a shared library, with whatever linker there is.

TVM's code generator writes object files; turning them into the library a device loads takes a C compiler driver. A machine
that has one (`cc`, or what the environment variable CC names) uses it. Everywhere else, and for every architecture but this
machine's own, it is Zig's, a Python package that brings the C library of each architecture along.

The result depends on the objects and the linker alone, so the same kernels make the same bytes.
"""

from __future__ import annotations

import errno
import functools
import importlib.util
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from enet_tvm.errors import UserError

GLIBC = "2.27"
"""The oldest C library that what Zig links must load on: that of Ubuntu 18.04, the base of the last JetPack for TX1."""

_SHARED = ("-shared", "-fPIC", "-Wl,--build-id=none")
_TIMEOUT_SECONDS = 600


@dataclass(frozen=True)
class Linker:
    """A C compiler driver, callable in the way TVM's ``Executable.export_library(fcompile=...)`` calls one.

    Attributes
    ----------
    command : tuple of str
        The driver and its fixed options.
    triple : str
        Target triple in LLVM's form, such as ``aarch64-unknown-linux-gnu``.
    environment : mapping of str to str
        Variables set for the driver beside those of this process.
    """

    command: tuple[str, ...]
    triple: str
    environment: Mapping[str, str] = field(default_factory=dict)

    object_format = "o"
    output_format = "so"

    def __call__(self, output: str | Path, objects: Sequence[str] | str, options: Sequence[str] | None = None) -> None:
        """Link object files into the shared library `output`.

        Raises
        ------
        UserError
            When the driver cannot be run, or refuses.
        OSError
            When there is no room for the library.
        """
        inputs = [objects] if isinstance(objects, (str, Path)) else list(objects)
        command = [*self.command, *_SHARED, "-o", str(output), *map(str, inputs), *(options or ()), "-lm"]
        try:
            result = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self.environment},
                timeout=_TIMEOUT_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise UserError(f"cannot link with '{self}' ({error}); set CC to a C compiler that works here") from error
        if result.returncode:
            said = result.stdout.decode("utf-8", errors="replace")
            if re.search("no space left", said, flags=re.IGNORECASE) or not _fits(inputs, Path(output)):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(output))
            raise UserError(f"'{self}' failed to link {output} ({_reason(said)}); set CC to a C compiler that works here")

    def __str__(self) -> str:
        return shlex.join(self.command)

    def get_target_triple(self) -> str:
        """Return the triple TVM compiles its embedded data for when no kernel says it."""
        return self.triple


def host_linker(triple: str | None = None, toolchain: str = "auto") -> Linker:
    """Return a linker of shared libraries for an architecture: this machine's own one if it has it, else Zig's.

    Parameters
    ----------
    triple : str, optional
        A target triple, such as ``aarch64-linux-gnu``; only the architecture, its first part, is looked at.
        By default this machine's.
    toolchain : {"auto", "system", "zig"}
        ``zig`` and ``system`` insist on Zig's, or on the system's: for another architecture than this machine's, that is
        the cross compiler ``ARCHITECTURE-linux-gnu-gcc``.

    Raises
    ------
    UserError
        When there is no linker of that kind.
    """
    machine = triple.partition("-")[0] if triple else platform.machine()
    if toolchain == "system":
        return _system_linker(machine)
    if toolchain == "auto" and machine == platform.machine() and (driver := system_driver()):
        return Linker(driver, f"{machine}-unknown-linux-gnu")
    return zig_linker(machine)


def _system_linker(machine: str) -> Linker:
    if machine == platform.machine():
        driver, package = system_driver(), "gcc"
    else:
        compiler = f"{machine}-linux-gnu-gcc"
        driver, package = _working(compiler, os.environ.get("PATH", "")), f"gcc-{machine.replace('_', '-')}-linux-gnu"
    if driver is None:
        raise UserError(
            f'no C compiler for {machine} is here, and the target\'s toolchain is "system"; '
            f'run: sudo apt install {package} (or let its toolchain be "auto")'
        )
    return Linker(driver, f"{machine}-unknown-linux-gnu")


def zig_linker(machine: str, system: str = f"linux-gnu.{GLIBC}") -> Linker:
    """Return Zig's linker for an architecture, such as ``x86_64`` or ``aarch64``, and a system, as Zig spells it.

    Its first link for an architecture builds what it needs of the C library, which can take a minute, and keeps it in a cache.

    Raises
    ------
    UserError
        When the package `ziglang` is not installed.
    """
    if importlib.util.find_spec("ziglang") is None:
        raise UserError(
            f"no linker for {machine} is here; run: pip install ziglang (for this machine alone, apt install gcc will do)"
        )
    cache = _cache()
    # -s: the debugging information of Zig's own arithmetic routines differs from cache to cache, and weighs a megabyte.
    command = (sys.executable, "-m", "ziglang", "cc", "-target", f"{machine}-{system}", "-s")
    environment = {"ZIG_GLOBAL_CACHE_DIR": str(cache), "ZIG_LOCAL_CACHE_DIR": str(cache)}
    return Linker(command, f"{machine}-unknown-linux-gnu", environment)


def ffi_headers() -> Path:
    """Return the folder of the headers of TVM's C interface.

    Raises
    ------
    UserError
        When they are missing.
    """
    spec = importlib.util.find_spec("tvm_ffi")
    folder = Path(spec.origin).parent / "include" if spec and spec.origin else None
    if folder is None or not (folder / "tvm/ffi/c_api.h").is_file():
        raise UserError("the headers of apache-tvm-ffi are missing; run: pip install --force-reinstall apache-tvm-ffi")
    return folder


def compile_with(zig: Linker, *arguments: str) -> None:
    """Run Zig's C compiler.

    Parameters
    ----------
    zig : Linker
        Zig's linker, which compiles, too.
    arguments : str
        What it is given beside its own.

    Raises
    ------
    UserError
        When it cannot be run, or refuses.
    """
    try:
        result = subprocess.run(
            [*zig.command, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env={**os.environ, **zig.environment},
            timeout=_TIMEOUT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UserError(f"cannot run Zig's compiler ({error}); run: pip install --force-reinstall ziglang") from error
    if result.returncode:
        said = [line.strip() for line in result.stderr.decode("utf-8", errors="replace").splitlines() if line.strip()]
        reason = next((line for line in said if "error" in line), said[0] if said else "it gave no reason")
        raise UserError(f"Zig's compiler failed ({reason}); free some room on the disk, or reinstall ziglang")


def _fits(inputs: Sequence[str], output: Path) -> bool:
    """Return whether there is still room for a library: Zig's linker dies of a full disk without a word."""
    size = sum(Path(file).stat().st_size for file in inputs)
    return not output.parent.is_dir() or shutil.disk_usage(output.parent).free > size


def _reason(said: str) -> str:
    """Return the line of a linker's output that says what went wrong."""
    # collect2 is what gcc calls the linker through: it says no more than that the linker failed.
    lines = [line.strip() for line in said.splitlines() if not line.startswith("collect2")]
    telling = [line for line in lines if re.search("error|cannot|failed|not found", line, flags=re.IGNORECASE)]
    return (telling or [line for line in lines if line] or ["it gave no reason"])[0]


def system_driver() -> tuple[str, ...] | None:
    """Return this machine's C compiler driver if it can link, else None."""
    names = [value] if (value := os.environ.get("CC")) else ["cc", "gcc", "clang"]
    return next((command for name in names if (command := _working(name, os.environ.get("PATH", "")))), None)


@functools.cache
def _working(name: str, path: str) -> tuple[str, ...] | None:
    """Return the command of a driver that can link a library, or None: a compiler may be there without its C library."""
    words = shlex.split(name)
    if not words or (driver := shutil.which(words[0], path=path)) is None:
        return None
    command = (driver, *words[1:])
    with tempfile.TemporaryDirectory(prefix="enet-tvm-") as directory:
        library = Path(directory, "empty.so")
        probe = [*command, *_SHARED, "-x", "c", os.devnull, "-o", str(library), "-lm"]
        try:
            subprocess.run(probe, stdin=subprocess.DEVNULL, capture_output=True, timeout=_TIMEOUT_SECONDS, check=True)
        except (OSError, subprocess.SubprocessError):
            return None
        return command if library.is_file() else None


def _cache() -> Path:
    """Return a directory of the user's own that Zig may fill; a temporary one where the home directory is read-only."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    cache = Path(base, "enet-tvm", "zig")
    try:
        cache.mkdir(parents=True, exist_ok=True)
        if os.access(cache, os.W_OK):
            return cache
    except OSError:
        pass
    return _temporary_cache()


@functools.cache
def _temporary_cache() -> Path:
    return Path(tempfile.mkdtemp(prefix="enet-tvm-zig-"))
