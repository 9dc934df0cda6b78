"""Targets by name: the files of this package, those of the user, and this machine."""

from __future__ import annotations

import contextlib
from pathlib import Path

from enet_tvm.errors import UserError
from enet_tvm.files import read_toml
from enet_tvm.places import say_if_hidden, search_roots
from enet_tvm.targets.spec import NATIVE, TargetSpec, make_target


def known_targets() -> dict[str, Path]:
    """Return the target files by name; a user's ``./targets`` hides shipped ones of the same name, which `target_file` says."""
    found: dict[str, Path] = {}
    for root in reversed(search_roots()):
        found.update({path.stem: path for path in sorted((root / "targets").glob("*.toml"))})
    return dict(sorted(found.items()))


def target_file(name: str) -> Path | None:
    """Return the file of a target, by its name or an alias, or the path itself if it ends in ``.toml``; None for ``native``.

    Raises
    ------
    UserError
        When there is no such file.
    """
    if name == NATIVE:
        return None
    files = known_targets()
    path = Path(name) if name.endswith(".toml") else files.get(name) or _file_with_alias(name, files)
    if path is None or not path.is_file():
        raise UserError(f"there is no target '{name}'; known are {', '.join([NATIVE, *files])}, or give a path to a .toml file")
    if name in files:
        say_if_hidden(path)
    return path


def _file_with_alias(name: str, files: dict[str, Path]) -> Path | None:
    """Return the file that lists a name among its aliases; a file that is not valid has none."""
    for path in files.values():
        with contextlib.suppress(UserError):
            content, _ = read_toml(path, "correct it")
            if name in make_target({"name": path.stem, **content}, path).aliases:
                return path
    return None


def load_target(name: str) -> TargetSpec:
    """Return a target by its name or an alias, ``native`` for this machine, or from a path to a ``.toml`` file.

    Raises
    ------
    UserError
        When there is no such target, or its file is not valid.
    """
    path = target_file(name)
    if path is None:
        from enet_tvm.targets.native import native_target  # TVM, which files do without

        return native_target()
    content, _ = read_toml(path, "correct it")
    return make_target({"name": path.stem, **content}, path)
