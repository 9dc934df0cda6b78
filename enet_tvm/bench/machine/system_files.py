"""The files in which a Linux kernel tells about its machine: sensors, clocks, memory, processors."""

from __future__ import annotations

from pathlib import Path


class SystemFiles:
    """The kernel's files of one machine: this one, or a tree like its own.

    A runner on another machine gives a class derived from this one that reads there.

    Parameters
    ----------
    root : str or Path
        Directory at which the tree begins.
    """

    def __init__(self, root: str | Path = "/") -> None:
        self._root = Path(root)

    def read(self, path: str) -> str | None:
        """Return the text of a file, without the white space around it; None when there is none that can be read.

        Parameters
        ----------
        path : str
            Absolute path of the file, as on the machine itself.
        """
        try:
            # Device tree strings end with a zero byte.
            text = (self._root / path.lstrip("/")).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None
        return text.strip().strip("\0")

    def find(self, pattern: str) -> tuple[str, ...]:
        """Return the absolute paths that match a shell pattern, in order."""
        found = self._root.glob(pattern.lstrip("/"))
        return tuple(sorted(f"/{path.relative_to(self._root)}" for path in found))

    def number(self, path: str) -> int | None:
        """Return the decimal number that a file holds, None when it holds none."""
        text = self.read(path)
        try:
            return None if text is None else int(text)
        except ValueError:
            return None
