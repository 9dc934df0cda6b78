"""Files: writes that leave what was there before when they fail, and reads of JSON and TOML whose errors are sentences."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import re
import shutil
import stat
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from enet_tvm.errors import UserError

_MOST_LINKS = 40  # that Linux follows, too
_MOST_JSON_BYTES = 16 << 20
_MOST_TOML_BYTES = 64 << 10  # of what people write by hand
_MOST_LEVELS = 64
_TOO_DEEP = f"it is nested more than {_MOST_LEVELS} levels deep"
_LARGEST_INTEGER = 2**64
_LONG_KEY = re.compile(rf"""(?<![\w-])(?:(?:[\w-]++|"[^"\n]*+"|'[^'\n]*+')[ \t]*+\.[ \t]*+){{{_MOST_LEVELS}}}""")

# -- Writing -----------------------------------------------------------------------------------------------------------


def _explain(path: Path, error: OSError) -> UserError:
    return UserError(f"cannot write {path}: {error.strerror or error}; choose another place or free some room")


def check_place(path: str | Path) -> None:
    """Refuse to write below a file; call it before long work, whose result would have no place.

    Raises
    ------
    UserError
        When the nearest existing parent of `path` is a file.
    """
    path = Path(path)
    found = next((parent for parent in path.absolute().parents if parent.exists()), None)
    if found is not None and not found.is_dir():
        raise _explain(path, NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)))


def check_directory_place(path: str | Path) -> None:
    """Refuse a path that `atomic_directory` could not write to; call it before long work, whose result would have no place.

    Raises
    ------
    UserError
        When nothing can be made in the nearest existing parent of `path`.
    """
    check_place(path)
    try:
        place = _destination(Path(path))
        if isinstance(place, Path):
            # Permissions do not tell: whoever may do everything cannot write to /proc, or to a medium that is read-only.
            parent = next(parent for parent in place.absolute().parents if parent.exists())
            Path(tempfile.mkdtemp(prefix=".", dir=parent)).rmdir()
    except OSError as error:
        raise _explain(Path(path), error) from error


def umask() -> int:
    """Return the process's umask, which tempfile ignores."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _destination(path: Path) -> Path | int:
    """Return where a write to `path` goes, links followed: a path, or the descriptor of an open file of this process.

    The last link may lead to nothing yet. ``/dev/stdout`` and ``/dev/fd/N`` are links to what the process has open; who opens
    such a file once more begins at its start, or cannot open it at all if it is a socket.
    """
    place = path
    for _ in range(_MOST_LINKS):
        folder = Path(os.path.realpath(place.parent))
        place = folder / place.name
        if str(folder) in (f"/proc/{os.getpid()}/fd", "/dev/fd") and place.name.isascii() and place.name.isdecimal():
            return int(place.name)
        if not place.is_symlink():
            return place
        place = folder / place.readlink()
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))


@contextlib.contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path; on success what was written there is what `path` holds, on failure `path` is as it was.

    The temporary path lies beside the file and is renamed to it. A link stays, and what it leads to is replaced, or made if it
    leads to nothing. A device, a FIFO, a socket or ``/dev/fd/N`` is not replaced: all that was written goes into it at the end.
    A file that was there keeps its permissions.

    Raises
    ------
    UserError
        When the directory cannot be created or written, `path` is a directory or may not be written, the disk is full, or
        nobody reads from the FIFO any more.
    """
    path = Path(path)
    try:
        place = _destination(path)
        if isinstance(place, Path) and place.is_dir():
            raise IsADirectoryError(errno.EISDIR, "it is a directory")
    except OSError as error:
        raise _explain(path, error) from error
    if isinstance(place, int) or (place.exists() and not place.is_file()):
        yield from _written_into(path, place)
    else:
        yield from _replaced(path, place)


