"""What is in a bundle, for whom, and that the same request makes the same bytes."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from enet_tvm.cli.main import main
from enet_tvm.device_bundle import BundleManifest, BundleRequest, write_bundle
from enet_tvm.device_bundle.building import CUDA_RUNTIME
from enet_tvm.device_bundle.bundle import CUDA_BACKEND
from enet_tvm.errors import UserError
from enet_tvm.machine import architecture
from enet_tvm.targets import load_target
from enet_tvm.version import TESTED_STACK, __version__

PLAIN = {"x86_64": "x86-64-v2", "aarch64": "aarch64-generic"}[architecture()]
OTHER = {"x86_64": "rpi4", "aarch64": "x86-64-v2"}[architecture()]
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


def unpacked(archive: Path, into: Path) -> Path:
    into.mkdir()
    with tarfile.open(archive) as tar:
        tar.extractall(into, filter="data")
    (folder,) = into.iterdir()
    return folder


@pytest.fixture(scope="module")
def with_python(tmp_path_factory: pytest.TempPathFactory, tiny_artifact: Any) -> Path:
    root = tmp_path_factory.mktemp("python")
    request = BundleRequest(load_target(PLAIN), "python", PYTHON, artifact=tiny_artifact.directory)
    write_bundle(request, root / "board.tar.gz")
    return unpacked(root / "board.tar.gz", root / "board")


def test_the_manifest_tells_what_is_in_it(board: Any) -> None:
    content = json.loads((board.folder / "bundle.json").read_text())
    assert content == board.manifest.model_dump(mode="json")
    assert content["versions"] == {"enet-tvm": __version__, **TESTED_STACK}
    assert (content["target"], content["architecture"], content["key"]) == (PLAIN, architecture(), "bench-board")
    there = {str(path.relative_to(board.folder)) for path in board.folder.rglob("*") if path.is_file()}
    assert there == {*content["files"], "bundle.json", "SHA256SUMS"}
    for name, expected in content["files"].items():
        assert hashlib.sha256((board.folder / name).read_bytes()).hexdigest() == expected
    # glibc 2.27 is that of JetPack 4.6.
    assert tuple(map(int, content["glibc"].split("."))) <= (2, 27)
    assert {"lib/libtvm_runtime.so", "lib/libtvm_ffi.so", "bin/enet-run", "bin/enet-rpcd", "start-rpc"} <= there
    assert {"licenses/apache-tvm-LICENSE.txt", "licenses/stb-LICENSE.txt"} <= there
    assert board.archive.stat().st_size < 5 << 20
    assert not any("compiler" in name or CUDA_BACKEND in name for name in there)


def test_sums_are_checked_by_a_command_that_every_board_has(board: Any, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(board.folder, copy)
    command = ["sha256sum", "--check", "--quiet", "SHA256SUMS"]
    assert subprocess.run(command, cwd=copy, capture_output=True, check=False).returncode == 0
    (copy / "bundle.json").write_text("{}")
    assert subprocess.run(command, cwd=copy, capture_output=True, check=False).returncode != 0


@pytest.mark.slow
def test_the_same_request_makes_the_same_bytes(board: Any, tmp_path: Path) -> None:
    request = BundleRequest(load_target(PLAIN), "c", key="bench-board")
    before = board.archive.read_bytes()
    os.utime(board.folder)
    write_bundle(request, tmp_path / "another-name.tar.gz")
    assert (tmp_path / "another-name.tar.gz").read_bytes() == before
    assert list(tmp_path.iterdir()) == [tmp_path / "another-name.tar.gz"]


def test_the_archive(board: Any) -> None:
    with tarfile.open(board.archive) as tar:
        members = tar.getmembers()
    folders, files = ([member.name for member in members if member.isdir() is kind] for kind in (True, False))
    assert folders == sorted(folders)
    assert files == sorted(files)
    assert [member.name for member in members] == folders + files
    assert {(member.uid, member.gid, member.mtime) for member in members} == {(0, 0, 946684800)}
    executable = {member.name.partition("/")[2] for member in members if member.isfile() and member.mode & 0o111}
    assert executable == {"bin/enet-run", "bin/enet-rpcd", "start-rpc"}


def test_key_and_address_are_the_boards_to_change(board: Any, tmp_path: Path) -> None:
    script = board.folder / "start-rpc"
    environment = {**os.environ, "HOST": "203.0.113.7", "PORT": "1234", "TRACKER": "127.0.0.1:9"}
    result = subprocess.run([script], env=environment, capture_output=True, text=True, timeout=30, check=False)
    assert result.returncode == 2
    assert "cannot listen at 203.0.113.7" in result.stderr
    result = subprocess.run([script, "--version"], capture_output=True, text=True, timeout=30, check=False, cwd=tmp_path)
    assert TESTED_STACK["apache-tvm"] in result.stdout
    assert 'KEY="${KEY:-bench-board}"' in (board.folder / "device.conf").read_text()


def served(folder: Path, **environment: str) -> str:
    """Start a bundle's server, stop it, and return what it said."""
    process = subprocess.Popen(
        [folder / "start-rpc"],
        env={**os.environ, "PORT": "0", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    said = ""
    end = time.monotonic() + 60
    while not re.search(r"127\.0\.0\.1\b", said) and time.monotonic() < end:
        said += process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    said += process.communicate(timeout=20)[0]
    # Told before it has set up what it does when told, it just ends.
    assert process.returncode in (0, -signal.SIGTERM), said
    return said


def test_serves(board: Any) -> None:
    assert "bench-board listens at 127.0.0.1" in served(board.folder)


def test_readme_and_unit_name_this_board(board: Any) -> None:
    readme, unit = (board.folder / "README.txt").read_text(), (board.folder / "enet-tvm-rpc.service").read_text()
    assert "$" not in readme + unit
    for need in board.manifest.needs:
        assert need in readme
    assert "remote execution of code by design" in readme
    assert f"ExecStart=/opt/{board.folder.name}/start-rpc\n" in unit
    if shutil.which("systemd-analyze"):
        subprocess.run(["systemd-analyze", "verify", board.folder / "enet-tvm-rpc.service"], check=False, timeout=30)


@pytest.mark.slow
def test_python_runs_without_this_project(with_python: Path, tmp_path: Path) -> None:
    """With the board's Python there is neither PyTorch nor a compiler: none is imported, and none is in the bundle."""
    from PIL import Image

    Image.new("RGB", (40, 30), "red").save(tmp_path / "picture.png")
    environment = {"PATH": os.environ["PATH"], "PYTHON": sys.executable}
    command = [with_python / "bin/enet-run", with_python / "artifact", tmp_path / "picture.png", "-o", tmp_path / "out"]
    result = subprocess.run(
        [*command, "--labels", "--json", tmp_path / "o.json"], env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["picture.png", "picture_labels.png"]
    assert json.loads((tmp_path / "o.json").read_text())["pictures"] == 1
    code = (
        "import sys, enet_tvm.runtime.segmenter as s; s.Segmenter.load(sys.argv[1]);"
        "names = ('enet_tvm', 'tvm_ffi', 'tvm', 'torch');"
        "print(*sorted(m.__file__ for n, m in sys.modules.items() if n.split('.')[0] in names and getattr(m, '__file__', 0)),"
        " *(line.split()[-1] for line in open('/proc/self/maps') if 'libtvm' in line), sep='\\n')"
    )
    environment |= {"PYTHONPATH": str(with_python / "site"), "TVM_LIBRARY_PATH": str(with_python / "lib")}
    command = [sys.executable, "-c", code, with_python / "artifact"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    files = result.stdout.split()
    assert len(files) > 20
    assert [file for file in files if not file.startswith(str(with_python))] == []


@pytest.mark.slow
def test_python_says_in_a_sentence_what_is_wrong(with_python: Path, tmp_path: Path) -> None:
    command = [with_python / "bin/enet-run", tmp_path / "none", tmp_path, "-o", tmp_path / "out"]
    result = subprocess.run(command, env={**os.environ, "PYTHON": sys.executable}, capture_output=True, text=True)
    assert result.returncode == 2
    assert re.fullmatch(r"enet-run: error: .*\n", result.stderr)


def test_python_serves(with_python: Path) -> None:
    assert f"serving {PLAIN} on 127.0.0.1" in served(with_python, PYTHON=sys.executable)


@pytest.mark.slow
def test_other_architecture(tmp_path: Path, tiny_artifact: Any) -> None:
    target = load_target(OTHER)
    try:
        manifest = write_bundle(BundleRequest(target), tmp_path / "board.tar.gz")
    except UserError as error:
        if "download" not in str(error):
            raise
        pytest.skip(str(error))
    folder = unpacked(tmp_path / "board.tar.gz", tmp_path / "board")
    machine = {"x86_64": 62, "aarch64": 183}[target.architecture]
    for name in manifest.files:
        content = (folder / name).read_bytes()
        if content.startswith(b"\x7fELF"):
            assert int.from_bytes(content[18:20], "little") == machine, name
    with pytest.raises(UserError, match=f"compiled for {architecture()}, and {OTHER} is {target.architecture}"):
        write_bundle(BundleRequest(target, artifact=tiny_artifact.directory), tmp_path / "wrong.tar.gz")
    assert not (tmp_path / "wrong.tar.gz").exists()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {"cpu_features": ["avx1024f"]},
            f"needs avx1024f, which {PLAIN} does not promise; .* --target {PLAIN}",
        ),
        ({"device": "cuda"}, f"was compiled for a GPU, and {PLAIN} has no GPU; compile it with: .* --target {PLAIN}"),
    ],
)
def test_an_artifact_that_the_board_would_refuse(
    spoilt_artifact: Path, tmp_path: Path, change: dict[str, Any], sentence: str
) -> None:
    path = spoilt_artifact / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["target"].update(change)
    path.write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=sentence):
        write_bundle(BundleRequest(load_target(PLAIN), artifact=spoilt_artifact), tmp_path / "board.tar.gz")
    assert not (tmp_path / "board.tar.gz").exists()


