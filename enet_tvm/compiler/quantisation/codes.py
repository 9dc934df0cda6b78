"""Post-training quantisation to bytes: affine codes for activations, one scale an output channel for weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ranges = Mapping[str, tuple[float, float]]
"""Layer -> least and largest value of its output; those of the network's input are under `INPUT`."""

INPUT = "input"
"""Name under which the range of the network's input is noted beside those of the layers."""

_MOST = 255
_LARGEST_WEIGHT = 127


@dataclass(frozen=True)
class Codes:
    """What the codes 0 to 255 of a tensor mean: ``scale * (code - zero)``.

    Attributes
    ----------
    scale : float
        Difference of the values of neighbouring codes.
    zero : int
        Code of exactly 0, so that padding is without error.
    """

    scale: float = 1.0
    zero: int = 0

    @classmethod
    def of(cls, low: float, high: float) -> Codes:
        """Return codes that span a range, widened to include 0."""
        low, high = min(0.0, float(low)), max(0.0, float(high))
        scale = (high - low) / _MOST
        if scale < np.finfo(np.float32).tiny:  # Zeros throughout, or next to zeros that float32 cannot tell apart.
            scale = 1.0
        return cls(scale, round(-low / scale))

    @property
    def rounding_zero(self) -> float:
        """The code of zero plus a half: added before a value is cut off to a code, it rounds to the nearest."""
        return self.zero + 0.5

    @property
    def offset(self) -> float:
        """Value added to ``scale * code`` to decode a code: ``-scale * zero``."""
        return -self.scale * self.zero

    def stored_zero(self, dtype: str) -> int:
        """Return the byte that is stored for zero, signed where bytes are ("int8")."""
        return self.zero - 128 * (dtype == "int8")

    def encode(self, values: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Return the codes nearest to `values`, uint8 of the same shape."""
        return np.clip(np.floor(values / self.scale + self.rounding_zero), 0, _MOST).astype(np.uint8)

    def decode(self, codes: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return what codes mean, float32 of the same shape."""
        return (np.float32(self.scale) * (codes.astype(np.float32) - np.float32(self.zero))).astype(np.float32)


IDENTITY = Codes()
"""Codes of a tensor that is not stored as codes: scale 1, zero 0."""


def quantise_weight(weight: NDArray[np.float32], axis: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Return weights as signed bytes and the scale of each output channel, which is along `axis`."""
    others = tuple(k for k in range(weight.ndim) if k != axis)
    largest = np.abs(weight).max(axis=others)
    scales = np.where(largest > 0, largest / _LARGEST_WEIGHT, 1).astype(np.float32)
    shape = [1] * weight.ndim
    shape[axis] = -1
    return np.rint(weight / scales.reshape(shape)).astype(np.int8), scales


def zero_starts(sums: NDArray[np.int64], zero: int) -> NDArray[np.int32]:
    """Return where sums of products with stored bytes start, so that bytes of `zero` count nothing.

    Parameters
    ----------
    sums : ndarray
        Sum of the weights in each sum of products, int64.
    zero : int
        The byte that is stored for zero, signed where bytes are.
    """
    return (-zero * sums).astype(np.int32)


def bfloat16_bits(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Return the bits of the nearest bfloat16, ties to even, uint16 of the same shape; NaN is not expected."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def to_words(elements: NDArray[np.uint16] | NDArray[np.int8]) -> NDArray[np.uint32]:
    """Put neighbours along the last axis but one into 32-bit words, the first in the lowest bits.

    Parameters
    ----------
    elements : ndarray
        Elements of two bytes or one, ... x K x L; the result is ... x K/2 x L or ... x K/4 x L.
    """
    *leading, count, lanes = elements.shape
    per_word = 4 // elements.itemsize
    split = elements.reshape(*leading, count // per_word, per_word, lanes)
    words = np.ascontiguousarray(np.moveaxis(split, -2, -1)).view("<u4")
    return words.reshape(*leading, count // per_word, lanes)
