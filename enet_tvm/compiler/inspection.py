"""Checks of a linked library before it becomes an artifact.

A library may link without a word and still not load on the board: linked by a compiler for this machine, against a newer C
library, or against one that the board does not have. All of that is in its ELF headers, and read here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile
from elftools.elf.gnuversions import GNUVerNeedSection, GNUVerSymSection

from enet_tvm.artifact import LibraryReport, elf_architecture
from enet_tvm.compiler.cuda.device_code import ENTRY, inspect_device_code
from enet_tvm.compiler.linking import GLIBC
from enet_tvm.errors import UserError
from enet_tvm.machine import architecture
from enet_tvm.targets import TargetSpec

KERNEL_PREFIX = "__tvm_ffi_"
"""Prefix of functions that the loader can look up (``tvm_ffi_symbol_prefix`` in tvm/ffi/extra/module.h)."""

_ALWAYS_THERE = re.compile(r"(libc\.so\.6|libm\.so\.6|ld-linux[\w-]*\.so\.\d)$")
_FROM_THE_RUNTIME = ("TVMFFI", "TVMBackend")
_RELATIVE_RELOCATIONS = "GLIBC_ABI_DT_RELR"
"""Symbol version without a number, which loaders know since glibc 2.36."""

_EXECUTABLE = 1
_CURE = 'let the target\'s toolchain be "zig", or set CC to another C compiler'


@dataclass(frozen=True)
class _Dynamic:
    """Properties of a library, from its ELF headers, that decide whether the device loads it."""

    library: bool
    needed: tuple[str, ...]
    glibc: tuple[int, ...]
    text_relocations: bool
    executable_stack: bool
    exported: frozenset[str]
    unbound: frozenset[str]
    """Symbols that none of the needed libraries was seen to have when it was linked."""


def inspect_library(path: str | Path, spec: TargetSpec) -> LibraryReport:
    """Check that a library is what a device of a target loads.

    It must be an ELF library of the target's machine, need nothing but the C library, and of that no newer version than
    the oldest supported system has if it was linked for another machine, have no relocations in its code and no
    executable stack, miss no symbol that only a compiler's own library has, and hold what TVM's loader looks for. For a GPU,
    its device code must fit that GPU and its driver too (`enet_tvm.compiler.cuda.device_code`).

    Parameters
    ----------
    path : str or Path
        Library to check.
    spec : TargetSpec
        Target that it was linked for.

    Raises
    ------
    UserError
        At the first of these that does not hold.
    """
    path = Path(path)

    def refuse(reason: str, cure: str = _CURE) -> UserError:
        return UserError(f"the library linked for {spec.name} would not load there: {reason}; {cure}")

    try:
        machine = elf_architecture(path)
    except ValueError as error:
        raise refuse(str(error)) from error
    if machine != spec.architecture:
        raise refuse(f"it is for {machine}, and {spec.name} is {spec.architecture}")
    try:
        dynamic = _read(path)
    # Of a damaged file, pyelftools raises whatever the first wrong number leads to.
    except Exception as error:
        raise refuse(
            f"its ELF headers are damaged ({type(error).__name__})", "free some room on the disk, or " + _CURE
        ) from error
    if not dynamic.library:
        raise refuse("it is no shared library of 64 bits")
    if others := [name for name in dynamic.needed if not _ALWAYS_THERE.match(name)]:
        raise refuse(f"it needs {', '.join(others)} beside the C library")
    glibc = ".".join(map(str, dynamic.glibc))
    carried = spec.architecture != architecture() or spec.toolchain == "zig"
    if carried and dynamic.glibc > tuple(map(int, GLIBC.split("."))):
        raise refuse(f"it needs glibc {glibc}, and the oldest supported system has {GLIBC}")
    if dynamic.text_relocations:
        raise refuse("its code is not position-independent (it has text relocations)")
    if dynamic.executable_stack:
        raise refuse("it wants an executable stack, which loaders refuse since glibc 2.41")
    if unbound := sorted(name for name in dynamic.unbound if not name.startswith(_FROM_THE_RUNTIME)):
        raise refuse(f"it misses {', '.join(unbound[:3])}, which neither the C library nor TVM's runtime has")
    if ENTRY not in dynamic.exported:
        raise refuse(f"it lacks {ENTRY}, the virtual machine's code that TVM's loader looks for", "compile it again")
    kernels = sum(name.startswith(KERNEL_PREFIX) and name != ENTRY for name in dynamic.exported)
    if not kernels:
        raise refuse("it exports no kernels", "compile it again")
    device = None
    if spec.gpu is not None:
        try:
            device = inspect_device_code(path, spec.gpu)
        except ValueError as error:
            raise UserError(
                f"the library linked for {spec.name} would not run there: {error}; correct the section gpu of the target"
            ) from error
    return LibraryReport(
        machine=machine,
        needed=dynamic.needed,
        glibc=glibc or None,
        size=path.stat().st_size,
        exported_kernels=kernels,
        device=device,
    )


def _read(path: Path) -> _Dynamic:
    with path.open("rb") as file:
        elf = ELFFile(file)
        # Segments are what a loader goes by; sections are what names things, and linkers write them even when stripping.
        size = path.stat().st_size
        if any(segment["p_offset"] + segment["p_filesz"] > size for segment in elf.iter_segments()):
            raise ValueError("a segment ends behind the file")
        sections = list(elf.iter_sections())
        dynamic = next((section for section in sections if isinstance(section, DynamicSection)), None)
        if elf["e_type"] != "ET_DYN" or elf.elfclass != 64 or dynamic is None:
            return _Dynamic(False, (), (), False, False, frozenset(), frozenset())
        tags = list(dynamic.iter_tags())
        stacks = [segment for segment in elf.iter_segments() if segment["p_type"] == "PT_GNU_STACK"]
        exported, unbound = _symbols(elf, next((s for s in sections if isinstance(s, GNUVerSymSection)), None))
        return _Dynamic(
            library=True,
            needed=tuple(tag.needed for tag in tags if tag["d_tag"] == "DT_NEEDED"),
            glibc=max((symbol_version(name) for name in _versions(sections)), default=()),
            text_relocations=any(tag["d_tag"] == "DT_TEXTREL" or _says_textrel(tag) for tag in tags),
            # Without that header, Linux takes it for an executable one.
            executable_stack=not stacks or bool(stacks[0]["p_flags"] & _EXECUTABLE),
            exported=exported,
            unbound=unbound,
        )


def _says_textrel(tag: Any) -> bool:
    return tag["d_tag"] == "DT_FLAGS" and bool(tag["d_val"] & 0x4)  # DF_TEXTREL


def _versions(sections: list[Any]) -> Iterator[str]:
    for section in sections:
        if isinstance(section, GNUVerNeedSection):
            for _, wanted in section.iter_versions():
                yield from (version.name for version in wanted)


def symbol_version(name: str) -> tuple[int, ...]:
    """Return the number of a version of the C library, such as (2, 27); () for versions of something else."""
    if name == _RELATIVE_RELOCATIONS:
        return (2, 36)
    match = re.fullmatch(r"GLIBC_(\d+(?:\.\d+)+)", name)
    return tuple(map(int, match[1].split("."))) if match else ()


def _symbols(elf: ELFFile, versions: GNUVerSymSection | None) -> tuple[frozenset[str], frozenset[str]]:
    """Return the names of the symbols that are defined, and of those neither defined nor found in a needed library."""
    exported, unbound = set(), set()
    table = elf.get_section_by_name(".dynsym")
    for number, symbol in enumerate(table.iter_symbols() if table else ()):
        defined, binding = symbol["st_shndx"] != "SHN_UNDEF", symbol["st_info"]["bind"]
        if not symbol.name or binding == "STB_LOCAL":
            continue
        if defined:
            exported.add(symbol.name)
        # An index of 2 or more is a version that a needed library has; the lower ones are names, and mean none.
        elif binding != "STB_WEAK" and (versions is None or isinstance(versions.get_symbol(number)["ndx"], str)):
            unbound.add(symbol.name)
    return frozenset(exported), frozenset(unbound)
