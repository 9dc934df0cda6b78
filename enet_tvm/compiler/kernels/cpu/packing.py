"""Weights and constants as kernels of CPUs read them: in words of the data's elements, in units of the output's codes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from tvm import relax

from enet_tvm.compiler.dataflow import constant
from enet_tvm.compiler.kernels.common.convolution import known
from enet_tvm.compiler.kernels.common.elements import arithmetic
from enet_tvm.compiler.ops import Layout
from enet_tvm.compiler.quantisation.codes import Codes, bfloat16_bits, quantise_weight, to_words


def words(packed: np.ndarray, data: Layout) -> np.ndarray:
    """Return packed weights in words of the data's elements: float32, or bytes where those are of codes, ... x K x L."""
    if data.codes:
        return to_words(packed)
    if data.dtype == "float16":
        return packed.astype(np.float16)
    return to_words(bfloat16_bits(packed)) if data.dtype == "bfloat16" else packed


def summands(vectors: Sequence[relax.Expr], data: Layout) -> list[relax.Expr]:
    """Return constants, one float32 value for each channel, in the dtype that a kernel of such data computes in beside sums."""
    if arithmetic(data.dtype) == "float32":
        return list(vectors)
    return [constant(known(vector).astype(arithmetic(data.dtype))) for vector in vectors]


def slopes(vectors: Sequence[relax.Expr], data: Layout) -> list[relax.Expr]:
    """Return slopes of PReLUs, one for each channel, as `enet_tvm.compiler.kernels.common.building.activated` takes them."""
    if arithmetic(data.dtype) == "float32":
        return list(vectors)
    return summands([constant(known(vector) - np.float32(1)) for vector in vectors], data)


def coded(weight: np.ndarray, axis: int, data: Codes, layout: Layout) -> tuple[np.ndarray, np.ndarray, int]:
    """Return the weights as bytes, what each channel's sum is multiplied with, and the stored byte of the data's zero.

    Parameters
    ----------
    weight : ndarray
        Weights of any shape, output channels along `axis`.
    data : Codes
        Meaning of the data's codes.
    layout : Layout
        Layout of the data.
    """
    values, scales = quantise_weight(weight, axis)
    return values, scales * np.float32(data.scale), data.stored_zero(layout.dtype)


def rounding_zero(codes: Codes) -> np.ndarray:
    """Return the code of zero plus a half, which rounds what is cut off to a code, as a kernel takes it."""
    return np.array([codes.rounding_zero], "float32")
