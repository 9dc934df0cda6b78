"""Where `model/`, `targets/` and `tuning_logs/` are: the user's directory first, then the package's own."""

from __future__ import annotations

from pathlib import Path

from enet_tvm.errors import UserError

_PACKAGE = Path(__file__).resolve().parent


def search_roots() -> list[Path]:
    """Return the directories under which shipped files are looked for, in order."""
    return [Path.cwd(), _PACKAGE.parent, _PACKAGE / "share"]


def find_file(path: str | Path) -> Path:
    """Return an existing file: as given, or, if relative, as shipped with the package.

    Raises
    ------
    UserError
        When there is no such file.
    """
    path = Path(path).expanduser()
    for root in search_roots():
        if (candidate := root / path).is_file():
            return candidate
    raise UserError(f"there is no file {path}; check the path")
