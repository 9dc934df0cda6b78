"""ENet's initial block in one kernel, against PyTorch, in whole numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from enet_tvm.compiler.kernels.cpu import initial_block as kernels
from enet_tvm.compiler.kernels.cpu.register_tile import VectorUnit
from enet_tvm.compiler.ops import Layout

UNITS = {4: VectorUnit(4, 16), 8: VectorUnit(8, 16), 16: VectorUnit(16, 32)}


@pytest.fixture(scope="session")
def agrees(run_kernel, stored, loaded):
    def check(
        shape: tuple[int, int, int, int], filters: int, layout: Layout, seed: int, unit: VectorUnit | None = None
    ) -> None:
        unit = unit or UNITS[layout.block]
        rng = np.random.default_rng(seed)

        def whole(*size: int) -> np.ndarray:
            return rng.integers(-3, 4, size).astype(np.float32)

        n, inputs, height, width = shape
        channels = filters + inputs
        data, weight, bias = whole(*shape), whole(filters, inputs, 3, 3), whole(filters)
        scale, shift, slope = whole(inputs), whole(inputs), whole(channels) / 4
        tile = kernels.initial_tile(shape, layout, channels, unit)
        out_shape = (n, channels, height // 2, width // 2)
        out = run_kernel(
            kernels.initial_block(shape, filters, layout, tile, isa=unit.isa),
            data,
            kernels.pack_initial_weight(kernels.initial_weight(weight, scale), layout, tile),
            np.concatenate([bias, shift]),
            slope,
            shape=layout.physical(out_shape),
        )
        x = torch.from_numpy(data)
        convolved = F.conv2d(x, torch.from_numpy(weight), torch.from_numpy(bias), 2, 1)
        pooled = F.max_pool2d(x, 2) * torch.from_numpy(scale).view(-1, 1, 1) + torch.from_numpy(shift).view(-1, 1, 1)
        expected = F.prelu(torch.cat([convolved, pooled], 1), torch.from_numpy(slope))
        assert np.array_equal(loaded(out, layout), expected.numpy())

    return check


@pytest.mark.slow
@settings(max_examples=12, deadline=None)
@given(
    lanes=st.sampled_from([4, 8, 16]),
    blocks=st.integers(1, 3),
    inputs=st.integers(1, 4),
    shape=st.tuples(st.integers(1, 2), st.integers(1, 4), st.integers(1, 25)),
    pad=st.integers(0, 2),
    seed=st.integers(0, 2**32 - 1),
)
def test_blocks_of_any_size(agrees, lanes: int, blocks: int, inputs: int, shape: tuple[int, int, int], pad: int, seed: int):
    n, rows, columns = shape
    filters = max(blocks * lanes - inputs, 0) or lanes * 2 - inputs
    agrees((n, inputs, 2 * rows, 2 * columns), filters, Layout(lanes, pad), seed)


@pytest.mark.parametrize("lanes", UNITS)
def test_enets_own(agrees, lanes: int):
    """13 filters beside 3 pooled channels, the first convolution after it without padding of its own."""
    agrees((1, 3, 16, 40), 13, Layout(lanes), 0)


@pytest.mark.quick_cases(2)
@pytest.mark.parametrize("columns", [1, 3, 5, 20, 23])
def test_pixels_multiplied_by_lane(agrees, columns: int):
    """What is loaded for a tile reaches beyond the row where that is shorter, or ends in the middle."""
    agrees((1, 3, 4, 2 * columns), 13, Layout(4), 0, VectorUnit(4, 32, "aarch64"))
