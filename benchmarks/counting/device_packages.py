"""Python packages for the emulated device: wheels for aarch64, at the versions of `requirements/constraints.txt`."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

from counting.emulator import device_builder
from enet_tvm.compiler.debian_packages import UnavailableError, built_once

PYTHON = "3.11"
_PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux2014_aarch64")
_PINS = Path(__file__).parents[2] / "requirements/constraints.txt"


def pinned(name: str) -> str:
    """Return a package with its version, as pip takes it."""
    lines = _PINS.read_text(encoding="utf-8").splitlines()
    return next(line for line in lines if line.lower().startswith(f"{name.lower()}=="))


def device_package(directory: Path, name: str) -> Path:
    """Return the folder with a package for the device, downloaded the first time.

    Raises
    ------
    UnavailableError
        When pip does not get it.
    """
    requirement = pinned(name)

    def build(folder: Path) -> None:
        options = ["--quiet", "--no-deps", "--only-binary=:all:", f"--python-version={PYTHON}", f"--dest={folder}"]
        platforms = [f"--platform={each}" for each in _PLATFORMS]
        command = [sys.executable, "-m", "pip", "download", *options, *platforms, requirement]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            reason = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
            raise UnavailableError(f"pip does not get {requirement} for aarch64: {' '.join(reason)}")
        (wheel,) = folder.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)
        wheel.unlink()
        device_builder().write_bytecode(folder)

    return built_once(directory / "packages" / requirement, build)
