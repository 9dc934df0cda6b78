"""Convolutions that leave the blocked layout: channel-blocked input, plain NCHW output, pixels in the lanes.

The last layer of a segmentation network has as many channels as there are classes, which is no multiple of
anything, and its output is the largest tensor of all. So here a vector holds neighbouring pixels of one channel:
no lane is wasted, and logits are stored as the caller wants them.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import tvm
from tvm import relax
from tvm.tirx.script.builder import ir as T

from enet_tvm.compiler.dataflow import constant
from enet_tvm.compiler.kernels.common.building import (
    Arguments,
    Registers,
    activated,
    for_rows,
    prim_func,
    tile_places,
    tile_start,
)
from enet_tvm.compiler.kernels.common.codes import TensorCodes
from enet_tvm.compiler.kernels.common.convolution import ConvolutionArguments, ConvolutionTemplate, convolution_features
from enet_tvm.compiler.kernels.common.elements import (
    accumulator,
    arithmetic,
    by_lane,
    converted,
    lane,
    multiply_add_pixels,
    splat,
    vector,
    zero_word,
)
from enet_tvm.compiler.kernels.common.taps import transposed_taps
from enet_tvm.compiler.kernels.cpu.conv2d import tap_sums
from enet_tvm.compiler.kernels.cpu.packing import coded, slopes, summands, words
from enet_tvm.compiler.kernels.cpu.register_tile import VectorUnit
from enet_tvm.compiler.ops import FusedConv2D
from enet_tvm.compiler.quantisation.codes import Codes, zero_starts

_WEIGHTS = 8
"""Weights that are loaded at once where they are multiplied by lane."""

Tap = tuple[int, int, int, int]
"""Phase column, tap, input row offset, input column offset."""


@dataclass(frozen=True)
class PlanarTile:
    """The part of the output that is computed at once.

    Attributes
    ----------
    lanes : int
        Neighbours in a row of the input, one vector.
    channels : int
        Output channels.
    """

    lanes: int
    channels: int


@dataclass(frozen=True)
class PlanarTemplate(ConvolutionTemplate):
    """A convolution whose output is NCHW.

    Attributes
    ----------
    spec : FusedConv2D
        The convolution, its `layers` left out.
    unit : VectorUnit
        Vector registers of the target.
    """

    unit: VectorUnit
    point_type: ClassVar[type] = PlanarTile

    @classmethod
    def covers(cls, spec: FusedConv2D, unit: VectorUnit) -> bool:
        """Whether the output is NCHW and of the input's size, or twice that, with no shortcut to add."""
        if spec.out_layout.block or spec.residual != "none" or spec.inner_activation != "none":
            return False
        if spec.data_shape[3] < 2:  # A vector holds at least two neighbours.
            return False
        return spec.doubles if spec.transposed else spec.strides == (1, 1) and spec.out_shape[2:] == spec.data_shape[2:]

    @property
    def default(self) -> PlanarTile:
        """The tile that fills the registers."""
        return planar_tile(self.spec, self.unit)

    def points(self) -> list[PlanarTile]:
        """Return the tiles worth measuring."""
        default = self.default
        tiles = planar_tiles(self.spec, self.unit)
        return sorted(tiles, key=lambda t: (t != default, t.lanes != default.lanes, abs(t.channels - default.channels)))

    def kernel(self, point: PlanarTile) -> tvm.tirx.PrimFunc:
        """Return the kernel with this tile."""
        return planar_conv2d(self.spec, self.unit, point)

    def operands(self, point: PlanarTile, arguments: Sequence[relax.Expr], codes: TensorCodes, own: Codes) -> list[relax.Expr]:
        """Return data, weights, bias and slope, and what codes of the data ask for: see `planar_conv2d`."""
        spec = self.spec
        given = ConvolutionArguments.of(spec, arguments)
        if not spec.data_layout.codes:
            ordered = pack_planar_weight(given.weight, spec)
            beyond = _beyond(spec, self.unit)
            packed = words(np.pad(ordered, ((0, 0), (0, 0), (0, beyond))) if beyond else ordered, spec.data_layout)
            added = [*summands([constant(given.bias)], spec.data_layout), *slopes(given.slopes, spec.data_layout)]
            return [given.data, constant(packed), *added]
        weight, scales, zero = coded(given.weight, int(spec.transposed), codes.stored(given.data), spec.data_layout)
        # Rows and columns outside the picture hold the code of zero here, so every sum starts alike.
        starts = zero_starts(tap_sums(weight, spec), zero)
        packed = words(pack_planar_weight(weight, spec), spec.data_layout)
        word = np.array([zero % 256 * 0x01010101], "uint32")
        return [given.data, *map(constant, (packed, scales, starts, given.bias)), *given.slopes, constant(word)]

    def features(self, point: PlanarTile) -> list[float]:
        """Return the features of this tile."""
        phases = 2 if self.spec.transposed else 1
        return convolution_features(self.spec, point.lanes, self.spec.data_shape[3], point.channels, 1, phases)


