"""A downsampler between blocked tensors in one kernel, against PyTorch, in whole numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from enet_tvm.compiler.dataflow import constant, constant_value
from enet_tvm.compiler.kernels.common.codes import TensorCodes
from enet_tvm.compiler.kernels.cpu.downsampler import DownsamplerTemplate
from enet_tvm.compiler.kernels.cpu.register_tile import RegisterTile, VectorUnit
from enet_tvm.compiler.ops import PLANAR, InitialBlockAttrs, Layout
from enet_tvm.compiler.quantisation.codes import IDENTITY

UNITS = {4: VectorUnit(4, 16), 8: VectorUnit(8, 16), 16: VectorUnit(16, 32)}


@pytest.fixture(scope="session")
def agrees(run_kernel, stored, loaded):
    def check(spec: InitialBlockAttrs, seed: int, point: RegisterTile | None = None) -> None:
        rng = np.random.default_rng(seed)

        def whole(*size: int) -> np.ndarray:
            return rng.integers(-3, 4, size).astype(np.float32)

        inputs, channels = spec.data_shape[1], spec.out_shape[1]
        data, weight, bias = whole(*spec.data_shape), whole(spec.filters, inputs, 3, 3), whole(spec.filters)
        scale, shift, slope = whole(inputs), whole(inputs), whole(channels) / 4
        template = DownsamplerTemplate.of(spec, UNITS[spec.out_layout.block])
        point = point or template.default
        arguments = [constant(a) for a in (data, weight, bias, scale, shift, slope)]
        _, *operands = template.operands(point, arguments, TensorCodes([], {}), IDENTITY)
        out = run_kernel(
            template.kernel(point),
            stored(data, spec.data_layout),
            *map(constant_value, operands),
            shape=spec.out_layout.physical(spec.out_shape),
        )
        x = torch.from_numpy(data)
        convolved = F.conv2d(x, torch.from_numpy(weight), torch.from_numpy(bias), 2, 1)
        pooled = F.max_pool2d(x, 2) * torch.from_numpy(scale).view(-1, 1, 1) + torch.from_numpy(shift).view(-1, 1, 1)
        expected = F.prelu(torch.cat([convolved, pooled], 1), torch.from_numpy(slope))
        assert np.array_equal(loaded(out, spec.out_layout), expected.numpy())

    return check


@pytest.mark.slow
@settings(max_examples=12, deadline=None)
@given(
    lanes=st.sampled_from([4, 8, 16]),
    inputs=st.integers(1, 3),
    filters=st.integers(1, 4),
    shape=st.tuples(st.integers(1, 2), st.integers(1, 4), st.integers(1, 20)),
    pads=st.tuples(st.integers(1, 3), st.integers(0, 2)),
    seed=st.integers(0, 2**32 - 1),
)
def test_blocks_of_any_size(agrees, lanes: int, inputs: int, filters: int, shape, pads, seed: int):
    n, rows, columns = shape
    data = (n, inputs * lanes, 2 * rows, 2 * columns)
    agrees(InitialBlockAttrs(data, filters * lanes, 2, Layout(lanes, pads[0]), Layout(lanes, pads[1])), seed)


def test_every_tile(agrees):
    spec = InitialBlockAttrs((1, 16, 8, 24), 48, 2, Layout(8, 1), Layout(8))
    points = DownsamplerTemplate.of(spec, UNITS[8]).points()
    assert len(points) > 3
    for point in points:
        agrees(spec, 0, point)


def test_what_it_covers():
    spec = InitialBlockAttrs((1, 16, 8, 24), 48, 2, Layout(16, 1), Layout(16), ("down.act",))
    assert DownsamplerTemplate.covers(spec, UNITS[16])
    assert DownsamplerTemplate.of(spec, UNITS[16]).name == "downsampler_16to64_12x4"
    others = [
        replace(spec, pool=3),
        replace(spec, filters=40),
        replace(spec, data_layout=PLANAR),
        replace(spec, data_layout=Layout(8, 1)),
        replace(spec, out_layout=PLANAR),
    ]
    assert not any(DownsamplerTemplate.covers(other, UNITS[16]) for other in others)
