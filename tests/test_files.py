"""A write is whole or not at all, and an impossible one ends in a sentence."""

import contextlib
import errno
import hashlib
import json
import math
import os
import stat
import threading
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enet_tvm.errors import UserError
from enet_tvm.files import (
    atomic_directory,
    atomic_file,
    check_directory_place,
    check_place,
    parse_json,
    parse_toml,
    read_json,
    read_toml,
    sha256,
    write_json,
)

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


def test_a_directory_that_cannot_be_made_is_refused_before_the_work(tmp_path: Path):
    check_directory_place(tmp_path / "new" / "folder")
    assert list(tmp_path.iterdir()) == []
    for name in ("/proc/new", "/proc/new/folder"):
        with pytest.raises(UserError, match=f"cannot write {name}"):
            check_directory_place(name)
    link = tmp_path / "link"
    link.symlink_to("/proc/new")
    with pytest.raises(UserError, match=r"cannot write .*link"):
        check_directory_place(link)


def test_a_place_below_a_file_is_refused_before_the_work(tmp_path):
    check_place(tmp_path / "new" / "folder" / "file")
    (tmp_path / "file").touch()
    check_place(tmp_path / "file")
    with pytest.raises(UserError, match=r"cannot write .*file/new/x: Not a directory; choose another place"):
        check_place(tmp_path / "file" / "new" / "x")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


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


def write(path, text="new"):
    with atomic_file(path) as temporary:
        temporary.write_text(text)


@pytest.mark.parametrize("old", ["old", None])
def test_a_link_stays_and_leads_to_the_new_file(tmp_path, old):
    """Also the second of two, and one that led to nothing, whose folder is made as that of any file."""
    target, link, second = tmp_path / "elsewhere" / "f", tmp_path / "link", tmp_path / "second"
    link.symlink_to(Path("elsewhere", "f"))
    second.symlink_to(link)
    if old is not None:
        target.parent.mkdir()
        target.write_text(old)
    write(second)
    assert (link.readlink(), second.readlink(), target.is_symlink()) == (Path("elsewhere", "f"), link, False)
    assert target.read_text() == "new"
    assert list(target.parent.iterdir()) == [target]


def test_failure_behind_a_link_leaves_the_old_file(tmp_path):
    (tmp_path / "f").write_text("old")
    (tmp_path / "link").symlink_to("f")
    with pytest.raises(InterruptedWriteError), atomic_file(tmp_path / "link") as temporary:
        fail_halfway(temporary)
    assert (tmp_path / "f").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 2


def test_links_that_lead_nowhere(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    (tmp_path / "proc").symlink_to("/proc/enet-tvm/x")
    for name, words in (("a", "symbolic links"), ("proc", "cannot write .*proc")):
        with pytest.raises(UserError, match=words):
            write(tmp_path / name)
        with pytest.raises(UserError, match=words), atomic_directory(tmp_path / name):
            pytest.fail("must not get here")


@pytest.mark.parametrize("there", [True, False])
def test_a_link_to_a_directory_stays(tmp_path, there):
    (tmp_path / "link").symlink_to("d")
    if there:
        (tmp_path / "d").mkdir()
        (tmp_path / "d" / "old").touch()
        with pytest.raises(UserError, match="it is a directory"):
            write(tmp_path / "link")
    with atomic_directory(tmp_path / "link") as temporary:
        (temporary / "new").touch()
    assert (tmp_path / "link").readlink() == Path("d")
    assert [entry.name for entry in (tmp_path / "d").iterdir()] == ["new"]
    assert {entry.name for entry in tmp_path.iterdir()} == {"d", "link"}


def test_a_replaced_file_keeps_its_permissions(tmp_path):
    (tmp_path / "f").write_text("old")
    (tmp_path / "f").chmod(0o640)
    write(tmp_path / "f")
    assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == 0o640


@NEEDS_PERMISSIONS
def test_a_file_that_may_not_be_written(tmp_path):
    (tmp_path / "f").write_text("old")
    (tmp_path / "f").chmod(0o444)
    with pytest.raises(UserError, match="it may not be written"):
        write(tmp_path / "f")
    assert (tmp_path / "f").read_text() == "old"


def device(path, minor):
    """A copy of a device of memory's, such as 3 for null, so that a fault destroys nothing of the system's."""
    try:
        os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, minor))
        path.open("wb").close()
    except OSError as error:
        pytest.skip(f"no devices can be made here: {error}")
    return path


def test_a_device_is_written_into(tmp_path):
    null, link = device(tmp_path / "null", 3), tmp_path / "link.json"
    link.symlink_to("null")
    for path in (null, link):
        write_json(path, {"a": 1})
        assert stat.S_ISCHR(null.lstat().st_mode)
    assert link.readlink() == Path("null")
    assert {entry.name for entry in tmp_path.iterdir()} == {"null", "link.json"}


