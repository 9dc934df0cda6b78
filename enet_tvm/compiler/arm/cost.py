"""The cycles of code that was executed on an emulated ARM processor, by LLVM's model of a real one.

How often each instruction was executed is exact. Those that follow each other and were executed equally often are a piece of
code, such as the body of a loop, and the model says how many cycles a piece takes that is run again and again. It takes all
loads from the first cache and every branch as foreseen: it ranks kernels by their instructions and how these overlap alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from enet_tvm.compiler.arm.instructions import Block
from enet_tvm.compiler.arm.tools import ArmTools
from enet_tvm.errors import UserError

MODELS = {
    "cortex-a53": "cortex-a53",
    "cortex-a55": "cortex-a55",
    "cortex-a57": "cortex-a57",
    "cortex-a72": "cortex-a72",
    "cortex-a76": "neoverse-n1",
    "cortex-a78ae": "neoverse-n1",
    "neoverse-n1": "neoverse-n1",
    "neoverse-v1": "neoverse-v1",
    "neoverse-v2": "neoverse-v2",
}
"""LLVM's model for each processor. LLVM itself gives the Cortex-A72, A76 and A78AE that of the A57, with one multiply-add unit
of 128 bits; the latter two have two, as has Neoverse N1, which is the A76's sibling."""

_ITERATIONS = 20
_LEAST_SHARE = 0.005
"""Share of the instructions below which a piece is not asked of the model: it takes the cycles an instruction of the others."""


@dataclass(frozen=True)
class Piece:
    """Instructions that follow each other and were executed equally often.

    Attributes
    ----------
    executed : int
        How often.
    words : tuple of int
        The instructions.
    """

    executed: int
    words: tuple[int, ...]


@dataclass(frozen=True)
class Cost:
    """What a kernel costs on one thread.

    Attributes
    ----------
    instructions : int
        Instructions executed.
    cycles : float
        Cycles by the model.
    """

    instructions: int
    cycles: float


def model_of(mcpu: str) -> str:
    """Return what LLVM calls its model of a processor.

    Raises
    ------
    UserError
        When it has none.
    """
    if mcpu not in MODELS:
        raise UserError(f"LLVM has no model of {mcpu}; name a target with one of {', '.join(MODELS)}")
    return MODELS[mcpu]


def pieces_of(once: Sequence[Block], twice: Sequence[Block]) -> list[Piece]:
    """Return the code of one call, in the order of its addresses.

    Parameters
    ----------
    once, twice : sequence of Block
        Blocks of a program that makes one call, and of the same that makes two: what it does besides cancels.
    """
    executed: Counter[int] = Counter()
    words: dict[int, int] = {}
    for sign, blocks in ((1, twice), (-1, once)):
        for block in blocks:
            for place, word in enumerate(block.words):
                executed[block.address + 4 * place] += sign * block.executed
                words[block.address + 4 * place] = word
    pieces: list[tuple[int, list[int]]] = []
    end = None
    for address in sorted(address for address, number in executed.items() if number > 0):
        if address == end and pieces[-1][0] == executed[address]:
            pieces[-1][1].append(words[address])
        else:
            pieces.append((executed[address], [words[address]]))
        end = address + 4
    return [Piece(number, tuple(code)) for number, code in pieces]


def cost_of(pieces: Sequence[Piece], model: str, tools: ArmTools) -> Cost:
    """Return the instructions of pieces of code, and the cycles that a model makes of them."""
    instructions = sum(piece.executed * len(piece.words) for piece in pieces)
    asked = [piece for piece in pieces if piece.executed * len(piece.words) >= _LEAST_SHARE * instructions]
    schedules = tools.schedules([piece.words for piece in asked], model, _ITERATIONS)
    cycles = sum(piece.executed * schedule.cycles for piece, schedule in zip(asked, schedules, strict=True))
    counted = sum(piece.executed * len(piece.words) for piece in asked)
    return Cost(instructions, cycles * instructions / max(counted, 1))
