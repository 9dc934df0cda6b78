"""What is made once in a run of the suite, by whichever of its processes asks first."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from effort import shared_work

VARIABLE = "ENET_TVM_TEST_RUN"
"""Names the run's folder to the workers and to programs that tests start."""


def open_run() -> Path | None:
    """Make the run's folder, unless this process belongs to a run that has one; return what `close_run` is to remove."""
    if VARIABLE in os.environ:
        return None
    folder = Path(tempfile.mkdtemp(prefix="enet-tvm-tests-"))
    os.environ[VARIABLE] = str(folder)
    return folder


def close_run(folder: Path) -> None:
    """End the run that `open_run` began."""
    del os.environ[VARIABLE]
    shutil.rmtree(folder, ignore_errors=True)


def run_folder() -> Path:
    """Return the folder that all processes of this run share."""
    return Path(os.environ[VARIABLE])


def made_once(name: str, make: Callable[[Path], object]) -> Path:
    """Return a file or folder of this run, which nobody is to change.

    Parameters
    ----------
    name : str
        The same for the same content alone.
    make : callable
        Writes it at the path that it is given; called in one process of the run, while others wait for it.
    """
    place = run_folder() / name
    if not place.exists():
        with shared_work(), locked(f"{name}.lock"):
            if not place.exists():
                unfinished = place.with_name(f"{name}.unfinished")
                make(unfinished)
                unfinished.rename(place)
    return place


@contextmanager
def machine(alone: bool) -> Iterator[None]:
    """Share the machine with the tests of other workers, or wait for those to finish and have it alone.

    Who waits to be alone stands in the door meanwhile: otherwise those who share could hand the machine to each other for ever.
    """
    with ExitStack() as stack:
        with locked("door.lock"):
            stack.enter_context(locked("machine.lock", shared=not alone))
        yield


@contextmanager
def locked(name: str, *, shared: bool = False) -> Iterator[None]:
    """Hold a lock of this run, which other processes may hold at the same time where all of them share it."""
    with open(run_folder() / name, "a") as file:
        fcntl.flock(file, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield
