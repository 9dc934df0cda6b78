"""Programs of Debian's that are run without installing them: packages unpacked into a folder that is kept.

Nothing of the system changes: apt works in a state of its own, and no root is needed. What was made is kept, so that a machine
that tests or simulates again and again downloads once.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from enet_tvm.errors import UserError

_SOURCES = Path("/etc/apt/sources.list.d/debian.sources"), Path("/etc/apt/sources.list")
_SECONDS = 240


class UnavailableError(UserError):
    """What was asked for cannot be had here; the message says why."""


def cache_directory() -> Path:
    """Return where what was made is kept: ENET_TVM_CACHE, or ~/.cache/enet-tvm."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("ENET_TVM_CACHE") or Path(base, "enet-tvm"))


def built_once(directory: Path, build: Callable[[Path], object]) -> Path:
    """Return a folder, which `build` fills the first time; only a whole one is ever called by its name.

    Raises
    ------
    UnavailableError
        When it cannot be built here.
    """
    if (directory / "complete").is_file():
        return directory
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{directory.name}-", dir=directory.parent) as temporary:
        build(Path(temporary))
        Path(temporary, "complete").touch()
        shutil.rmtree(directory, ignore_errors=True)
        Path(temporary).chmod(0o755)
        try:
            Path(temporary).rename(directory)
            Path(temporary).mkdir()  # for TemporaryDirectory to remove
        except OSError:
            if not (directory / "complete").is_file():  # else another process was faster
                raise
    return directory


def download(directory: Path, machine: str, packages: list[str], depends: bool = True) -> list[Path]:
    """Download packages, and what they depend on, with a state of apt's own: neither its lists nor its locks are touched."""
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise UnavailableError("it is made of Debian's packages, and there is no apt-get here")
    if not (sources := next((file for file in _SOURCES if file.is_file()), None)):
        raise UnavailableError("apt has no Debian sources here")
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
    run(["apt-get", "update", "-q"], environment)
    if depends:
        options = ["--download-only", "--no-install-recommends", "-y"]
        run(["apt-get", "install", "-q", *options, *packages], environment)
        return sorted((directory / "cache/archives").glob("*.deb"))
    run(["apt-get", "download", "-q", *packages], environment, directory / "cache")
    return sorted((directory / "cache").glob("*.deb"))


def unpack(packages: list[Path], target: Path) -> None:
    """Unpack packages into a folder."""
    for package in packages:
        run(["dpkg-deb", "-x", str(package), str(target)])


def run(command: list[str], environment: dict[str, str] | None = None, folder: Path | None = None) -> None:
    """Run a command that must succeed."""
    try:
        done = subprocess.run(
            command, env=environment, cwd=folder, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UnavailableError(f"'{Path(command[0]).name} {command[1]}' does not work here: {error}") from error
    if done.returncode:
        lines = [line for line in (done.stderr + done.stdout).splitlines() if line.startswith("E:")] or [done.stderr[-300:]]
        raise UnavailableError(f"'{Path(command[0]).name} {command[1]}' failed: {lines[-1].strip()}")
