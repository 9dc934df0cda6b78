"""How much of a convolution each thread of a GPU computes, and how many threads there are.

What binds these kernels is the path from L1 to registers. A load moves as many bytes over it as it writes into registers, and
one whose address all threads of a warp share writes them in each thread all the same. So a tile is judged by the bytes that
its thread loads for each multiply-add: 4 pixels x 8 channels take 12 words for 32 products, 1 x 1 takes 2 for one. A large
machine is not filled by smaller tiles, but by threads that share one: each sums a part of the input channels, and they add
their sums up in shared memory.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

from enet_tvm.compiler.cuda.multiprocessor import multiprocessor_of
from enet_tvm.compiler.kernels.gpu.building import WARP
from enet_tvm.targets.spec import GpuSpec

BYTES_PER_FMA = 1.5
"""Most bytes that a thread's loads bring into registers for each multiply-add, where channels and registers allow it."""

FLOAT_BYTES = 4
"""Bytes of a value."""

ISSUE = 4
"""Instructions that a multiprocessor issues in a clock."""

LIVE_REGISTERS = 100
"""Registers of a thread that its sums and the loads under way may take; addresses need the rest of 128."""

WARPS = 16
"""Most warps that a multiprocessor has at once: 128 registers for each thread."""

SHARED_BYTES = 49152
"""Shared memory that every GPU gives a block."""


@dataclass(frozen=True)
class GpuUnit:
    """The figures of a GPU that tiles depend on.

    Attributes
    ----------
    multiprocessors : int
        Number of streaming multiprocessors.
    max_registers : int
        32-bit registers that a thread may use.
    max_threads_per_block : int
        Threads that a block may have.
    l1_bytes, l1_latency : int
        Bytes a clock that a multiprocessor loads from L1, and clocks until they come.
    """

    multiprocessors: int
    max_registers: int = 255
    max_threads_per_block: int = 1024
    l1_bytes: int = 64
    l1_latency: int = 85

    @classmethod
    def of(cls, gpu: GpuSpec) -> Self:
        """Return the figures of a target's GPU; one of an architecture that is not known counts as the slowest."""
        unit = cls(gpu.multiprocessors, gpu.max_registers, gpu.max_threads_per_block)
        known = multiprocessor_of(gpu.arch)
        return unit if known is None else replace(unit, l1_bytes=int(known.l1_bytes), l1_latency=int(known.latency))

    @property
    def accumulators(self) -> int:
        """Registers of a thread that sums may take: addresses, weights and pixels need about 40 to 60 beside them."""
        return 64 if self.max_registers >= 112 else 32 if self.max_registers >= 72 else 16


@dataclass(frozen=True)
class HalfUnit(GpuUnit):
    """The figures of a GPU whose kernels may compute in float16.

    Attributes
    ----------
    half2 : bool
        Whether it multiplies and adds pairs of float16 at twice the rate of float32.
    matrix_depth : {0, 8, 16}
        Inputs that an instruction for products of matrices takes; 0 where it has none.
    """

    half2: bool = False
    matrix_depth: int = 0

    @classmethod
    def of(cls, gpu: GpuSpec) -> Self:
        """Return the figures of a target's GPU; one of an architecture that is not known computes in float32."""
        unit, known = super().of(gpu), multiprocessor_of(gpu.arch)
        if known is None:
            return unit
        depth = 0 if not known.matrix_products else 8 if gpu.arch == "sm_75" else 16
        return replace(unit, half2=known.doubles_halves, matrix_depth=depth)


