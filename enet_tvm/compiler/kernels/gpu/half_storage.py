"""A kernel of float32 whose tensors are stored as float16: converted where they are loaded and stored, and nowhere else.

Half as many bytes move, and what the kernel computes in float32 it still does. Only some of a kernel's arguments are tensors
that others compute; weights and vectors, which caches hold, stay as they are, since converting a weight for each use of it
would cost more than loading it.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import tvm
import tvm_ffi
from tvm import tirx

from enet_tvm.compiler.kernels.gpu.half_arithmetic import PACK_FLOATS, called, pack_halves


def with_half_storage(kernel: tirx.PrimFunc, places: Collection[int]) -> tirx.PrimFunc:
    """Return a kernel that computes the same in float32, some of whose arguments are float16.

    A value beyond 65504 is stored as infinite.

    Parameters
    ----------
    kernel : tirx.PrimFunc
        A kernel of the templates, whose loops are not vectorised yet.
    places : collection of int
        Numbers of the arguments, float32 so far.

    Raises
    ------
    ValueError
        When one of them is not float32.
    """
    halves: dict[Any, Any] = {}
    for place in sorted(places):
        parameter = kernel.params[place]
        if str(parameter.ty.dtype) != "float32":
            raise ValueError(f"{parameter.name} is {parameter.ty.dtype}, and only float32 is shortened")
        halves[parameter] = tirx.decl_buffer(parameter.ty.shape, "float16", str(parameter.name), layout=None)

    def load(node: tvm.ir.TensorLoad) -> Any:
        short = halves.get(node.source)
        return node if short is None else tirx.Cast("float32", tirx.BufferLoad(short, node.indices))

    def store(node: tirx.BufferStore) -> tirx.BufferStore:
        short = halves.get(node.buffer)
        return node if short is None else tirx.BufferStore(short, tirx.Cast("float16", node.value), node.indices)

    def call(node: tvm.ir.Call) -> Any:
        # What is loaded to be one of a pair of float16 is not converted to float32 and back.
        if called(node) != PACK_FLOATS or not all(_is_short(each) for each in node.args[1:3]):
            return node
        return pack_halves(*(each.value for each in node.args[1:3]))

    visitors = ((tvm.ir.TensorLoad, load), (tirx.BufferStore, store), (tvm.ir.Call, call))
    body = tvm_ffi.structural_map(kernel.body, visitors, order="post")
    params = [halves.get(parameter, parameter) for parameter in kernel.params]
    return tirx.PrimFunc(params, body, kernel.ret_type, kernel.attrs)


def _is_short(value: Any) -> bool:
    """Whether an expression is a float16 that is made a float32."""
    return isinstance(value, tirx.Cast) and str(value.value.ty.dtype) == "float16"
