"""Transposed convolutions with stride 2 on a GPU: four outputs for each input pixel, and no work on inserted zeros.

A thread takes some input pixels and computes the 2x2 outputs that begin at each. Every output is a plain convolution with those
kernel positions that meet no inserted zero (`enet_tvm.compiler.kernels.common.taps`); the loop is over the input pixels that
they need, so that each is loaded once for all four.

The last one may end in labels: a thread then goes through all channels of its pixels, some at a time, and keeps the largest
value and its channel in registers. Logits are never in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import tvm
from tvm import relax
from tvm.tirx.script.builder import ir as T

from enet_tvm.compiler.kernels.common.building import Arguments, prim_func
from enet_tvm.compiler.kernels.common.codes import TensorCodes
from enet_tvm.compiler.kernels.common.convolution import ConvolutionArguments, convolution_features
from enet_tvm.compiler.kernels.common.taps import transposed_taps
from enet_tvm.compiler.kernels.gpu.building import WARP, both, copy_vectors, for_each, for_threads, if_all, private
from enet_tvm.compiler.kernels.gpu.conv2d import GpuConvolutionTemplate, PixelKernel, epilogue_arguments, gpu_operands
from enet_tvm.compiler.kernels.gpu.tile import GpuTile, GpuUnit
from enet_tvm.compiler.ops import FusedConv2D
from enet_tvm.compiler.quantisation.codes import Codes

Offset = tuple[int, int]

_FILLING_THREADS = 512
"""Threads of each multiprocessor that keep it busy."""

_LABELLING_WARPS = 4
"""Warps of a block that labels; its threads share nothing but the pixels at their edges."""


@dataclass(frozen=True)
class GpuTransposedTemplate(GpuConvolutionTemplate):
    """A fused transposed convolution that doubles height and width; the pixels of its tile are those of the input."""

    @classmethod
    def covers(cls, spec: FusedConv2D, unit: GpuUnit) -> bool:
        """Whether it is transposed, of twice the input's size, without a shortcut, and ends in values, not in labels."""
        return spec.doubles and spec.residual == "none" and not spec.argmax

    def kernel(self, point: GpuTile) -> tvm.tirx.PrimFunc:
        """Return the kernel with this tile."""
        return gpu_conv2d_transpose(self.spec, point)

    def operands(self, point: GpuTile, arguments: Sequence[relax.Expr], codes: TensorCodes, own: Codes) -> list[relax.Expr]:
        """Return data, weights, bias and slopes in groups of channels."""
        given = ConvolutionArguments.of(self.spec, arguments)
        return gpu_operands(given, pack_transposed_weight(given.weight, self.spec, point), point)

    def features(self, point: GpuTile) -> list[float]:
        """Return the features of this tile."""
        return convolution_features(
            self.spec, point.lanes, self.spec.data_shape[3], point.pixels, point.channels, 4 / point.splits
        )


@dataclass(frozen=True)
class GpuLabellingTemplate(GpuTransposedTemplate):
    """A transposed convolution that ends in the channel of the largest value; a thread goes through all of them."""

    point_type: ClassVar[type] = GpuTile

    @classmethod
    def covers(cls, spec: FusedConv2D, unit: GpuUnit) -> bool:
        """Whether it is transposed, of twice the input's size, without a shortcut, and ends in labels."""
        return spec.doubles and spec.residual == "none" and spec.argmax

    @property
    def default(self) -> GpuTile:
        """The launch with the fewest loads that fills the machine."""
        return self.points()[0]

    def points(self) -> list[GpuTile]:
        """Return the launches worth measuring."""
        return labelling_tiles(self.spec, self.unit)

    def kernel(self, point: GpuTile) -> tvm.tirx.PrimFunc:
        """Return the kernel with this tile."""
        return gpu_conv2d_transpose_argmax(self.spec, point)


