"""Patterns of file names, and which files two of them pair: those whose wildcards stand for the same text.

``*`` stands for any text within a name, ``**/`` for any folders or none, ``?`` for one character; all else is itself. A suffix
is compared without regard to case, and ``.*`` at the end is any suffix of a picture.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from enet_tvm.errors import UserError
from enet_tvm.runtime.pictures import SUFFIXES

Key = tuple[str, ...]
"""Texts that the wildcards of a pattern match in a path, in order."""

_WILDCARDS = {"**/": r"(?:(.*)/)?", "**": "(.*)", "*": "([^/]*)", "?": "([^/])"}
_TOKEN = re.compile(r"(\*\*/|\*\*|\*|\?)")


def check_pattern(pattern: str) -> None:
    """Raise ValueError, with a reason, for what is no pattern of relative paths with forward slashes."""
    if "\\" in pattern:
        raise ValueError(f"the pattern '{pattern}' has back slashes; write / between folders")
    if pattern.startswith("/") or ".." in pattern.split("/") or re.match(r"[A-Za-z]:", pattern):
        raise ValueError(f"the pattern '{pattern}' leads out of the folder; set root to the folder that holds the files")
    if not _TOKEN.search(pattern.removesuffix(".*")):
        raise ValueError(f"the pattern '{pattern}' has no wildcard, so that it names one file; write * where names differ")


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    pattern = unicodedata.normalize("NFC", pattern.removeprefix("./"))
    folder, slash, name = pattern.rpartition("/")
    stem, dot, suffix = name.rpartition(".")
    if not dot or _TOKEN.search(suffix.removesuffix("*")) or not stem:
        stem, ending = name, ""
    elif suffix == "*":
        ending = "(?i:" + "|".join(re.escape(known) for known in sorted(SUFFIXES)) + ")"
    else:
        ending = f"(?i:{re.escape(dot + suffix)})"
    parts = _TOKEN.split(folder + slash + stem)
    return re.compile("".join(_WILDCARDS.get(part, re.escape(part)) for part in parts) + ending, re.DOTALL)


def match_key(pattern: str, path: str) -> Key | None:
    """Return the texts that a pattern's wildcards match in a relative path with forward slashes, None if it does not match."""
    match = _compiled(pattern).fullmatch(unicodedata.normalize("NFC", path))
    return None if match is None else tuple(group or "" for group in match.groups())


def count_wildcards(pattern: str) -> int:
    """Return how many wildcards a pattern has."""
    return _compiled(pattern).groups


@dataclass(frozen=True)
class Pairing:
    """Pictures and masks that belong together, and those that do not.

    Attributes
    ----------
    pairs : dict of str to str
        The mask of each picture, in the natural order of the pictures' paths.
    lone_pictures, lone_masks : tuple of str
        Files without their other half.
    doubles : tuple of tuple of str
        Files of one kind that have one key, and could each be the half of the same other.
    """

    pairs: dict[str, str]
    lone_pictures: tuple[str, ...]
    lone_masks: tuple[str, ...]
    doubles: tuple[tuple[str, ...], ...]


def pair_files(paths: Iterable[str], pictures: Sequence[str], masks: Sequence[str]) -> Pairing:
    """Pair the files that patterns of pictures and of masks match.

    Parameters
    ----------
    paths : iterable of str
        Relative paths with forward slashes. One that matches both kinds of patterns is a mask.
    pictures, masks : sequence of str
        Patterns. If all have as many wildcards, those must stand for the same texts in both halves of a pair; otherwise only
        the last one must.
    """
    whole = len({count_wildcards(pattern) for pattern in (*pictures, *masks)}) == 1
    found: tuple[dict[Key, list[str]], dict[Key, list[str]]] = ({}, {})
    for path in sorted(set(paths), key=natural):
        for kind, patterns in ((1, masks), (0, pictures)):
            keys = (match_key(pattern, path) for pattern in patterns)
            if (key := next((key for key in keys if key is not None), None)) is not None:
                found[kind].setdefault(key if whole else key[-1:], []).append(path)
                break
    of_pictures, of_masks = found
    doubles = [tuple(paths) for kind in found for paths in kind.values() if len(paths) > 1]
    pairs = {found[0]: of_masks[key][0] for key, found in of_pictures.items() if key in of_masks}
    return Pairing(
        dict(sorted(pairs.items(), key=lambda pair: natural(pair[0]))),
        tuple(path for key, paths in of_pictures.items() if key not in of_masks for path in paths),
        tuple(path for key, paths in of_masks.items() if key not in of_pictures for path in paths),
        tuple(doubles),
    )


def natural(path: str) -> tuple[tuple[int, str], ...]:
    """Return a sorting key by which ``frame_9`` comes before ``frame_10``."""
    return tuple((int(part), "") if part.isdecimal() and part.isascii() else (-1, part) for part in re.split(r"(\d+)", path))


def walk_files(root: Path) -> list[str]:
    """Return the files under a folder as relative paths, hidden ones left out; folders that are links are followed once.

    Raises
    ------
    UserError
        When a folder cannot be read.
    """

    def refuse(error: OSError) -> None:
        raise UserError(f"cannot read folder {error.filename}: {error.strerror}; check its permissions") from error

    found, visited = [], {os.path.realpath(root)}
    for where, folders, files in os.walk(root, onerror=refuse, followlinks=True):
        kept = []
        for folder in sorted(folders):
            place = os.path.realpath(Path(where, folder))
            if not folder.startswith(".") and place not in visited:
                visited.add(place)
                kept.append(folder)
        folders[:] = kept
        found += [Path(where, name).relative_to(root).as_posix() for name in files if not name.startswith(".")]
    return sorted(found, key=natural)
