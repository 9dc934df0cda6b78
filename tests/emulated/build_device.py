"""An aarch64 device on this machine: qemu's user mode, Debian's Python for arm64 and TVM's aarch64 wheels; no root.

It is made once, as `enet_tvm.compiler.debian_packages` keeps it. Its times mean nothing.

    python tests/emulated/build_device.py [DIRECTORY]
"""

from __future__ import annotations

import compileall
import functools
import os
import platform
import py_compile
import re
import shutil
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

from enet_tvm.compiler.debian_packages import UnavailableError, built_once, cache_directory, download, run, unpack
from enet_tvm.version import TESTED_STACK

REPOSITORY = Path(__file__).resolve().parents[2]
PYTHON = "3.11"
DEFAULT_CPU = "cortex-a57"
_KEEP_NAME = "emulated-aarch64-2"
"""Goes up whenever what is built here changes."""

_LEFT_OUT = re.compile(r"^tvm/(?!lib/)|libtvm_(compiler|runtime_cuda)\.so$|^tvm_ffi/(include|3rdparty)/")


@dataclass(frozen=True)
class EmulatedDevice:
    """The parts of the device.

    Attributes
    ----------
    qemu : Path
        The emulator of programs.
    root : Path
        Its root file system.
    libraries, site : Path
        TVM's runtime, and Python's part of it.
    """

    qemu: Path
    root: Path
    libraries: Path
    site: Path

    def command(self, *program: str | Path, cpu: str = DEFAULT_CPU) -> list[str]:
        """Return the command line that runs an aarch64 program."""
        return [str(self.qemu), "-cpu", cpu, "-L", str(self.root), *map(str, program)]

    def python(self, *arguments: str | Path, cpu: str = DEFAULT_CPU) -> list[str]:
        """Return the command line that runs the device's Python; it needs `python_environment`."""
        return self.command("-0", "python3", self.root / f"usr/bin/python{PYTHON}", *arguments, cpu=cpu)

    @functools.cached_property
    def python_environment(self) -> dict[str, str]:
        """The environment in which the device's Python finds TVM's runtime and this package."""
        return {
            "PATH": "/usr/bin:/bin",
            "HOME": os.environ.get("HOME", "/"),
            "PYTHONHOME": str(self.root / "usr"),
            "PYTHONPATH": f"{self.site}:{REPOSITORY}",
            "PYTHONDONTWRITEBYTECODE": "1",
            "TVM_LIBRARY_PATH": str(self.libraries),
        }


def emulated_device(directory: Path | None = None) -> EmulatedDevice:
    """Return the device, built the first time.

    Raises
    ------
    UnavailableError
        When it cannot be built here.
    """
    if platform.system() != "Linux":
        raise UnavailableError("qemu's user mode is for Linux")
    directory = built_once(directory or cache_directory() / _KEEP_NAME, _build)
    qemu = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64") or directory / "qemu-aarch64-static"
    device = EmulatedDevice(Path(qemu), directory / "root", directory / "site/tvm/lib", directory / "site")
    run(device.python("-c", "import ssl, json, select"), device.python_environment)
    return device


def _build(directory: Path) -> None:
    if not (shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")):
        packages = download(directory / "apt-host", platform.machine(), ["qemu-user-static"], depends=False)
        unpack(packages, directory / "host")
        (directory / "host/usr/bin/qemu-aarch64-static").rename(directory / "qemu-aarch64-static")
        shutil.rmtree(directory / "host")
    # What these depend on, apt knows best: the names differ from release to release.
    wanted = [f"python{PYTHON}-minimal", f"libpython{PYTHON}-stdlib", "libstdc++6"]
    unpack(download(directory / "apt-device", "aarch64", wanted), directory / "root")
    wheels = [f"{name}=={version}" for name, version in TESTED_STACK.items()] + ["typing_extensions"]
    options = ["--quiet", "--no-deps", "--only-binary=:all:", f"--python-version={PYTHON}", f"--dest={directory}/wheels"]
    platforms = ["--platform=manylinux_2_28_aarch64", "--platform=manylinux2014_aarch64"]
    run([sys.executable, "-m", "pip", "download", *options, *platforms, *wheels])
    for wheel in sorted((directory / "wheels").glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            # The runtime alone, as on a board.
            archive.extractall(directory / "site", [name for name in archive.namelist() if not _LEFT_OUT.search(name)])
    for name in ("apt-host", "apt-device", "wheels"):
        shutil.rmtree(directory / name, ignore_errors=True)
    write_bytecode(directory / "root/usr/lib")
    write_bytecode(directory / "site")


def write_bytecode(folder: Path) -> None:
    """Compile the Python modules in a folder of the device, as Debian and pip do when they install one.

    The emulated Python starts in a third of the time with it (measured). Bytecode is of one version of Python: where this
    process is of another, the device does without.
    """
    if sys.version_info[:2] == tuple(map(int, PYTHON.split("."))):
        unchecked = py_compile.PycInvalidationMode.UNCHECKED_HASH  # whoever unpacks or copies files changes their times
        compileall.compile_dir(folder, quiet=2, stripdir=folder, invalidation_mode=unchecked)


if __name__ == "__main__":
    made = emulated_device(Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else None)
    settings = " ".join(f"{key}={value}" for key, value in made.python_environment.items() if key not in ("PATH", "HOME"))
    print(settings, *made.python())
