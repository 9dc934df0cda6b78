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
from typing import Any, Literal

import tvm
from tvm.tirx.script.builder import ir as T

from enet_tvm.compiler.ops.layout import DType, Layout

Isa = Literal["x86", "aarch64"]
"""Instruction set, as far as dot products are concerned."""

_PREFIX = "enet_"
_PACKED = 16
"""Block size, in channels of a byte each, at which x86 packs four blocks at once."""
_FLIPPED = {"uint8": 0, "int8": -128}
"""Mask of the bits in which a stored byte differs from its code, by dtype."""


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

    A loop that runs so often it does not unroll, to load ahead of it all that the iterations read, and more than registers hold.
    """
    return _call("int32", 1, "unknown", "int32", 1, tvm.tirx.const(number, "int32"))


def _call(dtype: str, lanes: int, what: str, element: str, block: int, *arguments: Any) -> Any:
    name = f"{_PREFIX}{what}_{element}_{block}"
    _called.get().add(name)
    return tvm.tirx.call_extern(dtype if lanes == 1 else f"{dtype}x{lanes}", name, *arguments)


def with_definitions(function: tvm.tirx.PrimFunc, names: set[str], isa: Isa) -> tvm.tirx.PrimFunc:
    """Return a kernel together with the LLVM functions that it calls."""
    if not names:
        return function
    text = tvm.ir.StringImm("\n".join(_definition(name, isa) for name in sorted(names)))
    return function.with_body(tvm.tirx.AttrStmt(tvm.tirx.IntImm("int32", 0), "pragma_import_llvm", text, function.body))


def _definition(name: str, isa: Isa) -> str:
    what, dtype, lanes = name.removeprefix(_PREFIX).split("_")
    if what.startswith("dot"):
        return _dot(name, dtype, int(lanes), isa)
    if dtype == "int8" and what in ("load", "store"):
        return (_load_signed if what == "load" else _store_signed)(name, int(lanes))
    return {"load": _load, "store": _store, "pack": _pack, "pair": _pair, "max": _max, "matrix": _matrix, "unknown": _unknown}[what](
        name, dtype, int(lanes)
    )


def _words(count: int) -> str:
    return _vector("i32", count)


def _vector(kind: str, lanes: int) -> str:
    return f"<{lanes} x {kind}>" if lanes > 1 else kind


def _constant(value: int, lanes: int) -> str:
    return f"splat (i32 {value})" if lanes > 1 else str(value)


def _load(name: str, dtype: str, lanes: int) -> str:
    if dtype == "bfloat16":
        return f"""
