"""What the processor of this machine is: asked before code made for another one is run."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

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
        What the kernel says of the processors; x86 has ``flags`` lines, ARM has ``Features``.

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
    return sorted(os.sched_getaffinity(0))
