"""How the threads of a block share a bottleneck: pixels and channels of each, and how many threads there are.

A block has some pixels of a picture, one after the other row by row, and all channels of them. So its tile decides how many
blocks there are as well: a small machine wants many pixels in each, which load the weights once, and a large one few.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from enet_tvm.compiler.kernels.gpu.bottleneck_pixels import CellRuns
from enet_tvm.compiler.kernels.gpu.building import VECTOR, WARP
from enet_tvm.compiler.kernels.gpu.tile import BYTES_PER_FMA, FLOAT_BYTES, ISSUE, LIVE_REGISTERS, SHARED_BYTES, WARPS, GpuUnit
from enet_tvm.compiler.ops import FusedBottleneck, FusedConv2D

_SHARED_OF_ALL = 65536
"""Shared memory of a multiprocessor of the smallest GPU."""

_SHARED_BYTES_A_CLOCK = 128
"""Bytes that a multiprocessor loads from shared memory in a clock."""

_LEAST_WARPS = 2
"""Warps of a block, so that one works while another waits."""

_TOGETHER = 1.25
"""Sums of the two narrowing convolutions of a thread, for each of another's: they share the pixels that are loaded."""

_LEAST_INPUTS = 4
"""Input channels that a thread sums at least where several share a tile."""

_ALIKE = 1.05
"""Ratio of the clocks of two launches that are taken for equally fast."""

_MEMORY_LATENCY = 500
"""Clocks from a load that no cache holds to the use of its value."""


@dataclass(frozen=True)
class BottleneckTile:
    """A launch of a bottleneck.

    Attributes
    ----------
    pixels, channels : int
        Pixels and output channels of each thread, of each of the convolutions.
    lanes : int
        Threads of a block side by side along the pixels.
    rows : int
        Threads of a block side by side along the channels. Where a convolution has fewer channels than they compute together,
        several share a tile of it, and each sums a part of its input channels.
    """

    pixels: int
    channels: int
    lanes: int
    rows: int

    @property
    def sums(self) -> int:
        """Pixels times channels of a thread: what it keeps in registers."""
        return self.pixels * self.channels

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return self.lanes * self.rows

    @property
    def block_pixels(self) -> int:
        """Pixels of a block."""
        return self.lanes * self.pixels

    @property
    def chunk(self) -> int:
        """Channels that the threads of a block compute together."""
        return self.rows * self.channels

    def is_like(self, other: BottleneckTile) -> bool:
        """Whether another launch takes about as many registers."""
        return (self.pixels, self.channels, self.rows) == (other.pixels, other.channels, other.rows)


def plane_vector(spec: FusedBottleneck) -> int:
    """Return the pixels that one load of a thread moves: of a plane that is no multiple of them, one."""
    if spec.in_cells:
        return VECTOR if spec.expand.out_shape[3] % VECTOR == 0 else 2
    if spec.expand.residual == "unpool":
        return 1  # What is unpooled has every second column alone.
    total = spec.expand.out_shape[2] * spec.expand.out_shape[3]
    return next(width for width in (VECTOR, 2, 1) if total % width == 0)


def shared_rows(spec: FusedBottleneck, tile: BottleneckTile) -> tuple[int, int]:
    """Return the rows, of a value for each pixel of a block, of both parts of the shared memory.

    The first has the input of `expand`, the second its output and what threads that share a tile have summed. The inputs of
    `conv` are in one and the other by turns.
    """
    inputs = 0 if spec.conv is None else spec.conv.data_shape[1]
    return max(inputs, spec.expand.data_shape[1]), max(inputs, tile.chunk)


def narrowed_together(spec: FusedBottleneck, tile: BottleneckTile) -> dict[str, int]:
    """Return how many channels of `reduce` and of `beside` a thread sums together; nothing without `beside`."""
    return _channels_together(spec, tile, together_splits(spec, tile))


