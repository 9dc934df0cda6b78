"""Where `model/`, `targets/` and `tuning_logs/` are: those that are shipped, and those of the user's directory."""

from __future__ import annotations

import filecmp
import logging
from functools import cache
from pathlib import Path

from enet_tvm.errors import UserError

_PACKAGE = Path(__file__).resolve().parent
_SHIPPED = (("model",), ("targets",), ("tuning_logs",))
_LOG = logging.getLogger("enet_tvm")


def shipped(path: str | Path = "") -> Path:
    """Return where a shipped file or directory is: within an installed package, or beside the package in a checkout."""
    share = _PACKAGE / "share"
    return (share if share.is_dir() else _PACKAGE.parent) / path


def search_roots() -> list[Path]:
    """Return where `targets/`, `tuning_logs/` and `calibrations/` may be: the user's directory, then that of shipped ones."""
    return [Path.cwd(), shipped()]


def find_file(path: str | Path) -> Path:
    """Return an existing file: as given, or, if relative, as shipped with the package.

    A shipped file is taken whatever the working directory holds under its name; a warning says so once if that differs.

    Raises
    ------
    UserError
        When there is no such file.
    """
    path = Path(path).expanduser()
    for candidate in (path.absolute(), shipped(path)):
        if candidate.is_file():
            say_if_left_alone(candidate)
            return candidate
    raise UserError(f"there is no file {path}; check the path")


def name_of(path: str | Path) -> str:
    """Return how people and manifests call a file: a shipped one by the name under which `find_file` finds it anywhere."""
    path = Path(path)
    return str(path.relative_to(shipped())) if _is_shipped(path) else str(path)


def say_if_left_alone(taken: Path) -> None:
    """Warn when a shipped file is taken and the working directory holds another one of its name."""
    other = Path(name_of(taken))
    if _is_shipped(taken) and other.is_file() and not filecmp.cmp(other, taken, shallow=False):
        _say(f"{other} of this directory is left alone, the file of that name that is shipped is taken; name yours to take it")


def say_if_hidden(taken: Path) -> None:
    """Warn when a file of the working directory is taken and hides another one of its name that is shipped."""
    if not taken.is_relative_to(Path.cwd()):
        return
    name = taken.relative_to(Path.cwd())
    other = shipped(name)
    if other.is_file() and not filecmp.cmp(other, taken, shallow=False):
        _say(f"{name} of this directory is taken, and hides the file of that name that is shipped")


def _is_shipped(path: Path) -> bool:
    return path.is_relative_to(shipped()) and path.relative_to(shipped()).parts[:1] in _SHIPPED


@cache
def _say(sentence: str) -> None:
    """Log a warning once in a process, on stderr unless a program that uses the package says otherwise."""
    _LOG.warning(sentence)
