"""`benchmarks/counting/kernels.py`: of which kernel executed code is."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

from enet_tvm.compiler.arm.instructions import Block

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
NOP, ADD, RET, FMLA, LOAD = 0xD503201F, 0x8B020020, 0xD65F03C0, 0x4E22CC20, 0x3DC00420
START = 0x12FE0


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("counting.kernels")


def jump(at: int, to: int, link: bool = False) -> int:
    return (0x94000000 if link else 0x14000000) | (to - at >> 2 & 0x3FFFFFF)


def page_of(at: int, to: int, register: int) -> int:
    distance = (to >> 12) - (at >> 12)
    return 0x90000000 | (distance & 3) << 29 | (distance >> 2 & 0x7FFFF) << 5 | register


def rest_of(to: int, register: int) -> int:
    return 0x91000000 | (to & 0xFFF) << 10 | register << 5 | register


def library(kernels: Any) -> Any:
    """Two kernels, each of an exported function that ends with a jump to another, which gives its loop to the pool.

    Both call a third, as on errors. The exported functions have jumps within them, and the loops are on the next page.
    """
    first, second, shared, first_launch, second_launch = (START + 16 * number for number in range(5))
    first_loop, second_loop = START + 16 * 5, START + 16 * 5 + 4 * 12
    code = {
        first: [jump(first, first + 8), NOP, jump(first + 8, shared, link=True), jump(first + 12, first_launch)],
        second: [NOP, NOP, jump(second + 8, shared, link=True), jump(second + 12, second_launch)],
        shared: [NOP, NOP, NOP, RET],
        # The first has an address in between that is of no page: what is added to a register long after is another's.
        first_launch: [page_of(first_launch, first_loop, 0), rest_of(first_loop, 0), NOP, RET],
        second_launch: [page_of(second_launch, second_loop, 9), rest_of(second_loop, 9), NOP, RET],
        first_loop: [*[ADD] * 4, FMLA, FMLA, LOAD, *[NOP] * 3, rest_of(first_loop + 8, 0), RET],
        second_loop: [*[NOP] * 4, FMLA, LOAD, LOAD, *[ADD] * 4, RET],
    }
    words = tuple(word for start in sorted(code) for word in code[start])
    exported = {
        first: kernels.Function("conv2d_1x1_4to4_40x24_relu", range(first, first + 16)),
        second: kernels.Function("max_pool2d", range(second, second + 16)),
    }
    return kernels.Code(START, words, exported)


def executed(code: Any, base: int, passes: int) -> list[Block]:
    """Both exported functions once a pass, and of their loops three and five runs; and something that is not the library's."""

    def block(number: int, start: int, length: int) -> Block:
        first = (start - code.address) // 4
        return Block(number * passes, base + start, code.words[first : first + length])

    first_loop, second_loop = START + 80, START + 128
    return [
        *(
            block(1, START, 4),
            block(1, START + 16, 4),
            block(2, START + 32, 4),
            block(1, START + 48, 4),
            block(1, START + 64, 4),
        ),
        *(block(3, first_loop, 12), block(5, second_loop, 12)),
        Block(7, 0x100000, (ADD,) * 12),
    ]


def test_code_is_of_the_kernel_that_reaches_it(kernels: Any):
    """Wherever the library was loaded; what both kernels call is of neither."""
    code = library(kernels)
    found = kernels.kernels_of(code, executed(code, 0x5000, 1), executed(code, 0x7F000, 2))
    assert [(kernel.name, kernel.instructions) for kernel in found] == [
        ("max_pool2d", 8 + 5 * 12),
        ("conv2d_1x1_4to4_40x24_relu", 8 + 3 * 12),
    ]
    assert [kernel.kinds for kernel in found] == [
        {"fma": 5, "load": 10, "store": 0, "other": 53},
        {"fma": 6, "load": 3, "store": 0, "other": 35},
    ]
    assert [(kernel.hottest.executed, len(kernel.hottest.words)) for kernel in found] == [(5, 12), (3, 12)]


def test_where_a_library_was_loaded(kernels: Any):
    code = library(kernels)
    assert kernels.loaded_at(code, executed(code, 0x7F000, 1)) == 0x7F000
    assert kernels.loaded_at(code, [Block(7, 0x100000, (ADD,) * 12)]) == 0
    assert kernels.kernels_of(code, [], [Block(7, 0x100000, (ADD,) * 12)]) == []
