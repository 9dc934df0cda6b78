"""Kinds of A64 instructions, and the loops among the blocks that were executed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

KINDS = ("fma", "load", "store", "other")
_MULTIPLY_ADD = (
    (0xBF20FC00, 0x0E20CC00),  # fmla and fmls, vectors of float32 and float64
    (0xBF60FC00, 0x0E400C00),  # the same of float16
    (0xBF80B400, 0x0F801000),  # by element, float32 and float64
    (0xBFC0B400, 0x0F001000),  # by element, float16
    (0xFF000000, 0x1F000000),  # fmadd, fmsub and their negations, scalars
    (0xBFE0FC00, 0x0E809400),  # sdot
    (0xBFC0F400, 0x0F80E000),  # sdot by element
    (0xBFE0FC00, 0x2E40FC00),  # bfdot
    (0xBFC0F400, 0x0F40F000),  # bfdot by element
    (0xFFE0FC00, 0x6E40EC00),  # bfmmla
    (0xFFE0FC00, 0x4E80A400),  # smmla
)
"""Masks and bits of multiply-adds (Arm ARM, C4.1 and C7.2); a dot product counts as one."""
_SAME = 0.9
"""Share of a loop's executions that each of its blocks has at least: one that is left early has others."""


@dataclass(frozen=True)
class Block:
    """A block of code that was executed.

    Attributes
    ----------
    executed : int
        How often.
    address : int
        Where its first instruction was.
    words : tuple of int
        Its instructions.
    """

    executed: int
    address: int
    words: tuple[int, ...]

    @property
    def end(self) -> int:
        """Address after the last instruction."""
        return self.address + 4 * len(self.words)


@dataclass(frozen=True)
class Loop:
    """An innermost loop without a branch but its own.

    Attributes
    ----------
    iterations : int
        How often its last instruction is executed in a forward pass.
    words : tuple of int
        Its instructions, the branch last.
    """

    iterations: int
    words: tuple[int, ...]


def kind(word: int) -> str:
    """Return which of `KINDS` an A64 instruction is; a prefetch and what changes a cache are none of load and store."""
    if any(word & mask == bits for mask, bits in _MULTIPLY_ADD):
        return "fma"
    loads = _is_load(word)
    return "other" if loads is None else "load" if loads else "store"


def _is_load(word: int) -> bool | None:
    """Return whether an instruction of the group of loads and stores loads, None for others."""

    def group(mask: int, bits: int) -> bool:
        return word & mask == bits

    if word >> 25 & 0b0101 != 0b0100:
        return None
    flag = bool(word >> 22 & 1)
    if group(0xBE000000, 0x0C000000) or group(0x3F000000, 0x08000000) or group(0x38000000, 0x28000000):
        return flag  # structures of vectors, exclusive ones, pairs
    if group(0x3B000000, 0x18000000):
        return word >> 24 != 0xD8  # relative to the program counter; else a prefetch
    if group(0x38000000, 0x38000000):
        size, vector, operation = word >> 30, word >> 26 & 1, word >> 22 & 3
        if vector:
            return flag
        return None if (size, operation) == (3, 2) else operation != 0
    return None


def count_kinds(blocks: Iterable[Block]) -> Counter[str]:
    """Return how many instructions of each kind were executed."""
    found: Counter[str] = Counter()
    for block in blocks:
        for name, number in Counter(map(kind, block.words)).items():
            found[name] += number * block.executed
    return found


def hot_loops(once: Sequence[Block], twice: Sequence[Block]) -> list[Loop]:
    """Return the loops of a forward pass, those of the most executed instructions first.

    Parameters
    ----------
    once, twice : sequence of Block
        Blocks of a run of one pass and of another of two, whose addresses may differ.
    """
    passes = _loops(twice)
    passes.subtract(_loops(once))
    loops = [Loop(iterations, words) for words, iterations in passes.items() if iterations > 0]
    return sorted(loops, key=lambda loop: -loop.iterations * len(loop.words))


def _loops(blocks: Sequence[Block]) -> Counter[tuple[int, ...]]:
    """Return how often each innermost loop was run through, by its instructions; equal ones are one.

    The emulator cuts long code into several blocks: those that follow each other are put together again.
    """
    starts = {block.address: block for block in sorted(blocks, key=lambda block: block.executed)}
    executed: Counter[tuple[int, ...]] = Counter()
    for last in starts.values():
        target = _backwards(last)
        words: tuple[int, ...] = ()
        at = target
        while at is not None and (block := starts.get(at)) is not None and block.executed >= _SAME * last.executed:
            words += block.words
            if block is last:
                executed[words] += last.executed
                break
            if _is_branch(block.words[-1]):
                break
            at = block.end
    return executed


def _backwards(block: Block) -> int | None:
    """Return where a block's last instruction branches to on a condition, if that is no later than itself."""
    word, at = block.words[-1], block.end - 4
    if word & 0xFF000010 == 0x54000000 or word & 0x7E000000 == 0x34000000:  # b.cond, cbz and cbnz
        distance = _signed(word >> 5 & 0x7FFFF, 19)
    elif word & 0x7E000000 == 0x36000000:  # tbz and tbnz
        distance = _signed(word >> 5 & 0x3FFF, 14)
    else:
        return None
    return at + 4 * distance if distance <= 0 else None


def _is_branch(word: int) -> bool:
    return word >> 26 & 0b111 == 0b101


def _signed(value: int, bits: int) -> int:
    return value - (1 << bits) if value >> bits - 1 else value
