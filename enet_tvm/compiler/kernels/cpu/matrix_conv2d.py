"""Convolutions of bytes and bfloat16 by the matrix instructions of ARM: ``smmla`` (FEAT_I8MM) and ``bfmmla`` (FEAT_BF16).

Both multiply two rows of eight bytes with two others and add the four sums of products to a register. Two neighbouring pixels
are such rows as they lie in memory, where a block of channels is of eight bytes; two output channels are the others. One
instruction makes twice the products of a dot product, and needs no word that was copied to all lanes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tvm
from tvm.tirx.script.builder import ir as T

from enet_tvm.compiler.kernels.common.building import (
    Arguments,
    Registers,
    if_inside,
    prim_func,
    tile_places,
    tile_start,
)
from enet_tvm.compiler.kernels.common.elements import matrix_multiply_add, shuffled, unknown, vector
from enet_tvm.compiler.kernels.common.llvm_functions import Isa
from enet_tvm.compiler.kernels.cpu.conv2d import Conv2DBody, Conv2DTemplate, conv2d_arguments, pack_weight, skips_rows
from enet_tvm.compiler.kernels.cpu.packing import words
from enet_tvm.compiler.kernels.cpu.register_tile import MatrixUnit, RegisterTile, VectorUnit, matrix_tiles
from enet_tvm.compiler.ops import FusedConv2D

_WORDS = 2
"""Words of a row of a matrix: a pixel's block of channels, or as many weights of an output channel."""
_SIDE = 4
"""Words of a matrix of two rows; sums of a register."""


