"""TVM's runtime libraries for a board, from the wheels that the package index has for its architecture.

What is pinned is the wheels' SHA-256: a file that the index, a mirror or a disk changed is refused. This machine's own
libraries are taken from where pip installed them, if the board is of the same kind.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Final, Protocol

from enet_tvm.errors import UserError
from enet_tvm.files import atomic_directory, read_json, sha256, write_json
from enet_tvm.machine import architecture
from enet_tvm.version import TESTED_STACK

TVM, FFI = "apache-tvm", "apache-tvm-ffi"
LIBRARIES: Final = ("libtvm_runtime.so", "libtvm_runtime_extra.so", "libtvm_runtime_cuda.so")
"""Libraries of apache-tvm that a board may need; the compiler, the largest, is none of them."""

WHEELS: Final = {
    (TVM, "aarch64", ""): "4acfdb7653e4e1ba7a707bdf2833db72eb8fda7d04d99141f2a4e1da43171fb7",
    (TVM, "x86_64", ""): "f503fc903b6e16fda5daacac6698ecb8bc38937f57da7aa29f6c7ab169d08657",
    (FFI, "aarch64", "3.11"): "c7a759781d4fbf2b99fa12f2741f250b882b06acc2747bb02831d491d1ac7d3c",
    (FFI, "x86_64", "3.11"): "4b01a5a3fa07ed3315d5ef1e05d3542dae57a119ef7e77c54bc062414e242f65",
    (FFI, "aarch64", "3.12"): "3fd2255a2e363a40c51ec1eeedb1110a2c74e443f95ae351ee5a81b5ff6808cf",
    (FFI, "x86_64", "3.12"): "eb759c039866b541ec2cb07d498082f8ba6ded74d58d9196180a5932f365c077",
    (FFI, "aarch64", "3.13"): "d6aebe30f21dcbd9e76c5aab56afe0fe228804a4ad73e413b067ae3d27e02f93",
    (FFI, "x86_64", "3.13"): "e59657d99d52f83c32ce60db4fdca95f5ca5b73425e33653862d06f7b1feffdc",
    (FFI, "aarch64", "3.14"): "8d4a0f356bbc89a648841b8a913a98478a65dc006c05017ca80f539c35974d96",
    (FFI, "x86_64", "3.14"): "a22cb9637e49c67837c9705be59d3c9b9a525c12f601f894532a16260612a95a",
}
"""SHA-256 of the wheels of `TESTED_STACK` by distribution, architecture and version of Python."""

PYTHONS: Final = tuple(sorted({python for _, _, python in WHEELS if python}, key=lambda text: tuple(map(int, text.split(".")))))
_TIMEOUT_SECONDS = 1800
_CONTENT = "content.json"
_LAYOUT = 4
"""Version of the cache's layout: raised whenever other files of the wheels are kept."""


@dataclass(frozen=True)
class RuntimeFiles:
    """TVM's runtime for one architecture and version of Python.

    Attributes
    ----------
    libraries : Path
        Folder with `LIBRARIES` and ``libtvm_ffi.so``.
    site : Path
        Folder with the files of ``tvm_ffi`` that Python imports, and the metadata of both distributions.
    licenses : Path
        Folder with the licences under which both are passed on.
    """

    libraries: Path
    site: Path
    licenses: Path


class _Distribution(Protocol):
    def names(self) -> list[str]: ...

    def read(self, name: str) -> bytes: ...


class _Wheel:
    def __init__(self, path: Path) -> None:
        self._file = zipfile.ZipFile(path)

    def names(self) -> list[str]:
        return self._file.namelist()

    def read(self, name: str) -> bytes:
        return self._file.read(name)


class _Installed:
    """A distribution as pip installed it: every file is checked against the record that the wheel brought."""

    def __init__(self, name: str) -> None:
        self._distribution = metadata.distribution(name)
        record = self._distribution.read_text("RECORD") or ""
        self._hashes = {row[0]: row[1] for row in csv.reader(io.StringIO(record)) if len(row) == 3 and row[1]}

    def names(self) -> list[str]:
        return list(self._hashes)

    def read(self, name: str) -> bytes:
        content = Path(str(self._distribution.locate_file(name))).read_bytes()
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        if self._hashes[name] != f"sha256={digest}":
            raise UserError(
                f"the installed {name} was changed since; run: pip install --force-reinstall apache-tvm apache-tvm-ffi"
            )
        return content


