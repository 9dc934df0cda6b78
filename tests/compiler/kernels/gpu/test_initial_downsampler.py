"""The initial block with pooling and the 2x2 convolution after it, against PyTorch, on fibers that look at every access."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from gpu_kernels import check_default, check_every_point
from initial_downsamplers import DownsamplerCall, downsampler

from enet_tvm.compiler.kernels.gpu.initial_downsampler import GpuInitialDownsamplerTemplate, windows_weight
from enet_tvm.compiler.kernels.gpu.tile import GpuUnit
from enet_tvm.compiler.ops import Layout

SMALL, LARGE = GpuUnit(2, 128), GpuUnit(132, 255, 1024, 128, 33)
KINDS = {
    "the paper's": downsampler((1, 3, 24, 64), 13, 16),
    "by pairs, two pictures": downsampler((2, 3, 20, 44), 13, 16),
    "other channels": downsampler((1, 4, 16, 32), 28, 8),
    "a block that is filled in part": downsampler((1, 3, 12, 40), 13, 16),
}


@pytest.mark.slow
@pytest.mark.parametrize("unit", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("name", KINDS)
def test_every_kind(tmp_path: Path, name: str, unit: GpuUnit):
    spec = KINDS[name]
    assert GpuInitialDownsamplerTemplate.covers(spec, unit)
    assert not check_default(GpuInitialDownsamplerTemplate.of(spec, unit), DownsamplerCall(spec), tmp_path).conflicts


@pytest.mark.slow
def test_every_point(tmp_path: Path):
    spec = downsampler((1, 3, 8, 32), 13, 16)
    check_every_point(GpuInitialDownsamplerTemplate.of(spec, LARGE), DownsamplerCall(spec), tmp_path, 2)


def test_windows_are_channels():
    """Position 5 of the third channel is the 24th of the values of a window; what is pooled takes none."""
    weight = np.arange(2 * 3 * 9, dtype=np.float32).reshape(2, 3, 3, 3)
    flat = windows_weight(weight, 3)
    assert flat.shape == (5, 27, 1, 1)
    assert flat[1, 23, 0, 0] == weight[1, 2, 1, 2]
    assert not flat[2:].any()


def test_what_it_does_not_cover():
    spec = KINDS["the paper's"]
    assert GpuInitialDownsamplerTemplate.covers(spec, SMALL)
    block, reduce = spec.block, spec.reduce
    for other in (
        replace(spec, block=replace(block, pool=3)),
        replace(spec, block=replace(block, out_layout=Layout(4))),
        replace(spec, reduce=replace(reduce, strides=(1, 1))),
        replace(spec, reduce=replace(reduce, padding=(1, 1))),
        replace(spec, reduce=replace(reduce, data_shape=(1, 8, 12, 32))),
        downsampler((1, 3, 26, 64), 13, 16),
        downsampler((1, 3, 24, 64), 14, 16),
    ):
        assert not GpuInitialDownsamplerTemplate.covers(other, SMALL)
