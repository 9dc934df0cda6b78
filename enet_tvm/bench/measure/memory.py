"""Peak memory of this process beyond what it took at one moment."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"


@dataclass(frozen=True)
class MemoryMark:
    """Memory of this process at the moment from which growth is counted.

    Attributes
    ----------
    resident, of_files : int
        Resident bytes, and those of them that only mirror files: the code of libraries, mostly.
    """

    resident: int
    of_files: int


def mark_memory() -> MemoryMark | None:
    """Begin to watch the peak; None where the kernel does not let it be watched."""
    try:
        _CLEAR.write_text(_RESET_PEAK)
        return MemoryMark(_field("VmRSS"), _field("RssFile"))
    except (OSError, ValueError):
        return None


def growth_since(mark: MemoryMark | None) -> int | None:
    """Return the most bytes that this process has taken beyond a mark, None without one.

    Pages that mirror files are left out: a library's code comes into memory as it is first used, and is not the network's.
    The peak itself is the kernel's, so that nothing short is missed.
    """
    if mark is None:
        return None
    try:
        peak, of_files = _field("VmHWM"), _field("RssFile")
    except (OSError, ValueError):
        return None
    return max(0, peak - mark.resident - max(0, of_files - mark.of_files))


def _field(name: str) -> int:
    for line in _STATUS.read_text(encoding="ascii").splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return int(value.split()[0]) * 1024
    raise ValueError(f"no {name} in {_STATUS}")
