"""Predictions of whole networks from what ptxas really made of them; the bound that all their kernels keep."""

from __future__ import annotations

from pathlib import Path

import pytest

from enet_tvm.compiler.kernels.gpu.conv2d import convolution_tile, tiled_sums
from enet_tvm.compiler.kernels.gpu.tile import BYTES_PER_FMA, GpuUnit
from enet_tvm.compiler.ops import FusedConv2D
from enet_tvm.compiler.roofline import PAPER, PAPER_SIZES, Prediction, predict
from enet_tvm.compiler.workload import Workload
from enet_tvm.networks.weights import DEFAULT_WEIGHTS
from enet_tvm.size import Size
from enet_tvm.targets import TargetSpec, load_target
from enet_tvm.targets.loading import known_targets

GPUS = [spec for spec in map(load_target, known_targets()) if spec.gpu is not None]


def convolution(kernel: tuple[int, int], channels: tuple[int, int], size: tuple[int, int], step: int = 1) -> FusedConv2D:
    """Return a convolution with an output of this size, width first; a step of 2 with a window of 2x2 reads four times that."""
    width, height = size
    padding = (0, 0) if step == 2 else (kernel[0] // 2, kernel[1] // 2)
    shape, out = (1, channels[0], height * step, width * step), (1, channels[1], height, width)
    return FusedConv2D(shape, out, kernel, (step, step), padding, (1, 1))


def transposed(kernel: int, channels: tuple[int, int], size: tuple[int, int]) -> FusedConv2D:
    """Return a transposed convolution that doubles an input of this size, width first."""
    width, height = size
    shape, out = (1, channels[0], height, width), (1, channels[1], 2 * height, 2 * width)
    return FusedConv2D(shape, out, (kernel, kernel), (2, 2), (kernel // 2 - (kernel == 2),) * 2, (1, 1), True)


CONVOLUTIONS = [
    *(convolution((1, 1), pair, (80, 45)) for pair in ((32, 128), (128, 32), (128, 64), (128, 16))),
    *(convolution((1, 1), pair, (160, 90)) for pair in ((16, 64), (64, 16), (64, 4))),
    *(convolution((1, 1), pair, (320, 180)) for pair in ((4, 16), (16, 4))),
    *(convolution(kernel, (32, 32), (80, 45)) for kernel in ((3, 3), (5, 1), (1, 5))),
    *(convolution((3, 3), *other) for other in (((16, 16), (160, 90)), ((4, 4), (320, 180)))),
    *(convolution((2, 2), *other, step=2) for other in (((16, 16), (160, 90)), ((64, 32), (80, 45)))),
    *(transposed(3, *other) for other in (((16, 16), (80, 45)), ((4, 4), (160, 90)))),
    transposed(2, (16, 11), (320, 180)),
]
"""Those of ENet at 640x360, shortcuts and activations aside."""


@pytest.mark.slow
@pytest.mark.usefixtures("tools")
def test_the_whole_network():
    """Of a size that the paper measured; `tests/test_gpu_machine_code.py` looks at what is predicted for other GPUs."""
    assert_whole(predict(Workload(Path(DEFAULT_WEIGHTS), Size(640, 360), load_target("h100"))))


@pytest.mark.parametrize("target", GPUS, ids=lambda target: target.name)
@pytest.mark.parametrize("spec", CONVOLUTIONS, ids=lambda spec: spec.kernel_name)
def test_no_default_tile_loads_more_than_its_share(target: TargetSpec, spec: FusedConv2D):
    """Of the convolutions of ENet at 640x360, on every GPU; what the assembler makes of it is looked at above."""
    assert target.gpu is not None
    tile, sums = convolution_tile(spec, GpuUnit.of(target.gpu)), tiled_sums(spec)
    assert sums.bytes_per_fma(tile.pixels, tile.channels) <= BYTES_PER_FMA
    assert tile.sums > 1


def assert_whole(prediction: Prediction) -> None:
    assert prediction.milliseconds == pytest.approx(prediction.kernel_ms + prediction.launch_ms)
    assert prediction.measured_by_paper == {"Jetson TX1": 69.0, "Titan X": 21.0}
    figures = prediction.to_dict()
    assert figures["prediction"] is True
    assert len(figures["kernels"]) == len(prediction.kernels)
    assert all(each["microseconds"] > 0 for each in figures["kernels"])
    # Every product of the network is a thread's, and few are no one's.
    products = sum(each.geometry.multiply_adds * each.geometry.blocks * each.geometry.threads for each in prediction.kernels)
    assert 1 <= 2 * products / sum(each.flops for each in prediction.kernels) < 1.3


def test_the_papers_table():
    assert (Size(480, 320), Size(640, 360), Size(1280, 720)) == PAPER_SIZES
    assert all(tuple(times) == PAPER_SIZES for times in PAPER.values())
