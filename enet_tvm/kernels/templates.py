"""The kernel templates as things that can be tuned: what is to be computed, and the parameters that may be chosen.

A *template* is a frozen dataclass of everything that fixes what a kernel computes; a *point* is a frozen dataclass of
the parameters that only change how fast it does. Both are plain values, so that `dataclasses.asdict` of them is JSON.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import tvm

from enet_tvm.kernels import conv2d, initial_block, planar, winograd
from enet_tvm.kernels.planar import PlanarTile
from enet_tvm.kernels.register_tile import RegisterTile, VectorUnit
from enet_tvm.kernels.winograd import WinogradTile
from enet_tvm.ops import FusedConv2D, Layout

Point = RegisterTile | PlanarTile | WinogradTile
"""The parameters of some template."""


@runtime_checkable
class Template(Protocol):
    """What one kernel computes on one kind of target, and how it may be varied."""

    point_type: ClassVar[type]
    """The dataclass of its points."""

    @property
    def name(self) -> str:
        """What it computes and on what shape, in a word."""

    @property
    def default(self) -> Any:
        """The point that is taken when nothing is known."""

    def points(self) -> list[Any]:
        """Return the points worth measuring, the default first, those most like it next."""

    def kernel(self, point: Any) -> tvm.tirx.PrimFunc:
        """Return the kernel at a point."""

    def features(self, point: Any) -> list[float]:
        """Return numbers that a cost model can tell points, and kernels, apart by; as many for every template."""


@dataclass(frozen=True)
class _OfConvolution:
    """What the templates of convolutions have in common."""

    spec: FusedConv2D
    unit: VectorUnit

    @property
    def name(self) -> str:
        """The operators and shapes of the convolution."""
        return self.spec.kernel_name


@dataclass(frozen=True)
class Conv2DTemplate(_OfConvolution):
    """A fused convolution whose output is channel-blocked.

    Attributes
    ----------
    spec : FusedConv2D
        Without its layers.
    unit : VectorUnit
        Of the target.
    """

    point_type: ClassVar[type] = RegisterTile

    @property
    def default(self) -> RegisterTile:
        """The tile that fills the registers."""
        return conv2d.tile_of(self.spec, self.unit)

    def points(self) -> list[RegisterTile]:
        """Return the tiles worth measuring."""
        return _nearest_first(self.default, conv2d.tiles_of(self.spec, self.unit))

    def kernel(self, point: RegisterTile) -> tvm.tirx.PrimFunc:
        """Return the kernel with this tile."""
        return conv2d.conv2d(self.spec, point, self.unit.isa)

    def features(self, point: RegisterTile) -> list[float]:
        """Return the features of this tile."""
        phases = 4 if self.spec.transposed else 1
        width = self.spec.data_shape[3] if self.spec.transposed else self.spec.out_shape[3]
        return _features(self.spec, self.spec.out_layout.block, width, point.pixels, point.blocks, phases)


@dataclass(frozen=True)
class WinogradTemplate(_OfConvolution):
    """A 3x3 convolution by Winograd's minimal filtering.

    Attributes
    ----------
    spec : FusedConv2D
        Without its layers; one that `winograd.runs_winograd`.
    unit : VectorUnit
        Of the target.
    """

    point_type: ClassVar[type] = WinogradTile

    @property
    def name(self) -> str:
        """The operators and shapes of the convolution, and that it is this kernel."""
        return f"{super().name}_winograd"

    @property
    def default(self) -> WinogradTile:
        """The tile that is expected to be the fastest."""
        return self.points()[0]

    def points(self) -> list[WinogradTile]:
        """Return the tiles worth measuring."""
        return winograd.winograd_tiles(self.spec, self.unit)

    def kernel(self, point: WinogradTile) -> tvm.tirx.PrimFunc:
        """Return the kernel with this tile."""
        return winograd.winograd(self.spec, point)

    def features(self, point: WinogradTile) -> list[float]:
        """Return the features of this tile: weights are loaded for `tiles`, of `columns` + 2 sums each."""
        width, lanes = self.spec.out_shape[3] // point.columns, self.spec.out_layout.block
        outputs = (point.rows, point.columns)
        return _features(self.spec, lanes, width, point.tiles, 1, point.columns + 2, outputs)


@dataclass(frozen=True)
class PlanarTemplate(_OfConvolution):
    """A convolution whose output is NCHW.

    Attributes
    ----------
    spec : FusedConv2D
        Without its layers.
    unit : VectorUnit
        Of the target.
    """

    point_type: ClassVar[type] = PlanarTile

    @property
    def default(self) -> PlanarTile:
        """The tile that fills the registers."""
        return planar.planar_tile(self.spec, self.unit)

    def points(self) -> list[PlanarTile]:
        """Return the tiles worth measuring."""
        default = self.default
        tiles = planar.planar_tiles(self.spec, self.unit)
        return sorted(tiles, key=lambda t: (t != default, t.lanes != default.lanes, abs(t.channels - default.channels)))

    def kernel(self, point: PlanarTile) -> tvm.tirx.PrimFunc:
        """Return the kernel with this tile."""
        return planar.planar_conv2d(self.spec, self.unit, point)

    def features(self, point: PlanarTile) -> list[float]:
        """Return the features of this tile."""
        phases = 2 if self.spec.transposed else 1
        return _features(self.spec, point.lanes, self.spec.data_shape[3], point.channels, 1, phases)


@dataclass(frozen=True)
class InitialBlockTemplate:
    """ENet's initial block.

    Attributes
    ----------
    shape : tuple of int
        N x C x H x W of the picture.
    filters : int
        Output channels of its convolution.
    layout : Layout
        Of its output.
    pool : int
        Window of its pooling.
    unit : VectorUnit
        Of the target.
    """

    shape: tuple[int, int, int, int]
    filters: int
    layout: Layout
    pool: int
    unit: VectorUnit
    point_type: ClassVar[type] = RegisterTile

    @property
    def name(self) -> str:
        """The same for every shape: a network has one."""
        return "initial_block"

    @property
    def default(self) -> RegisterTile:
        """The tile that fills the registers."""
        return initial_block.initial_tile(self.shape, self.layout, self.filters + self.shape[1], self.unit)

    def points(self) -> list[RegisterTile]:
        """Return the tiles worth measuring."""
        tiles = initial_block.initial_tiles(self.shape, self.layout, self.filters + self.shape[1], self.unit)
        return _nearest_first(self.default, tiles)

    def kernel(self, point: RegisterTile) -> tvm.tirx.PrimFunc:
        """Return the kernel with this tile."""
        return initial_block.initial_block(self.shape, self.filters, self.layout, point, self.pool, self.unit.isa)

    def features(self, point: RegisterTile) -> list[float]:
        """Return the features of this tile."""
        n, inputs, height, width = self.shape
        out_shape = (n, self.filters + inputs, height // 2, width // 2)
        spec = FusedConv2D(self.shape, out_shape, (3, 3), (2, 2), (1, 1), (1, 1), out_layout=self.layout)
        return _features(spec, self.layout.block, width // 2, point.pixels, point.blocks, 1)


def _nearest_first(default: RegisterTile, tiles: list[RegisterTile]) -> list[RegisterTile]:
    return sorted(tiles, key=lambda t: (t != default, abs(t.blocks - default.blocks), abs(t.pixels - default.pixels)))


def _features(
    spec: FusedConv2D, lanes: int, width: int, pixels: int, blocks: int, phases: int, transformed: tuple[int, int] = (1, 1)
) -> list[float]:
    """Return what the kernel is, what the tile is, and how the two go together.

    `transformed` is how many outputs a transform makes in either direction.
    """
    tiles = -(-width // pixels)
    area = spec.kernel[0] * spec.kernel[1]
    return [
        *map(float, (spec.out_shape[2], width, spec.data_shape[1], spec.out_shape[1], area, spec.kernel[1], spec.strides[1])),
        *map(float, (spec.dilation[0], spec.transposed, spec.residual != "none", lanes)),
        *map(float, (pixels, blocks, pixels * blocks * phases, tiles, *transformed)),
        tiles * pixels / width,
        # Loads of weights and of pixels for each multiplication.
        1 / pixels + 1 / blocks,
    ]
