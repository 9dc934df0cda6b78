"""An aarch64 device on this machine: qemu's user mode, Debian's Python for arm64 and TVM's aarch64 wheels; no root.

Nothing of the system changes: apt works in a state of its own. What was made is kept, so that a machine that tests again
and again downloads once. Its times mean nothing.

    python tests/emulated/build_device.py [DIRECTORY]
"""

from __future__ import annotations

import functools
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from enet_tvm.version import TESTED_STACK

REPOSITORY = Path(__file__).resolve().parents[2]
PYTHON = "3.11"
DEFAULT_CPU = "cortex-a57"
_KEEP_NAME = "emulated-aarch64-1"
"""Goes up whenever what is built here changes."""

_SOURCES = Path("/etc/apt/sources.list.d/debian.sources"), Path("/etc/apt/sources.list")
_LEFT_OUT = re.compile(r"^tvm/(?!lib/)|libtvm_(compiler|runtime_cuda)\.so$|^tvm_ffi/(include|3rdparty)/")
_SECONDS = 240


class UnavailableError(Exception):
    """The device cannot be built here; the message says why."""


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


def cache_directory() -> Path:
    """Return where the device is kept: ENET_TVM_CACHE, or ~/.cache/enet-tvm."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("ENET_TVM_CACHE") or Path(base, "enet-tvm"))


def emulated_device(directory: Path | None = None) -> EmulatedDevice:
    """Return the device, built the first time.

    Raises
    ------
    UnavailableError
        When it cannot be built here.
    """
    if platform.system() != "Linux":
        raise UnavailableError("qemu's user mode is for Linux")
    directory = directory or cache_directory() / _KEEP_NAME
    if not (directory / "complete").is_file():
        directory.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{directory.name}-", dir=directory.parent) as temporary:
            _build(Path(temporary))
            Path(temporary, "complete").touch()
            shutil.rmtree(directory, ignore_errors=True)
            Path(temporary).chmod(0o755)
            try:
                Path(temporary).rename(directory)
                Path(temporary).mkdir()  # for TemporaryDirectory to remove
            except OSError:
                if not (directory / "complete").is_file():  # else another process was faster
                    raise
    qemu = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64") or directory / "qemu-aarch64-static"
    device = EmulatedDevice(Path(qemu), directory / "root", directory / "site/tvm/lib", directory / "site")
    _run(device.python("-c", "import ssl, json, select"), device.python_environment)
    return device


def unpack_for_host(packages: list[str], directory: Path) -> list[str]:
    """Unpack Debian's packages for this machine, and those that they need, into a folder; return their files' names.

    Raises
    ------
    UnavailableError
        When they cannot be downloaded here.
    """
    with tempfile.TemporaryDirectory() as temporary:
        files = _download(Path(temporary, "apt"), _debian_sources(), platform.machine(), packages)
        directory.mkdir(parents=True, exist_ok=True)
        _unpack(files, directory)
        return [file.name for file in files]


def _debian_sources() -> Path:
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise UnavailableError("the emulated device is built from Debian's packages, and there is no apt-get here")
    if not (sources := next((file for file in _SOURCES if file.is_file()), None)):
        raise UnavailableError("apt has no Debian sources here")
    return sources


def _build(directory: Path) -> None:
    sources = _debian_sources()
    if not (shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")):
        packages = _download(directory / "apt-host", sources, platform.machine(), ["qemu-user-static"], depends=False)
        _unpack(packages, directory / "host")
        (directory / "host/usr/bin/qemu-aarch64-static").rename(directory / "qemu-aarch64-static")
        shutil.rmtree(directory / "host")
    # What these depend on, apt knows best: the names differ from release to release.
    wanted = [f"python{PYTHON}-minimal", f"libpython{PYTHON}-stdlib", "libstdc++6"]
    _unpack(_download(directory / "apt-device", sources, "aarch64", wanted), directory / "root")
    wheels = [f"{name}=={version}" for name, version in TESTED_STACK.items()] + ["typing_extensions"]
    options = ["--quiet", "--no-deps", "--only-binary=:all:", f"--python-version={PYTHON}", f"--dest={directory}/wheels"]
    platforms = ["--platform=manylinux_2_28_aarch64", "--platform=manylinux2014_aarch64"]
    _run([sys.executable, "-m", "pip", "download", *options, *platforms, *wheels])
    for wheel in sorted((directory / "wheels").glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            # The runtime alone, as on a board.
            archive.extractall(directory / "site", [name for name in archive.namelist() if not _LEFT_OUT.search(name)])
    for name in ("apt-host", "apt-device", "wheels"):
        shutil.rmtree(directory / name, ignore_errors=True)


def _download(directory: Path, sources: Path, machine: str, packages: list[str], depends: bool = True) -> list[Path]:
    """Download packages with a state of apt's own: neither its lists nor its locks are touched, and no root is needed."""
    architecture = {"x86_64": "amd64", "aarch64": "arm64"}[machine]
    for part in ("lists/partial", "cache/archives/partial", "none"):
        (directory / part).mkdir(parents=True)
    (directory / "status").touch()
    (directory / "conf").write_text(
        f'APT::Architecture "{architecture}"; APT::Architectures {{ "{architecture}"; }};\n'
        f'Dir::State "{directory}"; Dir::State::status "{directory}/status"; Dir::Cache "{directory}/cache";\n'
        f'Dir::Etc::SourceList "{sources}"; Dir::Etc::SourceParts "{directory}/none";\n'
        f'Acquire::Languages "none"; Acquire::Retries "3"; APT::Sandbox::User "root"; Debug::NoLocking "true";\n',
        encoding="utf-8",
    )
    environment = {**os.environ, "APT_CONFIG": str(directory / "conf"), "LC_ALL": "C"}
    _run(["apt-get", "update", "-q"], environment)
    if depends:
        options = ["--download-only", "--no-install-recommends", "-y"]
        _run(["apt-get", "install", "-q", *options, *packages], environment)
        return sorted((directory / "cache/archives").glob("*.deb"))
    _run(["apt-get", "download", "-q", *packages], environment, directory / "cache")
    return sorted((directory / "cache").glob("*.deb"))


def _unpack(packages: list[Path], target: Path) -> None:
    for package in packages:
        _run(["dpkg-deb", "-x", str(package), str(target)])


def _run(command: list[str], environment: dict[str, str] | None = None, folder: Path | None = None) -> None:
    try:
        done = subprocess.run(
            command, env=environment, cwd=folder, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UnavailableError(f"'{Path(command[0]).name} {command[1]}' does not work here: {error}") from error
    if done.returncode:
        lines = [line for line in (done.stderr + done.stdout).splitlines() if line.startswith("E:")] or [done.stderr[-300:]]
        raise UnavailableError(f"'{Path(command[0]).name} {command[1]}' failed: {lines[-1].strip()}")


if __name__ == "__main__":
    made = emulated_device(Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else None)
    settings = " ".join(f"{key}={value}" for key, value in made.python_environment.items() if key not in ("PATH", "HOME"))
    print(settings, *made.python())
