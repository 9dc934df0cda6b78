"""Kernels of short elements on processors without the dot products: the instructions replaced by what they compute."""

from __future__ import annotations

import re

import tvm

_DECLARED = re.compile(r"declare <(\d+) x \w+> @(llvm\.x86\.avx512(?:\.vpdpbusd|bf16\.dpbf16ps)\.\d+)\(.*\)")
_NARROWED = re.compile(r"fptrunc <(\d+) x float> (%\w+) to <\d+ x bfloat>")


@tvm.ir.transform.module_pass(opt_level=0, name="SoftwareDots")
class SoftwareDots:
    """Replace x86's dot products of bytes and of bfloat16, and its rounding to bfloat16, in the LLVM IR that kernels bring."""

    def transform_module(self, mod: tvm.IRModule, _context: tvm.transform.PassContext) -> tvm.IRModule:
        changed = mod.clone()
        for name, function in mod.functions_items():
            body = getattr(function, "body", None)
            if isinstance(body, tvm.tirx.AttrStmt) and body.attr_key == "pragma_import_llvm":
                text = tvm.ir.StringImm(in_software(str(body.value.value)))
                changed.update_func(name, function.with_body(tvm.tirx.AttrStmt(body.node, body.attr_key, text, body.body)))
        return changed


def in_software(text: str) -> str:
    """Return LLVM IR that asks for no instruction of AVX-512."""
    for match in list(_DECLARED.finditer(text)):
        lanes, intrinsic = int(match[1]), match[2]
        name = f"software_{'bytes' if 'vpdpbusd' in intrinsic else 'pairs'}_{lanes}"
        text = text.replace(match[0], _bytes(name, lanes) if "vpdpbusd" in intrinsic else _pairs(name, lanes))
        text = text.replace(f"@{intrinsic}(", f"@{name}(")
    for lanes in {int(match[1]) for match in _NARROWED.finditer(text)}:
        text += _rounded(f"software_round_{lanes}", lanes)
    return _NARROWED.sub(r"call <\1 x bfloat> @software_round_\1(<\1 x float> \2)", text)


def _parts(kind: str, add: str, lanes: int, count: int) -> str:
    """Return IR that adds every `count` neighbours of %products to %total."""
    lines, total = [], "%total"
    for part in range(count):
        chosen = ", ".join(f"i32 {lane * count + part}" for lane in range(lanes))
        wide = f"<{lanes * count} x {kind}>"
        lines.append(f"  %part{part} = shufflevector {wide} %products, {wide} poison, <{lanes} x i32> <{chosen}>")
        lines.append(f"  %sum{part} = {add} <{lanes} x {kind}> {total}, %part{part}")
        total = f"%sum{part}"
    return "\n".join([*lines, f"  ret <{lanes} x {kind}> {total}"])


def _bytes(name: str, lanes: int) -> str:
    few, many, wide = f"<{lanes} x i32>", f"<{4 * lanes} x i8>", f"<{4 * lanes} x i32>"
    return f"""
define {few} @{name}({few} %total, {many} %unsigned, {many} %signed) alwaysinline {{
  %a = zext {many} %unsigned to {wide}
  %b = sext {many} %signed to {wide}
  %products = mul {wide} %a, %b
{_parts("i32", "add", lanes, 4)}
}}
"""


def _pairs(name: str, lanes: int) -> str:
    few, many, wide = f"<{lanes} x float>", f"<{2 * lanes} x bfloat>", f"<{2 * lanes} x float>"
    lines = []
    for operand in "xy":
        lines.append(f"  %{operand}i = bitcast {many} %{operand} to <{2 * lanes} x i16>")
        lines.append(f"  %{operand}w = zext <{2 * lanes} x i16> %{operand}i to <{2 * lanes} x i32>")
        lines.append(f"  %{operand}s = shl <{2 * lanes} x i32> %{operand}w, splat (i32 16)")
        lines.append(f"  %{operand}f = bitcast <{2 * lanes} x i32> %{operand}s to {wide}")
    body = "\n".join(lines)
    return f"""
define {few} @{name}({few} %total, {many} %x, {many} %y) alwaysinline {{
{body}
  %products = fmul {wide} %xf, %yf
{_parts("float", "fadd", lanes, 2)}
}}
"""


def _rounded(name: str, lanes: int) -> str:
    words, halves = f"<{lanes} x i32>", f"<{lanes} x i16>"
    return f"""
define <{lanes} x bfloat> @{name}(<{lanes} x float> %value) alwaysinline {{
  %bits = bitcast <{lanes} x float> %value to {words}
  %high = lshr {words} %bits, splat (i32 16)
  %odd = and {words} %high, splat (i32 1)
  %biased = add {words} %bits, splat (i32 32767)
  %rounded = add {words} %biased, %odd
  %shifted = lshr {words} %rounded, splat (i32 16)
  %short = trunc {words} %shifted to {halves}
  %result = bitcast {halves} %short to <{lanes} x bfloat>
  ret <{lanes} x bfloat> %result
}}
"""
