"""How the threads of a block share a bottleneck."""

from __future__ import annotations

import pytest
from bottlenecks import bottleneck

from enet_tvm.compiler.kernels.gpu.bottleneck_tile import (
    BottleneckTile,
    bottleneck_tiles,
    bytes_per_fma,
    classes_at_once,
    clocks,
    head_pixels,
    narrowed_together,
    plane_vector,
    row_length,
    shared_rows,
    together_splits,
    unrolled_inputs,
)
from enet_tvm.compiler.kernels.gpu.tile import BYTES_PER_FMA, GpuUnit
from enet_tvm.compiler.ops import FusedBottleneck
from enet_tvm.targets import TargetSpec, load_target
from enet_tvm.targets.loading import known_targets

GPUS = [spec for spec in map(load_target, known_targets()) if spec.gpu is not None]
SMALL = GpuUnit(2, 128)


ENET = [
    bottleneck((16, 64, 16), (90, 160)),
    bottleneck((32, 128, 32), (45, 80)),
    bottleneck((32, 128, 16), (45, 80), dilation=16, beside=64, kept=False),
    bottleneck((16, 64, 4), (90, 160), beside=16, kept=False),
    bottleneck((4, 16, 0), (180, 320)),
    bottleneck((4, 16, 11), (180, 320), head=True, kept=False),
    bottleneck((16, 64, 16), (90, 160), doubling=3, residual="unpool"),
    bottleneck((4, 16, 4), (180, 320), doubling=3, residual="unpool"),
]
"""The bottlenecks of ENet at 640x360 with CamVid's eleven classes."""
MORE_CLASSES = bottleneck((4, 16, 19), (180, 320), head=True, argmax=True, kept=False)
"""The last of them with Cityscapes' nineteen."""


