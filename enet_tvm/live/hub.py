"""The hub of the live page: each viewer gets the newest picture when it can take one, and none waits for another.

A viewer may have two pictures on the way; it says when it has drawn one. Sockets alone would not do: the buffers of a slow
network hold seconds of pictures. All but `Hub.hungry` belongs to the event loop's thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

ON_THE_WAY = 2
"""Number of pictures that a viewer may have been sent without having drawn them."""


class Update(NamedTuple):
    """New figures and a new picture for a viewer; None where there is none."""

    figures: str | None
    picture: bytes | None


class Viewer:
    """One connected viewer of the page."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._wake = asyncio.Event()
        self._free = ON_THE_WAY
        self._picture_seen = self._figures_seen = 0
        self.wake()

    @property
    def hungry(self) -> bool:
        """Whether it can take another picture."""
        return self._free > 0

    def wake(self) -> None:
        """Signal that something may be new."""
        self._wake.set()

    def drawn(self) -> None:
        """Note that it has drawn a picture, and can take another."""
        self._free = min(ON_THE_WAY, self._free + 1)
        self._hub.count()
        self.wake()

    async def next(self) -> Update:
        """Wait until there is something that it has not seen and can take."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            hub = self._hub
            figures = picture = None
            if hub.figures_number > self._figures_seen:
                figures, self._figures_seen = hub.figures, hub.figures_number
            if hub.picture is not None and hub.picture_number > self._picture_seen and self._free:
                picture, self._picture_seen = hub.picture, hub.picture_number
                self._free -= 1
                hub.count()
            if figures is not None or picture is not None:
                return Update(figures, picture)


class Hub:
    """The newest picture and the newest figures, and who looks at them."""

    def __init__(self) -> None:
        self._viewers: set[Viewer] = set()
        self.picture: bytes | None = None
        self.figures: str | None = None
        self.picture_number = self.figures_number = 0
        self.hungry = False
        """Whether anybody can take a picture; may be read from any thread."""
        self.finished = False
        """Whether the picture is the last one."""

    def __len__(self) -> int:
        return len(self._viewers)

    @contextmanager
    def viewer(self) -> Iterator[Viewer]:
        """Add a viewer for the time of a ``with`` block."""
        viewer = Viewer(self)
        self._viewers.add(viewer)
        self.count()
        try:
            yield viewer
        finally:
            self._viewers.discard(viewer)
            self.count()
            if not self._viewers and not self.finished:
                self.picture = None  # nothing is encoded while nobody looks: whoever comes next would see an old one

    def count(self) -> None:
        """Update `hungry` from the viewers."""
        self.hungry = any(viewer.hungry for viewer in self._viewers)

    def show(self, picture: bytes) -> None:
        """Make a picture the newest."""
        self.picture, self.picture_number = picture, self.picture_number + 1
        self._wake()

    def finish(self) -> None:
        """Mark the picture as the last one, which later viewers get too."""
        self.finished = True

    def tell(self, figures: str) -> None:
        """Make figures the newest."""
        self.figures, self.figures_number = figures, self.figures_number + 1
        self._wake()

    def _wake(self) -> None:
        for viewer in self._viewers:
            viewer.wake()
