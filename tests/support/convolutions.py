"""Kinds of convolution that every family of kernels is tested with."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """Kernel, strides, padding and dilation of a convolution, as pairs of rows and columns."""

    kernel: tuple[int, int]
    strides: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    output_padding: int = 0
    transposed: bool = False

    def output(self, height: int, width: int) -> tuple[int, int]:
        if self.transposed:
            return 2 * height, 2 * width
        sides = zip((height, width), self.kernel, self.strides, self.padding, self.dilation, strict=True)
        rows, columns = ((s + 2 * p - (k - 1) * d - 1) // t + 1 for s, k, t, p, d in sides)
        return rows, columns


KINDS = {
    "1x1": Kind((1, 1)),
    "2x2 stride 2": Kind((2, 2), (2, 2)),
    "3x3": Kind((3, 3), padding=(1, 1)),
    "3x3 dilation 4": Kind((3, 3), padding=(4, 4), dilation=(4, 4)),
    "3x3 dilation 16": Kind((3, 3), padding=(16, 16), dilation=(16, 16)),
    "3x3 stride 2": Kind((3, 3), (2, 2), (1, 1)),
    "3x3 without padding": Kind((3, 3)),
    "1x5": Kind((1, 5), padding=(0, 2)),
    "5x1": Kind((5, 1), padding=(2, 0)),
    "4x3 uneven": Kind((4, 3), (1, 3), (3, 2), (1, 2)),
    "transposed 2x2": Kind((2, 2), (2, 2), transposed=True),
    "transposed 3x3": Kind((3, 3), (2, 2), (1, 1), output_padding=1, transposed=True),
    "transposed 4x4": Kind((4, 4), (2, 2), (1, 1), transposed=True),
}
