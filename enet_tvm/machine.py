"""What the processors of this machine are, and how many of them this process may keep busy."""

from __future__ import annotations

import contextlib
import os
import platform
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from enet_tvm.errors import UserError

_ALIASES = {"amd64": "x86_64", "arm64": "aarch64"}


def architecture() -> str:
    """Return this machine's instruction set as uname spells it: ``x86_64``, ``aarch64``, ..."""
    name = platform.machine().lower()
    return _ALIASES.get(name, name)


def cpu_features(cpuinfo: str | Path = "/proc/cpuinfo") -> frozenset[str]:
    """Return the instruction-set extensions that every processor of this machine has.

    Parameters
    ----------
    cpuinfo : str or Path
        File in which the kernel describes the processors; x86 has ``flags`` lines, ARM has ``Features``.

    Returns
    -------
    frozenset of str
        Names as the kernel spells them, such as ``avx512f`` or ``asimd``; empty where it says nothing.
    """
    try:
        text = Path(cpuinfo).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return frozenset()
    lines = re.findall(r"^(?:flags|Features)\s*:(.*)$", text, flags=re.MULTILINE)
    # A board with big and little cores may list different features: code may run on any of them.
    return frozenset.intersection(*(frozenset(line.split()) for line in lines)) if lines else frozenset()


def usable_cpus() -> list[int]:
    """Return the numbers of the processors that the calling thread may run on (``taskset`` narrows them)."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))  # macOS pins nothing


@dataclass(frozen=True)
class CoreChoice:
    """The processors that the threads of a network may run on.

    Attributes
    ----------
    cpus : tuple of int
        Numbers of the processors.
    wanted : tuple of int
        Numbers of those that the target names; empty where it names none.
    why : str
        Reason why they are not all that the target names, as a clause; empty when they are, or it names none.
    """

    cpus: tuple[int, ...]
    wanted: tuple[int, ...] = ()
    why: str = ""

    @property
    def bound(self) -> tuple[int, ...]:
        """The processors that threads are bound to, of those that the target names; empty where they are bound to none."""
        return self.cpus if set(self.cpus) <= set(self.wanted) else ()

    def __str__(self) -> str:
        """Return it in words, such as ``cores 4-7``; empty where the target names none."""
        where = f"cores {number_ranges(self.bound)}" if self.bound else "all processors" if self.wanted else ""
        return f"{where}: {self.why}" if self.why else where


def choose_cores(wanted: Collection[int], threads: int | None = None) -> CoreChoice:
    """Return the processors for a network whose target names those of one kind.

    They are those that this process may use, too. On a machine without them, under a ``taskset`` beside them, and for more
    threads than they are, it is every processor that may be used: the network runs, and the result says so.

    Parameters
    ----------
    wanted : collection of int
        Numbers of the processors that the target names; empty for all.
    threads : int or None
        Number of threads that the user asks for; None for the default.
    """
    usable = tuple(usable_cpus())
    if not wanted:
        return CoreChoice(usable)
    wanted = tuple(sorted(wanted))
    names = f"cores {number_ranges(wanted)}, which the target names"
    present = tuple(cpu for cpu in usable if cpu in wanted)
    if not present:
        return CoreChoice(usable, wanted, f"none of the {names}, can be used here")
    if threads is not None and threads > len(present):
        return CoreChoice(usable, wanted, f"{threads} threads are more than the {names}")
    return CoreChoice(present, wanted, "" if present == wanted else f"of the {names}, the others cannot be used here")


def number_ranges(numbers: Collection[int]) -> str:
    """Return numbers as the kernel lists processors, such as ``0,4-7``."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def bind_thread(cpus: Collection[int]) -> None:
    """Let the calling thread, and those that it starts from now on, run on some processors alone."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cpus)


@contextlib.contextmanager
def bound_to(cpus: Collection[int]) -> Iterator[None]:
    """Let the calling thread, and those that it starts within, run on some processors alone; on any if there are none."""
    before = usable_cpus()
    bind_thread(cpus or before)
    try:
        yield
    finally:
        bind_thread(before)


_BLANKS = " \t\n\r\v\f"
MOST_THREADS = 1024
"""Largest number of threads that ``TVM_NUM_THREADS`` may ask for."""


@dataclass(frozen=True)
class ThreadCount:
    """How many threads are of use to this process.

    Attributes
    ----------
    threads : int
        Number of threads to use, at least 1.
    processors : int
        Number of processors of the machine.
    why : str
        Reason why there are fewer threads than processors; empty when there are not.
    """

    threads: int
    processors: int
    why: str = ""

    def __str__(self) -> str:
        """Return it in words, such as ``2 of 64 processors: the CPU quota of its control group``."""
        many = f"{self.processors} processor{'s' * (self.processors != 1)}"
        return f"{self.threads} of {many}: {self.why}" if self.why else many


def default_threads(root: str | Path = "/", cores: Collection[int] = ()) -> ThreadCount:
    """Return how many threads to use where the user names no number.

    They are as many as the processors that the process may run on, or as its control group's CPU quota is worth, rounded
    down: a pool of one thread more than the quota pays for is stopped in the middle of a forward pass, in every period.
    ``TVM_NUM_THREADS``, as in TVM, comes before the quota; more threads than processors are of no use to a pool that waits
    for all of them.

    Parameters
    ----------
    root : str or Path
        Directory below which ``proc`` and the control groups are looked for.
    cores : collection of int
        Numbers of the processors that the target names; see `choose_cores`.

    Raises
    ------
    UserError
        When ``TVM_NUM_THREADS`` is no number of threads.
    """
    choice = choose_cores(cores)
    allowed, there = len(choice.cpus), os.cpu_count() or 1
    threads, why = allowed, ""
    if allowed < there:
        why = f"cores {number_ranges(choice.bound)}" if choice.bound else "those that it may run on"
    quota = cpu_quota(root)
    if quota is not None and (worth := max(1, int(quota))) < threads:
        threads, why = worth, f"the CPU quota of {quota:.4g} of its control group"
    chosen = tvm_num_threads()
    if chosen is not None:
        threads, why = min(chosen, allowed), "TVM_NUM_THREADS" if min(chosen, allowed) < there else ""
    return ThreadCount(threads, max(there, allowed), why)


def tvm_num_threads() -> int | None:
    """Return the number of threads in the environment's ``TVM_NUM_THREADS``; None when it is not set.

    Raises
    ------
    UserError
        When it is no number of threads: TVM would take what it cannot read for 1, and try to start any number.
    """
    text = os.environ.get("TVM_NUM_THREADS")
    if text is None:
        return None
    if not re.fullmatch(r"[0-9]{1,4}", text) or not 1 <= int(text) <= MOST_THREADS:
        raise UserError(f"TVM_NUM_THREADS is '{text}' and must be a number from 1 to {MOST_THREADS}; set it so, or unset it")
    return int(text)


def cpu_quota(root: str | Path = "/") -> float | None:
    """Return how many processors' time this process may use; None when nothing limits it.

    It is the smallest quota on the way from the process's control group to the root of the hierarchy that it can see, in the
    first version of control groups (``cpu.cfs_quota_us`` by ``cpu.cfs_period_us``) and the second (``cpu.max``).

    Parameters
    ----------
    root : str or Path
        Directory below which ``proc`` and the control groups are looked for.
    """
    root = Path(root)
    groups = _control_groups(_text(root / "proc/self/cgroup"))
    quotas = []
    for version, inside, mount_point in _control_group_mounts(_text(root / "proc/self/mountinfo")):
        if (group := groups.get(version)) is None:
            continue
        # In a container the mount may begin at the group itself, or the group's path mean nothing here.
        below = PurePosixPath(group)
        if ".." in below.parts or not below.is_relative_to(inside):
            below = PurePosixPath(inside)
        parts = below.relative_to(inside).parts
        for depth in range(len(parts) + 1):
            folder = root.joinpath(mount_point.lstrip("/"), *parts[:depth])
            if (quota := _quota(folder, version)) is not None:
                quotas.append(quota)
    return min(quotas, default=None)


def _text(path: Path) -> str:
    with contextlib.suppress(OSError, ValueError):
        return path.read_bytes().decode("utf-8", "surrogateescape")
    return ""


def _control_groups(text: str) -> dict[int, str]:
    """Return the process's group by version of control groups, from lines such as ``4:cpu,cpuacct:/a`` and ``0::/a``."""
    groups: dict[int, str] = {}
    for line in text.split("\n"):
        number, colon, rest = line.partition(":")
        controllers, other, path = rest.partition(":")
        if not colon or not other or not path.startswith("/"):
            continue
        if number == "0" and not controllers:
            groups.setdefault(2, path)
        elif "cpu" in controllers.split(","):
            groups.setdefault(1, path)
    return groups


