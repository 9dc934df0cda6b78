"""Arithmetic on pairs of float16 in one 32-bit word, as functions of CUDA C++ that a kernel calls and brings with it.

TVM has a type of two halves, but its generator for CUDA computes with each of them apart. So a pair is a uint32 here, and what
is done with it one of these functions, which the compiler makes one instruction of: ``fma.rn.f16x2`` above all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from tvm.backend.cuda.op import cuda_func_call
from tvm.tirx.script.builder import ir as T

from enet_tvm.errors import UserError

MULTIPLY_ADD = "enet_multiply_add_pairs"
"""Name of the function of `multiply_add`."""

PACK_FLOATS, PACK_HALVES = "enet_pack_floats", "enet_pack_halves"
"""Names of the functions that make a pair: of two float32, which are rounded, and of two float16."""

LONGEST_CHAIN = 32
"""Most products that are added up in float16, before that sum is added to one in float32."""

_LARGEST = float(np.finfo(np.float16).max)


def _function(head: str, body: str) -> str:
    return f"__device__ __forceinline__ {head} {{ {body} }}\n"


def _of_pairs(head: str, value: str) -> str:
    return _function(f"unsigned int {head}", f"__half2 d = {value}; return *(unsigned int*)&d;")


def _of_matrices(depth: int, *products: str) -> str:
    """Return the source of the function of `add_product`: an instruction for each of `products`, pairs of `a`; of `b`."""
    body = ""
    for product in products:
        operands = [part.split(", ") for part in product.split(";")]
        numbers = iter(range(4, 16))
        sums, a, b, again = (
            "{" + ", ".join(f"%{i}" for i in places) + "}"
            for places in (range(4), *([next(numbers) for _ in part] for part in operands), [next(numbers) for _ in range(4)])
        )
        given = ", ".join([f'"r"({each.strip()})' for part in operands for each in part] + [f'"f"(d[{i}])' for i in range(4)])
        results = ", ".join(f'"=f"(d[{i}])' for i in range(4))
        instruction = f"mma.sync.aligned.m16n8k{depth}.row.col.f32.f16.f16.f32 {sums}, {a}, {b}, {again};"
        body += f'asm volatile("{instruction}" : {results} : {given}); '
    pairs = ", ".join(f"unsigned int {name}" for name in ("a0", "a1", "a2", "a3", "b0", "b1"))
    return _function(f"void {MATRIX_ADD}_{depth}(float* d, {pairs})", body)


MATRIX_ADD = "enet_multiply_add_matrices"
"""Beginning of the names of the functions of `add_product`, which end in the depth of their instruction."""

_SOURCES = {
    MULTIPLY_ADD: _of_pairs(
        f"{MULTIPLY_ADD}(unsigned int a, unsigned int b, unsigned int c)",
        "__hfma2(*(__half2*)&a, *(__half2*)&b, *(__half2*)&c)",
    ),
    "enet_both_low": _of_pairs("enet_both_low(unsigned int a)", "__low2half2(*(__half2*)&a)"),
    "enet_both_high": _of_pairs("enet_both_high(unsigned int a)", "__high2half2(*(__half2*)&a)"),
    "enet_low": _function("float enet_low(unsigned int a)", "return __low2float(*(__half2*)&a);"),
    "enet_high": _function("float enet_high(unsigned int a)", "return __high2float(*(__half2*)&a);"),
    PACK_FLOATS: _of_pairs(f"{PACK_FLOATS}(float low, float high)", "__floats2half2_rn(low, high)"),
    f"{MATRIX_ADD}_16": _of_matrices(16, "a0, a1, a2, a3; b0, b1"),
    f"{MATRIX_ADD}_8": _of_matrices(8, "a0, a1; b0", "a2, a3; b1"),
    PACK_HALVES: _of_pairs(f"{PACK_HALVES}(__half low, __half high)", "__halves2half2(low, high)"),
}


PRODUCTS = {MULTIPLY_ADD: 2, **dict.fromkeys((f"{MATRIX_ADD}_{depth}" for depth in (8, 16)), 16 * 8 * 16 // 32)}
"""Products that a call of a function adds to the sums of its thread, of those functions that do."""


def multiply_add(a: Any, b: Any, c: Any) -> Any:
    """Return a * b + c of pairs, each half rounded once."""
    return _call(MULTIPLY_ADD, a, b, c)


def both(pair: Any, number: int) -> Any:
    """Return a pair of one of the halves of a pair, twice; the compiler makes it a mark on an operand, not an instruction."""
    return _call(("enet_both_low", "enet_both_high")[number], pair)


def float_of(pair: Any, number: int) -> Any:
    """Return one of the halves of a pair as float32."""
    return _call(("enet_low", "enet_high")[number], pair, returns="float32")


def pack_floats(low: Any, high: Any) -> Any:
    """Return the pair of two float32, rounded."""
    return _call(PACK_FLOATS, low, high)


def pack_halves(low: Any, high: Any) -> Any:
    """Return the pair of two float16."""
    return _call(PACK_HALVES, low, high)


def add_product(sums: Any, a: Sequence[Any], b: Sequence[Any], depth: int) -> Any:
    """Return a call that adds a product of matrices, 16 x 16 and 16 x 8, to sums that the threads of a warp have together.

    Threads have them as PTX's tables of the fragments of ``mma.m16n8k16`` say. In depth 8, for GPUs that have no more, two
    products of half as many inputs are added one after the other.

    Parameters
    ----------
    sums : PrimExpr
        Address of the first of the thread's four sums.
    a, b : sequence of PrimExpr
        Four and two pairs.
    depth : {8, 16}
        Inputs of an instruction.
    """
    return _call(f"{MATRIX_ADD}_{depth}", sums, *a, *b, returns="void")


def no_pair() -> Any:
    """Return the pair of zeros."""
    return T.uint32(0)


def called(value: Any) -> str | None:
    """Return the name of the function of CUDA C++ that an expression calls, None where it calls none of its own."""
    if str(getattr(getattr(value, "op", None), "name", "")) != "tirx.cuda.func_call":
        return None
    return str(value.args[0].value)


def pairs_of_outputs(weight: np.ndarray) -> np.ndarray:
    """Return weights (OC x ..., float32) as pairs of neighbouring output channels (OC / 2 x ..., uint32), the even one low.

    It raises what `float16_weight` does.
    """
    halves = float16_weight(weight).view(np.uint16).astype(np.uint32)
    return halves[0::2] | halves[1::2] << 16


def float16_weight(weight: np.ndarray) -> np.ndarray:
    """Return weights rounded to float16.

    Raises
    ------
    UserError
        When one of them is larger than float16 has numbers.
    """
    if np.abs(weight).max(initial=0) > _LARGEST:
        raise UserError(f"a weight is larger than {_LARGEST:.0f}, the largest number of float16; leave --dtype float16 out")
    return weight.astype(np.float16)


def chain_of(inputs: int) -> int:
    """Return how many of an even number of input channels are added up in float16, the most that are even and divide it."""
    return max(count for count in range(2, LONGEST_CHAIN + 1, 2) if inputs % count == 0)


def _call(name: str, *arguments: Any, returns: str = "uint32") -> Any:
    return cuda_func_call(name, *arguments, source_code=_SOURCES[name], return_type=returns)