def _written_into(path: Path, place: Path | int) -> Iterator[Path]:
    try:
        with tempfile.TemporaryDirectory(prefix="enet-tvm-") as folder:
            temporary = Path(folder, f"output{path.suffix}")
            temporary.touch()
            yield temporary
            with temporary.open("rb") as source, open(_opened(place), "wb") as sink:
                shutil.copyfileobj(source, sink)
    except OSError as error:
        raise _explain(path, error) from error


def _opened(place: Path | int) -> int:
    if isinstance(place, Path):
        return os.open(place, os.O_WRONLY | os.O_NOCTTY)
    for stream in (sys.stdout, sys.stderr):  # what was printed before goes before it
        stream.flush()
    try:
        return os.dup(place)
    except OverflowError as error:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF)) from error


def _replaced(path: Path, place: Path) -> Iterator[Path]:
    try:
        mode = 0o666 & ~umask()
        if place.exists():
            if not os.access(place, os.W_OK):
                raise PermissionError(errno.EACCES, "it may not be written")
            mode = stat.S_IMODE(place.stat().st_mode) & 0o777
        place.parent.mkdir(parents=True, exist_ok=True)
        # A name as long as file systems allow leaves no room for more.
        suffix = place.suffix if len(place.suffix) < 20 else ""
        handle, name = tempfile.mkstemp(prefix=f".{place.stem[:40]}-", suffix=suffix, dir=place.parent)
        os.close(handle)
    except OSError as error:
        raise _explain(path, error) from error
    temporary = Path(name)
    try:
        yield temporary
        _set_mode(temporary, mode)
        try:
            temporary.replace(place)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            # A file mounted by itself, as containers do it, cannot be replaced.
            shutil.copyfile(temporary, place)
    except OSError as error:
        raise _explain(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def _set_mode(path: Path, mode: int) -> None:
    with contextlib.suppress(PermissionError):  # FAT, as on memory cards, has none
        path.chmod(mode)


@contextlib.contextmanager
def atomic_directory(path: str | Path) -> Iterator[Path]:
    """Yield a temporary directory beside `path`; on success it takes `path`'s place, on failure it is removed.

    A link stays, and the directory that it leads to is replaced, or made if it leads to nothing.

    Raises
    ------
    UserError
        When the place cannot be written, the disk is full, or `path` is a file.
    """
    path = Path(path)
    try:
        place = _destination(path)
        if isinstance(place, int) or (place.exists() and not place.is_dir()):
            raise NotADirectoryError(errno.ENOTDIR, "it is a file")
        place.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{place.name[:40]}-", dir=place.parent))
    except OSError as error:
        raise _explain(path, error) from error
    try:
        yield temporary
        _set_mode(temporary, 0o777 & ~umask())
        if place.exists():
            _swap(temporary, place)
        else:
            temporary.replace(place)
    except OSError as error:
        raise _explain(path, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _swap(new: Path, place: Path) -> None:
    """Let a directory take the place of another, which is removed, or comes back if that fails or is interrupted."""
    aside = Path(tempfile.mkdtemp(prefix=f".{place.name[:40]}-old-", dir=place.parent))
    old = aside / "old"
    try:
        place.replace(old)
        new.replace(place)
    except BaseException:
        if old.exists() and not place.exists():
            old.replace(place)
        raise
    finally:
        if place.exists():
            shutil.rmtree(aside, ignore_errors=True)


def write_json(path: str | Path, content: Any) -> None:
    """Write `content` as indented JSON, atomically; what JSON has no number for, NaN and infinity, becomes null."""
    content = json.loads(json.dumps(content), parse_constant=lambda _: None)
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


# -- Reading -----------------------------------------------------------------------------------------------------------


def read_json(path: str | Path, remedy: str, most: int = _MOST_JSON_BYTES) -> Any:
    """Return the content of a JSON file as `parse_json` does.

    Parameters
    ----------
    path : str or Path
        JSON file in UTF-8, with or without a byte-order mark.
    remedy : str
        Advice for a file that is not readable: the second half of the error's sentence.
    most : int
        Largest size of the file in bytes; 16 MiB by default.

    Raises
    ------
    UserError
        When there is no such file, or it is not valid JSON; it says where.
    """
    try:
        return parse_json(_read_text(path, most, remedy))
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error}); {remedy}") from error