def _control_group_mounts(text: str) -> list[tuple[int, str, str]]:
    """Return version, root and mount point of the hierarchies that limit processors (proc(5), mountinfo)."""
    mounts = []
    for line in text.split("\n"):
        before, _, after = line.partition(" - ")
        fields, kind = before.split(" "), after.split(" ")
        if len(fields) < 6 or not fields[3].startswith("/") or not fields[4].startswith("/"):
            continue
        inside, mount_point = (_unescaped(fields[number]) for number in (3, 4))
        if kind[0] == "cgroup2":
            mounts.append((2, inside, mount_point))
        elif kind[0] == "cgroup" and len(kind) > 2 and "cpu" in kind[2].split(","):
            mounts.append((1, inside, mount_point))
    return mounts


def _unescaped(text: str) -> str:
    return re.sub(r"\\([0-3][0-7]{2})", lambda found: chr(int(found[1], 8)), text)


def _quota(folder: Path, version: int) -> float | None:
    if version == 2:
        quota, _, period = _text(folder / "cpu.max").strip(_BLANKS).partition(" ")
    else:
        quota, period = (_text(folder / f"cpu.cfs_{name}_us").strip(_BLANKS) for name in ("quota", "period"))
    # "max" and -1 stand for none.
    if not all(re.fullmatch(r"[0-9]{1,15}", text) and int(text) > 0 for text in (quota, period)):
        return None
    return int(quota) / int(period)
