"""Architecture, kernels and ISA version that a PTX module names, and lowering that version.

PTX carries the newest ISA version that its compiler knows, whether or not it uses anything of it, and a driver refuses a
version that is newer than itself. The last driver for Jetson TX1 and Nano (JetPack 4.6, CUDA 10.2) stops at 6.5. So the claim
is lowered to what a target's oldest driver takes; that the code keeps to it is for ptxas to say, which rejects what a version
lacks.
"""

from __future__ import annotations

import re

_VERSION = re.compile(r"(?m)^\.version[ \t]+(\S+)[ \t]*$")
_TARGET = re.compile(r"(?m)^\.target[ \t]+(\w+)")
_ENTRY = re.compile(r"(?m)^(?:\.visible[ \t]+)?\.entry[ \t]+([\w$]+)")


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


def with_version(ptx: str, version: str) -> str:
    """Return PTX that claims this ISA version, or its own if that is older."""
    own = ptx_version(ptx)
    if _number(own) <= _number(version):
        return ptx
    return _VERSION.sub(f".version {version}", ptx, count=1)


def _directive(pattern: re.Pattern[str], ptx: str) -> str:
    match = pattern.search(ptx)
    if match is None:
        raise ValueError("it is not PTX")
    return match[1]


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))
