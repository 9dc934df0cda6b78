from __future__ import annotations

import subprocess
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from enet_tvm.device_bundle import BundleManifest, BundleRequest, write_bundle
from enet_tvm.errors import UserError
from enet_tvm.machine import architecture
from enet_tvm.targets import load_target

PLAIN = {"x86_64": "x86-64-v2", "aarch64": "aarch64-generic"}
"""A target of this machine's kind, of which its own processor surely is."""


@dataclass(frozen=True)
class Unpacked:
    archive: Path
    folder: Path
    manifest: BundleManifest


def unpack(archive: Path, into: Path) -> Path:
    with tarfile.open(archive) as tar:
        tar.extractall(into, filter="data")
    (folder,) = into.iterdir()
    return folder


@pytest.fixture(scope="session")
def unpacked_bundle(tmp_path_factory: pytest.TempPathFactory) -> Callable[[BundleRequest], Path]:
    """Makes ``unpacked_bundle(request)`` the folder in a bundle; skips where its libraries cannot be downloaded."""

    def make(request: BundleRequest) -> Path:
        root = tmp_path_factory.mktemp("bundle")
        try:
            write_bundle(request, root / "board.tar.gz")
        except UserError as error:
            if "download" not in str(error):
                raise
            pytest.skip(str(error))
        (root / "board").mkdir()
        return unpack(root / "board.tar.gz", root / "board")

    return make


@pytest.fixture(scope="session")
def board(tmp_path_factory: pytest.TempPathFactory) -> Unpacked:
    """The bundle of the C programs for this machine, unpacked; not to be changed by a test."""
    root = tmp_path_factory.mktemp("bundle")
    manifest = write_bundle(BundleRequest(load_target(PLAIN[architecture()]), "c", key="bench-board"), root / "board.tar.gz")
    (root / "board").mkdir()
    return Unpacked(root / "board.tar.gz", unpack(root / "board.tar.gz", root / "board"), manifest)


@pytest.fixture(scope="session")
def enet_run(board: Unpacked) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the bundle's runner on these arguments."""

    def run(*arguments: object, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        command: Sequence[str] = [str(board.folder / "bin/enet-run"), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)

    return run