@pytest.mark.parametrize("target", GPUS, ids=lambda target: target.name)
@pytest.mark.parametrize("spec", [*ENET, MORE_CLASSES], ids=lambda spec: spec.kernel_name)
def test_the_bottlenecks_of_enet(target: TargetSpec, spec: FusedBottleneck):
    """At 640x360 on every GPU: a tile that loads no more than its share, and enough blocks for its multiprocessors."""
    assert target.gpu is not None
    unit = GpuUnit.of(target.gpu)
    tile = bottleneck_tiles(spec, unit)[0]
    assert bytes_per_fma(tile, spec) <= BYTES_PER_FMA
    pixels = spec.expand.out_shape[2] * spec.expand.out_shape[3]
    assert -(-pixels // tile.block_pixels) >= min(unit.multiprocessors, pixels // 32) * 0.6
    assert 64 <= tile.threads <= 256


@pytest.mark.parametrize("spec", ENET, ids=lambda spec: spec.kernel_name)
def test_two_blocks_share_a_multiprocessor_of_the_smallest_gpu(spec: FusedBottleneck):
    """While one waits the other works: of 64 KB of shared memory, and of 65536 registers, each takes half at most."""
    gpu = load_target("jetson-tx1").gpu
    assert gpu is not None
    tile = bottleneck_tiles(spec, GpuUnit.of(gpu))[0]
    assert 2 * 4 * sum(shared_rows(spec, tile)) * row_length(spec, tile) <= 65536
    assert 2 * tile.threads * gpu.max_registers <= gpu.registers_per_block


def test_those_after_the_default_take_fewer_registers():
    """Until one fits: the same sums shared by other numbers of threads, then fewer and fewer."""
    first, *others = bottleneck_tiles(bottleneck((16, 64, 16), (90, 160)), SMALL)
    smaller = next(tile for tile in others if tile.sums < first.sums)
    between = others[: others.index(smaller)]
    assert between
    assert not [tile for tile in between if tile.is_like(first) or tile.sums > first.sums]


@pytest.mark.parametrize("last", [0, 16])
def test_registers_for_two_sums_of_a_pixel_and_channel(last: int):
    """Those of the narrowing convolution stay in registers while the widening one sums."""
    assert max(tile.sums for tile in bottleneck_tiles(bottleneck((16, 64, last), (90, 160)), SMALL)) == 32
    assert max(tile.sums for tile in bottleneck_tiles(bottleneck((16, 64, last), (90, 160)), GpuUnit(2, 80))) == 16


def test_two_convolutions_of_the_same_channels_share_the_threads():
    """So many channels of each that they are dealt out evenly, and not more sums than registers are left for."""
    spec = bottleneck((32, 128, 16), (45, 80), beside=64, kept=False)
    tiles = bottleneck_tiles(spec, SMALL)
    assert tiles
    for tile in tiles:
        together, splits = narrowed_together(spec, tile), together_splits(spec, tile)
        assert {name: each * tile.rows // splits for name, each in together.items()} == {"beside": 64, "reduce": 16}
        assert tile.pixels * sum(together.values()) <= 40
    assert narrowed_together(bottleneck((32, 128, 16), (45, 80)), tiles[0]) == {}
    assert together_splits(spec, BottleneckTile(8, 4, 8, 16)) == 1
    assert together_splits(spec, BottleneckTile(4, 8, 8, 16)) == 2
    assert together_splits(spec, BottleneckTile(4, 8, 8, 5)) == 0
    few = BottleneckTile(4, 2, 16, 8)
    assert bytes_per_fma(few, spec) == 4 * (1 / 4 + 1 / 2)


@pytest.mark.parametrize(
    ("classes", "argmax", "some"), [(11, False, 6), (11, True, 6), (19, False, 5), (19, True, 5), (3, True, 3), (1, False, 1)]
)
def test_classes_of_the_last_convolution(classes: int, argmax: bool, some: int):
    """As many as registers hold, but rather a few less than many that are computed for nothing."""
    spec = bottleneck((4, 16, classes), (180, 320), head=True, argmax=argmax, kept=False)
    assert classes_at_once(spec, BottleneckTile(8, 4, 32, 4)) == some
    tile = bottleneck_tiles(spec, SMALL)[0]
    assert tile.chunk == 16
    assert 2 * head_pixels(spec, tile) * (classes_at_once(spec, tile) + 2 * argmax) <= 64


def test_what_channels_no_tile_divides():
    assert not bottleneck_tiles(bottleneck((5, 15, 5), (8, 12)), SMALL)
    assert not bottleneck_tiles(bottleneck((512, 1024, 512), (8, 12)), SMALL)
    assert bottleneck_tiles(bottleneck((12, 48, 12), (8, 12)), SMALL)


def test_shared_memory():
    spec = bottleneck((16, 64, 16), (8, 12))
    assert shared_rows(spec, BottleneckTile(8, 4, 16, 8)) == (16, 32)
    assert shared_rows(bottleneck((16, 64, 16), (8, 12), kernel=None), BottleneckTile(8, 4, 16, 8)) == (16, 32)


@pytest.mark.parametrize(("size", "residual", "pixels"), [((8, 12), "add", 4), ((7, 9), "add", 1), ((6, 9), "add", 2)])
def test_vectors_divide_the_plane(size: tuple[int, int], residual: str, pixels: int):
    assert plane_vector(bottleneck((16, 64, 16), size, residual=residual)) == pixels
    assert plane_vector(bottleneck((16, 64, 16), (8, 12), residual="unpool")) == 1


def test_loops_of_more_than_one_turn():
    tile = BottleneckTile(8, 4, 16, 8)
    assert [unrolled_inputs(tile, inputs) for inputs in (4, 6, 7, 8, 32)] == [2, 2, 1, 4, 4]


def test_a_multiprocessor_that_waits_counts():
    """A large GPU is as fast as its busiest multiprocessor: blocks of fewer pixels are faster there."""
    spec = bottleneck((32, 128, 32), (45, 80))
    few, many = BottleneckTile(4, 8, 8, 16), BottleneckTile(4, 8, 16, 16)
    large = GpuUnit(132, 128, 1024, 128, 33)
    assert clocks(spec, large, few) < clocks(spec, large, many)