def planar_tile(attrs: FusedConv2D, unit: VectorUnit) -> PlanarTile:
    """Return the tile of a convolution: as few tiles of output channels as the registers allow, all of one size."""
    # Where weights are multiplied by lane, few registers hold them and the pixels.
    sums = unit.registers - unit.registers // 4 if by_lane(attrs.data_layout.dtype, unit.isa) else unit.accumulators
    most = max(1, sums // _columns(attrs))
    tiles = -(-attrs.out_shape[1] // most)
    return PlanarTile(_widest(attrs, unit), -(-attrs.out_shape[1] // tiles))


def planar_tiles(attrs: FusedConv2D, unit: VectorUnit) -> list[PlanarTile]:
    """Return the tiles worth measuring, that of `planar_tile` first."""
    default, widest = planar_tile(attrs, unit), _widest(attrs, unit)
    most = min(attrs.out_shape[1], (unit.accumulators + unit.registers // 8) // _columns(attrs))
    # Of the tiles that cut the channels into as many parts, the smallest computes the fewest twice.
    parts = sorted({-(-attrs.out_shape[1] // channels) for channels in range(max(1, most // 4), most + 1)})
    tiles = [PlanarTile(lanes, -(-attrs.out_shape[1] // n)) for lanes in (widest, max(2, widest // 2)) for n in parts]
    return list(dict.fromkeys([default, *tiles]))


def _columns(attrs: FusedConv2D) -> int:
    """Return how many columns of the output a column of the input makes."""
    return 2 if attrs.transposed else 1


def _beyond(attrs: FusedConv2D, unit: VectorUnit) -> int:
    """Return how many weights are behind those of the last channel, for a register of them to be loaded from each."""
    return _WEIGHTS - 1 if by_lane(attrs.data_layout.dtype, unit.isa) else 0


def _widest(attrs: FusedConv2D, unit: VectorUnit) -> int:
    """Return the longest vector that fits a row."""
    lanes = unit.lanes
    while lanes > attrs.data_shape[3]:
        lanes //= 2
    return lanes


def pack_planar_weight(weight: np.ndarray, attrs: FusedConv2D) -> np.ndarray:
    """Return weights as kernel position x input channel x output channel."""
    ordered = weight.transpose(2, 3, 0, 1) if attrs.transposed else weight.transpose(2, 3, 1, 0)
    return np.ascontiguousarray(ordered.reshape(-1, *ordered.shape[2:]))


def planar_conv2d(attrs: FusedConv2D, unit: VectorUnit, tile: PlanarTile | None = None) -> tvm.tirx.PrimFunc:
    """Return the kernel of a convolution with stride 1, or a transposed one with stride 2, and NCHW output.

    Its arguments, as far as it has them: data; weight (as `pack_planar_weight` orders it, in words of the data's elements);
    scale of each channel's sum and the sums' starts (rows of the input, phases, channels), where the data are codes;
    bias; the slope of a PReLU; zero, the word that stands for zeros outside the picture, where the data are codes; and the
    output: float32, or for an argmax N x H x W uint8.
    """
    n, channels, height, width = attrs.out_shape
    layout = attrs.data_layout
    arguments: Arguments = {
        "data": (layout.physical(attrs.data_shape), layout.storage),
        "weight": (
            (attrs.kernel[0] * attrs.kernel[1], attrs.data_shape[1] // layout.per_word, channels + _beyond(attrs, unit)),
            layout.storage,
        ),
    }
    if layout.codes:
        arguments["scale"] = ((channels,), "float32")
        arguments["starts"] = ((4 if attrs.transposed else 1, channels), "int32")
    arguments["bias"] = ((channels,), arithmetic(layout.dtype))
    if attrs.activation == "prelu":
        arguments["slope"] = ((channels,), arithmetic(layout.dtype))
    if layout.codes:
        arguments["zero"] = ((1,), "uint32")
    arguments["out"] = ((n, height, width), "uint8") if attrs.argmax else (attrs.out_shape, "float32")

    def body(*buffers: Any) -> None:
        _Planar(attrs, tile or planar_tile(attrs, unit), dict(zip(arguments, buffers, strict=True)), unit).emit()

    return prim_func(arguments, body, unit.isa)


class _Planar:
    def __init__(self, attrs: FusedConv2D, tile: PlanarTile, buffers: dict[str, Any], unit: VectorUnit) -> None:
        self.attrs = attrs
        self.by_lane = by_lane(attrs.data_layout.dtype, unit.isa)
        self.layout = attrs.data_layout
        self.floats = arithmetic(self.layout.dtype)
        self.buffers = buffers
        self.lanes, self.channels = tile.lanes, tile.channels
        self.columns = _columns(attrs)
        self.phases = self._phases()
        offsets = [tap[3] for taps in self.phases.values() for tap in taps]
        self.margin = max(0, -min(offsets))
        self.reach = max(0, *offsets)
        self.rows = sorted({tap[2] for taps in self.phases.values() for tap in taps})

    def _phases(self) -> dict[int, list[Tap]]:
        """Return for each output row that an input row makes the taps it takes."""
        attrs = self.attrs
        if attrs.transposed:
            phases: dict[int, list[Tap]] = {0: [], 1: []}
            for (a, b), tap, dy, dx in transposed_taps(attrs):
                phases[a].append((b, tap, dy, dx))
            return phases
        taps = [
            (0, kh * attrs.kernel[1] + kw, kh * attrs.dilation[0] - attrs.padding[0], kw * attrs.dilation[1] - attrs.padding[1])
            for kh in range(attrs.kernel[0])
            for kw in range(attrs.kernel[1])
        ]
        return {0: taps}

    def emit(self) -> None:
        n, inputs, rows, width = self.attrs.data_shape
        columns = self.margin + width + self.reach
        with for_rows(n, rows) as (picture, row):
            lines = T.alloc_buffer(
                (len(self.rows), inputs // self.layout.per_word, columns), self.layout.storage, scope="global", layout=None
            )
            for place, dy in enumerate(self.rows):
                self._transpose_row(lines, place, picture, row, dy)
            for phase, taps in self.phases.items():
                out_row = row * len(self.phases) + phase
                if self.attrs.argmax:
                    with self._for_pieces() as start:
                        self._store_labels(lines, phase, picture, out_row, start, taps)
                else:
                    with T.serial(-(-self.attrs.out_shape[1] // self.channels)) as tile:
                        first = tile_start(tile, self.channels, self.attrs.out_shape[1])
                        with self._for_pieces() as start:
                            self._store_logits(lines, phase, picture, out_row, first, start, taps)

    @contextmanager
    def _for_pieces(self) -> Iterator[Any]:
        """Loop over the vectors of a row, yielding where each starts."""
        width = self.attrs.data_shape[3]
        with T.serial(-(-width // self.lanes)) as piece:
            yield tile_start(piece, self.lanes, width)

    def _transpose_row(self, lines: Any, place: int, picture: Any, row: Any, dy: int) -> None:
        """Copy one row of the input, channels (or words of them) apart, zeros around it and for a row outside."""
        _, inputs, rows, width = self.attrs.data_shape
        layout, data = self.layout, self.buffers["data"]
        words = layout.block // layout.per_word
        zero = self.buffers["zero"][0] if layout.codes else zero_word(layout)
        with T.serial(inputs // layout.block) as block, T.serial(words) as inner:
            channel = block * words + inner
            for edge in [*range(self.margin), *range(self.margin + width, self.margin + width + self.reach)]:
                T.buffer_store(lines, zero, [place, channel, edge])
            with self._for_pieces() as start, T.vectorized(self.lanes) as lane:
                value = data[picture, block, row + dy, start + lane + layout.pad, inner]
                if dy:
                    inside = tvm.tirx.all(row + dy >= 0, row + dy < rows)
                    value = tvm.tirx.if_then_else(inside, value, zero)
                T.buffer_store(lines, value, [place, channel, self.margin + start + lane])

    def _convolve(self, lines: Any, phase: int, first: Any, start: Any, taps: list[Tap]) -> Registers:
        """Emit the sums of a tile of output channels from `first` on; return them as columns x channels x lanes."""
        dtype = self.layout.dtype
        acc = Registers((self.columns, self.channels), self.lanes, accumulator(dtype))
        for column, o in tile_places(self.columns, self.channels):
            begin: Any = tvm.tirx.const(0, accumulator(dtype))
            if self.layout.codes:
                begin = self.buffers["starts"][phase * self.columns + column, first + o]
            acc[column, o] = splat(begin, self.lanes)
        with T.serial(self.attrs.data_shape[1] // self.layout.per_word) as channel:
            for column, tap, dy, dx in taps:
                pixels = lines[self.rows.index(dy), channel, vector(self.margin + start + dx, self.lanes)]
                for o, weight in enumerate(self._weights(tap, channel, first)):
                    acc[column, o] = multiply_add_pixels(acc[column, o], pixels, weight, dtype, self.lanes)
        return acc

    def _weights(self, tap: int, channel: Any, first: Any) -> list[Any]:
        """Return what a word of the data is multiplied with for each of the tile's output channels, from `first` on."""
        weight, channels = self.buffers["weight"], range(self.channels)
        if not self.by_lane:
            return [weight[tap, channel, first + o] for o in channels]
        loaded = [T.bind(weight[tap, channel, vector(first + o, _WEIGHTS)]) for o in channels[::_WEIGHTS]]
        return [lane(loaded[o // _WEIGHTS], o % _WEIGHTS) for o in channels]

    def _finished(self, acc: Registers, column: int, o: int, channel: Any) -> Any:
        """Return one vector of sums after bias and activation."""
        value = acc[column, o]
        if self.layout.codes:
            value = T.cast(value, f"float32x{self.lanes}") * splat(self.buffers["scale"][channel], self.lanes)
        value = value + splat(self.buffers["bias"][channel], self.lanes)
        slope = functools.partial(splat, self.buffers["slope"][channel], self.lanes) if "slope" in self.buffers else None
        return activated(value, self.attrs.activation, slope, self.lanes, masks=not self.by_lane)

    def _store_logits(
        self, lines: Any, phase: int, picture: Any, out_row: Any, first: Any, start: Any, taps: list[Tap]
    ) -> None:
        acc = self._convolve(lines, phase, first, start, taps)
        for o in range(self.channels):
            columns = [converted(self._finished(acc, column, o, first + o), "float32") for column in range(self.columns)]
            self._store_row(columns, (picture, first + o, out_row), start)

    def _store_labels(self, lines: Any, phase: int, picture: Any, out_row: Any, start: Any, taps: list[Tap]) -> None:
        """Store the channel of the largest of all sums, the first of equals, which are never in memory."""
        channels = self.attrs.out_shape[1]
        kinds = (self.floats, "int16" if self.floats == "float16" else "int32")
        best, place = (Registers((self.columns,), self.lanes, dtype) for dtype in kinds)
        for number in range(-(-channels // self.channels)):
            first = min(number * self.channels, channels - self.channels)
            acc = self._convolve(lines, phase, first, start, taps)
            for o in range(self.channels):
                for column in range(self.columns):
                    value = self._finished(acc, column, o, first + o)
                    label = splat(tvm.tirx.const(first + o, kinds[1]), self.lanes)
                    if first + o:
                        better = value > best[column,]
                        label = T.Select(better, label, place[column,])
                        value = T.max(best[column,], value)
                    place[column,] = label
                    best[column,] = value
        columns = [T.cast(place[column,], f"uint8x{self.lanes}") for column in range(self.columns)]
        self._store_row(columns, (picture, out_row), start)

    def _store_row(self, columns: list[Any], leading: tuple[Any, ...], start: Any) -> None:
        """Store one vector; the two columns of a transposed convolution are interleaved first."""
        lanes, out = self.lanes, self.buffers["out"]
        if self.columns == 1:
            T.buffer_store(out, columns[0], [*leading, vector(start, lanes)])
            return
        order = [lane + column * lanes for lane in range(lanes) for column in range(2)]
        merged = tvm.tirx.Shuffle(columns, [tvm.tirx.const(k, "int32") for k in order])
        T.buffer_store(out, merged, [*leading, vector(start * 2, 2 * lanes)])
