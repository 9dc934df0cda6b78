"""The last bottleneck together with the transposed convolution after it, which ends in logits or in labels.

A transposed convolution whose kernel is as large as its step makes four outputs of each pixel and reads no neighbour. So it
takes the wide channels from shared memory, as a narrowing convolution would, and they are never written. A thread sums both
outputs side by side of a row of cells, of some classes at a time; threads that share the pixels have the upper or the lower row
and a part of the pixels each. For labels it keeps the largest value and its channel in registers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tvm
from tvm import relax
from tvm.tirx.script.builder import ir as T

from enet_tvm.compiler.kernels.common.codes import TensorCodes
from enet_tvm.compiler.kernels.gpu.bottleneck import GpuBottleneckTemplate
from enet_tvm.compiler.kernels.gpu.bottleneck_kernel import BottleneckKernel, bottleneck_kernel, bottleneck_operands
from enet_tvm.compiler.kernels.gpu.bottleneck_tile import (
    BottleneckTile,
    bottleneck_tiles,
    classes_at_once,
    has_idle_rows,
    head_pixels,
)
from enet_tvm.compiler.kernels.gpu.building import (
    barrier,
    copy_vectors,
    for_each,
    for_threads,
    for_vector,
    if_all,
    private,
)
from enet_tvm.compiler.kernels.gpu.tile import LIVE_REGISTERS, GpuUnit
from enet_tvm.compiler.ops import PLANAR, FusedBottleneck, FusedConv2D
from enet_tvm.compiler.quantisation.codes import Codes


@dataclass(frozen=True)
class GpuLastBottleneckTemplate(GpuBottleneckTemplate):
    """The last bottleneck and the transposed convolution after it on a GPU."""

    @classmethod
    def covers(cls, spec: FusedBottleneck, unit: GpuUnit) -> bool:
        """Whether a 2x2 transposed convolution with stride 2 comes last, and everything before it is a plain bottleneck."""
        last = spec.reduce
        if last is None or not last.doubles or last.kernel != (2, 2) or last.padding != (0, 0) or last.residual != "none":
            return False
        if {last.data_layout, last.out_layout} != {PLANAR} or spec.pooled or spec.beside is not None or spec.doubles:
            return False
        before = [part for part in (spec.conv, spec.expand) if part is not None]
        if any({part.data_layout, part.out_layout, part.residual_layout} != {PLANAR} or part.argmax for part in before):
            return False
        plain = spec.conv is None or (not spec.conv.transposed and spec.conv.residual == "none")
        return plain and spec.expand.is_pointwise and bool(bottleneck_tiles(spec, unit))

    def kernel(self, point: BottleneckTile) -> tvm.tirx.PrimFunc:
        """Return the kernel with this tile."""
        return gpu_last_bottleneck(self.spec, point)

    def operands(
        self, point: BottleneckTile, arguments: Sequence[relax.Expr], codes: TensorCodes, own: Codes
    ) -> list[relax.Expr]:
        """Return the data, then the packed weight, bias, slopes and shortcut of one convolution after the other."""
        return bottleneck_operands(self.spec, point, arguments, _Last)


def pack_head_weight(weight: np.ndarray, classes: int) -> np.ndarray:
    """Return weights (IC x OC x 2 x 2) as group of classes, input channel, row, class of the group and column.

    Groups are filled up with zeros.
    """
    inputs, outputs = weight.shape[:2]
    groups = -(-outputs // classes)
    full = np.zeros((inputs, groups * classes, 2, 2), weight.dtype)
    full[:, :outputs] = weight
    grouped = full.reshape(inputs, groups, classes, 2, 2).transpose(1, 0, 3, 2, 4)
    return np.ascontiguousarray(grouped.reshape(groups, inputs, 2, 2 * classes))


def gpu_last_bottleneck(spec: FusedBottleneck, tile: BottleneckTile) -> tvm.tirx.PrimFunc:
    """Return the kernel; its arguments are those of `gpu_bottleneck`, the last weight as `pack_head_weight` orders it."""
    return bottleneck_kernel(spec, tile, _Last)


class _Last(BottleneckKernel):
    """The kernel of a bottleneck that ends in the outputs of a transposed convolution.

    There a thread has pixels by pairs, whose outputs in a row are as many as one store moves.
    """

    def __init__(self, spec: FusedBottleneck, tile: BottleneckTile, buffers: dict[str, Any]) -> None:
        super().__init__(spec, tile, buffers)
        self.pair = min(2, self.vector)

    @classmethod
    def weight_shape(cls, part: FusedConv2D, tile: BottleneckTile) -> tuple[int, ...]:
        """Return the shape of the weights of a convolution, of which a thread has as many channels as the tile."""
        if not part.transposed:
            return super().weight_shape(part, tile)
        return (-(-part.out_shape[1] // tile.channels), part.data_shape[1], 2, 2 * tile.channels)

    @classmethod
    def packed_weight(cls, part: FusedConv2D, weight: np.ndarray, tile: BottleneckTile) -> np.ndarray:
        """Return the weight of a convolution, of which a thread has as many channels as the tile, as the kernel takes it."""
        return pack_head_weight(weight, tile.channels) if part.transposed else super().packed_weight(part, weight, tile)

    def emit(self) -> None:
        """Emit the launch."""
        spec, tile = self.spec, self.tile
        blocks = (self.pixels.blocks, 1, spec.expand.out_shape[0])
        with for_threads(blocks, (tile.lanes, tile.rows)) as launch:
            self.begin(*launch)
            self._expand(0)
            barrier()
            self._end(spec.named["reduce"])

    def _accumulate(self, acc: Any, rows: Any, name: str, *rest: Any) -> None:
        """Add products to the sums of a convolution; rows of threads may have no part of the first one."""
        with if_all(self._has_part(name)):
            super()._accumulate(acc, rows, name, *rest)

    def _finish(self, part: FusedConv2D, name: str, acc: Any, keep: Any) -> None:
        """End the sums of a convolution, of which rows of threads may have no part."""
        with if_all(self._has_part(name)):
            super()._finish(part, name, acc, keep)

    def _share_of(self, part: FusedConv2D, channels: int | None = None) -> tuple[Any, Any, int]:
        """Return a thread's group of channels, its part of the input channels, and how many parts there are."""
        idle = part is self.spec.conv and has_idle_rows(self.spec, self.tile)
        return (self.row, 0, 1) if idle else super()._share_of(part, channels)

    def _has_part(self, name: str) -> Any | None:
        """Return the test that a thread has a part of a convolution, None where all have."""
        if name != "conv" or not has_idle_rows(self.spec, self.tile):
            return None
        return self.row < self.spec.named[name].out_shape[1] // self.tile.channels

    def _end(self, last: FusedConv2D) -> None:
        """Compute and write what the transposed convolution makes of the channels in shared memory."""
        pixels, some = head_pixels(self.spec, self.tile), classes_at_once(self.spec, self.tile)
        classes, below = last.out_shape[1], T.floormod(self.row, 2)
        slots = [
            T.floordiv(self.row, 2) * (pixels * self.tile.lanes) + start * self.tile.lanes + self.lane * self.pair
            for start in range(0, pixels, self.pair)
        ]
        best, label = private((pixels, 2)), private((pixels, 2), "int32")
        if last.argmax:
            with for_each(pixels, 2) as index:
                T.buffer_store(best, T.min_value("float32"), list(index))
                T.buffer_store(label, T.int32(0), list(index))
        with T.serial(-(-classes // some), unroll=False) as group:
            acc = private((pixels, some, 2))
            with for_each(pixels, some, 2) as index:
                T.buffer_store(acc, T.float32(0), list(index))
            self._add(acc, slots, group, below, last.data_shape[1], some)
            with for_each(some) as (c,):
                channel = group * some + c
                epilogue = self.epilogues["reduce"]
                epilogue.load(channel)
                known = None if classes % some == 0 else channel < classes
                values = private((pixels, 2))
                with for_each(pixels, 2) as (i, b):
                    T.buffer_store(values, epilogue.ended(acc[i, c, b]), [i, b])
                if last.argmax:
                    with if_all(known), for_each(pixels, 2) as (i, b):
                        # Strictly greater: the first maximum wins, as in PyTorch.
                        T.buffer_store(label, T.Select(values[i, b] > best[i, b], channel, label[i, b]), [i, b])
                        T.buffer_store(best, T.max(best[i, b], values[i, b]), [i, b])
                else:
                    self._write(values, slots, below, known, channel)
        if last.argmax:
            self._write(label, slots, below, None, None)

    def _add(self, acc: Any, slots: list[Any], group: Any, below: Any, inputs: int, some: int) -> None:
        """Add the products of all input channels with the weights of a group of classes."""
        pixels = len(slots) * self.pair
        most = max(1, (LIVE_REGISTERS - 2 * pixels * some) // (pixels + 2 * some))
        unrolled = max(count for count in (4, 2, 1) if count == 1 or (count <= most and inputs % count == 0 < inputs - count))
        with T.serial(inputs // unrolled, unroll=False) as outer, T.unroll(unrolled) as inner:
            k = outer * unrolled + inner
            weights, values = private((2 * some,)), private((pixels,))
            copy_vectors(weights, 2 * some, self.buffers["reduce_weight"], [group, k, below], 0)
            for number, slot in enumerate(slots):
                with for_vector(self.pair) as e:
                    T.buffer_store(values, self.shared[self.first_rows + k, slot + e], [number * self.pair + e])
            with for_each(pixels, some, 2) as (i, c, b):
                T.buffer_store(acc, acc[i, c, b] + values[i] * weights[c * 2 + b], [i, c, b])

    def _write(self, values: Any, slots: list[Any], below: Any, known: Any | None, channel: Any | None) -> None:
        """Write outputs of a thread's pixels (pixels x 2), neighbours at once: of a channel, or labels where there is none."""
        out = self.buffers["reduced"]
        # A pair of pixels may go on in the next row.
        together = self.pair if self.pixels.width % self.pair == 0 else 1
        for number, slot in enumerate(slots):
            line = private((2 * self.pair,), "float32" if channel is not None else "int32")
            with for_each(self.pair, 2) as (i, b):
                T.buffer_store(line, values[number * self.pair + i, b], [i * 2 + b])
            with if_all(known, self.pixels.inside(self.block, slot)):
                for first in range(0, self.pair, together):
                    row, column = self.pixels.place(self.block, slot + first)
                    with for_vector(2 * together) as e:
                        value, at = line[2 * first + e], [row * 2 + below, column * 2 + e]
                        if channel is None:
                            T.buffer_store(out, T.cast(value, "uint8"), [self.picture, *at])
                        else:
                            T.buffer_store(out, value, [self.picture, channel, *at])
