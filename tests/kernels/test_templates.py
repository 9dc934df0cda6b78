"""Every point of a template computes the same, and its description tells points apart."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest
import tvm
from hypothesis import given
from hypothesis import strategies as st

from enet_tvm.kernels import conv2d, planar, winograd
from enet_tvm.kernels.initial_block import initial_weight, pack_initial_weight
from enet_tvm.kernels.register_tile import VectorUnit, register_tile, register_tiles
from enet_tvm.kernels.templates import Conv2DTemplate, InitialBlockTemplate, PlanarTemplate, Template, WinogradTemplate
from enet_tvm.ops import FusedConv2D, Layout

UNIT = VectorUnit(lanes=4, registers=16)
BLOCKED, PADDED = Layout(4), Layout(4, 1)
DIRECT = FusedConv2D((1, 8, 5, 14), (1, 16, 5, 14), (3, 3), (1, 1), (1, 1), (1, 1), data_layout=PADDED, out_layout=BLOCKED)
DOUBLING = FusedConv2D(
    (1, 8, 3, 14), (1, 16, 6, 28), (3, 3), (2, 2), (1, 1), (1, 1), transposed=True, data_layout=PADDED, out_layout=BLOCKED
)
LOGITS = FusedConv2D((1, 8, 3, 14), (1, 11, 6, 28), (2, 2), (2, 2), (0, 0), (1, 1), transposed=True, data_layout=BLOCKED)
TEMPLATES = [
    Conv2DTemplate(DIRECT, UNIT),
    Conv2DTemplate(DOUBLING, UNIT),
    WinogradTemplate(DIRECT, UNIT),
    PlanarTemplate(LOGITS, UNIT),
    InitialBlockTemplate((1, 3, 8, 28), 13, BLOCKED, 2, UNIT),
]


@given(
    st.sampled_from([VectorUnit(16, 32), VectorUnit(8, 16), VectorUnit(4, 32), VectorUnit(4, 16)]),
    st.integers(1, 200),
    st.integers(1, 16),
    st.sampled_from([1, 4]),
    st.sampled_from([1, 2]),
)
def test_tiles_worth_measuring(unit, half, channel_blocks, per_pixel, multiple):
    width = half * multiple
    tiles = register_tiles(unit, width, channel_blocks, per_pixel, multiple)
    assert tiles[0] == register_tile(unit, width, channel_blocks, per_pixel, multiple)
    assert len(set(tiles)) == len(tiles) <= 40
    for tile in tiles[1:]:
        assert tile.pixels <= width
        assert tile.pixels % multiple == 0
        assert channel_blocks % tile.blocks == 0
        assert tile.pixels * tile.blocks * per_pixel < unit.registers


def random_arguments(template: Template, point) -> list[np.ndarray]:
    """Arguments of the kernel, the weights packed for this point out of the same numbers for every point."""
    random = np.random.default_rng(0)
    function = template.kernel(point)
    shapes = [tuple(int(s) for s in param.ty.shape) for param in function.params]
    if isinstance(template, InitialBlockTemplate):
        weight = random.standard_normal((template.filters, 3, 3, 3)).astype("float32")
        packed = pack_initial_weight(initial_weight(weight, np.ones(3, np.float32)), template.layout, point)
    else:
        spec = template.spec
        channels = (spec.data_shape[1], spec.out_shape[1])
        weight = random.standard_normal((*(channels if spec.transposed else channels[::-1]), *spec.kernel)).astype("float32")
        if isinstance(template, PlanarTemplate):
            packed = planar.pack_planar_weight(weight, spec)
        elif isinstance(template, WinogradTemplate):
            packed = winograd.pack_winograd_weight(weight, spec, point)
        else:
            packed = conv2d.pack_weight(weight, spec, point)
    assert packed.shape == shapes[1]
    # Each from a generator of its own: how much is drawn for the weights depends on the point.
    arguments = [np.random.default_rng(k).standard_normal(shape).astype("float32") for k, shape in enumerate(shapes)]
    arguments[1] = packed
    if not isinstance(template, InitialBlockTemplate) and spec.data_layout.pad:
        arguments[0][..., [0, -1], :] = 0
    return arguments


def result(template: Template, point) -> np.ndarray:
    kernel = template.kernel(point).with_attr("global_symbol", "main")
    arguments = [tvm.runtime.tensor(a) for a in random_arguments(template, point)]
    with tvm.target.Target({"kind": "llvm"}):
        tvm.compile(tvm.IRModule({"main": kernel}), tvm.target.Target({"kind": "llvm"}))["main"](*arguments)
    return arguments[-1].numpy()


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda t: t.name)
def test_every_point_computes_the_same(template):
    points = template.points()
    assert len(points) > 1
    assert points[0] == template.default
    expected = result(template, points[0])
    # Transforms of other sizes round differently.
    tolerance = 1e-4 if isinstance(template, WinogradTemplate) else 1e-5
    for point in points[1:]:
        np.testing.assert_allclose(result(template, point), expected, rtol=1e-5, atol=tolerance)


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda t: t.name)
def test_points_are_plain_values(template):
    for point in template.points():
        assert template.point_type(**json.loads(json.dumps(asdict(point)))) == point
    assert json.loads(json.dumps(asdict(template)))["unit"] == {"lanes": 4, "registers": 16, "isa": "x86"}


def test_features_tell_points_apart():
    rows = {tuple(template.features(point)) for template in TEMPLATES for point in template.points()}
    assert len(rows) == sum(len(template.points()) for template in TEMPLATES)
    assert len({len(row) for row in rows}) == 1
