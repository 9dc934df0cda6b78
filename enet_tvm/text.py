"""Text that came from elsewhere, made fit to be shown."""

from __future__ import annotations


def printable(text: str, longest: int | None = None, keep: str = "") -> str:
    r"""Return text as a terminal may show it: what it would obey rather than print is written as an escape, such as ``\x1b``.

    Parameters
    ----------
    text : str
        Text to show, such as the name of a device at a tracker, which anybody may have chosen.
    longest : int or None
        Number of characters after which it is cut off, with an ellipsis; None for no limit.
    keep : str
        Characters that stay as they are whatever they do, such as a line feed.
    """
    shown = text if longest is None or len(text) <= longest else text[: longest - 1] + "…"
    return "".join(letter if letter.isprintable() or letter in keep else _escaped(letter) for letter in shown)


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape").decode("ascii")
