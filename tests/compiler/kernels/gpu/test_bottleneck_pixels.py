"""Where the pixels of a block lie, in the picture and in shared memory."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from tvm.sym import Analyzer

from enet_tvm.compiler.kernels.gpu.bottleneck_pixels import CellRuns, PixelOrder


def number(expr: Any) -> int:
    return int(Analyzer().simplify(expr)) if not isinstance(expr, int) else expr


def test_pixels_one_after_the_other():
    order = PixelOrder(3, 10, 8)
    assert order.blocks == 4
    places = [order.place(block, slot) for block in range(4) for slot in range(8)]
    assert [tuple(map(number, place)) for place in places][:30] == list(itertools.product(range(3), range(10)))
    assert [number(order.inside(3, slot)) for slot in range(8)] == [1] * 6 + [0] * 2
    assert PixelOrder(4, 10, 8).inside(0, 0) is None


@pytest.mark.parametrize("width", [4, 6, 8])
def test_whole_cells(width: int):
    """Every pixel is one of a block, and the half of a block's slots lies below the other."""
    order = PixelOrder(4, width, 8, in_cells=True)
    inside = [
        (block, slot)
        for block in range(order.blocks)
        for slot in range(8)
        if order.inside(block, slot) is None or number(order.inside(block, slot))
    ]
    places = {at: tuple(map(number, order.place(*at))) for at in inside}
    assert sorted(places.values()) == list(itertools.product(range(4), range(width)))
    for block, slot in inside:
        row, column = places[block, slot]
        assert (row % 2, slot >= 4) in ((0, False), (1, True))
        if slot < 4:
            assert places[block, slot + 4] == (row + 1, column)
    assert tuple(map(number, order.place(0, 0, 1))) == (0, 1)


@pytest.mark.parametrize("runs", [CellRuns(8, 16, 4), CellRuns(4, 32, 2), CellRuns(8, 32, 4), CellRuns(8, 32, 2)])
def test_runs_of_a_place(runs: CellRuns):
    """A thread has pixels of one place in their cells, and each pixel of a block is some thread's."""
    cells = runs.pixels * runs.lanes // 4
    slots = {number(runs.of_cell(position, cell)): position for position in range(4) for cell in range(cells)}
    assert len(slots) == 4 * cells
    assert max(slots) < runs.length
    of_threads = [
        (number(runs.of_thread(start, lane)) + i, number(runs.position(lane)))
        for lane in range(runs.lanes)
        for start in range(0, runs.pixels, runs.vector)
        for i in range(runs.vector)
    ]
    assert dict(of_threads) == slots
