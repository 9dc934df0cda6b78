"""Classes as people write them down: a number, the name of a class set, or a file with a name a line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from enet_tvm.data.classes import CLASS_SETS, ClassSet, spread_colour
from enet_tvm.errors import UserError
from enet_tvm.files import parse_json

MOST_CLASSES = 256
"""Largest number of classes: labels are bytes."""

Colour = tuple[int, int, int]

_NUMBERS = r"(\d{1,3})[\s,]+(\d{1,3})[\s,]+(\d{1,3})"
_AFTER = re.compile(rf"(?P<name>.*?\S)\s*[\s,;:]\s*(?:\(?{_NUMBERS}\)?|#(?P<hex>[0-9a-fA-F]{{6}}))")
_HEADING = re.compile(r"(name|class)\s*,\s*r\w*\s*,\s*g\w*\s*,\s*b\w*", re.IGNORECASE)
_BEFORE = re.compile(rf"{_NUMBERS}[\s,]+(?P<name>\S.*)")


def read_classes(text: str) -> ClassSet:
    """Return the classes that a user names.

    Parameters
    ----------
    text : str
        Number of classes; or ``camvid``, ``cityscapes`` or ``sunrgbd``; or a file. A text file has a name a line, with an RGB
        colour after or before it if it likes (``road 128 64 128``, ``road #804080``); a JSON file a list of names, of
        ``{"name": ..., "color": [r, g, b]}``, or an object of names by number. Colours that are not given are made,
        the same ones each time.

    Raises
    ------
    UserError
        When it is none of these, or the file is broken.
    """
    if re.fullmatch(r"\d+", text):
        count = int(text)
        _check_count(count, "--classes")
        names = [f"class {number}" for number in range(count)]
        return ClassSet(f"{count} classes", tuple(names), spread_palette(count), max(255, count))
    if text in CLASS_SETS:
        return CLASS_SETS[text]
    path = Path(text).expanduser()
    if not path.is_file():
        raise UserError(
            f"there is no class set '{text}' and no such file; give a number of classes, a file with a name a line, "
            f"or one of {', '.join(CLASS_SETS)}"
        )
    try:
        content = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
        raise UserError(f"cannot read the classes of {path}: {reason}; give a text file with a name a line") from error
    listed = _from_json(content, path) if content.lstrip()[:1] in ("[", "{") else _from_lines(content)
    names = [name for name, _ in listed]
    _check_count(len(names), str(path))
    if twice := next((name for place, name in enumerate(names) if name in names[:place]), None):
        raise UserError(f"{path} names '{twice}' twice; give every class a name of its own")
    palette = _filled([colour for _, colour in listed], path)
    return ClassSet(path.name, tuple(names), palette, max(255, len(names)))


def spread_palette(count: int) -> tuple[Colour, ...]:
    """Return as many colours, all different up to 256, none of them black up to 255."""
    return tuple(spread_colour(number) for number in range(1, count + 1))


def _check_count(count: int, source: str) -> None:
    if not 1 <= count <= MOST_CLASSES:
        raise UserError(f"{source} names {count} classes; there must be 1 to {MOST_CLASSES}")


def _from_lines(content: str) -> list[tuple[str, Colour | None]]:
    listed: list[tuple[str, Colour | None]] = []
    for line in content.splitlines():
        text = line.strip().rstrip(",")
        if not text or text.startswith("#") or _HEADING.fullmatch(text):
            continue
        if match := _AFTER.fullmatch(text):
            code = match["hex"]
            numbers = [int(code[place : place + 2], 16) for place in (0, 2, 4)] if code else [int(match[k]) for k in (2, 3, 4)]
        elif match := _BEFORE.fullmatch(text):
            numbers = [int(match[k]) for k in (1, 2, 3)]
        else:
            listed.append((text, None))
            continue
        listed.append((match["name"].strip(), (numbers[0], numbers[1], numbers[2])))
    return listed


def _from_json(content: str, path: Path) -> list[tuple[str, Colour | None]]:
    wanted = 'a list of names, or of {"name": ..., "color": [r, g, b]}'
    try:
        raw: Any = parse_json(content)
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error}); give {wanted}") from error
    if isinstance(raw, dict):
        by_number = {int(key): value for key, value in raw.items() if key.isascii() and key.isdigit()}
        if len(by_number) != len(raw) or sorted(by_number) != list(range(len(raw))):
            raise UserError(f"{path} has keys that are not the numbers from 0 on; give {wanted}")
        raw = [by_number[number] for number in range(len(raw))]
    listed: list[tuple[str, Colour | None]] = []
    for place, entry in enumerate(raw):
        name, colour = (entry, None) if not isinstance(entry, dict) else (entry.get("name"), _colour_of(entry))
        if not isinstance(name, str) or not name.strip():
            raise UserError(f"{path}: entry {place} has no name; give {wanted}")
        if colour is not None and not (isinstance(colour, list) and len(colour) == 3 and all(type(c) is int for c in colour)):
            raise UserError(f"{path}: the colour of '{name}' is {colour}; give three numbers, red, green and blue")
        listed.append((name.strip(), None if colour is None else (colour[0], colour[1], colour[2])))
    return listed


def _colour_of(entry: dict[str, Any]) -> Any:
    return next((entry[key] for key in ("color", "colour") if entry.get(key) is not None), None)


def _filled(colours: Sequence[Colour | None], path: Path) -> tuple[Colour, ...]:
    """Return the colours, with those that are missing made, different from the rest."""
    for colour in colours:
        if colour is not None and not all(0 <= channel <= 255 for channel in colour):
            raise UserError(f"{path} has the colour {colour}; red, green and blue lie from 0 to 255")
    taken = {colour for colour in colours if colour is not None}
    free = (colour for number in range(1, MOST_CLASSES + 1) if (colour := spread_colour(number)) not in taken)
    return tuple(colour if colour is not None else next(free) for colour in colours)
