"""The machine code of a GPU's kernels, as far as their speed depends on it: arithmetic, loads and stores by width, and loops.

NVIDIA's disassembler comes in none of the packages that compiling takes, and that of CUDA 13 does not know a Jetson TX1. So
what assembles to a cubin, an ELF file, is read here: 64-bit instructions with a control word before every three up to compute
capability 6.2, and 128-bit instructions from 7.0 on. Only the fields that tell the operations of `Operation` apart are decoded;
whatever else there is (integers, addresses) counts as `Operation.OTHER`.
"""

from __future__ import annotations

import io
import struct
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from elftools.elf.elffile import ELFFile

_TEXT = ".text."
_WITH_128_BITS, _WITH_LONG_OFFSETS = 70, 90
"""Ten times the compute capability of the first GPUs with 128-bit instructions, and with eight more bits for a branch."""


class Operation(StrEnum):
    """What an instruction does; those of memory are named by the space that they read or write.

    A conversion is one from a type of floats to another that is no arithmetic of halves: a unit of its own does it, slowly.
    """

    FMA = "fma"
    FLOAT = "float"
    HALF2_FMA = "half2 fma"
    HALF2 = "half2"
    MATRIX = "matrix"
    CONVERSION = "conversion"
    LOAD_GLOBAL = "load global"
    STORE_GLOBAL = "store global"
    LOAD_SHARED = "load shared"
    STORE_SHARED = "store shared"
    LOAD_MATRIX = "load matrix"
    LOAD_LOCAL = "load local"
    STORE_LOCAL = "store local"
    BARRIER = "barrier"
    BRANCH = "branch"
    EXIT = "exit"
    OTHER = "other"


LOADS = (Operation.LOAD_GLOBAL, Operation.LOAD_SHARED, Operation.LOAD_MATRIX, Operation.LOAD_LOCAL)
"""Operations that move memory into registers."""

_SIZED = {
    Operation.LOAD_GLOBAL,
    Operation.STORE_GLOBAL,
    Operation.LOAD_SHARED,
    Operation.STORE_SHARED,
    Operation.LOAD_LOCAL,
    Operation.STORE_LOCAL,
}
_WIDTHS = (1, 1, 2, 2, 4, 8, 16, 16)
"""Bytes of the eight sizes that loads and stores have a field for."""

# The upper 16 bits of a 64-bit instruction, without those that modify it: mask and value.
_OF_64_BITS: tuple[tuple[int, int, Operation], ...] = (
    *((0xFF80, value, Operation.FMA) for value in (0x5980, 0x5180, 0x4980, 0x3280)),
    (0xFC00, 0x0C00, Operation.FMA),
    *((0xFFF8, value, Operation.FLOAT) for value in (0x5C58, 0x4C58, 0x5C68, 0x4C68, 0x5C60, 0x4C60)),
    *((0xFEF8, value, Operation.FLOAT) for value in (0x3858, 0x3868, 0x3860)),
    (0xFF00, 0x0800, Operation.FLOAT),
    (0xFF00, 0x1E00, Operation.FLOAT),
    (0xFFF8, 0x5D00, Operation.HALF2_FMA),
    (0xFFF8, 0x5D08, Operation.HALF2),
    (0xFFF0, 0x5D10, Operation.HALF2),
    (0xFFF8, 0x5CA8, Operation.CONVERSION),
    (0xFFF8, 0xEED0, Operation.LOAD_GLOBAL),
    (0xFFF8, 0xEED8, Operation.STORE_GLOBAL),
    (0xFFF8, 0xEF48, Operation.LOAD_SHARED),
    (0xFFF8, 0xEF58, Operation.STORE_SHARED),
    (0xFFF8, 0xEF40, Operation.LOAD_LOCAL),
    (0xFFF8, 0xEF50, Operation.STORE_LOCAL),
    (0xFFF8, 0xF0A8, Operation.BARRIER),
    (0xFFF0, 0xE240, Operation.BRANCH),
    (0xFFF0, 0xE300, Operation.EXIT),
)