@dataclass(frozen=True)
class GpuTile:
    """A launch of a convolution.

    Attributes
    ----------
    pixels : int
        Pixels of each thread; they lie `lanes` apart, so that neighbouring threads have neighbouring pixels.
    channels : int
        Output channels of each thread.
    lanes : int
        Threads of a block side by side along the pixels.
    groups : int
        Threads of a block side by side along the channels.
    splits : int
        Threads of a block that share a tile: each sums a part of the input channels.
    """

    pixels: int
    channels: int
    lanes: int
    groups: int
    splits: int = 1

    @property
    def sums(self) -> int:
        """Pixels times channels of a thread: what it keeps in registers."""
        return self.pixels * self.channels

    def is_like(self, other: GpuTile) -> bool:
        """Whether another launch takes about as many registers: of the same tiles, which threads share or do not."""
        mine, others = ((each.pixels, each.channels, each.splits > 1) for each in (self, other))
        return mine == others

    def channel_groups(self, channels: int) -> int:
        """Return how many tiles it takes, side by side, for all the channels."""
        return -(-channels // self.channels)

    def padded_channels(self, channels: int) -> int:
        """Return the number of channels that the groups compute, some of them for nothing."""
        return self.channel_groups(channels) * self.channels

    def blocks(self, pixels: int, channels: int) -> tuple[int, int]:
        """Return the blocks of a launch along pixels and along channels."""
        return -(-pixels // (self.lanes * self.pixels)), self.channel_groups(channels) // self.groups


@dataclass(frozen=True)
class TiledSums:
    """What tiles are cut from: the sums of a convolution.

    Attributes
    ----------
    pixels, channels, batch : int
        Extents of the output; of a transposed convolution, pixels of its input.
    inputs : int
        Input channels.
    weights : int
        Weights of an input and an output channel: kernel positions.
    reads : int
        Pixels of an input channel that are loaded for one pixel of a tile; as many as weights where no two share one.
    phases : int
        Sums of each pixel and channel: 4 where the four outputs of a transposed convolution are computed together.
    """

    pixels: int
    channels: int
    inputs: int
    weights: int = 1
    batch: int = 1
    reads: int | None = None
    phases: int = 1

    def bytes_per_fma(self, pixels: int, channels: int) -> float:
        """Return the bytes that a thread with a tile of such extents loads for each multiply-add."""
        reads = self.weights if self.reads is None else self.reads
        return FLOAT_BYTES * (reads * pixels + self.weights * channels) / (self.weights * pixels * channels)


def gpu_tile(unit: GpuUnit, sums: TiledSums) -> GpuTile:
    """Return the launch that is expected to be the fastest; it takes what `gpu_tiles` takes."""
    return gpu_tiles(unit, sums)[0]


def gpu_tiles(unit: GpuUnit, sums: TiledSums) -> list[GpuTile]:
    """Return the launches worth trying for a convolution, the default first.

    Those that load at most `BYTES_PER_FMA` come first, or those that load least where none does, and among them those that
    `clocks` says are the fastest. After the default come those to be tried where it does not fit into the registers, the best
    of each shape that loads as little, then of fewer and fewer sums; then all others.
    """
    limit = max(sums.phases, unit.accumulators)
    # A channel that is no one's is computed for nothing, so there are also tiles of three.
    counts = sorted({c for c in (1, 2, 3, 4, 8, 16) if c <= sums.channels} | {1})
    shapes = [(p, c) for p in (1, 2, 4, 8) for c in counts if p * c * sums.phases <= limit]
    return in_order(unit, sums, [tile for p, c in shapes for tile in _launches(unit, sums, p, c)])


def in_order(unit: GpuUnit, sums: TiledSums, tiles: list[GpuTile]) -> list[GpuTile]:
    """Return launches in the order of `gpu_tiles`; one pixel and channel for a thread is none as long as there are others."""
    tiles = [tile for tile in tiles if tile.sums > 1] or tiles
    wanted = max(BYTES_PER_FMA, min(sums.bytes_per_fma(tile.pixels, tile.channels) for tile in tiles))

    def rank(tile: GpuTile) -> tuple[bool, float, int, int]:
        excess = sums.bytes_per_fma(tile.pixels, tile.channels) > wanted
        return (excess, clocks(unit, sums, tile), tile.splits, tile.pixels)

    tiles = sorted(tiles, key=rank)
    # Until one fits into a GPU's registers: other shapes that load as little, then those of fewer and fewer sums.
    chain = [tiles[0]]
    for tile in tiles:
        if not rank(tile)[0] and tile.sums <= chain[-1].sums and all(not tile.is_like(other) for other in chain):
            chain.append(tile)
    while following := next((tile for tile in tiles if tile.sums < chain[-1].sums), None):
        chain.append(following)
    return list(dict.fromkeys([*chain, *tiles]))


def clocks(unit: GpuUnit, sums: TiledSums, tile: GpuTile) -> float:
    """Return the clocks of a launch by a model of what the busiest multiprocessor issues, loads and waits for.

    It is the model of `enet_tvm.compiler.cuda.cost` before there is machine code, and serves to compare tiles, no more.
    """
    reads = sums.weights if sums.reads is None else sums.reads
    along_pixels, along_channels = tile.blocks(sums.pixels, sums.channels)
    blocks = -(-along_pixels * along_channels * sums.batch // unit.multiprocessors)
    warps = blocks * tile.lanes * tile.groups * tile.splits // WARP
    channels = sums.inputs / tile.splits
    products = channels * sums.weights * tile.sums
    words = channels * (reads * tile.pixels + sums.weights * tile.channels)
    loads = channels * (reads * tile.pixels + sums.weights * -(-tile.channels // 4))
    ends = tile.sums * sums.phases / tile.splits
    shared = 0.0 if tile.splits == 1 else tile.sums * sums.phases * 2
    # Bias, slopes, addresses and a store of each output; where a thread's pixels are, and whether they are inside.
    issued = products + loads * 1.25 + shared + ends * 6 + reads * tile.pixels * 8
    moved = (words + shared + ends * 2) * FLOAT_BYTES * WARP
    turns = channels * reads / unrolled_channels(tile.pixels, tile.channels, int(channels))
    rounds = -(-warps // WARPS)
    alone = issued + turns * unit.l1_latency + 4 * unit.l1_latency * (2 if tile.splits > 1 else 1)
    return max(-(-warps // ISSUE) * issued, warps * moved / unit.l1_bytes, rounds * alone)


def unrolled_channels(pixels: int, channels: int, inputs: int) -> int:
    """Return the input channels whose loads are under way together, which divide all of a thread's."""
    most = max(1, min(4, (LIVE_REGISTERS - pixels * channels) // (pixels + channels)))
    return max(count for count in (4, 2, 1) if count <= most and inputs % count == 0)


def _launches(unit: GpuUnit, sums: TiledSums, pixels: int, channels: int) -> list[GpuTile]:
    """Return the launches whose threads compute `pixels` x `channels` each."""
    groups = -(-sums.channels // channels)
    # 128 threads make a block, or 256 where that lets all the channels of a pixel share one: they read the same pixels.
    most_groups = min(8, unit.max_threads_per_block // WARP)
    together = max(g for g in range(1, most_groups + 1) if groups % g == 0)
    launches = [GpuTile(pixels, channels, WARP * max(1, min(4, most_groups) // together), together)]
    for splits in (2, 4, 8):
        lanes = WARP * max(1, 4 // splits)
        fits = lanes * splits <= unit.max_threads_per_block
        fits &= pixels * channels * sums.phases * splits * lanes * FLOAT_BYTES <= SHARED_BYTES
        if fits and channels % splits == 0 and sums.inputs % splits == 0:
            launches.append(GpuTile(pixels, channels, lanes, 1, splits))
    return launches
