"""TOML texts beyond what `tomllib` reads: the line of a key, and writing one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import tomli_w

from enet_tvm.files import parse_toml

_NUMBERS = re.compile(r"\[\n((?: +[\d.e+-]+,\n)+) *\]")


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


def format_toml(content: dict[str, Any]) -> str:
    """Return a TOML text, in which arrays of numbers, such as colours, stay on their line."""
    # No string holds a bare line feed, so what begins with a bracket at the end of a line is an array.
    return _NUMBERS.sub(lambda array: f"[{', '.join(array[1].replace(',', '').split())}]", tomli_w.dumps(content))
