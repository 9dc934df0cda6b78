"""What a board without Python has: the bundle of a target, unpacked."""

from __future__ import annotations

import tarfile
from pathlib import Path

from enet_tvm.device_bundle import BundleRequest, write_bundle
from enet_tvm.targets import TargetSpec


def unpacked_bundle(spec: TargetSpec, folder: Path) -> Path:
    """Return the directory ``bin`` of a target's bundle in a folder, where it is written and unpacked the first time."""
    board = folder / "board"
    if not board.is_dir():
        write_bundle(BundleRequest(spec, "c"), folder / "board.tar.gz")
        with tarfile.open(folder / "board.tar.gz") as archive:
            archive.extractall(board, filter="data")
    (programs,) = board.glob("*/bin")
    return programs
