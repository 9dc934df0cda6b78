"""Where in a TOML text a key stands, which `tomllib` does not tell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from enet_tvm.files import parse_toml


def line_of(text: str, path: Sequence[str | int]) -> int | None:
    """Return the line on which a key is set.

    Parameters
    ----------
    text : str
        Valid TOML.
    path : sequence of str or int
        Keys from the outermost table inwards; an int counts the members of an array.

    Returns
    -------
    int or None
        Line number from 1; for an absent key that of the innermost table that holds it, None if that is the whole text.
    """
    # A text cut off after a whole statement is valid TOML too, so the statement that brings a key is the one by which
    # parsing a growing part of the text first finds it.
    statements = _statements(text)
    for length in range(len(path), 0, -1):
        for line, content in statements:
            if _holds(content, path[:length]):
                return line
    return None


def _statements(text: str) -> list[tuple[int, dict[str, Any]]]:
    """Return, for each statement, its first line and all that is set once it ends."""
    lines = text.splitlines(keepends=True)
    found = []
    first: int | None = None
    for number, line in enumerate(lines, start=1):
        if first is None and (not line.strip() or line.lstrip().startswith("#")):
            continue
        first = first or number
        try:
            content = parse_toml("".join(lines[:number]))
        except ValueError:
            continue
        found.append((first, content))
        first = None
    return found


def _holds(content: Any, path: Sequence[str | int]) -> bool:
    for key in path:
        try:
            content = content[key]
        except (KeyError, IndexError, TypeError):
            return False
    return True