def labelling_tiles(attrs: FusedConv2D, unit: GpuUnit) -> list[GpuTile]:
    """Return the launches worth trying for a transposed convolution that ends in labels, the default first.

    Channels of a tile are those of which a thread sums at a time; it takes all of them in turn. Beside the sums it keeps the
    largest value and its channel of every output. The largest machine wants fewer pixels in a thread than registers allow, and
    among tiles that fill it alike the one with the fewest loads for each multiplication is the first.
    """
    n, _, height, width = attrs.data_shape
    channels, taps = attrs.out_shape[1], len(transposed_taps(attrs))
    # Of the numbers of channels that need as many rounds, the smallest computes the fewest for nothing.
    counts = sorted({-(-channels // rounds) for rounds in range(1, channels + 1)})
    # The largest values and their channels live as long as the sums do, and are addressed by nothing: they may take what the
    # limit of a plain tile leaves for the addresses of its stores.
    room = unit.accumulators + WARP // 2

    wanted = unit.multiprocessors * _FILLING_THREADS

    def rank(shape: tuple[int, int]) -> tuple[float, float, int]:
        pixels, some = shape
        enough = min(1.0, n * -(-height * width // pixels) / wanted)
        computed = -(-channels // some) * some / channels
        # In words that a thread's registers take: a load that a whole warp shares fills one in each of them all the same.
        loads = computed * (len(_taps_by_offset(attrs)) * pixels + taps * some) / (taps * pixels * some)
        return (-enough, loads + 0.25 * computed, pixels)

    shapes = [(p, c) for p in (1, 2, 4) for c in counts if 4 * p * (c + 2) <= room]
    ranked = sorted(shapes or [(1, 1)], key=rank)
    return [GpuTile(pixels, some, WARP * _LABELLING_WARPS, 1) for pixels, some in ranked]


def pack_transposed_weight(weight: np.ndarray, attrs: FusedConv2D, tile: GpuTile) -> np.ndarray:
    """Return weights (IC x OC x KH x KW) as group of channels, tap in the order of use, input channel, channel of the group."""
    inputs, outputs, _, columns = weight.shape
    order = [tap for taps in _taps_by_offset(attrs).values() for _, tap in taps]
    groups = tile.channel_groups(outputs)
    packed = np.zeros((len(order), inputs, groups * tile.channels), weight.dtype)
    for place, tap in enumerate(order):
        packed[place, :, :outputs] = weight[:, :, tap // columns, tap % columns]
    grouped = packed.reshape(len(order), inputs, groups, tile.channels)
    return np.ascontiguousarray(grouped.transpose(2, 0, 1, 3))


def gpu_conv2d_transpose(attrs: FusedConv2D, tile: GpuTile) -> tvm.tirx.PrimFunc:
    """Return the kernel of a fused transposed convolution that doubles height and width.

    Its arguments are those of `enet_tvm.compiler.kernels.gpu.conv2d.gpu_conv2d`; `pack_transposed_weight` orders the weight.
    """
    if attrs.argmax:
        raise ValueError("a convolution that ends in labels has a template of its own")
    return _kernel(attrs, tile, (attrs.out_shape, "float32"), _Transposed)


def gpu_conv2d_transpose_argmax(attrs: FusedConv2D, tile: GpuTile) -> tvm.tirx.PrimFunc:
    """Return the kernel of a fused transposed convolution that doubles height and width and ends in labels.

    Its arguments are those of `gpu_conv2d_transpose`, but the output is N x H x W uint8: the channel of the largest value, the
    first of equals, as `torch.argmax` has it.
    """
    n, _, height, width = attrs.out_shape
    return _kernel(attrs, tile, ((n, height, width), "uint8"), _Labelling)


def _kernel(
    attrs: FusedConv2D, tile: GpuTile, out: tuple[tuple[int, ...], str], emitter: type[_Transposed]
) -> tvm.tirx.PrimFunc:
    if not attrs.doubles:
        raise ValueError("the template is for transposed convolutions that double height and width")
    taps = _taps_by_offset(attrs)
    arguments: Arguments = {
        "data": (attrs.data_shape, "float32"),
        "weight": (
            (tile.channel_groups(attrs.out_shape[1]), sum(map(len, taps.values())), attrs.data_shape[1], tile.channels),
            "float32",
        ),
        **epilogue_arguments(attrs, tile),
        "out": out,
    }

    def body(*buffers: Any) -> None:
        emitter(attrs, tile, taps, dict(zip(arguments, buffers, strict=True))).emit()

    return prim_func(arguments, body)


def _taps_by_offset(attrs: FusedConv2D) -> dict[Offset, list[tuple[Offset, int]]]:
    """Return for each input pixel around a thread's own the (phase, tap) pairs that take it."""
    taps: dict[Offset, list[tuple[Offset, int]]] = {}
    for phase, tap, dy, dx in transposed_taps(attrs):
        taps.setdefault((dy, dx), []).append((phase, tap))
    return dict(sorted(taps.items()))


class _Transposed(PixelKernel):
    def __init__(
        self, attrs: FusedConv2D, tile: GpuTile, taps: dict[Offset, list[tuple[Offset, int]]], buffers: dict[str, Any]
    ) -> None:
        super().__init__(attrs, tile, buffers, attrs.data_shape[2:], (2, 2))
        self.taps = taps

    def accumulate(self, acc: Any, picture: Any, group: Any, first: Any, start: Any = 0) -> None:
        """Emit one loop over the input channels with all pixels around a thread's own: each is loaded once for all taps."""
        with T.serial(self.attrs.data_shape[1] // self.tile.splits) as turn:
            place = 0
            for offset, taps in self.taps.items():
                self._add_pixel(acc, picture, group, first, start + turn, offset, taps, place)
                place += len(taps)

    def store(self, acc: Any, i: Any, c: Any, place: tuple[Any, Any, Any, Any]) -> None:
        """Store the 2x2 outputs of a pixel, each pair of neighbours at once."""
        picture, channel, row, column = place
        with for_each(2) as (a,), T.vectorized(2) as b:
            out = (picture, channel, row * 2 + a, column * 2 + b)
            T.buffer_store(self.buffers["out"], self.epilogue(acc[i, c, a, b], *out), list(out))

    def _add_pixel(
        self,
        acc: Any,
        picture: Any,
        group: Any,
        first: Any,
        channel: Any,
        offset: Offset,
        taps: list[tuple[Offset, int]],
        place: int,
    ) -> None:
        tile, data, weight = self.tile, self.buffers["data"], self.buffers["weight"]
        pixels = private((tile.pixels,))
        for i in range(tile.pixels):
            pixel = first + i * tile.lanes
            row, column = T.floordiv(pixel, self.width) + offset[0], T.floormod(pixel, self.width) + offset[1]
            value, inside = data[picture, channel, row, column], self._inside(pixel, row, column, offset)
            if inside:
                value = tvm.tirx.if_then_else(both(*inside), value, T.float32(0))
            T.buffer_store(pixels, value, [i])
        for number, ((a, b), _) in enumerate(taps):
            weights = private((tile.channels,))
            copy_vectors(weights, tile.channels, weight, [group, place + number, channel], 0)
            with for_each(tile.pixels, tile.channels) as (i, c):
                T.buffer_store(acc, acc[i, c, a, b] + pixels[i] * weights[c], [i, c, a, b])

    def _inside(self, pixel: Any, row: Any, column: Any, offset: Offset) -> list[Any]:
        tests = [] if self.exact else [pixel < self.total]
        for place, extent, shift in ((row, self.height, offset[0]), (column, self.width, offset[1])):
            if shift < 0:
                tests.append(place >= 0)
            elif shift > 0:
                tests.append(place < extent)
        return tests


class _Labelling(_Transposed):
    """Sums of all channels, some at a time; of each output, the largest and its channel stay in registers."""

    def emit(self) -> None:
        """Emit the launch."""
        tile, channels = self.tile, self.attrs.out_shape[1]
        blocks = -(-self.total // (tile.lanes * tile.pixels))
        with for_threads((blocks, 1, self.attrs.out_shape[0]), (tile.lanes, 1)) as (block, _, picture, lane, _):
            first = block * (tile.lanes * tile.pixels) + lane
            best, label = private((tile.pixels, 2, 2)), private((tile.pixels, 2, 2), "int32")
            with for_each(tile.pixels, 2, 2) as index:
                T.buffer_store(best, T.min_value("float32"), list(index))
                T.buffer_store(label, T.int32(0), list(index))
            with T.serial(tile.channel_groups(channels)) as group:
                acc = private((tile.pixels, tile.channels, 2, 2))
                with for_each(tile.pixels, tile.channels, 2, 2) as index:
                    T.buffer_store(acc, T.float32(0), list(index))
                self.accumulate(acc, picture, group, first)
                with for_each(tile.channels) as (c,):
                    channel = group * tile.channels + c
                    self.epilogue.load(channel)
                    known = None if channels % tile.channels == 0 else channel < channels
                    with if_all(known), for_each(tile.pixels, 2, 2) as (i, a, b):
                        self._compare(best, label, acc[i, c, a, b], channel, [i, a, b])
            with for_each(tile.pixels) as (i,):
                pixel = first + i * tile.lanes
                row, column = T.floordiv(pixel, self.width), T.floormod(pixel, self.width)
                with if_all(None if self.exact else pixel < self.total), for_each(2) as (a,), T.vectorized(2) as b:
                    value = T.cast(label[i, a, b], "uint8")
                    T.buffer_store(self.buffers["out"], value, [picture, row * 2 + a, column * 2 + b])

    def _compare(self, best: Any, label: Any, value: Any, channel: Any, at: list[Any]) -> None:
        """Keep a value, and its channel, if it is larger than all of the channels before it."""
        finished = private((1,))
        # Where an output is matters to shortcuts alone, and there is none.
        T.buffer_store(finished, self.epilogue(value, None, channel, None, None), [0])
        T.buffer_store(label, T.Select(finished[0] > best[tuple(at)], channel, label[tuple(at)]), at)
        T.buffer_store(best, T.max(best[tuple(at)], finished[0]), at)
