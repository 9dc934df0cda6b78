from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from effort import shared_work

from enet_tvm.device_bundle import BundleManifest, BundleRequest, write_bundle
from enet_tvm.device_bundle.building import WARNINGS, compile_c, program_arguments, source_arguments
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
            with shared_work():  # Zig keeps what it has compiled for an architecture
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
    """Runs the bundle's runner on these arguments; what else is given goes to `subprocess.run`."""

    def run(
        *arguments: object,
        environment: dict[str, str] | None = None,
        stdout: Any = subprocess.PIPE,
        pass_fds: Sequence[int] = (),
    ) -> subprocess.CompletedProcess[str]:
        command: Sequence[str] = [str(board.folder / "bin/enet-run"), *map(str, arguments)]
        return subprocess.run(
            command,
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
            env=environment,
            pass_fds=pass_fds,
        )

    return run


READERS = (
    *("address", "cpus", "exif", "facts", "files", "greeting", "image_output", "jpeg", "jpeg_idct", "jpeg_upsample", "json"),
    *("manifest", "npy", "overlay", "picture", "picture_file", "png", "ppm", "resample", "sha256", "sockets", "text"),
    *("tracker", "upload_name", "yuyv"),
)
"""The sources of the programs that need no TVM."""
SANITISERS = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer")


@dataclass(frozen=True)
class Readers:
    """The program of ``readers.c``; what a sanitiser finds ends it with another code than 0."""

    path: Path
    environment: dict[str, str]

    def run(self, *arguments: object, lines: Sequence[object] = ()) -> list[str]:
        """Return the lines that it says."""
        result = subprocess.run(
            [str(self.path), *map(str, arguments)],
            input="".join(f"{line}\n" for line in lines).encode(),
            capture_output=True,
            env={**os.environ, **self.environment},
            timeout=120,
            check=False,
        )
        assert result.returncode == 0, result.stderr.decode(errors="replace")
        return result.stdout.decode().splitlines()


@pytest.fixture(scope="session")
def readers(tmp_path_factory: pytest.TempPathFactory) -> Readers:
    """Built as the programs are."""
    path = tmp_path_factory.mktemp("readers") / "readers"
    compile_c(architecture(), str(Path(__file__).parent / "readers.c"), *source_arguments(READERS), "-lm", "-o", str(path))
    return Readers(path, {})


@pytest.fixture(scope="session")
def compile_sanitised(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., None]:
    """Makes ``compile_sanitised(*arguments)`` run a compiler with sanitisers; skips where there is none."""
    compiler = next((path for name in ("gcc", "clang", "cc") if (path := shutil.which(name))), None)
    if compiler is None:
        pytest.skip("no C compiler with sanitisers: there is none at all")
    probe = tmp_path_factory.mktemp("probe") / "probe"
    probe.with_suffix(".c").write_text("int main(void) { return 0; }\n")

    def compile_with(*arguments: object) -> None:
        command = [compiler, *WARNINGS, *SANITISERS, *map(str, arguments)]
        subprocess.run(command, capture_output=True, check=True, text=True, timeout=300)

    try:
        compile_with(probe.with_suffix(".c"), "-o", probe)
        subprocess.run([str(probe)], capture_output=True, check=True, timeout=30)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no C compiler with sanitisers: {compiler} fails ({(error.stderr or error.returncode)!s:.200})")
    return compile_with


@pytest.fixture(scope="session")
def sanitised_readers(compile_sanitised: Callable[..., None], tmp_path_factory: pytest.TempPathFactory) -> Readers:
    path = tmp_path_factory.mktemp("sanitised") / "readers"
    compile_sanitised(Path(__file__).parent / "readers.c", *source_arguments(READERS), "-lm", "-o", path)
    return Readers(path, {"ASAN_OPTIONS": "detect_leaks=0", "UBSAN_OPTIONS": "print_stacktrace=1"})


@pytest.fixture(scope="session")
def sanitised_programs(
    compile_sanitised: Callable[..., None], board: Unpacked, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """Makes ``sanitised_programs("enet-run")`` that program, with the bundle's libraries."""
    root = tmp_path_factory.mktemp("sanitised-programs")
    (root / "lib").symlink_to(board.folder / "lib")
    (root / "bin").mkdir()

    def build(name: str) -> Path:
        path = root / "bin" / name
        if not path.exists():
            with shared_work():
                compile_sanitised(*program_arguments(name, board.folder / "lib"), "-o", path)
        return path

    return build