def test_a_device_that_is_full(tmp_path):
    full = device(tmp_path / "full", 7)
    with pytest.raises(UserError, match=r"cannot write .*full: No space left"):
        write(full)
    assert stat.S_ISCHR(full.lstat().st_mode)


def test_a_device_is_no_directory(tmp_path):
    with pytest.raises(UserError, match="it is a file"), atomic_directory(device(tmp_path / "null", 3)):
        pytest.fail("must not get here")


@pytest.fixture
def fifo(tmp_path):
    os.mkfifo(tmp_path / "fifo.json")
    return tmp_path / "fifo.json"


def test_a_fifo_gets_all_of_it(fifo):
    got = []
    reader = threading.Thread(target=lambda: got.append(fifo.read_text()))
    reader.start()
    write_json(fifo, list(range(50_000)))  # more than a pipe holds
    reader.join(10)
    assert json.loads(got[0]) == list(range(50_000))
    assert stat.S_ISFIFO(fifo.lstat().st_mode)


def test_a_fifo_whose_reader_leaves(fifo):
    def look() -> None:
        with fifo.open("rb", buffering=0) as file:
            file.read(1)

    reader = threading.Thread(target=look)
    reader.start()
    with pytest.raises(UserError, match=r"cannot write .*fifo\.json: Broken pipe"):
        write_json(fifo, list(range(50_000)))
    reader.join(10)


def test_nothing_goes_into_a_fifo_after_a_failure(fifo):
    """Not even an opening, which would wait for a reader."""
    with pytest.raises(InterruptedWriteError), atomic_file(fifo) as temporary:
        fail_halfway(temporary)
    assert stat.S_ISFIFO(fifo.lstat().st_mode)


@pytest.mark.parametrize("folder", ["/dev/fd", "/proc/self/fd"])
def test_an_open_file_is_gone_on_with(tmp_path, folder):
    """What is there stays, as after a shell's ``> file``; opened anew it would be overwritten, renamed it would be lost."""
    with (tmp_path / "f").open("wb") as file:
        file.write(b"printed\n")
        file.flush()
        write(f"{folder}/{file.fileno()}")
        file.write(b" and more")
    assert (tmp_path / "f").read_text() == "printed\nnew and more"
    assert list(tmp_path.iterdir()) == [tmp_path / "f"]


def test_standard_output(capfd):
    print("before")
    write_json("/dev/stdout", [1])
    print("after")
    assert capfd.readouterr().out == "before\n[\n  1\n]\nafter\n"


@pytest.mark.parametrize("number", ["987", "99999999999999999999"])
def test_a_file_that_is_not_open(number):
    with pytest.raises(UserError, match=r"cannot write /dev/fd/9.*Bad file descriptor"):
        write(f"/dev/fd/{number}")


def test_a_mounted_file_is_overwritten(tmp_path, monkeypatch):
    """As containers mount single files: they cannot be replaced."""

    def busy(self, target):
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))

    (tmp_path / "f").write_text("older and longer")
    monkeypatch.setattr(Path, "replace", busy)
    write(tmp_path / "f")
    assert (tmp_path / "f").read_text() == "new"
    assert list(tmp_path.iterdir()) == [tmp_path / "f"]


def test_a_file_system_without_permissions(tmp_path, monkeypatch):
    def refuse(self, mode):
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(Path, "chmod", refuse)
    write(tmp_path / "f")
    with atomic_directory(tmp_path / "d"):
        pass
    assert (tmp_path / "f").read_text() == "new"
    assert (tmp_path / "d").is_dir()


def test_the_longest_of_names(tmp_path):
    for name in ("é" * 125 + ".json", "a." + "b" * 250):
        write(tmp_path / name)
        assert (tmp_path / name).read_text() == "new"
    with atomic_directory(tmp_path / ("d" * 255)):
        pass
    with atomic_directory(tmp_path / ("d" * 255)) as temporary:
        (temporary / "new").touch()
    assert (tmp_path / ("d" * 255) / "new").is_file()
    with pytest.raises(UserError, match="name too long"):
        write(tmp_path / ("f" * 256))


def test_an_interrupted_exchange_leaves_the_old_directory(tmp_path, monkeypatch):
    path, replace = tmp_path / "d", Path.replace
    path.mkdir()
    (path / "old").touch()

    def interrupt(self, target):
        if Path(target) == path and not (self / "old").exists():
            raise KeyboardInterrupt
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt), atomic_directory(path):
        pass
    assert [entry.name for entry in path.iterdir()] == ["old"]
    assert list(tmp_path.iterdir()) == [path]


def test_what_json_has_no_number_for(tmp_path):
    write_json(tmp_path / "f.json", {"a": [math.nan, math.inf, -math.inf, 0.5]})
    assert json.loads((tmp_path / "f.json").read_text()) == {"a": [None, None, None, 0.5]}


