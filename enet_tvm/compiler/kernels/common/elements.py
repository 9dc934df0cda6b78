"""float32 vectors in and out of tensors whose elements are shorter, and the processors' dot products of those.

float16 is the exception: TVM has vectors of it and their arithmetic, processors that compute in it take eight or 32 at once,
and kernels between tensors of it do everything in it, their sums included. What that costs, README.md says.

A code is a number from 0 to 255. It is stored as it is where the dot product takes unsigned bytes, and less 128 where it
takes signed ones ("int8"); what `load` returns and `store` takes is the code itself.

TVM's TensorIR has no word for "these 512 bits are sixteen pairs of bfloat16", and its LLVM code generator takes
``bfloat16x32`` for a vector of float32. So words are what buffers hold, and each conversion or dot product is a
function of a few lines of LLVM IR that the kernel brings along and LLVM inlines.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import tvm
from tvm.tirx.script.builder import ir as T

from enet_tvm.compiler.kernels.common.llvm_functions import PREFIX, Isa, definition
from enet_tvm.compiler.ops.layout import DType, Layout

_PACKED = 16
"""Block size, in channels of a byte each, at which x86 packs four blocks at once."""


def dot_products(target: tvm.target.Target) -> frozenset[DType]:
    """Return the short elements that a target's processor multiplies and adds in one instruction.

    float16 is multiplied and added element by element, the others in dot products.
    """
    has = tvm.target.codegen.target_has_features
    triple = str(target.attrs.get("mtriple") or tvm.target.codegen.llvm_get_system_triple())
    known: dict[str, DType] = {"avx512bf16": "bfloat16", "avx512vnni": "uint8", "avx512fp16": "float16"}
    if triple.startswith(("aarch64", "arm64")):
        known = {"bf16": "bfloat16", "dotprod": "int8", "fullfp16": "float16"}
    return frozenset(dtype for feature, dtype in known.items() if has(feature, target))


def vector(start: Any, lanes: int) -> Any:
    """Return the index of `lanes` neighbours."""
    return tvm.tirx.Ramp(start, 1, lanes) if lanes > 1 else start


def splat(value: Any, lanes: int) -> Any:
    """Return a vector of one value."""
    return tvm.tirx.Broadcast(value, lanes) if lanes > 1 else value


def arithmetic(dtype: DType) -> str:
    """Return the dtype in which a kernel that reads such elements adds bias and shortcut, and activates."""
    return "float16" if dtype == "float16" else "float32"


def zeros(dtype: str, lanes: int) -> Any:
    """Return a vector of zeros."""
    return splat(tvm.tirx.const(0, dtype), lanes)


def load(buffer: Any, index: Sequence[Any], layout: Layout, dtype: str = "float32") -> Any:
    """Return one block of channels as a vector of float32, or of float16 where `dtype` says so; of bytes, their codes.

    Parameters
    ----------
    index : sequence
        Picture, block, row and column, padding counted in.
    """
    words = layout.block // layout.per_word
    value = buffer[(*index, vector(0, words))]
    if layout.per_word > 1:
        value = _call("float32", layout.block, "load", layout.dtype, layout.block, value)
    return converted(value, dtype)


def store(buffer: Any, value: Any, index: Sequence[Any], layout: Layout) -> None:
    """Store a vector of floats as one block of channels; as bytes, codes are cut off, not rounded, and saturate."""
    words = layout.block // layout.per_word
    if layout.per_word > 1:
        value = _call("uint32", words, "store", layout.dtype, layout.block, value)
    T.buffer_store(buffer, converted(value, layout.storage), [*index, vector(0, words)])


def converted(value: Any, dtype: str) -> Any:
    """Return a scalar or vector with its elements in this dtype."""
    kind = str(value.ty.dtype).partition("x")
    return value if kind[0] == dtype else T.cast(value, f"{dtype}{kind[1]}{kind[2]}")


def pixels_together(layout: Layout) -> int:
    """Return how many neighbours `store_pixels` stores at once, where that is faster than one after the other."""
    return 4 if layout.dtype == "uint8" and layout.block == _PACKED else 1


def store_pixels(buffer: Any, values: Sequence[Any], index: Sequence[Any], layout: Layout) -> None:
    """Store one block of channels of each of some neighbours in a row, as `store` does the one at `index`."""
    *leading, column = index
    together = pixels_together(layout)
    for first in range(0, len(values), together):
        some = values[first : first + together]
        if len(some) == together > 1:
            # In blocked layouts neighbours follow each other, so that these are one vector of words.
            words = _call("uint32", layout.block, "pack", layout.dtype, layout.block, *some)
            T.buffer_store(buffer, words, [*leading, column + first, vector(0, layout.block)])
            continue
        for i, value in enumerate(some, first):
            store(buffer, value, (*leading, column + i), layout)


def to_words(values: Sequence[Any], dtype: DType, lanes: int) -> Any:
    """Return a vector of words, each of one element from every given float32 vector, the first in the lowest bits.

    At most as many vectors are given as a word has elements. Codes are cut off, not rounded, and saturate.
    """
    if dtype in ("float32", "float16"):
        return converted(values[0], dtype)
    if dtype == "bfloat16":
        second = values[1] if len(values) > 1 else splat(T.float32(0), lanes)
        return _call("uint32", lanes, "pair", dtype, lanes, values[0], second)
    word = None
    for place, value in enumerate(values):
        inside = T.max(T.min(value, splat(T.float32(255), lanes)), splat(T.float32(0), lanes))
        code = T.cast(inside, f"int32x{lanes}") << splat(tvm.tirx.const(8 * place, "int32"), lanes)
        word = code if word is None else word | code
    flipped = splat(tvm.tirx.const(0x80808080, "uint32"), lanes)
    words = T.reinterpret(f"uint32x{lanes}", word)
    return words ^ flipped if dtype == "int8" else words


def largest(a: Any, b: Any, dtype: DType, lanes: int) -> Any:
    """Return the larger of each pair of elements in two vectors of words."""
    return T.max(a, b) if dtype in ("float32", "float16") else _call("uint32", lanes, "max", dtype, lanes, a, b)


def zero_word(layout: Layout, zero: Any = 0) -> Any:
    """Return the word that is stored for zeros; where elements are codes, the whole part of `zero`, a float32, is that of 0."""
    if not layout.codes:
        return tvm.tirx.const(0, layout.storage)
    word = T.cast(zero, "uint32") * tvm.tirx.const(0x01010101, "uint32")
    return word ^ tvm.tirx.const(0x80808080, "uint32") if layout.dtype == "int8" else word


def fill(buffer: Any, leading: Sequence[Any], start: Any, count: int, layout: Layout, zero: Any = 0) -> None:
    """Store zeros in `count` columns from `start` on."""
    if not count:
        return
    words = layout.block // layout.per_word
    value = zero_word(layout, zero)
    with T.serial(count) as column:
        T.buffer_store(buffer, splat(value, words), [*leading, start + column, vector(0, words)])


def write_edges(buffer: Any, leading: Sequence[Any], width: int, layout: Layout, zero: Any = 0) -> None:
    """Zero the columns of padding at either end of a row of `width` pixels."""
    fill(buffer, leading, 0, layout.pad, layout, zero)
    fill(buffer, leading, width + layout.pad, layout.pad, layout, zero)


def accumulator(dtype: DType) -> str:
    """Return the dtype that products of such elements are summed in."""
    return "int32" if dtype in ("uint8", "int8") else arithmetic(dtype)


def by_lane(dtype: DType, isa: Isa) -> bool:
    """Return whether a block of channels is best loaded at once, and each multiplied from its lane of the register.

    ARM multiplies with a lane of a register, but with nothing in memory, as x86 does.
    """
    return isa == "aarch64" and dtype in ("float32", "float16")


def lane(block: Any, number: int) -> Any:
    """Return one element of a vector."""
    return tvm.tirx.Shuffle([block], [tvm.tirx.const(number, "int32")])


def shuffled(vectors: Sequence[Any], lanes: Sequence[int]) -> Any:
    """Return a vector of these lanes of some vectors, which are counted as if they were one."""
    return tvm.tirx.Shuffle(list(vectors), [tvm.tirx.const(number, "int32") for number in lanes])


def multiply_add(total: Any, word: Any, weights: Any, dtype: DType, lanes: int) -> Any:
    """Return `total` plus the products of the elements in one word with those in each lane of `weights`."""
    if dtype in ("float32", "float16"):
        return total + splat(word, lanes) * weights
    return _call(accumulator(dtype), lanes, "dot", dtype, lanes, total, splat(word, lanes), weights)


_called: ContextVar[set[str]] = ContextVar("called")


@contextmanager
def calls() -> Iterator[set[str]]:
    """Collect the names of the LLVM functions that the statements emitted meanwhile call."""
    names: set[str] = set()
    token = _called.set(names)
    try:
        yield names
    finally:
        _called.reset(token)


def multiply_add_pixels(total: Any, words: Any, weight: Any, dtype: DType, lanes: int) -> Any:
    """Return `total` plus the products of the elements in each lane of `words` with those in the one word `weight`."""
    if dtype in ("float32", "float16"):
        return total + words * splat(weight, lanes)
    return _call(accumulator(dtype), lanes, "dotpixels", dtype, lanes, total, words, splat(weight, lanes))


def matrix_multiply_add(total: Any, data: Any, weights: Any, dtype: DType) -> Any:
    """Return `total` plus the product of two matrices: four sums, for the pixels in the halves of `data` by channels.

    The channels' weights are in the halves of `weights`. Both are vectors of four words.
    """
    return _call(accumulator(dtype), 4, "matrix", dtype, 4, total, data, weights)


def unknown(number: int) -> Any:
    """Return a number that LLVM does not know.

    A loop that runs so often it does not unroll; it would load ahead all that the iterations read, more than registers hold.
    """
    return _call("int32", 1, "unknown", "int32", 1, tvm.tirx.const(number, "int32"))


def _call(dtype: str, lanes: int, what: str, element: str, block: int, *arguments: Any) -> Any:
    name = f"{PREFIX}{what}_{element}_{block}"
    _called.get().add(name)
    return tvm.tirx.call_extern(dtype if lanes == 1 else f"{dtype}x{lanes}", name, *arguments)


def with_definitions(function: tvm.tirx.PrimFunc, names: set[str], isa: Isa) -> tvm.tirx.PrimFunc:
    """Return a kernel together with the LLVM functions that it calls."""
    if not names:
        return function
    text = tvm.ir.StringImm("\n".join(definition(name, isa) for name in sorted(names)))
    return function.with_body(tvm.tirx.AttrStmt(tvm.tirx.IntImm("int32", 0), "pragma_import_llvm", text, function.body))
