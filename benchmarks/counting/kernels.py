"""Which kernel of a compiled network executed code is of.

A library exports a function for each kernel and nothing of what that calls: its loop over blocks, which the pool runs, is found
by the calls and addresses in the machine code.
"""

from __future__ import annotations

import bisect
import dataclasses
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from elftools.elf.elffile import ELFFile

from enet_tvm.compiler.arm.cost import Piece, pieces_of
from enet_tvm.compiler.arm.instructions import KINDS, Block, count_kinds
from enet_tvm.compiler.inspection import KERNEL_PREFIX

_PAGE = 4096
_TELLING = 8
"""Instructions of a block that are looked for in the library to find out where it was loaded."""
_NUMBER = re.compile(r"(_[a-z]+)\d+$")
"""What TVM puts at the end of a name that it has had already; an extent there, as in ``40x24``, is none."""


@dataclass(frozen=True)
class Kernel:
    """What a kernel executes in a forward pass, all its calls together.

    Attributes
    ----------
    name : str
        The kernel's name, without the number that tells kernels of one kind and shape apart.
    kinds : dict of str to int
        Instructions by kind.
    hottest : Piece
        Its code of the most instructions executed: the body of a loop.
    """

    name: str
    kinds: dict[str, int]
    hottest: Piece

    @property
    def instructions(self) -> int:
        """Instructions of all kinds."""
        return sum(self.kinds.values())


@dataclass(frozen=True)
class Function:
    """An exported function: the kernel's name, and the addresses of its code."""

    name: str
    range: range


@dataclass(frozen=True)
class Code:
    """The machine code of a library.

    Attributes
    ----------
    address : int
        Where it begins, from where the library is loaded.
    words : tuple of int
        Its instructions.
    exported : dict of int to Function
        Exported functions by address.
    """

    address: int
    words: tuple[int, ...]
    exported: dict[int, Function]

    @property
    def end(self) -> int:
        """Address after the last instruction."""
        return self.address + 4 * len(self.words)


def kernels_of(code: Code, once: Sequence[Block], twice: Sequence[Block]) -> list[Kernel]:
    """Return the kernels of a forward pass, those of the most instructions first.

    Parameters
    ----------
    code : Code
        The compiled network's, as `read_code` returns it.
    once, twice : sequence of Block
        Blocks of a run of one pass and of another of two, whose addresses may differ.
    """
    starts, owners = _functions(code)
    runs = [_by_kernel(code, starts, owners, blocks) for blocks in (once, twice)]
    kernels = []
    for name, blocks in runs[1].items():
        before = runs[0].get(name, [])
        kinds = count_kinds(blocks)
        kinds.subtract(count_kinds(before))
        hottest = max(pieces_of(before, blocks), key=lambda piece: piece.executed * len(piece.words), default=None)
        if hottest is not None:
            kernels.append(Kernel(name, {kind: kinds[kind] for kind in KINDS}, hottest))
    return sorted(kernels, key=lambda kernel: -kernel.instructions)


def _by_kernel(code: Code, starts: list[int], owners: dict[int, str], blocks: Sequence[Block]) -> dict[str, list[Block]]:
    """Return the executed blocks of each kernel, with addresses from where the library was loaded."""
    base, parts = loaded_at(code, blocks), defaultdict[str, list[Block]](list)
    for block in blocks:
        at = block.address - base
        if code.address <= at < code.end:
            owner = owners.get(starts[bisect.bisect_right(starts, at) - 1])
            if owner is not None:
                parts[owner].append(dataclasses.replace(block, address=at))
    return dict(sorted(parts.items()))


def read_code(library: Path) -> Code:
    """Return the machine code of a library."""
    with library.open("rb") as file:
        elf = ELFFile(file)
        text, symbols = elf.get_section_by_name(".text"), elf.get_section_by_name(".dynsym")
        data, address = text.data(), text["sh_addr"]
        exported = {}
        for symbol in symbols.iter_symbols():
            if symbol["st_info"]["type"] == "STT_FUNC" and symbol.name.startswith(KERNEL_PREFIX):
                name, start = symbol.name.removeprefix(KERNEL_PREFIX), symbol["st_value"]
                exported[start] = Function(_NUMBER.sub(r"\1", name), range(start, start + symbol["st_size"]))
    words = tuple(int.from_bytes(data[at : at + 4], "little") for at in range(0, len(data), 4))
    return Code(address, words, exported)


def loaded_at(code: Code, blocks: Iterable[Block]) -> int:
    """Return where a library was loaded by a program that executed these blocks; 0 if none is of it."""
    places = defaultdict[tuple[int, ...], list[int]](list)
    for number in range(len(code.words) - _TELLING + 1):
        places[code.words[number : number + _TELLING]].append(code.address + 4 * number)
    bases: Counter[int] = Counter()
    for block in blocks:
        found = places.get(block.words[:_TELLING], ())
        if len(found) == 1 and (block.address - found[0]) % _PAGE == 0:  # Of several places it is not clear which one it is.
            bases[block.address - found[0]] += 1
    return bases.most_common(1)[0][0] if bases else 0


def _functions(code: Code) -> tuple[list[int], dict[int, str]]:
    """Return where functions begin, and the kernel that each belongs to; what several kernels call belongs to none."""
    named = list(_named(code))
    starts = sorted({code.address, *code.exported, *(target for _, target in named)})
    calls = defaultdict[int, set[int]](set)
    for at, target in named:
        calls[starts[bisect.bisect_right(starts, at) - 1]].add(target)
    owners = defaultdict[int, set[str]](set)
    for start, function in code.exported.items():
        seen, waiting = set[int](), [start]
        while waiting:
            if (at := waiting.pop()) not in seen:
                seen.add(at)
                owners[at].add(function.name)
                waiting += calls[at] - code.exported.keys()
    return starts, {start: min(names) for start, names in owners.items() if len(names) == 1}


def _named(code: Code) -> Iterator[tuple[int, int]]:
    """Return where an instruction names a function, which it calls or gives to another, and where that function begins."""
    page, ends = None, sorted(code.exported)
    for number, word in enumerate(code.words):
        at = code.address + 4 * number
        target = None
        if word & 0x7C000000 == 0x14000000:  # b and bl
            target = at + 4 * _signed(word & 0x3FFFFFF, 26)
            if word >> 31 == 0:  # A jump is a call if it leaves an exported function, which ends with it.
                before = bisect.bisect_right(ends, at) - 1
                within = code.exported[ends[before]].range if before >= 0 else range(0)
                target = target if at in within and target not in within else None
        elif word & 0x9F000000 == 0x10000000:  # adr
            target = at + _signed((word >> 5 & 0x7FFFF) << 2 | word >> 29 & 3, 21)
        elif page is not None and word & 0xFFC00000 == 0x91000000 and word >> 5 & 31 == page[0]:  # add, right behind adrp
            target = page[1] + (word >> 10 & 0xFFF)
        page = None
        if word & 0x9F000000 == 0x90000000:  # adrp
            page = word & 31, (at & -_PAGE) + _PAGE * _signed((word >> 5 & 0x7FFFF) << 2 | word >> 29 & 3, 21)
        if target is not None and code.address <= target < code.end and target % 4 == 0:
            yield at, target


def _signed(value: int, bits: int) -> int:
    return value - (1 << bits) if value >> bits - 1 else value
