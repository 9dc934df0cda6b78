"""How many accumulators a convolution keeps in registers, from the target's vector unit alone."""

from __future__ import annotations

from dataclasses import dataclass

import tvm

from enet_tvm.compiler.kernels.common.elements import Isa


@dataclass(frozen=True)
class VectorUnit:
    """The vector registers of a target.

    Attributes
    ----------
    lanes : int
        float32 values in a register.
    registers : int
        Number of vector registers.
    isa : {"x86", "aarch64"}
        Instruction set.
    """

    lanes: int
    registers: int
    isa: Isa = "x86"

    @classmethod
    def of(cls, target: tvm.target.Target) -> VectorUnit:
        """Return the vector unit of an LLVM target: AVX-512, AVX2, SSE or NEON."""
        has = tvm.target.codegen.target_has_features
        triple = str(target.attrs.get("mtriple") or tvm.target.codegen.llvm_get_system_triple())
        if triple.startswith(("aarch64", "arm64")):
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
    unit: VectorUnit, width: int, channel_blocks: int, accumulators_per_pixel: int = 1, multiple: int = 1
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
    """
    wanted = {16: 1, 8: 2, 4: 4}.get(unit.lanes, 1) if accumulators_per_pixel == 1 else 1
    blocks = max(b for b in range(1, wanted + 1) if channel_blocks % b == 0)
    most = max(multiple, unit.accumulators // (blocks * accumulators_per_pixel))
    candidates = [p for p in range(max(1, most // 2), most + 1) if p % multiple == 0 and p <= width] or [width]

    def cost(pixels: int) -> float:
        # Weights are loaded once a tile: beside the pixels computed, that counts as about one pixel more.
        return -(-width // pixels) * (pixels + 1.0)

    return RegisterTile(min(candidates, key=lambda p: (cost(p), -p)), blocks)


def register_tiles(
    unit: VectorUnit, width: int, channel_blocks: int, accumulators_per_pixel: int = 1, multiple: int = 1
) -> list[RegisterTile]:
    """Return the tiles among which measuring may find a better one than `register_tile`, which comes first.

    Takes what `register_tile` takes. Tiles use between half and a little more than all of the accumulators; of the
    widths that cut a row into the same number of tiles, only the narrowest is there, which computes the fewest pixels
    twice.
    """
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


def nearest_first(default: RegisterTile, tiles: list[RegisterTile]) -> list[RegisterTile]:
    """Return tiles with the default first, then those most like it."""
    return sorted(tiles, key=lambda t: (t != default, abs(t.blocks - default.blocks), abs(t.pixels - default.pixels)))
