"""Compiling modules of device code one after the other that have most of their kernels in common.

A network for a GPU is compiled again when some of its kernels did not fit, with smaller ones in their place. NVRTC takes as
long for that as the first time, though most kernels are the same. So what it has made of each is kept, new ones alone are
compiled, and the module's PTX is put together: byte for byte what NVRTC makes of the whole, in which only the numbers of a
kernel's labels depend on the kernels before it. PTX of which that is not known to hold is not kept.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from enet_tvm.compiler.cuda.nvrtc import compile_to_ptx
from enet_tvm.compiler.cuda.ptx import split_entries
from enet_tvm.compiler.cuda.tools import CudaTools

_KERNEL = re.compile(r'(?m)^extern "C" __global__ [^;{]*?\b(\w+)\([^;{)]*\)\s*([;{])')
_ENTRY = re.compile(r"\.visible \.entry (\w+)\(")
_GLOBL = re.compile(r"\t// \.globl\t(\w+)\n")
_DEMOTED = re.compile(r"(?m)^// \S+ has been demoted\n")
_SHARED = re.compile(r"(?m)^\t// demoted variable\n\t\.shared [^\n]*?(\w+)\[")
_FIRST_HERE, _DEMOTED_HERE = "\0first\n", "\0demoted\n"
"""Where a module names the first of its kernels, and the shared memory of all."""
_LABEL = re.compile(r"\$L__BB\d+_")


class IncrementalCompiler:
    """Compiles CUDA C++ to PTX by NVRTC, each kernel once.

    Parameters
    ----------
    arch : str
        GPU architecture, such as ``sm_53``.
    tools : CudaTools
    """

    def __init__(self, arch: str, tools: CudaTools) -> None:
        self._arch, self._tools = arch, tools
        self._prelude = ""
        self._head = ""
        self._made: dict[str, str] = {}

    def compile(self, source: str) -> str:
        """Return the PTX of a module, as TVM generates its source; it raises what `compile_to_ptx` does."""
        prelude, kernels = split_source(source)
        missing = {name: text for name, text in kernels.items() if text not in self._made}
        if prelude != self._prelude or not kernels or len(missing) == len(kernels):
            ptx = self._compile(source)
            self._remember(prelude, kernels, ptx)
            return ptx
        if missing and not self._remember(prelude, missing, self._compile(prelude + "".join(missing.values()))):
            return self._compile(source)
        return self._joined(kernels)

    def _compile(self, source: str) -> str:
        return compile_to_ptx(source, self._arch, self._tools)

    def _remember(self, prelude: str, kernels: dict[str, str], ptx: str) -> bool:
        """Keep what each kernel has become, and return True; False for PTX of another form, of which nothing is kept."""
        head, *entries = _parts(ptx)
        names = [match[1] for entry in entries if (match := _ENTRY.match(entry))]
        if names != list(kernels) or _module(head, names, entries) != ptx:
            return False
        if prelude != self._prelude:
            self._made.clear()
        elif not _is_like(head, self._head):
            return False
        if prelude != self._prelude or _DEMOTED_HERE in head:
            self._head = head
        self._prelude = prelude
        self._made.update({kernels[name]: entry for name, entry in zip(names, entries, strict=True)})
        return True

    def _joined(self, kernels: dict[str, str]) -> str:
        return _module(self._head, list(kernels), [self._made[text] for text in kernels.values()])


def _parts(ptx: str) -> list[str]:
    """Return what comes before the kernels, with marks where it names them, and each kernel, from its entry on."""
    first = _GLOBL.sub(_FIRST_HERE, ptx, count=1)
    bare = _DEMOTED.sub("", _GLOBL.sub("", _DEMOTED.sub(_DEMOTED_HERE, first, count=1)))
    start = bare.find(".visible .entry")
    if start < 0:
        return [bare]
    return [bare[:start], *(part[start:] for part in split_entries(bare))]


def _module(head: str, names: Sequence[str], entries: Sequence[str]) -> str:
    """Return the module of some kernels: what `_parts` takes apart."""
    demoted = [f"// {name} has been demoted\n" for entry in entries for name in _SHARED.findall(entry)]
    first = head.replace(_FIRST_HERE, _comment(names[0])).replace(_DEMOTED_HERE, "".join(demoted))
    parts = [
        f"{_comment(name) if number else ''}{_LABEL.sub(f'$L__BB{number}_', entry).rstrip()}\n"
        for number, (name, entry) in enumerate(zip(names, entries, strict=True))
    ]
    return f"{first}{''.join(parts)}\n"


def _comment(name: str) -> str:
    return f"\t// .globl\t{name}\n"


def _is_like(head: str, other: str) -> bool:
    """Whether two modules share the same, and name their kernels' shared memory in the same place as far as they have any."""
    if _DEMOTED_HERE in head and _DEMOTED_HERE in other:
        return head == other
    return head.replace(_DEMOTED_HERE, "") == other.replace(_DEMOTED_HERE, "")


def split_source(source: str) -> tuple[str, dict[str, str]]:
    """Return what comes before the kernels of generated CUDA C++, and the definition of each by its name; declarations go."""
    found = list(_KERNEL.finditer(source))
    if not found:
        return source, {}
    ends = [*(match.start() for match in found[1:]), len(source)]
    pieces = {match[1]: source[match.start() : end] for match, end in zip(found, ends, strict=True) if match[2] == "{"}
    return source[: found[0].start()], pieces