define <{lanes} x float> @{name}({_words(lanes // 2)} %words) alwaysinline {{
  %halves = bitcast {_words(lanes // 2)} %words to <{lanes} x i16>
  %wide = zext <{lanes} x i16> %halves to <{lanes} x i32>
  %bits = shl <{lanes} x i32> %wide, splat (i32 16)
  %result = bitcast <{lanes} x i32> %bits to <{lanes} x float>
  ret <{lanes} x float> %result
}}"""
    return f"""
define <{lanes} x float> @{name}({_words(lanes // 4)} %words) alwaysinline {{
  %bytes = bitcast {_words(lanes // 4)} %words to <{lanes} x i8>
  %codes = xor <{lanes} x i8> %bytes, splat (i8 {_FLIPPED[dtype]})
  %wide = zext <{lanes} x i8> %codes to <{lanes} x i32>
  %result = sitofp <{lanes} x i32> %wide to <{lanes} x float>
  ret <{lanes} x float> %result
}}"""


def _store(name: str, dtype: str, lanes: int) -> str:
    if dtype == "bfloat16":
        return f"""
define {_words(lanes // 2)} @{name}(<{lanes} x float> %value) alwaysinline {{
  %halves = fptrunc <{lanes} x float> %value to <{lanes} x bfloat>
  %result = bitcast <{lanes} x bfloat> %halves to {_words(lanes // 2)}
  ret {_words(lanes // 2)} %result
}}"""
    # Nothing exceeds 32 bits here: a value is at most some hundred times its tensor's range.
    kind = f"<{lanes} x i32>"
    return f"""
declare {kind} @llvm.smax.v{lanes}i32({kind}, {kind})
declare {kind} @llvm.smin.v{lanes}i32({kind}, {kind})
define {_words(lanes // 4)} @{name}(<{lanes} x float> %value) alwaysinline {{
  %whole = fptosi <{lanes} x float> %value to {kind}
  %least = call {kind} @llvm.smax.v{lanes}i32({kind} %whole, {kind} zeroinitializer)
  %most = call {kind} @llvm.smin.v{lanes}i32({kind} %least, {kind} splat (i32 255))
  %codes = trunc {kind} %most to <{lanes} x i8>
  %bytes = xor <{lanes} x i8> %codes, splat (i8 {_FLIPPED[dtype]})
  %result = bitcast <{lanes} x i8> %bytes to {_words(lanes // 4)}
  ret {_words(lanes // 4)} %result
}}"""


def _load_signed(name: str, lanes: int) -> str:
    # Halves of 16 bits between: of bytes, LLVM widens a part after the other.
    return f"""
define <{lanes} x float> @{name}({_words(lanes // 4)} %words) alwaysinline {{
  %bytes = bitcast {_words(lanes // 4)} %words to <{lanes} x i8>
  %short = sext <{lanes} x i8> %bytes to <{lanes} x i16>
  %codes = add <{lanes} x i16> %short, splat (i16 {-_FLIPPED["int8"]})
  %result = sitofp <{lanes} x i16> %codes to <{lanes} x float>
  ret <{lanes} x float> %result
}}"""


def _store_signed(name: str, lanes: int) -> str:
    # ARM has instructions that take half of the bits and saturate, first signed ones, then unsigned.
    whole, half = f"<{lanes} x i32>", f"<{lanes} x i16>"
    return f"""
declare {whole} @llvm.smax.v{lanes}i32({whole}, {whole})
declare {whole} @llvm.smin.v{lanes}i32({whole}, {whole})
declare {half} @llvm.smax.v{lanes}i16({half}, {half})
declare {half} @llvm.smin.v{lanes}i16({half}, {half})
define {_words(lanes // 4)} @{name}(<{lanes} x float> %value) alwaysinline {{
  %whole = fptosi <{lanes} x float> %value to {whole}
  %least = call {whole} @llvm.smax.v{lanes}i32({whole} %whole, {whole} splat (i32 -32768))
  %most = call {whole} @llvm.smin.v{lanes}i32({whole} %least, {whole} splat (i32 32767))
  %short = trunc {whole} %most to {half}
  %above = call {half} @llvm.smax.v{lanes}i16({half} %short, {half} zeroinitializer)
  %inside = call {half} @llvm.smin.v{lanes}i16({half} %above, {half} splat (i16 255))
  %codes = trunc {half} %inside to <{lanes} x i8>
  %bytes = xor <{lanes} x i8> %codes, splat (i8 {_FLIPPED["int8"]})
  %result = bitcast <{lanes} x i8> %bytes to {_words(lanes // 4)}
  ret {_words(lanes // 4)} %result
}}"""


def _pair(name: str, _dtype: str, lanes: int) -> str:
    return f"""
define {_words(lanes)} @{name}(<{lanes} x float> %a, <{lanes} x float> %b) alwaysinline {{
  %x = fptrunc <{lanes} x float> %a to <{lanes} x bfloat>
  %y = fptrunc <{lanes} x float> %b to <{lanes} x bfloat>
  %first = bitcast <{lanes} x bfloat> %x to <{lanes} x i16>
  %second = bitcast <{lanes} x bfloat> %y to <{lanes} x i16>
  %low = zext <{lanes} x i16> %first to {_words(lanes)}
  %wide = zext <{lanes} x i16> %second to {_words(lanes)}
  %high = shl {_words(lanes)} %wide, {_constant(16, lanes)}
  %result = or {_words(lanes)} %low, %high
  ret {_words(lanes)} %result
}}"""


def _max(name: str, dtype: str, lanes: int) -> str:
    words = _words(lanes)
    if dtype == "bfloat16":
        floats, bits = _vector("float", lanes), _vector("i1", lanes)
        return f"""
define {words} @{name}({words} %a, {words} %b) alwaysinline {{
  %ah = and {words} %a, {_constant(-65536, lanes)}
  %bh = and {words} %b, {_constant(-65536, lanes)}
  %al = shl {words} %a, {_constant(16, lanes)}
  %bl = shl {words} %b, {_constant(16, lanes)}
  %afh = bitcast {words} %ah to {floats}
  %bfh = bitcast {words} %bh to {floats}
  %afl = bitcast {words} %al to {floats}
  %bfl = bitcast {words} %bl to {floats}
  %over = fcmp ogt {floats} %afh, %bfh
  %under = fcmp ogt {floats} %afl, %bfl
  %high = select {bits} %over, {words} %ah, {words} %bh
  %left = select {bits} %under, {words} %al, {words} %bl
  %low = lshr {words} %left, {_constant(16, lanes)}
  %result = or {words} %high, %low
  ret {words} %result
}}"""
    bytes_, intrinsic = f"<{4 * lanes} x i8>", f"llvm.{'u' if dtype == 'uint8' else 's'}max.v{4 * lanes}i8"
    return f"""
declare {bytes_} @{intrinsic}({bytes_}, {bytes_})
define {words} @{name}({words} %a, {words} %b) alwaysinline {{
  %x = bitcast {words} %a to {bytes_}
  %y = bitcast {words} %b to {bytes_}
  %most = call {bytes_} @{intrinsic}({bytes_} %x, {bytes_} %y)
  %result = bitcast {bytes_} %most to {words}
  ret {words} %result
}}"""


def _pack(name: str, _dtype: str, _lanes: int) -> str:
    # The instructions that saturate put together what lies in the same quarter of both registers, hence the order at the end.
    return f"""
declare <32 x i16> @llvm.x86.avx512.packssdw.512(<16 x i32>, <16 x i32>)
declare <64 x i8> @llvm.x86.avx512.packuswb.512(<32 x i16>, <32 x i16>)
define <16 x i32> @{name}(<16 x float> %a, <16 x float> %b, <16 x float> %c, <16 x float> %d) alwaysinline {{
  %p = fptosi <16 x float> %a to <16 x i32>
  %q = fptosi <16 x float> %b to <16 x i32>
  %r = fptosi <16 x float> %c to <16 x i32>
  %s = fptosi <16 x float> %d to <16 x i32>
  %pq = call <32 x i16> @llvm.x86.avx512.packssdw.512(<16 x i32> %p, <16 x i32> %q)
  %rs = call <32 x i16> @llvm.x86.avx512.packssdw.512(<16 x i32> %r, <16 x i32> %s)
  %bytes = call <64 x i8> @llvm.x86.avx512.packuswb.512(<32 x i16> %pq, <32 x i16> %rs)
  %words = bitcast <64 x i8> %bytes to <16 x i32>
  %result = shufflevector <16 x i32> %words, <16 x i32> poison, <16 x i32> <
    i32 0, i32 4, i32 8, i32 12, i32 1, i32 5, i32 9, i32 13, i32 2, i32 6, i32 10, i32 14, i32 3, i32 7, i32 11, i32 15>
  ret <16 x i32> %result
}}"""


_DOTS: dict[tuple[Isa, str], tuple[str, str, str]] = {
    ("x86", "bfloat16"): ("llvm.x86.avx512bf16.dpbf16ps.{bits}", "float", "<{pairs} x bfloat>"),
    ("x86", "uint8"): ("llvm.x86.avx512.vpdpbusd.{bits}", "i32", "<{bytes} x i8>"),
    ("aarch64", "bfloat16"): ("llvm.aarch64.neon.bfdot.v{lanes}f32.v{pairs}bf16", "float", "<{pairs} x bfloat>"),
    ("aarch64", "int8"): ("llvm.aarch64.neon.sdot.v{lanes}i32.v{bytes}i8", "i32", "<{bytes} x i8>"),
}
"""Intrinsic, type of the sums and type of the operands: each sum takes two pairs' or four bytes' products."""


def _unknown(name: str, _dtype: str, _lanes: int) -> str:
    return f"""
define i32 @{name}(i32 %number) alwaysinline {{
  %result = call i32 asm "", "=r,0"(i32 %number)
  ret i32 %result
}}"""


_MATRICES = {
    "bfloat16": ("llvm.aarch64.neon.bfmmla", "float", "<8 x bfloat>"),
    "int8": ("llvm.aarch64.neon.smmla.v4i32.v16i8", "i32", "<16 x i8>"),
}
"""Intrinsic, type of the sums and type of the operands, which are two rows each: those of the first are the sums' rows."""


def _matrix(name: str, dtype: str, _lanes: int) -> str:
    intrinsic, scalar, operand = _MATRICES[dtype]
    total = f"<4 x {scalar}>"
    return f"""
declare {total} @{intrinsic}({total}, {operand}, {operand})
define {total} @{name}({total} %total, <4 x i32> %data, <4 x i32> %weights) alwaysinline {{
  %x = bitcast <4 x i32> %data to {operand}
  %w = bitcast <4 x i32> %weights to {operand}
  %result = call {total} @{intrinsic}({total} %total, {operand} %x, {operand} %w)
  ret {total} %result
}}"""


_REGISTER = 4
"""Words in a register of ARM; of more, a dot product is of two vectors."""


def _dot(name: str, dtype: str, lanes: int, isa: Isa) -> str:
    if isa == "aarch64" and lanes == 2 * _REGISTER:
        return _dot_of_two(name, dtype, isa)
    sizes = {"lanes": lanes, "bits": 32 * lanes, "pairs": 2 * lanes, "bytes": 4 * lanes}
    intrinsic, scalar, operand = (part.format(**sizes) for part in _DOTS[isa, dtype])
    total, words = f"<{lanes} x {scalar}>", _words(lanes)
    # One side is one word in all lanes. As the last operand LLVM makes that an operand in memory on x86 and no instruction
    # of its own, but where signs differ, the last is the signed one; on ARM it is loaded into all lanes by ld1r.
    data_first = (isa, dtype) == ("x86", "uint8") or "dotpixels" in name
    operands = f"{operand} %x, {operand} %w" if data_first else f"{operand} %w, {operand} %x"
    return f"""
declare {total} @{intrinsic}({total}, {operand}, {operand})
define {total} @{name}({total} %total, {words} %data, {words} %weights) alwaysinline {{
  %x = bitcast {words} %data to {operand}
  %w = bitcast {words} %weights to {operand}
  %result = call {total} @{intrinsic}({total} %total, {operands})
  ret {total} %result
}}"""


def _dot_of_two(name: str, dtype: str, isa: Isa) -> str:
    half, sums, words = f"{name}_half", f"x {_DOTS[isa, dtype][1]}>", _words(2 * _REGISTER)
    low, high = (
        f"<{_REGISTER} x i32> <{', '.join(f'i32 {lane}' for lane in range(at, at + _REGISTER))}>" for at in (0, _REGISTER)
    )
    both = f"<8 x i32> <{', '.join(f'i32 {lane}' for lane in range(2 * _REGISTER))}>"
    parts = [
        f"""
  %t{n} = shufflevector <8 {sums} %total, <8 {sums} poison, {lanes}
  %d{n} = shufflevector {words} %data, {words} poison, {lanes}
  %w{n} = shufflevector {words} %weights, {words} poison, {lanes}
  %s{n} = call <4 {sums} @{half}(<4 {sums} %t{n}, <4 x i32> %d{n}, <4 x i32> %w{n})"""
        for n, lanes in enumerate((low, high))
    ]
    return f"""{_dot(half, dtype, _REGISTER, isa)}
define <8 {sums} @{name}(<8 {sums} %total, {words} %data, {words} %weights) alwaysinline {{{parts[0]}{parts[1]}
  %result = shufflevector <4 {sums} %s0, <4 {sums} %s1, {both}
  ret <8 {sums} %result
}}"""