# The lowest 9 bits of a 128-bit instruction; the three above them say what kinds its operands are.
_OF_128_BITS = {
    0x023: Operation.FMA,
    0x020: Operation.FLOAT,
    0x021: Operation.FLOAT,
    0x009: Operation.FLOAT,
    0x030: Operation.HALF2,
    0x031: Operation.HALF2_FMA,
    0x032: Operation.HALF2,
    0x035: Operation.HALF2_FMA,
    0x104: Operation.CONVERSION,
    0x03C: Operation.MATRIX,
    0x181: Operation.LOAD_GLOBAL,
    0x186: Operation.STORE_GLOBAL,
    0x184: Operation.LOAD_SHARED,
    0x188: Operation.STORE_SHARED,
    0x03B: Operation.LOAD_MATRIX,
    0x183: Operation.LOAD_LOCAL,
    0x187: Operation.STORE_LOCAL,
    0x11D: Operation.BARRIER,
    0x147: Operation.BRANCH,
    0x14D: Operation.EXIT,
}


_PRODUCTS = {Operation.FMA: 1, Operation.HALF2_FMA: 2}
_MATRIX_PRODUCTS = {75: 16 * 8 * 8 // 32}
"""Products of a product of matrices for each of the 32 threads, by ten times the compute capability: of depth 8, else 16."""


@dataclass(frozen=True)
class Instruction:
    """One instruction of a kernel.

    Attributes
    ----------
    address : int
        Bytes from the kernel's beginning.
    operation : Operation
        What it does.
    width : int
        Bytes that it moves between memory and the registers of each thread; 0 for one that does not.
    target : int or None
        Address that a branch goes to; None for any other instruction.
    of_matrices : int
        Products that one of matrices adds to sums, for each thread.
    """

    address: int
    operation: Operation
    width: int = 0
    target: int | None = None
    of_matrices: int = 0

    @property
    def products(self) -> int:
        """Products that it adds to sums of a thread."""
        return self.of_matrices if self.operation is Operation.MATRIX else _PRODUCTS.get(self.operation, 0)


@dataclass(frozen=True)
class Loop:
    """A loop of a kernel: the instructions from the first to the branch back to it.

    Attributes
    ----------
    instructions : tuple of Instruction
        Its instructions, those of loops inside it included.
    innermost : bool
        Whether there is no loop inside it.
    """

    instructions: tuple[Instruction, ...]
    innermost: bool

    @property
    def counts(self) -> Counter[Operation]:
        """Number of instructions of each operation."""
        return Counter(each.operation for each in self.instructions)

    @property
    def products(self) -> int:
        """Products that one turn adds to the sums of a thread."""
        return sum(each.products for each in self.instructions)

    @property
    def span(self) -> tuple[int, int]:
        """Addresses of its first and last instruction."""
        return self.instructions[0].address, self.instructions[-1].address

    @property
    def is_hot(self) -> bool:
        """Whether it is an innermost loop that multiplies and adds: where a kernel of arithmetic is."""
        return self.innermost and self.products > 0

    def encloses(self, other: Loop) -> bool:
        """Whether another loop lies inside it."""
        return self != other and self.span[0] <= other.span[0] and other.span[1] <= self.span[1]

    @property
    def loaded_bytes(self) -> int:
        """Bytes that the loads of one turn move into the registers of a thread."""
        return sum(each.width for each in self.instructions if each.operation in LOADS)

    @property
    def bytes_per_fma(self) -> float:
        """Bytes loaded into registers for each multiply-add, one of pairs counting as two; infinite where there is none."""
        return self.loaded_bytes / self.products if self.products else float("inf")


@dataclass(frozen=True)
class KernelCode:
    """The machine code of one kernel.

    Attributes
    ----------
    name : str
        Name of its entry.
    instructions : tuple of Instruction
        Its instructions, in the order of their addresses.
    """

    name: str
    instructions: tuple[Instruction, ...]

    @property
    def loops(self) -> tuple[Loop, ...]:
        """The loops in the order of their first instructions; a branch to itself, which ends every kernel, is none."""
        # Of several branches to the same instruction, such as that of a `continue`, the last one closes the loop.
        spans: dict[int, int] = {}
        for each in self.instructions:
            if each.target is not None and each.target < each.address:
                spans[each.target] = each.address
        found = []
        for first, last in sorted(spans.items()):
            inside = any((a, b) != (first, last) and first <= a and b <= last for a, b in spans.items())
            body = tuple(each for each in self.instructions if first <= each.address <= last)
            found.append(Loop(body, not inside))
        return tuple(found)

    @property
    def hot_loops(self) -> tuple[Loop, ...]:
        """The loops of it that are hot."""
        return tuple(loop for loop in self.loops if loop.is_hot)

    @property
    def counts(self) -> Counter[Operation]:
        """Number of instructions of each operation, every loop counted once."""
        return Counter(each.operation for each in self.instructions)


def read_machine_code(cubins: Iterable[bytes], arch: str) -> dict[str, KernelCode]:
    """Return the machine code of the kernels in cubins, by the names of their entries.

    Parameters
    ----------
    cubins : iterable of bytes
        What ptxas wrote: `enet_tvm.compiler.cuda.ptxas.Assembled.cubins`.
    arch : str
        The architecture that it was assembled for, such as ``sm_53``.
    """
    number = int(arch.removeprefix("sm_"))
    kernels = {}
    for section in (section for cubin in cubins for section in ELFFile(io.BytesIO(cubin)).iter_sections()):
        if section.name.startswith(_TEXT):
            name = section.name.removeprefix(_TEXT)
            code = section.data()
            kernels[name] = KernelCode(name, tuple(_decode_128(code, number) if number >= _WITH_128_BITS else _decode_64(code)))
    return kernels


def _decode_64(code: bytes) -> Iterator[Instruction]:
    for place, (word,) in enumerate(struct.iter_unpack("<Q", code)):
        if place % 4 == 0:
            continue  # Says how the three that follow it are issued.
        address, head = 8 * place, word >> 48
        operation = next((kind for mask, value, kind in _OF_64_BITS if head & mask == value), Operation.OTHER)
        target = address + 8 + _signed(word >> 20, 24) if operation is Operation.BRANCH else None
        if target is not None and target % 32 == 0:
            target += 8  # Past the control word, which a branch may go to as well.
        yield _instruction(address, operation, head & 7, target)


def _decode_128(code: bytes, arch: int) -> Iterator[Instruction]:
    for place, (low, high) in enumerate(struct.iter_unpack("<QQ", code)):
        address = 16 * place
        operation = _OF_128_BITS.get(low & 0x1FF, Operation.OTHER)
        target = None
        if operation is Operation.BRANCH:
            offset = _signed((high << 30) | (low >> 34), 48)
            if arch >= _WITH_LONG_OFFSETS:
                offset = offset << 8 | (low >> 16 & 0xFF)
            target = address + 16 + 4 * offset
        width = _matrix_size(high) if operation is Operation.LOAD_MATRIX else high >> 9 & 7
        of_matrices = _MATRIX_PRODUCTS.get(arch, 64) if operation is Operation.MATRIX else 0
        yield _instruction(address, operation, width, target, of_matrices)


def _matrix_size(high: int) -> int:
    """Return the size field of a load of as many registers as an `LDSM` fills: 1, 2 or 4 matrices."""
    return 4 + (high >> 8 & 3)


def _instruction(address: int, operation: Operation, size: int, target: int | None, of_matrices: int = 0) -> Instruction:
    moves = operation in _SIZED or operation is Operation.LOAD_MATRIX
    return Instruction(address, operation, _WIDTHS[size] if moves else 0, target, of_matrices)


def _signed(value: int, bits: int) -> int:
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


def worst_bytes_per_fma(kernels: Sequence[KernelCode]) -> float:
    """Return the most bytes loaded into registers for each multiply-add in any hot loop of some kernels; 0 without loops."""
    return max((loop.bytes_per_fma for kernel in kernels for loop in kernel.hot_loops), default=0.0)
