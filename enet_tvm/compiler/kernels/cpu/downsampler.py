"""Downsamplers of the initial block's kind between channel-blocked tensors: the concatenation never exists.

As in ERFNet's encoder, a strided convolution and a pooling read the same tensor, and their results are normalised and activated
side by side. A row of the output is computed at once: its first channels as a convolution's, the others from the maxima.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import tvm
from tvm import relax
from tvm.tirx.script.builder import ir as T

from enet_tvm.compiler.dataflow import constant
from enet_tvm.compiler.kernels.common.building import Arguments, activated, for_rows, prim_func
from enet_tvm.compiler.kernels.common.codes import TensorCodes
from enet_tvm.compiler.kernels.common.convolution import convolution_features, known
from enet_tvm.compiler.kernels.common.elements import arithmetic, load, splat, store, vector, write_edges
from enet_tvm.compiler.kernels.common.llvm_functions import Isa
from enet_tvm.compiler.kernels.cpu.conv2d import Conv2DBody, conv2d_arguments, pack_weight, tile_of, tiles_of, weight_sums
from enet_tvm.compiler.kernels.cpu.packing import coded, rounding_zero, slopes, summands, words
from enet_tvm.compiler.kernels.cpu.register_tile import RegisterTile, VectorUnit, nearest_first
from enet_tvm.compiler.ops import FusedConv2D, InitialBlockAttrs
from enet_tvm.compiler.quantisation.codes import Codes, zero_starts


@dataclass(frozen=True)
class DownsamplerTemplate:
    """A 3x3 convolution with stride 2 beside a 2x2 pooling.

    Attributes
    ----------
    spec : InitialBlockAttrs
        The downsampler, its `layers` left out.
    unit : VectorUnit
        Vector registers of the target.
    """

    spec: InitialBlockAttrs
    unit: VectorUnit
    spec_type: ClassVar[type] = InitialBlockAttrs
    point_type: ClassVar[type] = RegisterTile

    @classmethod
    def covers(cls, spec: InitialBlockAttrs, unit: VectorUnit) -> bool:
        """Whether input and output are in equal blocks, which divide the filters too, and the pooling needs no padding."""
        block = spec.out_layout.block
        return block > 0 and spec.data_layout.block == block and spec.filters % block == 0 and spec.pool == 2

    @classmethod
    def of(cls, spec: InitialBlockAttrs, unit: VectorUnit) -> Self:
        """Return the template for a call."""
        return cls(replace(spec, layers=()), unit)

    @property
    def name(self) -> str:
        """Name of the kernel: what it computes and on what shape."""
        _, channels, height, width = self.spec.out_shape
        return f"downsampler_{self.spec.data_shape[1]}to{channels}_{width}x{height}"

    @property
    def default(self) -> RegisterTile:
        """The tile of the convolution that fills the registers."""
        return tile_of(filters_of(self.spec), self.unit)

    def points(self) -> list[RegisterTile]:
        """Return the tiles worth measuring."""
        return nearest_first(self.default, tiles_of(filters_of(self.spec), self.unit))

    def kernel(self, point: RegisterTile) -> tvm.tirx.PrimFunc:
        """Return the kernel with this tile."""
        return downsampler(self.spec, point, self.unit.isa)

    def operands(
        self, point: RegisterTile, arguments: Sequence[relax.Expr], codes: TensorCodes, own: Codes
    ) -> list[relax.Expr]:
        """Return data, weights, biases and slopes, and what codes ask for: see `downsampler`.

        Everything up to the activation is in units of the output's codes, where it has such; the maxima of codes are codes,
        whose meaning goes into the factors and biases of the pooled channels.
        """
        data, slope, convolution, unit = arguments[0], known(arguments[5]), filters_of(self.spec), np.float32(own.scale)
        weight, bias, scale, shift = (known(argument) for argument in arguments[1:5])
        read, sums = codes.stored(data), list[np.ndarray]()
        if self.spec.data_layout.codes:
            values, factors, zero = coded(weight, 0, read, self.spec.data_layout)
            sums = [factors / unit, zero_starts(weight_sums(values, convolution), zero)]
        else:
            values = weight / unit
        packed = words(pack_weight(values, convolution, point), self.spec.data_layout)
        biases = np.concatenate([bias, shift + np.float32(read.offset) * scale]) / unit
        factors_of_maxima = scale * np.float32(read.scale) / unit
        if not self.spec.out_layout.codes:
            layout = self.spec.data_layout
            added, factor = summands([constant(biases), constant(factors_of_maxima)], layout)
            return [data, *map(constant, (packed, *sums)), added, *slopes([constant(slope)], layout), factor]
        biases = biases + rounding_zero(own)
        return [data, *map(constant, (packed, *sums, biases, slope, rounding_zero(own), factors_of_maxima))]

    def features(self, point: RegisterTile) -> list[float]:
        """Return the features of this tile."""
        convolution = filters_of(self.spec)
        width = convolution.out_shape[3]
        return convolution_features(convolution, convolution.out_layout.block, width, point.pixels, point.blocks, 1)


def filters_of(spec: InitialBlockAttrs) -> FusedConv2D:
    """Return the convolution of a downsampler, with the activation that follows."""
    n, _, height, width = spec.out_shape
    return FusedConv2D(
        spec.data_shape,
        (n, spec.filters, height, width),
        (3, 3),
        (2, 2),
        (1, 1),
        (1, 1),
        activation="prelu",
        data_layout=spec.data_layout,
        out_layout=spec.out_layout,
    )


def downsampler(spec: InitialBlockAttrs, tile: RegisterTile, isa: Isa = "x86") -> tvm.tirx.PrimFunc:
    """Return the kernel of a downsampler.

    Its arguments are those of `enet_tvm.compiler.kernels.cpu.conv2d.conv2d` for the convolution, but that bias, slope and
    output are of all channels, the pooled ones last; before the output comes what the maxima are multiplied with.
    """
    arguments: Arguments = conv2d_arguments(filters_of(spec), tile)
    channels = spec.out_shape[1]
    del arguments["out"]
    arguments["bias"] = arguments["slope"] = ((channels,), arithmetic(spec.data_layout.dtype))
    arguments["factor"] = ((spec.data_shape[1],), arithmetic(spec.data_layout.dtype))
    arguments["out"] = (spec.out_layout.physical(spec.out_shape), spec.out_layout.storage)

    def body(*buffers: Any) -> None:
        named = dict(zip(arguments, buffers, strict=True))
        convolution = Conv2DBody(filters_of(spec), tile, named, isa)
        with for_rows(spec.out_shape[0], spec.out_shape[2]) as (picture, row):
            zero = named["zero"][0] if spec.out_layout.codes else 0
            if spec.out_layout.pad:
                with T.serial(channels // spec.out_layout.block) as block:
                    write_edges(named["out"], (picture, block, row), spec.out_shape[3], spec.out_layout, zero)
            convolution.emit_row(picture, row)
            _pool_row(spec, named, picture, row)

    return prim_func(arguments, body, isa)


def _pool_row(spec: InitialBlockAttrs, buffers: dict[str, Any], picture: Any, row: Any) -> None:
    """Emit the pooled channels of one row."""
    data, out = spec.data_layout, spec.out_layout
    lanes, filters = out.block, spec.filters // out.block
    zero = splat(buffers["zero"][0], lanes) if out.codes else None
    with T.serial(spec.data_shape[1] // lanes) as block, T.serial(spec.out_shape[3]) as column:
        places = [(row * 2 + a, column * 2 + b + data.pad) for a in (0, 1) for b in (0, 1)]
        pixels = [load(buffers["data"], (picture, block, *place), data, arithmetic(data.dtype)) for place in places]
        best = T.max(T.max(pixels[0], pixels[1]), T.max(pixels[2], pixels[3]))
        channels = vector((filters + block) * lanes, lanes)
        value = T.bind(best * buffers["factor"][vector(block * lanes, lanes)] + buffers["bias"][channels])
        value = activated(value, "prelu", lambda: buffers["slope"][channels], lanes, zero)
        store(buffers["out"], value, (picture, filters + block, row, column + out.pad), out)
