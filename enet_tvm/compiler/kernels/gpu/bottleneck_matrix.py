"""Bottlenecks in one kernel that multiply matrices of float16 with sums in float32, for GPUs that have instructions for it.

It is the kernel of `enet_tvm.compiler.kernels.gpu.bottleneck_kernel`, whose three steps are products of matrices anyhow:
weights, 16 output channels by 16 inputs, times inputs, 16 channels by 8 pixels. Here a warp, not a thread, computes such a tile
of sums.

- A word of shared memory has two channels of a pixel that are 8 apart: those that a thread has sums of are such a pair, and so
  what it has computed needs no exchange before it is stored as what the next product reads.
- The weights of a tile lie as the threads of a warp take them, one 128-bit load each (`pack_matrix_weight`).
- The columns of up to four products are pixels one after the other: a thread loads, and has sums of, whole vectors of them.
- Pixels of a row are stored at places that depend on the row (`swizzled`), so that no two threads need the same bank of shared
  memory, neither where inputs are read, four rows and eight columns at a time, nor where sums are stored, eight rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import tvm
from tvm import relax
from tvm.tirx.script.builder import ir as T

from enet_tvm.compiler.kernels.common.codes import TensorCodes
from enet_tvm.compiler.kernels.gpu.bottleneck import GpuBottleneckTemplate
from enet_tvm.compiler.kernels.gpu.bottleneck_half2 import Half2BottleneckKernel
from enet_tvm.compiler.kernels.gpu.bottleneck_kernel import bottleneck_kernel, bottleneck_operands
from enet_tvm.compiler.kernels.gpu.bottleneck_pixels import CellRuns
from enet_tvm.compiler.kernels.gpu.bottleneck_tile import BottleneckTile
from enet_tvm.compiler.kernels.gpu.building import VECTOR, barrier, for_each, for_vector, if_all, private
from enet_tvm.compiler.kernels.gpu.conv2d import Epilogue
from enet_tvm.compiler.kernels.gpu.half_arithmetic import add_product, float16_weight
from enet_tvm.compiler.kernels.gpu.matrix_tile import DEPTH, PAIRS, ROWS, WarpShare, matrix_tiles, warp_share
from enet_tvm.compiler.kernels.gpu.tile import GpuUnit, HalfUnit
from enet_tvm.compiler.ops import PLANAR, FusedBottleneck, FusedConv2D
from enet_tvm.compiler.quantisation.codes import Codes


@dataclass(frozen=True)
class GpuMatrixBottleneckTemplate(GpuBottleneckTemplate):
    """The end of a bottleneck and the beginning of the next on a GPU that multiplies matrices of float16."""

    unit: HalfUnit

    @classmethod
    def covers(cls, spec: FusedBottleneck, unit: GpuUnit) -> bool:
        """Whether everything is plain NCHW and pointwise after the first convolution, and channels are divided by 16."""
        parts = spec.convolutions
        if not isinstance(unit, HalfUnit) or not unit.matrix_depth or spec.in_cells or len(parts) < 2:
            return False
        if spec.beside is not None and (spec.reduce is None or not spec.beside.is_pointwise):
            return False
        if any(part.transposed or part.argmax for part in parts):
            return False
        if any({part.data_layout, part.out_layout, part.residual_layout} != {PLANAR} for part in parts):
            return False
        plain = all(part.residual == "none" for part in parts if part is not spec.expand)
        local = spec.expand.is_pointwise and (spec.reduce is None or spec.reduce.is_pointwise)
        return plain and local and bool(matrix_tiles(spec, unit))

    def points(self) -> list[BottleneckTile]:
        """Return the launches worth measuring."""
        return matrix_tiles(self.spec, self.unit)

    def kernel(self, point: BottleneckTile) -> tvm.tirx.PrimFunc:
        """Return the kernel with this tile."""
        return bottleneck_kernel(self.spec, point, MATRIX_KERNELS[self.unit.matrix_depth])

    def operands(
        self, point: BottleneckTile, arguments: Sequence[relax.Expr], codes: TensorCodes, own: Codes
    ) -> list[relax.Expr]:
        """Return what the kernel of float32 takes, but weights as warps take them."""
        return bottleneck_operands(self.spec, point, arguments, MatrixBottleneckKernel)


def pack_matrix_weight(weight: np.ndarray) -> np.ndarray:
    """Return weights (OC x IC x KH x KW) as kernel row and column, 16 inputs, 16 outputs, thread of a warp, its four pairs.

    Outputs are filled up with zeros. Thread ``4 g + t`` has rows g and g + 8; its pairs are of inputs t and t + 8, then of
    t + 4 and t + 12.
    """
    outputs, inputs, rows, columns = weight.shape
    tiles, steps = -(-outputs // ROWS), inputs // DEPTH
    full = np.zeros((tiles * ROWS, inputs, rows, columns), np.uint32)
    full[:outputs] = float16_weight(weight).view(np.uint16)
    # Tile, upper or lower rows, row | step, upper or lower inputs of a pair, first or second pair, input.
    parts = full.reshape(tiles, 2, 8, steps, 2, 2, 4, rows, columns)
    pairs = parts[:, :, :, :, 0] | parts[:, :, :, :, 1] << 16
    # Kernel row and column, step, tile, row and input (the thread), then pair and upper or lower rows.
    ordered = pairs.transpose(6, 7, 3, 0, 2, 5, 4, 1)
    return np.ascontiguousarray(ordered).reshape(rows, columns, steps, tiles, 32, 4)


def swizzled(number: Any, width: int, row: Any) -> Any:
    """Return the place in a row of shared memory of the first pixel of a vector, the one with this number of those so wide.

    Vectors of four stay together, and which of eight such vectors it is, three bits, is changed by three bits that are
    different in each of eight rows; in four of them one after the other so are any two of the three.
    """
    first, second = T.bitwise_and(row, 1), T.bitwise_and(row, 2) // 2
    parity = T.bitwise_xor(T.bitwise_xor(first, second), T.bitwise_and(row, 4) // 4)
    bits = second + first * 2 + parity * 4
    # TVM moves vectors as such only where it sees that their places are divided by their width.
    return T.bitwise_xor(number, bits * (VECTOR // width)) * width


class MatrixBottleneckKernel(Half2BottleneckKernel):
    """Emits the kernel; its threads are ``lanes`` of a warp, and its ``rows`` warps."""

    depth: ClassVar[int] = 16

    def __init__(self, spec: FusedBottleneck, tile: BottleneckTile, buffers: dict[str, Any]) -> None:
        super().__init__(spec, tile, buffers)
        self.plane_vector = math.gcd(math.prod(spec.expand.out_shape[2:]), VECTOR)
        self.shares = {name: warp_share(spec, name, tile) for name in spec.named}
        self.share = self.shares["expand"]
        self.narrowed = {} if spec.beside is None else dict.fromkeys(("beside", "reduce"), ROWS)

    @classmethod
    def weight_shape(cls, part: FusedConv2D, tile: BottleneckTile) -> tuple[int, ...]:
        """Return the shape of the packed weight of a convolution."""
        return (*part.kernel, part.data_shape[1] // DEPTH, -(-part.out_shape[1] // ROWS), 32, 4)

    @classmethod
    def packed_weight(cls, part: FusedConv2D, weight: np.ndarray, tile: BottleneckTile) -> np.ndarray:
        """Return the weight of a convolution (OC x IC x KH x KW) as warps take it."""
        return pack_matrix_weight(weight)

    @staticmethod
    def shared_rows(spec: FusedBottleneck, tile: BottleneckTile) -> tuple[int, int]:
        """Return the rows of both parts of the shared memory, of pairs of channels."""
        inputs = 0 if spec.conv is None else spec.conv.data_shape[1]
        return max(inputs, spec.expand.data_shape[1]) // 2, max(inputs, 0 if spec.reduce is None else tile.chunk) // 2

    @property
    def thread_row(self) -> Any:
        """Which of eight rows of a tile a thread has sums of, and the column of the inputs that it loads."""
        return T.floordiv(self.lane, 4)

    @property
    def thread_column(self) -> Any:
        """Which two of the eight columns of a tile a thread has sums of, and the row of the inputs that it loads."""
        return T.floormod(self.lane, 4)

    def _share_of(self, part: FusedConv2D, channels: int | None = None) -> tuple[Any, Any, int]:
        name = next(name for name, each in self.spec.named.items() if each is part)
        return self._first_tile(self.shares[name]), 0, 1

    def _first_tile(self, share: WarpShare) -> Any:
        """Return a warp's first tile of output channels."""
        if share.beside == 1:
            return self.row * share.tiles
        return T.floormod(self.row, self.tile.rows // share.beside) * share.tiles

    def _first_vector(self, share: WarpShare) -> Any:
        """Return the number of a warp's first vector of pixels among those of the block."""
        if share.beside == 1:
            return 0
        return T.floordiv(self.row, self.tile.rows // share.beside) * (share.pixels // share.vector)

    def _use(self, name: str) -> WarpShare:
        """Let what follows be about a thread's pixels of a convolution's results."""
        self.share = self.shares[name]
        self.own, self.vector = self.share.own, min(self.plane_vector, self.share.vector)
        return self.share

    def _pixel(self, start: int) -> Any:
        run, beside = divmod(start, self.share.vector)
        return self._vector(run) * self.share.vector + beside

    def _vector(self, run: int) -> Any:
        """Return the number of a vector of a thread's pixels among those of the block."""
        return self._first_vector(self.share) + run * 4 + self.thread_column

    def _input(self, word: Any, row: Any, column: Any) -> Any:
        return self._pair_of_inputs(T.floordiv(word, PAIRS) * DEPTH + T.floormod(word, PAIRS), PAIRS, row, column)

    def _keep_input(self, value: Any, row: Any, slot: Any) -> None:
        T.buffer_store(self.shared, value, [row, swizzled(slot, 1, row)])

    def _zeros(self, name: str) -> Any:
        share = self.shares[name]
        acc = private((share.tiles, share.columns, 4))
        with for_each(share.tiles, share.columns, 4) as index:
            T.buffer_store(acc, T.float32(0), list(index))
        return acc

    def _accumulate(
        self,
        acc: Any,
        rows: Any,
        name: str,
        group: Any,
        start: Any,
        inputs: int,
        place: tuple[Any, ...] = (0, 0),
        runs: CellRuns | None = None,
    ) -> None:
        share, weight = self.shares[name], self.buffers[f"{name}_weight"]
        steps, first = inputs // DEPTH, T.floordiv(start, DEPTH)

        def add_step(step: Any) -> None:
            pairs = private((2, share.columns), "uint32")
            for half in range(2):
                self._load_inputs(pairs, half, rows + step * PAIRS + half * 4 + self.thread_column, share)
            for m in range(share.tiles):
                weights = private((4,), "uint32")
                with T.vectorized(4) as e:
                    T.buffer_store(weights, weight[(*place, first + step, group + m, self.lane, e)], [e])
                with for_each(share.columns) as (j,):
                    a, b = [weights[i] for i in range(4)], [pairs[half, j] for half in range(2)]
                    T.evaluate(add_product(T.address_of(acc[m, j, 0]), a, b, self.depth))

        unrolled = max(count for count in (4, 2, 1) if steps % count == 0)
        if steps == unrolled:
            with T.unroll(steps) as step:
                add_step(step)
            return
        with T.serial(steps // unrolled, unroll=False) as outer, T.unroll(unrolled) as inner:
            add_step(outer * unrolled + inner)

    def _add_together(self, sums: dict[str, Any], turn: Any) -> None:
        chunk = self.tile.chunk
        for name, acc in sums.items():
            group = self._first_tile(self.shares[name])
            self._accumulate(acc, self.first_rows, name, group, turn * chunk, chunk)

    def _load_inputs(self, pairs: Any, half: int, row: Any, share: WarpShare) -> None:
        """Load a thread's columns of a row of inputs."""
        for start in range(0, share.columns, share.vector):
            # Even columns come first: of each thread's two, one is even, and has its vector beside the next thread's.
            place = T.floormod(self.thread_row, 2) * 4 + T.floordiv(self.thread_row, 2)
            number = self._first_vector(share) + start // share.vector * 8 + place
            slot = swizzled(number, share.vector, self.thread_column + half * 4)
            with for_vector(share.vector) as e:
                T.buffer_store(pairs, self.shared[row, slot + e], [half, start + e])

    def _expand(self, turn: Any) -> None:
        spec, group = self.spec, turn * self.tile.rows + self.row
        acc = self._zeros("expand")
        self._accumulate(acc, 0, "expand", group, 0, spec.expand.data_shape[1])
        if spec.reduce is not None:
            barrier()  # Until all have read the channels of the turn before.

        def keep(values: list[Any], channels: list[Any], row: Any) -> None:
            if spec.kept:
                self._keeping("out")(values, channels, row)
            if spec.reduce is not None:
                self._store_shared(values, self.first_rows + self.row * PAIRS + self.thread_row)

        self._finish_tiles("expand", acc, group, keep)

    def _finish(self, part: FusedConv2D, name: str, acc: Any, keep: Any) -> None:
        self._finish_tiles(name, acc, self._share_of(part)[0], keep)

    def _finish_tiles(self, name: str, acc: Any, group: Any, keep: Any) -> None:
        """End a thread's sums and hand them to `keep`, two channels at a time."""
        share, epilogue = self._use(name), self.epilogues[name]
        vector = share.vector
        filled = epilogue.attrs.out_shape[1] % ROWS == 0
        for m in range(share.tiles):
            first = (group + m) * ROWS + self.thread_row
            channels, values = [first, first + PAIRS], []
            for half, channel in enumerate(channels):

                def value_of(i: Any, m: int = m, half: int = half) -> Any:
                    run = T.floordiv(i, vector)
                    column = T.floordiv(run, 2) * vector + T.floormod(i, vector)
                    return acc[m, column, half * 2 + T.floormod(run, 2)]

                # Rows with which channels are filled up end as the last channel does: it has constants, and nobody keeps them.
                known = channel if filled else T.min(channel, epilogue.attrs.out_shape[1] - 1)
                values.append(self._ended(name, value_of, known, share.own))
            if filled:
                keep(values, channels, (group + m) * PAIRS + self.thread_row)
                continue
            for of_channel, channel in zip(values, channels, strict=True):
                with if_all(channel < epilogue.attrs.out_shape[1]):
                    keep([of_channel], [channel], None)

    def _shortcuts(self, epilogue: Epilogue, channel: Any) -> Any:
        kept = self.vector
        if epilogue.attrs.residual == "unpool":
            self.vector = 1  # What is unpooled has every second column alone.
        values = super()._shortcuts(epilogue, channel)
        self.vector = kept
        return values

    def _store_shared(self, values: list[Any], row: Any) -> None:
        words, width = self._packed(values), self.share.vector
        for start in range(0, self.own, width):
            slot = swizzled(self._vector(start // width), width, self.thread_row)
            with for_vector(width) as e:
                T.buffer_store(self.shared, words[start + e], [row, slot + e])


class ShallowMatrixBottleneckKernel(MatrixBottleneckKernel):
    """Emits the kernel for GPUs whose instruction takes eight inputs."""

    depth: ClassVar[int] = 8


MATRIX_KERNELS = {8: ShallowMatrixBottleneckKernel, 16: MatrixBottleneckKernel}
"""What emits the kernel, by the inputs that an instruction takes."""
