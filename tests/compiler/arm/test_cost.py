"""Cycles of executed code: which instructions make a piece, and what a model makes of it."""

from __future__ import annotations

import pytest

from enet_tvm.compiler.arm.cost import MODELS, Cost, Piece, cost_of, model_of, pieces_of
from enet_tvm.compiler.arm.instructions import Block
from enet_tvm.compiler.arm.tools import arm_tools
from enet_tvm.compiler.debian_packages import UnavailableError
from enet_tvm.errors import UserError
from enet_tvm.targets import known_targets, load_target

FMLA, ADD, LOAD, BACK = 0x4E22CC20, 0x8B020020, 0x3DC00420, 0x54FFFFA1


def test_pieces_are_what_is_executed_equally_often():
    """Wherever the emulator cuts: a block that runs into a loop counts for both, and what comes before the call cancels."""
    start = Block(1000, 0, (ADD, ADD))

    def run(calls: int) -> list[Block]:
        into = Block(calls, 64, (LOAD, FMLA, BACK))
        return [start, into, Block(9 * calls, 68, (FMLA, BACK)), Block(calls, 76, (ADD,)), Block(10 * calls, 128, (ADD,))]

    expected = [Piece(1, (LOAD,)), Piece(10, (FMLA, BACK)), Piece(1, (ADD,)), Piece(10, (ADD,))]
    assert pieces_of(run(1), run(2)) == expected


def test_every_arm_target_but_the_generic_one_has_a_model():
    specs = [load_target(name) for name in known_targets()]
    processors = {spec.mcpu for spec in specs if spec.architecture == "aarch64"}
    assert processors - set(MODELS) == {"generic"}
    assert model_of("cortex-a76") == "neoverse-n1"
    with pytest.raises(UserError, match=r"LLVM has no model of generic; name a target with one of cortex-a53, "):
        model_of("generic")


@pytest.mark.emulated
def test_what_a_model_makes_of_them():
    """One multiply-add unit takes a cycle for each, in whatever order the pieces come; rare code is as fast as the rest."""
    try:
        tools = arm_tools()
    except UnavailableError as error:
        pytest.skip(str(error))
    independent = tuple(0x4E3FCFC0 + register for register in range(16))  # into v0 to v15, of v30 and v31
    loop, chain = Piece(1000, independent), Piece(500, (FMLA, FMLA))
    assert cost_of([loop], "cortex-a57", tools).cycles == pytest.approx(16000, rel=0.1)
    assert cost_of([loop], "neoverse-n1", tools).cycles == pytest.approx(8000, rel=0.15)
    both = cost_of([chain, loop], "cortex-a57", tools)
    assert both.instructions == 17000
    parts = [cost_of([piece], "cortex-a57", tools) for piece in (chain, loop)]
    assert both.cycles == pytest.approx(sum(part.cycles for part in parts))
    rare = cost_of([loop, Piece(1, (ADD,))], "cortex-a57", tools)
    assert rare == Cost(16001, pytest.approx(parts[1].cycles * 16001 / 16000))