@dataclass(frozen=True)
class MatrixConv2DTemplate(Conv2DTemplate):
    """A fused convolution by matrix instructions, whose input and output are channel-blocked."""

    @classmethod
    def covers(cls, spec: FusedConv2D, unit: VectorUnit) -> bool:
        """Whether the processor has the instruction, and two neighbours of the output read two neighbours of the input."""
        return (
            isinstance(unit, MatrixUnit)
            and Conv2DTemplate.covers(spec, unit)
            and not spec.transposed
            and spec.strides[1] == 1
            and spec.out_shape[3] > 1
            and spec.data_layout.dtype in ("int8", "bfloat16")
            and spec.data_layout.block == _WORDS * spec.data_layout.per_word
        )

    @property
    def default(self) -> RegisterTile:
        """The tile that is expected to take the fewest instructions."""
        return self.points()[0]

    def points(self) -> list[RegisterTile]:
        """Return the tiles worth measuring."""
        lanes = self.spec.out_layout.block
        return matrix_tiles(lanes, self.spec.out_shape[3], self.spec.out_shape[1] // lanes)

    def kernel(self, point: RegisterTile) -> tvm.tirx.PrimFunc:
        """Return the kernel with this tile."""
        return matrix_conv2d(self.spec, point, self.unit.isa)

    def pack(self, weight: np.ndarray, point: RegisterTile) -> np.ndarray:
        """Return weights as the kernel with this tile reads them."""
        return pack_matrix_weight(weight, self.spec, point)


def pack_matrix_weight(weight: np.ndarray, attrs: FusedConv2D, tile: RegisterTile) -> np.ndarray:
    """Return words of weights in the order the kernel reads them.

    Tile of channels, kernel row and column, block of input channels, output channel, word of the block.

    Parameters
    ----------
    weight : ndarray
        Weights, OC x IC x KH x KW.
    """
    packed = words(pack_weight(weight, attrs, tile), attrs.data_layout)
    *leading, inputs, width = packed.shape
    rows = packed.reshape(*leading, inputs // _WORDS, _WORDS, width).swapaxes(-1, -2)
    return np.ascontiguousarray(rows.reshape(*leading, inputs // _WORDS, width * _WORDS))


def matrix_conv2d(attrs: FusedConv2D, tile: RegisterTile, isa: Isa) -> tvm.tirx.PrimFunc:
    """Return the kernel, with the arguments of `enet_tvm.compiler.kernels.cpu.conv2d.conv2d` but for the order of weights."""
    arguments: Arguments = conv2d_arguments(attrs, tile)
    (*leading, inputs, width), dtype = arguments["weight"]
    arguments["weight"] = ((*leading, inputs // _WORDS, width * _WORDS), dtype)

    def body(*buffers: Any) -> None:
        MatrixConv2DBody(attrs, tile, dict(zip(arguments, buffers, strict=True)), isa).emit()

    return prim_func(arguments, body, isa)


class MatrixConv2DBody(Conv2DBody):
    """Emits the statements of one convolution.

    A register has the sums of two pixels and two channels; when all products are added, those of each pixel are put together.
    """

    def __init__(self, attrs: FusedConv2D, tile: RegisterTile, buffers: dict[str, Any], isa: Isa) -> None:
        super().__init__(attrs, tile, buffers, isa)
        self.starts_with_bias = not attrs.data_layout.codes
        self.pixel_pairs, self.channel_pairs = tile.pixels // 2, tile.blocks * self.lanes // 2

    def emit_row(self, picture: Any, row: Any) -> None:
        """Emit a row of the output, its padding left out."""
        _, channels, _, width = self.attrs.out_shape
        with T.serial(-(-width // self.tile.pixels)) as piece:
            start = tile_start(piece, self.tile.pixels, width)
            with T.serial(channels // (self.lanes * self.tile.blocks)) as group:
                matrices = self._started_matrices(row, group)
                self._accumulate_matrices(matrices, picture, row, start, group)
                self._store(self._by_pixel(matrices), picture, row, piece, start, group)

    def _started_matrices(self, row: Any, group: Any) -> Registers:
        matrices = Registers((self.pixel_pairs, self.channel_pairs), _SIDE, self.sums)
        for q in range(self.channel_pairs):
            channels = vector(group * self.tile.blocks * self.lanes + 2 * q, 2)
            if self.attrs.data_layout.codes:
                pair = self.buffers["starts"][row if skips_rows(self.attrs) else 0, 0, channels]
            else:
                pair = self.buffers["bias"][channels]
            start = T.bind(shuffled([pair, pair], range(_SIDE)))
            for p in range(self.pixel_pairs):
                matrices[p, q] = start
        return matrices

    def _accumulate_matrices(self, matrices: Registers, picture: Any, row: Any, start: Any, group: Any) -> None:
        attrs, layout = self.attrs, self.attrs.data_layout
        shift = layout.pad - attrs.padding[1]
        blocks = T.bind(unknown(attrs.data_shape[1] // layout.block))
        with T.serial(attrs.kernel[0]) as kh:
            source = row * attrs.strides[0] + kh * attrs.dilation[0] - attrs.padding[0]
            with if_inside(source, attrs.data_shape[2], may_be_outside=skips_rows(attrs)):
                with T.serial(attrs.kernel[1]) as kw, T.serial(blocks) as kb:
                    left = start + kw * attrs.dilation[1] + shift
                    # Neighbours follow each other in memory: two of them are one vector.
                    data = [
                        T.bind(self.buffers["data"][picture, kb, source, left + 2 * p, vector(0, _SIDE)])
                        for p in range(self.pixel_pairs)
                    ]
                    for q in range(self.channel_pairs):
                        weights = T.bind(self.buffers["weight"][group, kh, kw, kb, vector(q * _SIDE, _SIDE)])
                        for p, pixels in enumerate(data):
                            matrices[p, q] = matrix_multiply_add(matrices[p, q], pixels, weights, layout.dtype)

    def _by_pixel(self, matrices: Registers) -> dict[tuple[int, ...], Any]:
        """Return vectors of sums by phase, pixel and block, as those of dot products."""
        pairs = self.lanes // 2
        sums: dict[tuple[int, ...], Any] = {}
        for p, o in tile_places(self.pixel_pairs, self.tile.blocks):
            found: Sequence[Any] = [matrices[p, o * pairs + q] for q in range(pairs)]
            for i in (0, 1):
                lanes = [_SIDE * q + 2 * i + c for q in range(pairs) for c in (0, 1)]
                sums[0, 2 * p + i, o] = T.bind(shuffled(found, lanes))
        return sums