def together_splits(spec: FusedBottleneck, tile: BottleneckTile) -> int:
    """Return how many threads share a tile of `reduce` and `beside`, so that they load no more than their share; 0 if none can.

    Each sums a part of the channels of `expand`.
    """
    parts = [] if spec.beside is None or spec.reduce is None else [spec.beside, spec.reduce]

    def fits(splits: int) -> bool:
        groups, rest = divmod(tile.rows, splits)
        if rest or tile.chunk % splits or (splits > 1 and tile.chunk // splits < _LEAST_INPUTS):
            return False
        outputs = [part.out_shape[1] for part in parts]
        # They add their sums up where the channels of `expand` were.
        return not any(
            count % (groups * splits) or count * splits > tile.chunk for count in outputs if splits > 1 or count % groups
        )

    found = [splits for splits in (1, 2, 4, 8) if parts and fits(splits)]
    few = [
        splits
        for splits in found
        if FLOAT_BYTES * (1 / tile.pixels + 1 / sum(_channels_together(spec, tile, splits).values())) <= BYTES_PER_FMA
    ]
    return next(iter([*few, *found]), 0)


def _channels_together(spec: FusedBottleneck, tile: BottleneckTile, splits: int) -> dict[str, int]:
    parts = {} if spec.beside is None else {"beside": spec.beside, "reduce": spec.reduce}
    return {name: part.out_shape[1] * splits // tile.rows for name, part in parts.items() if part is not None}


def head_pixels(spec: FusedBottleneck, tile: BottleneckTile) -> int:
    """Return the pixels of a thread of which it computes a row of outputs of a last, transposed convolution."""
    return tile.pixels // max(1, tile.rows // 2)


def classes_at_once(spec: FusedBottleneck, tile: BottleneckTile) -> int:
    """Return the output channels of a last, transposed convolution that a thread sums at a time.

    They are the most that registers hold, of the numbers that compute the fewest for nothing and load no more than their share.
    """
    if spec.reduce is None:
        return 0
    channels, outputs = spec.reduce.out_shape[1], 2 * head_pixels(spec, tile)
    # No sums of others live meanwhile; those of labels have the largest value and its channel beside them.
    room = 2 * tile.sums - (2 * outputs if spec.reduce.argmax else 0)

    def rank(some: int) -> tuple[bool, int, int]:
        loaded = FLOAT_BYTES * (1 / (2 * some) + 2 / outputs)
        return (loaded > BYTES_PER_FMA, -(-channels // some) * some, -some)

    counts = {-(-channels // rounds) for rounds in range(1, channels + 1)}
    return min([some for some in counts if outputs * some <= room] or [1], key=rank)


def channels_of(name: str, spec: FusedBottleneck, tile: BottleneckTile) -> int:
    """Return how many channels of one of the convolutions a thread computes together."""
    if name == "reduce" and spec.ends_doubled:
        return classes_at_once(spec, tile)
    return narrowed_together(spec, tile).get(name, tile.channels)


def cell_runs(spec: FusedBottleneck, tile: BottleneckTile) -> CellRuns | None:
    """Return where pixels lie that are narrowed by a 2x2 convolution with stride 2, None where there is no such thing."""
    if spec.reduce is None or spec.reduce.strides == (1, 1) or spec.ends_doubled:
        return None
    return CellRuns(tile.pixels, tile.lanes, plane_vector(spec))


def doubling_runs(spec: FusedBottleneck, tile: BottleneckTile) -> CellRuns:
    """Return where the result of a transposed convolution lies."""
    return CellRuns(tile.pixels, tile.lanes, plane_vector(spec))


def row_length(spec: FusedBottleneck, tile: BottleneckTile) -> int:
    """Return the values of a row of the shared memory: one for each pixel of a block, and gaps."""
    runs = doubling_runs(spec, tile) if spec.doubles else cell_runs(spec, tile)
    return tile.block_pixels if runs is None else runs.length


def bottleneck_tiles(spec: FusedBottleneck, unit: GpuUnit) -> list[BottleneckTile]:
    """Return the launches that there are for a bottleneck, the one that is expected to be the fastest first.

    After it come, for a machine whose registers it does not fit, the best of each kind that loads as little, those of fewer and
    fewer sums, then all others. The list is empty where no number of channels of a thread divides all of the convolutions.
    """
    width = plane_vector(spec)
    # Those of `reduce` stay in registers while `expand` sums; without it, 64 left too few for addresses (sm_53, sm_86).
    sums = unit.accumulators // 2
    tiles = [
        tile
        for pixels in (8, 4, 2, 1)
        for channels in (8, 4, 2, 1)
        for lanes in (8, 16, 32, 64, 128)
        for rows in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
        if pixels >= width and pixels * channels <= sums
        if _fits(spec, tile := BottleneckTile(pixels, channels, lanes, rows), unit)
        if pixels * sum(narrowed_together(spec, tile).values()) <= sums * _TOGETHER
    ]
    if not tiles:
        return []
    least = max(BYTES_PER_FMA, min(bytes_per_fma(tile, spec) for tile in tiles))
    pixels = spec.expand.out_shape[2] * spec.expand.out_shape[3]

    def rank(tile: BottleneckTile) -> tuple[bool, int, int, int, int]:
        # Of those that take about as long, the one that keeps most multiprocessors busy, and loads the weights least often.
        steps = round(math.log(clocks(spec, unit, tile)) / math.log(_ALIKE))
        blocks = -(-pixels // tile.block_pixels) * spec.expand.out_shape[0]
        return (bytes_per_fma(tile, spec) > least, steps, -min(blocks, unit.multiprocessors), blocks, tile.sums)

    ranked = sorted(tiles, key=rank)
    chain = [ranked[0]]
    for tile in ranked:
        if not rank(tile)[0] and tile.sums <= chain[0].sums and all(not tile.is_like(other) for other in chain):
            chain.append(tile)
    while smaller := next((tile for tile in ranked if tile.sums < chain[-1].sums), None):
        chain.append(smaller)
    return list(dict.fromkeys([*chain, *ranked]))


def unrolled_inputs(tile: BottleneckTile, inputs: int, channels: int = 0) -> int:
    """Return the input channels whose loads are under way together, which divide `inputs`, but not all of them.

    A loop of one turn would not be left one. A thread sums `channels`, by default those of its tile.
    """
    channels = channels or tile.channels
    most = max(1, (LIVE_REGISTERS - tile.pixels * channels) // (tile.pixels + channels))
    counts = (4, 2, 1) if inputs % 2 == 0 else (3, 1)
    return max(count for count in counts if count == 1 or (count <= most and inputs % count == 0 and inputs > count))


def bytes_per_fma(tile: BottleneckTile, spec: FusedBottleneck | None = None) -> float:
    """Return the bytes that a thread loads into registers for each multiply-add, in the worst of the loops of `spec`."""
    together = {} if spec is None else narrowed_together(spec, tile)
    channels = min(tile.channels, sum(together.values()) or tile.channels)
    return FLOAT_BYTES * (1 / tile.pixels + 1 / channels)


def _fits(spec: FusedBottleneck, tile: BottleneckTile, unit: GpuUnit) -> bool:
    """Whether the channels divide as the kernel has it, and threads and shared memory are there."""
    if tile.threads % WARP or not _LEAST_WARPS * WARP <= tile.threads <= min(256, unit.max_threads_per_block):
        return False
    if _shared_bytes(spec, tile) > SHARED_BYTES or spec.expand.out_shape[1] % tile.chunk:
        return False
    # The banks of shared memory: those threads that access it in one turn have the same channel.
    together = tile.lanes * plane_vector(spec)
    if together < (2 * WARP if spec.doubles or cell_runs(spec, tile) is not None else WARP):
        return False
    if spec.in_cells and tile.pixels % (2 * plane_vector(spec)):
        return False
    # The threads of a block move the inputs of a pixel together; of a transposed convolution there is one for each cell.
    moved = tile.block_pixels // 4 if spec.doubles else tile.block_pixels
    if tile.threads % moved and moved % tile.threads:
        return False
    if spec.data_shape[1] % max(1, tile.threads // moved):
        return False
    if spec.beside is not None and not together_splits(spec, tile):
        return False
    if spec.ends_doubled:
        shares = max(1, tile.rows // 2)
        if tile.chunk != spec.expand.out_shape[1] or tile.rows % 2 or tile.pixels % (shares * plane_vector(spec)):
            return False
    for part, inputs in ((spec.conv, None), (None if spec.beside or spec.ends_doubled else spec.reduce, tile.chunk)):
        if part is None:
            continue
        if tile.chunk % part.out_shape[1] or part.out_shape[1] % tile.channels:
            return False
        if not _divides(part, tile, inputs or part.data_shape[1]) and not (spec.ends_doubled and part is spec.conv):
            return False
    return True


def has_idle_rows(spec: FusedBottleneck, tile: BottleneckTile) -> bool:
    """Whether threads beside those of the first channels have no part of `conv`, because it has too few input channels.

    Before a last, transposed convolution the threads of all channels of `expand` are needed, for that has most of the work.
    """
    return spec.conv is not None and not _divides(spec.conv, tile, spec.conv.data_shape[1])


def _divides(part: FusedConv2D, tile: BottleneckTile, inputs: int) -> bool:
    """Whether threads that share a tile of a convolution have a part of its input channels each."""
    splits = tile.chunk // part.out_shape[1]
    return not (tile.channels % splits or inputs % splits or (splits > 1 and inputs // splits < _LEAST_INPUTS))


def _shared_bytes(spec: FusedBottleneck, tile: BottleneckTile) -> int:
    return sum(shared_rows(spec, tile)) * row_length(spec, tile) * FLOAT_BYTES


def clocks(spec: FusedBottleneck, unit: GpuUnit, tile: BottleneckTile) -> float:
    """Return the clocks of a launch by a model of what the busiest multiprocessor issues, loads and waits for.

    It serves to compare tiles, no more; what a kernel takes is predicted from its machine code (`enet_tvm.compiler.roofline`).
    """
    expand = spec.expand
    pixels = expand.out_shape[2] * expand.out_shape[3]
    of_block, width = tile.block_pixels, plane_vector(spec)
    blocks = -(-(-(-pixels // of_block) * expand.out_shape[0]) // unit.multiprocessors)
    warps = -(-tile.threads // WARP)
    products = spec.multiply_adds / (pixels * expand.out_shape[0]) * of_block / tile.threads
    area = 1 if spec.conv is None else spec.conv.kernel[0] * spec.conv.kernel[1]
    # A transposed convolution has as many input pixels for a cell as there are positions, or fewer.
    staged = area * spec.data_shape[1] * of_block / tile.threads / (4 if spec.doubles else 1)
    stored = sum(math.prod(shape[1:]) for shape, _ in spec.outputs.values()) / pixels
    # What is not an output is stored in shared memory all the same.
    outputs = max(stored, expand.out_shape[1]) * of_block / tile.threads
    shortcuts = expand.residual_channels * of_block / tile.threads
    issued = products * (1 + 1 / (tile.channels * width) + 1 / (tile.pixels * min(VECTOR, tile.channels)))
    issued += staged * 3 + outputs * 6 + shortcuts / width
    from_l1 = products / tile.pixels + staged + outputs + shortcuts
    shared = products / tile.channels + staged + outputs
    moved = FLOAT_BYTES * WARP * (from_l1 / unit.l1_bytes + shared / _SHARED_BYTES_A_CLOCK)
    turns = products / tile.sums / unrolled_inputs(tile, 64)
    barriers = area + 2 * expand.out_shape[1] // tile.chunk + 3
    resident = min(blocks, max(1, min(_SHARED_OF_ALL // _shared_bytes(spec, tile), WARPS // warps)))
    alone = issued + (turns + 2 * barriers) * unit.l1_latency + 2 * _MEMORY_LATENCY
    return max(-(-blocks * warps // ISSUE) * issued, blocks * warps * moved, -(-blocks // resident) * alone)
