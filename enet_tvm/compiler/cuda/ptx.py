"""Architecture, kernels and ISA version that a PTX module names; lowering that version, and limiting registers.

PTX carries the newest ISA version that its compiler knows, whether or not it uses anything of it, and a driver refuses a
version that is newer than itself. The last driver for Jetson TX1 and Nano (JetPack 4.6, CUDA 10.2) stops at 6.5. So the claim
is lowered to what a target's oldest driver takes; that the code keeps to it is for ptxas to say, which rejects what a version
lacks.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise

_VERSION = re.compile(r"(?m)^\.version[ \t]+(\S+)[ \t]*$")
_TARGET = re.compile(r"(?m)^\.target[ \t]+(\w+)")
_ENTRY = re.compile(r"(?m)^(?:\.visible[ \t]+)?\.entry[ \t]+([\w$]+)")
_SHARED_PARTS = re.compile(r"(?m)^(?:\.(?:visible|weak|extern|common)[ \t]+)?\.(?:func|global|const|shared|alias)\b")
_USED_BYTES = re.compile(r'(?m)^[ \t]*\.pragma[ \t]+"used_bytes_mask[^"]*";[^\n]*\n')
_USED_BYTES_SINCE = (8, 3)
_HEAD = re.compile(_ENTRY.pattern + r"\s*(?:\([^)]*\))?(?:\s*\.\w+[^\n{]*)*")


def ptx_version(ptx: str) -> str:
    """Return the ISA version that PTX claims, such as ``6.5``.

    Raises
    ------
    ValueError
        When the text is not PTX.
    """
    return _directive(_VERSION, ptx)


def ptx_arch(ptx: str) -> str:
    """Return the architecture that PTX is for, such as ``sm_53``.

    Raises
    ------
    ValueError
        When the text is not PTX.
    """
    return _directive(_TARGET, ptx)


def ptx_entries(ptx: str) -> tuple[str, ...]:
    """Return the names of the kernels, in order."""
    return tuple(_ENTRY.findall(ptx))


def split_entries(ptx: str) -> tuple[str, ...]:
    """Return a module's kernels as modules of one kernel each, with what is declared before the first of them.

    It is the module itself, alone, where there are fewer than two kernels, or where something that they may share (a function,
    a variable) is declared between or after them.
    """
    starts = [match.start() for match in _ENTRY.finditer(ptx)]
    if len(starts) < 2 or ".func" in ptx[: starts[0]] or _SHARED_PARTS.search(ptx, starts[0]):
        return (ptx,)
    return tuple(ptx[: starts[0]] + ptx[start:end] for start, end in pairwise([*starts, len(ptx)]))


def with_version(ptx: str, version: str) -> str:
    """Return PTX that claims this ISA version, or its own if that is older.

    A version that does not have it loses ``used_bytes_mask``, by which a compiler notes that the code uses a part of what a
    load brings; it changes nothing of what the code does.
    """
    own = ptx_version(ptx)
    if _number(own) <= _number(version):
        return ptx
    if _number(version) < _USED_BYTES_SINCE:
        ptx = _USED_BYTES.sub("", ptx)
    return _VERSION.sub(f".version {version}", ptx, count=1)


def with_register_limits(ptx: str, limits: Mapping[str, int]) -> str:
    """Return PTX whose kernels say how many registers a thread may take at most (``.maxnreg``), by the name of their entry."""

    def head(match: re.Match[str]) -> str:
        return f"{match[0]}\n.maxnreg {limits[match[1]]}" if match[1] in limits else match[0]

    return _HEAD.sub(head, ptx)


def _directive(pattern: re.Pattern[str], ptx: str) -> str:
    match = pattern.search(ptx)
    if match is None:
        raise ValueError("it is not PTX")
    return match[1]


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))