def runtime_files(machine: str, python: str = "3.11") -> RuntimeFiles:
    """Return TVM's runtime for a board, downloaded the first time.

    Parameters
    ----------
    machine : str
        ``x86_64`` or ``aarch64``.
    python : str
        The board's version of Python, such as ``3.11``; any, where only the libraries are wanted.

    Raises
    ------
    UserError
        When there is none for that version, it cannot be downloaded, or it is not the file that was released.
    """
    if python not in PYTHONS:
        raise UserError(f"there is no TVM for Python {python}; give --python one of {', '.join(PYTHONS)}, or --variant c")
    folder = _cache() / f"runtime-{_LAYOUT}-{TESTED_STACK[TVM]}-{TESTED_STACK[FFI]}-{machine}-{python}"
    if not _whole(folder):
        with atomic_directory(folder) as temporary:
            _unpack(machine, python, temporary)
    return RuntimeFiles(folder / "lib", folder / "site", folder / "licenses")


def _whole(folder: Path) -> bool:
    """Return whether the cached files are as they were written."""
    try:
        hashes: dict[str, str] = read_json(folder / _CONTENT, "download them again")
        return bool(hashes) and all(sha256(folder / name) == expected for name, expected in hashes.items())
    except (UserError, OSError, TypeError, AttributeError):
        return False


def _unpack(machine: str, python: str, folder: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="enet-tvm-wheels-") as directory:
        for name in (TVM, FFI):
            distribution = _distribution(name, machine, python, Path(directory))
            for member, target in _wanted(distribution.names()):
                path = folder / target
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(distribution.read(member))
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    write_json(folder / _CONTENT, {str(path.relative_to(folder)): sha256(path) for path in files})


def _wanted(names: list[str]) -> Iterator[tuple[str, str]]:
    """Yield what a board needs of a distribution, and where it goes."""
    for name in names:
        if (name.startswith("tvm/lib/") and Path(name).name in LIBRARIES) or name == "tvm_ffi/lib/libtvm_ffi.so":
            yield name, f"lib/{Path(name).name}"
        elif name == "tvm_ffi/lib/libtvm_ffi_testing.so":
            yield name, f"site/{name}"  # of no use, but what Python loads was linked against it
        elif re.fullmatch(r"[\w.-]+\.dist-info/METADATA", name):
            yield name, f"site/{name}"
        elif match := re.fullmatch(r"(tvm|apache_tvm_ffi-[\w.]+\.dist-info/licenses)/(LICENSE|NOTICE)", name):
            yield name, f"licenses/{TVM if match[1] == 'tvm' else FFI}-{match[2]}.txt"
        elif re.fullmatch(r"tvm_ffi/.*\.py|tvm_ffi/core\.[\w-]+\.so", name):
            yield name, f"site/{name}"


def _distribution(name: str, machine: str, python: str, folder: Path) -> _Distribution:
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    if machine == architecture() and (name == TVM or python == here) and metadata.version(name) == TESTED_STACK[name]:
        return _Installed(name)
    return _Wheel(download_wheel(name, machine, python, folder))


def download_wheel(name: str, machine: str, python: str, folder: Path) -> Path:
    """Download a wheel of the tested TVM, whose hash pip compares, into a folder.

    Raises
    ------
    UserError
        When it cannot be had, or is another one.
    """
    version = TESTED_STACK[name]
    digest = WHEELS[name, machine, "" if name == TVM else python]
    requirements = folder / f"{name}.txt"
    requirements.write_text(f"{name}=={version} --hash=sha256:{digest}\n", encoding="utf-8")
    platforms = (f"--platform=manylinux_2_28_{machine}", f"--platform=manylinux2014_{machine}")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary=:all:", *platforms, f"--python-version={python}", "--require-hashes"]
    command += ["--requirement", str(requirements), "--dest", str(folder)]
    try:
        result = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UserError(f"cannot download {name} {version} for {machine} ({error}); check the network") from error
    wheels = list(folder.glob(f"{name.replace('-', '_')}-{version}-*.whl"))
    if result.returncode or not wheels:
        errors = [line for line in result.stderr.splitlines() if line.startswith("ERROR")] or ["pip gave no reason"]
        raise UserError(f"cannot download {name} {version} for {machine} ({errors[-1]}); check the network and run it again")
    return wheels[0]


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "enet-tvm")
