"""How many accumulators a convolution keeps in registers, from the target's vector unit alone."""

from __future__ import annotations

from dataclasses import dataclass, replace

import tvm

from enet_tvm.compiler.kernels.common.llvm_functions import Isa
from enet_tvm.compiler.ops.layout import DType

_LOOP = 5
"""Instructions of a loop over blocks of input channels beside those for its tile: addresses, count, branch."""
NEIGHBOURS = 4
"""Pixels whose words are loaded at once where each is multiplied from its lane: a register of ARM."""
_ARM_REGISTERS = 32
"""Vector registers of a 64-bit ARM processor."""


@dataclass(frozen=True)
class VectorUnit:
    """The vector registers of a target.

    Attributes
    ----------
    lanes : int
        Values in a register, of the type that is computed in.
    registers : int
        Number of vector registers.
    isa : {"x86", "aarch64"}
        Instruction set.
    """

    lanes: int
    registers: int
    isa: Isa = "x86"

    @classmethod
    def of(cls, target: tvm.target.Target, dtype: DType = "float32") -> VectorUnit:
        """Return the vector unit of an LLVM target: AVX-512, AVX2, SSE or NEON.

        Parameters
        ----------
        dtype : DType
            Type of the elements that layers read: of float16 a register holds twice as many values, of others as many as
            of float32, in which they are summed. Of bytes on ARM a vector is of two registers.
        """
        if dtype == "float16":
            single = cls.of(target)
            return replace(single, lanes=2 * single.lanes)
        has = tvm.target.codegen.target_has_features
        triple = str(target.attrs.get("mtriple") or tvm.target.codegen.llvm_get_system_triple())
        if triple.startswith(("aarch64", "arm64")):
            if dtype == "bfloat16" and has("bf16", target):
                return MatrixUnit(lanes=4, registers=32, isa="aarch64")
            if dtype == "int8":
                # What is done to codes before and after the products takes fewer instructions for eight at once.
                kind = MatrixUnit if has("i8mm", target) else cls
                return kind(lanes=8, registers=16, isa="aarch64")
            return cls(lanes=4, registers=32, isa="aarch64")
        if has("avx512f", target):
            return cls(lanes=16, registers=32)
        if has("avx", target):
            return cls(lanes=8, registers=16)
        return cls(lanes=4, registers=16)

    @property
    def accumulators(self) -> int:
        """Registers that accumulators may take: the rest holds weights and the broadcast input.

        Measured on AVX-512 (Zen 4): 16 to 20 of 32 reach the unit's limit, more spill.
        """
        return 20 if self.registers >= 32 else 12


@dataclass(frozen=True)
class MatrixUnit(VectorUnit):
    """The vector registers of an ARM processor that multiplies matrices of the elements that layers read.

    A row of a matrix is of eight bytes, which is what blocks of as many channels as `lanes` are then stored in: eight bytes, or
    four of bfloat16. Where a vector is of two registers there are half as many.
    """


@dataclass(frozen=True)
class RegisterTile:
    """The part of the output that is computed at once.

    Attributes
    ----------
    pixels : int
        Neighbours in a row.
    blocks : int
        Blocks of `lanes` output channels.
    """

    pixels: int
    blocks: int