@pytest.mark.slow
def test_a_gpu_target_gets_the_cuda_runtime(unpacked_bundle: Callable[[BundleRequest], Path]) -> None:
    folder = unpacked_bundle(BundleRequest(load_target("jetson-tx1")))
    manifest = BundleManifest.model_validate_json((folder / "bundle.json").read_text())
    assert {f"lib/{CUDA_BACKEND}", f"lib/{CUDA_RUNTIME}"} <= set(manifest.files)
    assert any("CUDA 10.2 or later that knows PTX 6.5" in need for need in manifest.needs)
    assert "not on a Jetson" in (folder / "README.txt").read_text()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"variant": "rust"}, "'rust' is no variant; give --variant one of c, python"),
        ({"key": "a b"}, "give another --key"),
        ({"variant": "python", "python": "2.7"}, "there is no TVM for Python 2.7; give --python one of 3.11, 3.12"),
    ],
)
def test_requests_that_cannot_be_met(tmp_path: Path, change: dict[str, str], words: str) -> None:
    with pytest.raises(UserError, match=re.escape(words)):
        write_bundle(BundleRequest(load_target(PLAIN), **change), tmp_path / "board.tar.gz")
    assert list(tmp_path.iterdir()) == []


def test_output_names(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"let it end in \.tar\.gz"):
        write_bundle(BundleRequest(load_target(PLAIN)), tmp_path / "board.zip")
    (tmp_path / "folder.tar.gz").mkdir()
    with pytest.raises(UserError, match="is a directory"):
        write_bundle(BundleRequest(load_target(PLAIN)), tmp_path / "folder.tar.gz")


