"""Copies of this process: what a child made by ``fork()`` keeps of what its parent had opened.

Of the parent's threads only the one that forks lives on in the child. A lock that another thread held stays locked there for
ever, its thread pools have nobody in them, and connections belong to both processes. So a fork waits until no thread is
inside TVM, and in the child everything that has threads or connections is told, so that it can make new ones or refuse.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
import weakref
from collections.abc import Iterator
from typing import Any, Protocol

PATIENCE = 60.0
"""Longest wait of a fork for a forward pass to end, in seconds. The child of one that waited in vain cannot use TVM."""


class Follower(Protocol):
    """An object with threads or connections, which must let go of them in a forked child."""

    def after_fork(self) -> None:
        """Let go of them, in the child: touching no lock that a thread may have held, and waiting for nothing."""


class _Gate:
    """Lets threads into TVM unless a fork waits or happens."""

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._inside: set[int] = set()
        self._forks = 0
        self.torn = False

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._forks)
            self._inside.add(threading.get_ident())
        try:
            yield
        finally:
            with self._changed:
                self._inside.discard(threading.get_ident())
                self._changed.notify_all()

    def close(self) -> None:
        """Wait until nobody is inside, and keep the lock: by the thread that forks it is opened again, in both processes."""
        self._changed.acquire()
        self._forks += 1
        mine = {threading.get_ident()}
        self.torn = not self._changed.wait_for(lambda: self._inside <= mine, PATIENCE)

    def open(self) -> None:
        self._forks -= 1
        self.torn = False
        self._changed.notify_all()
        self._changed.release()


_gate = _Gate()
_followers: weakref.WeakSet[Follower] = weakref.WeakSet()
_torn = False


def not_while_forking() -> contextlib.AbstractContextManager[None]:
    """Return a context in which no other thread forks: to be held, by one thread at a time in itself, while TVM works."""
    return _gate.inside()


def follow(follower: Follower) -> None:
    """Let an object know, by its `after_fork`, that it is in the child of a fork; it is not kept alive for that."""
    _followers.add(follower)


def torn() -> bool:
    """Return whether this process was forked while a thread was inside TVM, whose locks may be locked for ever."""
    return _torn


def leak(*objects: Any) -> None:
    """Keep objects for as long as this process lives, its end included: their destructors would do harm."""
    for each in objects:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(each))


def _in_child() -> None:
    global _gate, _torn
    _torn = _torn or _gate.torn
    _gate = _Gate()
    for follower in list(_followers):
        follower.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=lambda: _gate.close(), after_in_parent=lambda: _gate.open(), after_in_child=_in_child)
