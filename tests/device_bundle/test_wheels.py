"""TVM's runtime from wheels: what is kept, and what is refused."""

from __future__ import annotations

import hashlib
import sys
from importlib import metadata
from pathlib import Path

import pytest

from enet_tvm.device_bundle import wheels
from enet_tvm.device_bundle.wheels import FFI, LIBRARIES, PYTHONS, TVM, WHEELS, runtime_files
from enet_tvm.errors import UserError
from enet_tvm.machine import architecture

HERE = f"{sys.version_info.major}.{sys.version_info.minor}"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "enet-tvm"


def test_takes_this_machines_own(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheels, "download_wheel", None)  # nothing is downloaded
    files = runtime_files(architecture(), HERE)
    assert {path.name for path in files.libraries.iterdir()} == {*LIBRARIES, "libtvm_ffi.so"}
    for name, folder in (("libtvm_runtime.so", "tvm/lib"), ("libtvm_ffi.so", "tvm_ffi/lib")):
        installed = Path(str(metadata.distribution(TVM).locate_file(f"{folder}/{name}")))
        assert (files.libraries / name).read_bytes() == installed.read_bytes()
    assert {path.name for path in files.licenses.iterdir()} >= {f"{TVM}-LICENSE.txt", f"{FFI}-LICENSE.txt", f"{TVM}-NOTICE.txt"}
    assert not list(cache.rglob("*compiler*"))
    # The second time, from the cache.
    written = [path.stat().st_ctime_ns for path in files.libraries.iterdir()]
    assert runtime_files(architecture(), HERE) == files
    assert [path.stat().st_ctime_ns for path in files.libraries.iterdir()] == written


def test_a_spoilt_cache_is_made_again(cache: Path) -> None:
    library = runtime_files(architecture(), HERE).libraries / "libtvm_ffi.so"
    before = library.read_bytes()
    for spoil in (
        lambda: library.write_bytes(before[:-1]),
        library.unlink,
        lambda: (library.parents[1] / "content.json").unlink(),
    ):
        spoil()
        assert runtime_files(architecture(), HERE).libraries == library.parent
        assert library.read_bytes() == before
    assert [path.name for path in cache.iterdir()] == [library.parents[1].name]


def test_an_installed_file_that_was_changed_is_refused(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = Path.read_bytes

    def changed(path: Path) -> bytes:
        content = read(path)
        return content[:-1] + b"?" if path.name == "libtvm_runtime.so" else content

    monkeypatch.setattr(Path, "read_bytes", changed)
    with pytest.raises(UserError, match=r"libtvm_runtime\.so was changed since"):
        runtime_files(architecture(), HERE)
    assert not any(cache.iterdir())


@pytest.mark.slow
def test_a_wheel_of_another_hash_is_refused(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """pip itself compares: here, a wheel that somebody put into the index in place of the one that was released."""
    index = tmp_path / "index"
    index.mkdir()
    version = metadata.version(FFI)
    name = f"apache_tvm_ffi-{version}-cp311-cp311-manylinux_2_24_aarch64.manylinux_2_28_aarch64.whl"
    (index / name).write_bytes(b"PK\x05\x06" + bytes(18))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    with pytest.raises(UserError, match=rf"cannot download {FFI} .* for aarch64 \(ERROR"):
        wheels.download_wheel(FFI, "aarch64", "3.11", tmp_path)
    # With its own hash, pip takes it.
    monkeypatch.setitem(WHEELS, (FFI, "aarch64", "3.11"), hashlib.sha256((index / name).read_bytes()).hexdigest())
    (tmp_path / "in").mkdir()
    try:
        assert wheels.download_wheel(FFI, "aarch64", "3.11", tmp_path / "in").name == name
    except UserError as error:
        # An empty wheel has no metadata; what matters is that the hash was no reason.
        assert "HASH" not in str(error).upper()  # noqa: PT017


@pytest.mark.slow
def test_no_network(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    other = {"x86_64": "aarch64", "aarch64": "x86_64"}[architecture()]
    with pytest.raises(UserError, match=f"cannot download {TVM} .* for {other}"):
        runtime_files(other)


def test_versions_of_python() -> None:
    assert PYTHONS[:2] == ("3.11", "3.12")
    for python in PYTHONS:
        for machine in ("x86_64", "aarch64"):
            assert len(WHEELS[FFI, machine, python]) == 64
    assert len(set(WHEELS.values())) == len(WHEELS)
    with pytest.raises(UserError, match=r"no TVM for Python 3\.9"):
        runtime_files(architecture(), "3.9")