DEEP = "nested more than 64 levels deep"
BAD_JSON = {
    "": "it is empty",
    " \n": "it is empty",
    "{": "line 1, column 2",
    '{\n "a": 1,\n}': "line 3, column 1",
    "[] []": "Extra data at line 1, column 4",
    "[" * 100_000: DEEP,
    '{"a":' * 100_000: DEEP,
    "[" * 65 + "]" * 65: DEEP,
    "[NaN]": "NaN is no number in JSON",
    "[-Infinity]": "-Infinity is no number in JSON",
    "[1e999]": "1e999 is too large",
    "9" * 10_000: r"99\.\.\. is too large",
    "18446744073709551616": "18446744073709551616 is too large",
    '{"a": {"b": 1, "c": 2, "b": 1}}': "the key 'b' is there twice",
    r'["\ud800"]': r"\\ud800 is half of a character",
    '["a\nb"]': "Invalid control character at line 1, column 4",
}
BAD_TOML = {
    "a = ": "Invalid value",
    "a = 1\nb = many": "line 2, column 5",
    "a = 1\na = 2": "Cannot overwrite a value",
    "a = " + "[" * 30_000: DEEP,
    "a = " + "[" * 65 + "]" * 65: DEEP,
    "a." * 30_000 + "a = 1": DEEP,
    '"a" . ' * 70 + "a = 1": DEEP,
    "[" + "a." * 30_000 + "a]": DEEP,
    "[" + ".".join("abc" * 40) + "]": DEEP,
    "a = " + "9" * 10_000: "a number is too large",
}


@pytest.mark.parametrize(("text", "words"), BAD_JSON.items(), ids=range(len(BAD_JSON)))
def test_json_that_is_refused(tmp_path, text, words):
    (tmp_path / "f").write_text(text)
    with pytest.raises(ValueError, match=words):
        parse_json(text)
    with pytest.raises(UserError, match=rf"f is not valid JSON \(.*{words}.*\); mend it"):
        read_json(tmp_path / "f", "mend it")


@pytest.mark.parametrize(("text", "words"), BAD_TOML.items(), ids=range(len(BAD_TOML)))
def test_toml_that_is_refused(tmp_path, text, words):
    (tmp_path / "f").write_text(text)
    with pytest.raises(ValueError, match=words):
        parse_toml(text)
    with pytest.raises(UserError, match=rf"f is not valid TOML \(.*{words}.*\); mend it"):
        read_toml(tmp_path / "f", "mend it")


@pytest.mark.parametrize("read", [read_json, read_toml])
def test_files_that_are_not_text(tmp_path, read):
    for name, content, words in (
        ("utf-16", "a = 1".encode("utf-16"), "it is UTF-16 text, not UTF-8"),
        ("latin-1", "# a\n# b\n# é".encode("latin-1"), "line 3 is not UTF-8"),
        ("large", b" " * (17 << 20), "it is larger than .* KiB"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=rf"{name} is not valid (JSON|TOML) \({words}.*; mend it"):
            read(tmp_path / name, "mend it")
    with pytest.raises(UserError, match=r"cannot read .*: Is a directory; mend it"):
        read(tmp_path, "mend it")
    with pytest.raises(UserError, match=r"there is no file .*missing; mend it"):
        read(tmp_path / "missing", "mend it")
    with pytest.raises(UserError, match="it is larger than"):
        read("/dev/zero", "mend it")


def test_a_byte_order_mark_is_no_content(tmp_path):
    (tmp_path / "f").write_text('\ufeff{"a": "\u00e9"}', encoding="utf-8")
    assert read_json(tmp_path / "f", "mend it") == {"a": "é"}
    (tmp_path / "f").write_text('\ufeffa = "é"\r\n', encoding="utf-8", newline="")
    assert read_toml(tmp_path / "f", "mend it")[0] == {"a": "é"}


WORDS = st.text(st.characters(exclude_categories=("Cs",)))
VALUES = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False) | WORDS
CONTENTS = st.recursive(VALUES, lambda inner: st.lists(inner) | st.dictionaries(WORDS, inner), max_leaves=20)


@given(CONTENTS, st.booleans())
def test_valid_json_means_what_it_says(content, escaped):
    assert parse_json(json.dumps(content, ensure_ascii=escaped)) == content


@given(st.text('[]{}",:.-+0123456789eNaI \\ud8tfrlsn'))
def test_any_text_as_json(text):
    try:
        expected = json.loads(text)
    except ValueError:
        with pytest.raises(ValueError, match=r"."):
            parse_json(text)
        return
    with contextlib.suppress(ValueError):  # json takes what no other reader would
        assert parse_json(text) == expected


@given(st.text("[]{}\"'=.,# \n019ab-:_\\einft"))
def test_any_text_as_toml(text):
    try:
        expected = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        with pytest.raises(ValueError, match=r"."):
            parse_toml(text)
        return
    assert str(parse_toml(text)) == str(expected)  # a NaN is no equal of itself
