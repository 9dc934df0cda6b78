"""LLVM IR of the functions that kernels call for elements shorter than float32, and for what TensorIR has no word for."""

from __future__ import annotations

from typing import Literal

Isa = Literal["x86", "aarch64"]
"""Instruction set, as far as dot products are concerned."""

PREFIX = "enet_"
"""What the names of the functions begin with."""
_FLIPPED = {"uint8": 0, "int8": -128}
"""Mask of the bits in which a stored byte differs from its code, by dtype."""


def definition(name: str, isa: Isa) -> str:
    """Return the LLVM IR of a function, and of what it calls.

    Its name is made of `PREFIX`, what it does, the elements' dtype and a vector's lanes, joined by ``_``.
    """
    what, dtype, lanes = name.removeprefix(PREFIX).split("_")
    if what.startswith("dot"):
        return _dot(name, dtype, int(lanes), isa)
    if dtype == "int8" and what in ("load", "store"):
        return (_load_signed if what == "load" else _store_signed)(name, int(lanes))
    return _FUNCTIONS[what](name, dtype, int(lanes))


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


_FUNCTIONS = {
    "load": _load,
    "store": _store,
    "pack": _pack,
    "pair": _pair,
    "max": _max,
    "matrix": _matrix,
    "unknown": _unknown,
}
"""What makes the text of a function, by what it does."""
