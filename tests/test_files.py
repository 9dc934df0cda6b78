"""A write is whole or not at all, and an impossible one ends in a sentence."""

import errno
import hashlib
import os
import stat
from pathlib import Path

import pytest

from enet_tvm.errors import UserError
from enet_tvm.files import atomic_directory, atomic_file, sha256, write_json

NEEDS_PERMISSIONS = pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")


class InterruptedWriteError(Exception):
    pass


def fail_halfway(temporary):
    (temporary if temporary.is_file() else temporary / "half").write_text("half")
    raise InterruptedWriteError


def test_file_appears_with_its_content(tmp_path):
    path = tmp_path / "a" / "b" / "c.txt"
    with atomic_file(path) as temporary:
        assert temporary.suffix == ".txt"
        assert not path.exists()
        temporary.write_text("new")
    assert path.read_text() == "new"
    assert [entry.name for entry in path.parent.iterdir()] == ["c.txt"]


def test_file_respects_the_umask(tmp_path):
    mask = os.umask(0o027)
    try:
        with atomic_file(tmp_path / "f") as temporary:
            temporary.write_text("x")
        with atomic_directory(tmp_path / "d"):
            pass
    finally:
        os.umask(mask)
    assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "d").stat().st_mode) == 0o750


def test_failure_leaves_the_old_file(tmp_path):
    path = tmp_path / "f"
    path.write_text("old")
    with pytest.raises(InterruptedWriteError), atomic_file(path) as temporary:
        fail_halfway(temporary)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_full_disk_is_a_user_error_and_leaves_the_old_file(tmp_path):
    path = tmp_path / "f"
    path.write_text("old")
    with pytest.raises(UserError, match="No space left"), atomic_file(path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_directory_replaces_the_old_one_whole(tmp_path):
    path = tmp_path / "d"
    for name in ("first", "second"):
        with atomic_directory(path) as temporary:
            (temporary / name).write_text(name)
    assert [entry.name for entry in path.iterdir()] == ["second"]
    assert list(tmp_path.iterdir()) == [path]


def test_failure_leaves_the_old_directory(tmp_path):
    path = tmp_path / "d"
    path.mkdir()
    (path / "old").write_text("old")
    with pytest.raises(InterruptedWriteError), atomic_directory(path) as temporary:
        fail_halfway(temporary)
    assert [entry.name for entry in path.iterdir()] == ["old"]
    assert list(tmp_path.iterdir()) == [path]


@NEEDS_PERMISSIONS
@pytest.mark.parametrize("write", [atomic_file, atomic_directory])
def test_read_only_place(tmp_path, write):
    place = tmp_path / "locked"
    place.mkdir(mode=0o500)
    with pytest.raises(UserError, match="Permission denied"), write(place / "x"):
        pytest.fail("must not get here")


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a file system that takes no files")
@pytest.mark.parametrize("write", [atomic_file, atomic_directory])
def test_file_system_that_takes_no_files(write):
    with pytest.raises(UserError, match="cannot write /proc/enet-tvm/x"), write("/proc/enet-tvm/x"):
        pytest.fail("must not get here")


@pytest.mark.parametrize("write", [atomic_file, atomic_directory])
def test_parent_is_a_file(tmp_path, write):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="cannot write"), write(tmp_path / "file" / "x"):
        pytest.fail("must not get here")


def test_directory_in_place_of_a_file(tmp_path):
    path = tmp_path / "file"
    path.write_text("x")
    with pytest.raises(UserError, match="it is a file"), atomic_directory(path):
        pytest.fail("must not get here")
    assert path.read_text() == "x"


def test_file_in_place_of_a_directory(tmp_path):
    path = tmp_path / "d"
    path.mkdir()
    with pytest.raises(UserError, match="cannot write"), atomic_file(path) as temporary:
        temporary.write_text("x")
    assert path.is_dir()
    assert list(tmp_path.iterdir()) == [path]


def test_write_json(tmp_path):
    write_json(tmp_path / "f.json", {"a": [1, 2.5, None]})
    assert (tmp_path / "f.json").read_text() == '{\n  "a": [\n    1,\n    2.5,\n    null\n  ]\n}\n'
    with pytest.raises(TypeError):
        write_json(tmp_path / "f.json", {"a": object()})
    assert "2.5" in (tmp_path / "f.json").read_text()


def test_sha256(tmp_path):
    (tmp_path / "f").write_bytes(b"abc" * 100_000)
    assert sha256(tmp_path / "f") == hashlib.sha256(b"abc" * 100_000).hexdigest()
