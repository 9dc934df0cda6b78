"""Folders of sessions' uploads, and the removal of those whose server was killed.

A file in it is locked for as long as its server lives. Unlike the number of a process, a lock means the same in
every container that sees the folder.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

_PREFIX = "enet-tvm-session-"
_LOCK = "lock"
_FILES = "files"


class SessionFolder:
    """A folder of one session, locked until it is removed.

    Parameters
    ----------
    parent : Path or None
        Folder to make it in; None for the system's temporary folder.

    Attributes
    ----------
    files : Path
        Folder of the session's uploads.

    Raises
    ------
    OSError
        When it cannot be made.
    """

    def __init__(self, parent: Path | None = None) -> None:
        lock = None
        while lock is None:
            # Until it is locked, a server that starts may take it for a leftover and remove it.
            self._path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
            self.files = self._path / _FILES
            try:
                if (lock := _lock(self._path)) is not None:
                    self.files.mkdir()
            except OSError:
                shutil.rmtree(self._path, ignore_errors=True)
                if lock is not None:
                    os.close(lock)
                raise
        self._lock = lock

    def leave_to_parent(self) -> None:
        """Let go of the lock in a forked process, so that the folder is a leftover as soon as the parent is dead."""
        os.close(self._lock)

    def remove(self) -> None:
        """Remove it with everything in it."""
        shutil.rmtree(self._path, ignore_errors=True)
        os.close(self._lock)


def remove_leftovers(parent: Path | None = None) -> None:
    """Remove this user's session folders that nobody holds any more."""
    for path in _folders(parent or Path(tempfile.gettempdir())):
        # A folder that cannot be looked at is somebody else's to clear up.
        with contextlib.suppress(OSError):
            if (lock := _lock(path)) is not None:
                shutil.rmtree(path, ignore_errors=True)
                os.close(lock)


def _folders(parent: Path) -> Iterator[Path]:
    for path in parent.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            status = path.lstat()
            # In a folder that is everybody's, a link may lead anywhere.
            if stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid():
                yield path


def _lock(folder: Path) -> int | None:
    """Lock a folder and return the file that holds the lock; None if another has it, or has just removed the folder."""
    try:
        file = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(file), (folder / _LOCK).lstat()):
            return file
    except (BlockingIOError, FileNotFoundError):
        pass
    except OSError:
        os.close(file)
        raise
    os.close(file)
    return None