def read_toml(path: str | Path, remedy: str) -> tuple[dict[str, Any], str]:
    """Return the content of a TOML file as `parse_toml` does, and its text.

    Parameters
    ----------
    path : str or Path
        TOML file in UTF-8, with or without a byte-order mark, of at most 64 KiB.
    remedy : str
        Advice for a file that is not readable: the second half of the error's sentence.

    Raises
    ------
    UserError
        When there is no such file, or it is not valid TOML; it says where.
    """
    try:
        text = _read_text(path, _MOST_TOML_BYTES, remedy)
        return parse_toml(text), text
    except ValueError as error:
        raise UserError(f"{path} is not valid TOML ({error}); {remedy}") from error


def parse_json(text: str) -> Any:
    """Return the content of a JSON text that somebody else wrote.

    Unlike `json.loads` it takes no NaN and no infinity, no key twice in one object, no number that neither 64 bits nor a float
    holds, no half of a character, and nothing that is nested deeper than 64 levels.

    Raises
    ------
    ValueError
        When the text is not such JSON; the message fits in parentheses.
    """
    if not text.strip():
        raise ValueError("it is empty")
    try:
        content = json.loads(
            text, parse_constant=_no_number, parse_float=_finite, parse_int=_bounded, object_pairs_hook=_without_doubles
        )
    except json.JSONDecodeError as error:
        raise ValueError(f"{error.msg.removesuffix(' at')} at line {error.lineno}, column {error.colno}") from error
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    _check_levels(content)
    if "\\u" in text:
        try:
            json.dumps(content, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"\\u{ord(error.object[error.start]):04x} is half of a character") from error
    return content


def parse_toml(text: str) -> dict[str, Any]:
    """Return the content of a TOML text that somebody else wrote; nothing may be nested deeper than 64 levels.

    Raises
    ------
    ValueError
        When the text is not such TOML; the message fits in parentheses.
    """
    if _LONG_KEY.search(text):  # over which tomllib takes a time that grows with the square of its length
        raise ValueError(_TOO_DEEP)
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        raise
    except ValueError as error:  # more digits than int() takes
        raise ValueError("a number is too large") from error
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    _check_levels(content)
    return content


def _read_text(path: str | Path, most: int, remedy: str) -> str:
    try:
        with open(path, "rb") as file:
            data = file.read(most + 1)
    except FileNotFoundError as error:
        raise UserError(f"there is no file {path}; {remedy}") from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}; {remedy}") from error
    if len(data) > most:
        raise ValueError(f"it is larger than {most >> 10} KiB")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ValueError("it is UTF-16 text, not UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(f"line {line} is not UTF-8 text") from error


def _check_levels(content: Any) -> None:
    level = [content]
    for _ in range(_MOST_LEVELS):
        insides = [value.values() if isinstance(value, dict) else value for value in level if isinstance(value, dict | list)]
        level = [value for inside in insides for value in inside]
        if not level:
            return
    if any(isinstance(value, dict | list) for value in level):
        raise ValueError(_TOO_DEEP)


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number in JSON")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{_shortened(text)} is too large")
    return value


def _bounded(text: str) -> int:
    # Some thousands of digits are more than int() takes, too.
    if len(text) > 30 or not -_LARGEST_INTEGER < (value := int(text)) < _LARGEST_INTEGER:
        raise ValueError(f"{_shortened(text)} is too large")
    return value


def _shortened(text: str) -> str:
    return text if len(text) <= 30 else f"{text[:27]}..."


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        seen: set[str] = set()
        double = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {double!r} is there twice")
    return content


def sha256(path: str | Path) -> str:
    """Return the SHA-256 of a file's content as 64 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hashed_name(path: str | Path) -> str:
    """Return a file's name with the beginning of its SHA-256, by which notes tell files of one name apart."""
    return f"{Path(path).name} ({sha256(path)[:12]})"