def test_spoilt_artifact(spoilt_artifact: Path, tmp_path: Path) -> None:
    library = spoilt_artifact / "enet.so"
    library.write_bytes(library.read_bytes()[:-1])
    with pytest.raises(UserError, match="is not the file its manifest was written for"):
        write_bundle(BundleRequest(load_target(PLAIN), artifact=spoilt_artifact), tmp_path / "board.tar.gz")


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], tiny_artifact: Any) -> None:
    output, figures = tmp_path / "board.tar.gz", tmp_path / "board.json"
    arguments = ["--target", PLAIN, "-o", output, "--artifact", tiny_artifact.directory, "--json", figures]
    with pytest.raises(SystemExit) as end:
        main(["device", "bundle", *map(str, arguments)])
    assert end.value.code == 0
    assert f"c variant for {PLAIN}" in capsys.readouterr().out
    content = json.loads(figures.read_text())
    assert content["artifact"] == json.loads((tiny_artifact.directory / "manifest.json").read_text())["hashes"]["library"]
    assert "artifact/enet.so" in content["files"]
    with pytest.raises(SystemExit) as end:
        main(["device", "bundle", "--target", PLAIN, "-o", str(tmp_path / "x.zip")])
    assert end.value.code == 2
    assert "tar.gz" in capsys.readouterr().err