def register_tile(
    unit: VectorUnit,
    width: int,
    channel_blocks: int,
    accumulators_per_pixel: int = 1,
    multiple: int = 1,
    lanewise: bool = False,
) -> RegisterTile:
    """Return the tile for rows of `width` pixels and `channel_blocks` blocks of output channels.

    Wide registers need no second block: with one, each loaded weight serves 16 pixels or more. Narrow ones need it,
    or the loads of the input outnumber the multiplications. Among the widths that fit, the one that wastes least
    wins: the last tile of a row is moved left until it fits, computing some pixels twice.

    Parameters
    ----------
    accumulators_per_pixel : int
        Accumulators of each pixel and block: 4 where the four phases of a transposed convolution are computed together.
    multiple : int
        Number that divides `pixels`, as long as `width` allows it.
    lanewise : bool
        Whether blocks of channels are loaded at once, and multiplied by lane: see `lane_tiles`.
    """
    if lanewise:
        return lane_tiles(unit, width, channel_blocks, accumulators_per_pixel, multiple)[0]
    wanted = {16: 1, 8: 2, 4: 4}.get(unit.lanes, 1) if accumulators_per_pixel == 1 else 1
    blocks = max(b for b in range(1, wanted + 1) if channel_blocks % b == 0)
    most = max(multiple, unit.accumulators // (blocks * accumulators_per_pixel))
    candidates = [p for p in range(max(1, most // 2), most + 1) if p % multiple == 0 and p <= width] or [width]

    def cost(pixels: int) -> float:
        # Weights are loaded once a tile: beside the pixels computed, that counts as about one pixel more.
        return -(-width // pixels) * (pixels + 1.0)

    return RegisterTile(min(candidates, key=lambda p: (cost(p), -p)), blocks)


def register_tiles(
    unit: VectorUnit,
    width: int,
    channel_blocks: int,
    accumulators_per_pixel: int = 1,
    multiple: int = 1,
    lanewise: bool = False,
) -> list[RegisterTile]:
    """Return the tiles among which measuring may find a better one than `register_tile`, which comes first.

    Takes what `register_tile` takes. Tiles use between half and a little more than all of the accumulators; of the
    widths that cut a row into the same number of tiles, only the narrowest is there, which computes the fewest pixels
    twice.
    """
    if lanewise:
        return lane_tiles(unit, width, channel_blocks, accumulators_per_pixel, multiple)
    default = register_tile(unit, width, channel_blocks, accumulators_per_pixel, multiple)
    least, most = unit.accumulators // 2, unit.accumulators + unit.registers // 8
    tiles = [default]
    for blocks in (b for b in range(1, 5) if channel_blocks % b == 0):
        narrowest: dict[int, int] = {}
        for pixels in range(multiple, min(width, most // (blocks * accumulators_per_pixel)) + 1, multiple):
            if least <= pixels * blocks * accumulators_per_pixel:
                narrowest.setdefault(-(-width // pixels), pixels)
        tiles += [tile for pixels in narrowest.values() if (tile := RegisterTile(pixels, blocks)) != default]
    return tiles


def lane_tiles(
    unit: VectorUnit, width: int, channel_blocks: int, accumulators_per_pixel: int = 1, multiple: int = 1
) -> list[RegisterTile]:
    """Return the tiles worth measuring where pixels are multiplied by lane, that with the fewest instructions first.

    Beside the accumulators, each pixel's block of input channels is in a register, one pixel more where four phases are
    computed together, and so are two vectors of weights; two registers are left for LLVM to order its loads.

    Parameters are those of `register_tile`.
    """
    more = 1 if accumulators_per_pixel > 1 else 0

    def registers(tile: RegisterTile) -> int:
        return tile.pixels * tile.blocks * accumulators_per_pixel + tile.pixels + more + 2

    def instructions(tile: RegisterTile) -> float:
        # For a block of input channels: multiplications, loads of weights by pairs, of pixels, and the loop itself.
        lanes, blocks = unit.lanes, accumulators_per_pixel * tile.blocks
        inner = lanes * tile.pixels * blocks + lanes * blocks / 2 + tile.pixels + more + _LOOP
        return -(-width // tile.pixels) * (channel_blocks // tile.blocks) * inner

    pixels = range(multiple, max(multiple, min(width, unit.registers)) + 1, multiple)
    tiles = [RegisterTile(p, b) for b in range(1, 5) if channel_blocks % b == 0 for p in pixels]
    fitting = [tile for tile in tiles if registers(tile) <= unit.registers - 2 and tile.pixels <= width]
    most = unit.registers // 3
    large = [tile for tile in fitting if 2 * registers(tile) > unit.registers or tile.pixels + multiple > min(width, most)]
    return sorted(large or fitting or [RegisterTile(min(multiple, width), 1)], key=instructions)


def matrix_tiles(lanes: int, width: int, channel_blocks: int) -> list[RegisterTile]:
    """Return the tiles worth measuring where matrices are multiplied, that with the fewest instructions first.

    A register has four sums, of two pixels and two channels. Beside these there are two pixels of the input in a register each,
    and two channels' weights; two registers are left for LLVM to order its loads.

    Parameters
    ----------
    lanes : int
        Channels of a block of the output.
    width : int
        Pixels of a row, two or more.
    channel_blocks : int
        Blocks of the output's channels.
    """

    def registers(tile: RegisterTile) -> int:
        return tile.pixels * tile.blocks * lanes // 4 + tile.pixels // 2 + 2

    def instructions(tile: RegisterTile) -> float:
        # For a block of input channels: multiplications, loads of pixels and, by pairs, of weights, and the loop itself.
        pixels, channels = tile.pixels // 2, tile.blocks * lanes // 2
        inner = pixels * channels + pixels + channels / 2 + _LOOP
        return -(-width // tile.pixels) * (channel_blocks // tile.blocks) * inner

    pixels = range(2, min(width, 16) + 1, 2)
    tiles = [RegisterTile(p, b) for b in range(1, 5) if channel_blocks % b == 0 for p in pixels]
    fitting = [tile for tile in tiles if registers(tile) <= _ARM_REGISTERS - 2]
    large = [tile for tile in fitting if 2 * registers(tile) > _ARM_REGISTERS or tile.pixels + 2 > min(width, 16)]
    return sorted(large, key=instructions)


def neighbour_tiles(width: int, channel_blocks: int, words: int, lanes: int) -> list[RegisterTile]:
    """Return the tiles worth measuring where words of neighbours are multiplied by lane, the shortest loop first.

    Beside the sums there are a register for every four words of the input and two for weights.

    Parameters
    ----------
    width : int
        Pixels of a row, four or more.
    channel_blocks : int
        Blocks of the output's channels.
    words : int
        Words of a pixel's block in the input.
    lanes : int
        Channels of a block of the output, four or eight: a register's or two registers'.
    """
    sums = lanes // 4

    def taken(tile: RegisterTile) -> int:
        return tile.pixels * tile.blocks * sums + tile.pixels * words // NEIGHBOURS + 2

    def instructions(tile: RegisterTile) -> float:
        vectors = tile.blocks * sums
        inner = words * (tile.pixels * vectors + tile.pixels // NEIGHBOURS + vectors / 2) + _LOOP
        return -(-width // tile.pixels) * (channel_blocks // tile.blocks) * inner

    pixels = range(NEIGHBOURS, min(width, _ARM_REGISTERS) + 1, NEIGHBOURS)
    tiles = [RegisterTile(p, b) for b in range(1, 5) if channel_blocks % b == 0 for p in pixels]
    fitting = [tile for tile in tiles if taken(tile) <= _ARM_REGISTERS - 2]
    large = [tile for tile in fitting if 2 * taken(tile) > _ARM_REGISTERS]
    return sorted(large or fitting, key=instructions)


def nearest_first(default: RegisterTile, tiles: list[RegisterTile]) -> list[RegisterTile]:
    """Return tiles with the default first, then those most like it."""
    return sorted(tiles, key=lambda t: (t != default, abs(t.blocks - default.blocks), abs(t.pixels - default.pixels)))
