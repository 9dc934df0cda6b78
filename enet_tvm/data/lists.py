"""Lists of pairs: text files that name a picture and its labels on every line, as people's tools write them."""

from __future__ import annotations

import codecs
import re
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path

from enet_tvm.data.folder import Listing
from enet_tvm.errors import UserError

Finder = Callable[[str], Path]
"""Maps a path as a list writes it, with forward slashes, to the path of the file."""
_DIVIDERS = (r"\t+", r"[,;]", r" +")
"""Patterns of what divides two paths, the surest first; all but the first may occur in names."""
_QUOTES = "\"'"
_LONGEST_LINE, _MOST_DIVISIONS = 8192, 64
"""Longest line in characters, and most places at which it may be divided: with more, the file is no list."""
_LONGEST_NAME = 255
"""Longest file name in bytes; to ask a file system for a longer one is an error."""
_SHOWN = 200


def read_lines(path: Path) -> list[str]:
    """Return the lines of a text file: UTF-8, with or without a byte-order mark, or UTF-16 with one; any line ends.

    Raises
    ------
    UserError
        When it cannot be read.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; check the path and its permissions") from error
    marks = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    try:
        text = content.decode("utf-16" if content.startswith(marks) else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"cannot read {path}: it is no UTF-8 text ({error.reason}); save it as UTF-8") from error
    return re.split(r"\r\n|\r|\n", text)


def read_pairs(path: Path, find_picture: Finder, find_labels: Finder) -> Listing:
    """Return the pairs of a list, in its order, and what is wrong with it.

    A line holds two paths, divided by a tab, a comma, a semicolon or blanks. Any of these but a tab may also occur in the
    names: a line is divided where two files exist. Quotation marks around a path and empty lines do not count, back slashes
    stand for slashes, and an accent may be written as one character or two.

    Parameters
    ----------
    path : Path
        The list.
    find_picture, find_labels : callable
        Map a path as the list writes it to the file of the picture, and of the labels.

    Raises
    ------
    UserError
        When the list cannot be read.
    """
    pairs, problems = [], []
    for number, line in enumerate(read_lines(path), start=1):
        if not (line := line.strip()):
            continue
        pair = _pair(line, find_picture, find_labels)
        if isinstance(pair, str):
            problems.append(f"{path}, line {number}: {pair}")
        elif missing := [half for half in pair if not half.is_file()]:
            problems += [f"{path}, line {number}: {half} is missing; put it there or drop the line" for half in missing]
        else:
            pairs.append(pair)
    if not pairs and not problems:
        problems.append(f"{path} lists no pictures; write a picture and its labels on each line")
    return Listing(tuple(pairs), tuple(problems))


def _pair(line: str, find_picture: Finder, find_labels: Finder) -> tuple[Path, Path] | str:
    """Return the files that a line means, of which some may be missing, or what is wrong with it."""
    likely: list[tuple[Path, Path]] = []
    for divider in _DIVIDERS:
        divisions = _divisions(line, divider)
        pairs = dict.fromkeys((_existing(left, find_picture), _existing(right, find_labels)) for left, right in divisions)
        whole = [pair for pair in pairs if all(path.is_file() for path in pair)]
        if len(whole) > 1:
            return f"'{line}' can be divided into two files in {len(whole)} ways; divide them by a tab"
        if whole:
            return whole[0]
        # Where one half exists, the other is what is missing; so are both where there is but one way to divide the line.
        half = [pair for pair in pairs if any(path.is_file() for path in pair)]
        likely = sorted(half, key=_unlikeness) + likely + (list(pairs) if len(pairs) == 1 else [])
    if likely:
        return likely[0]
    shown = line if len(line) <= _SHOWN else f"{line[:_SHOWN]}..."
    return f"'{shown}' is not two paths of files that exist; put a picture and its labels on it, divided by a tab"


def _unlikeness(pair: tuple[Path, Path]) -> int:
    """Return the difference in length of two names, which is small for a picture and its labels."""
    return abs(len(pair[0].name) - len(pair[1].name))


def _divisions(line: str, divider: str) -> Iterator[tuple[str, str]]:
    matches = list(re.finditer(divider, line))
    if len(matches) > _MOST_DIVISIONS or len(line) > _LONGEST_LINE:
        return
    for match in matches:
        left, right = (part.strip().strip(_QUOTES) for part in (line[: match.start()], line[match.end() :]))
        if left and right and max(_longest_name(left), _longest_name(right)) <= _LONGEST_NAME:
            yield left, right


def _longest_name(path: str) -> int:
    return max(len(name.encode()) for name in re.split(r"[\\/]", path))


def _existing(written: str, find: Finder) -> Path:
    """Return the file that a path means; if none exists, where it should be."""
    spellings = [written, *(unicodedata.normalize(form, written.replace("\\", "/")) for form in ("NFC", "NFD"))]
    paths = [find(spelling) for spelling in spellings]
    return next((path for path in paths if path.is_file()), paths[1])
