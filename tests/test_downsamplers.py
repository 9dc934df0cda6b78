"""Networks with several downsamplers of the initial block's kind, as ERFNet has: each reads what the one before it wrote."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import tvm
from software_dots import SoftwareDots
from torch import Tensor, nn

from enet_tvm.compiler.frontend.torch_import import from_torch
from enet_tvm.compiler.kernels.cpu.register_tile import VectorUnit
from enet_tvm.compiler.kernels.cpu.templates import cpu_templates
from enet_tvm.compiler.kernels.gpu.emulation import serial_threads
from enet_tvm.compiler.kernels.gpu.tile import GpuUnit
from enet_tvm.compiler.ops.layout import DType
from enet_tvm.compiler.passes.block_layout import BlockLayout
from enet_tvm.compiler.passes.fold_batch_norm import FoldBatchNorm
from enet_tvm.compiler.passes.fuse_conv2d import FuseConv2D
from enet_tvm.compiler.passes.fuse_initial_block import FuseInitialBlock
from enet_tvm.compiler.passes.lower_kernels import LowerKernels
from enet_tvm.compiler.pipeline import gpu_phases

INPUT_RANGE = (-4.0, 251.0)
LAYER_RANGE = (-100.0, 155.0)
"""Different ones, and both of a scale of 1: whole numbers have codes of their own."""


class Downsampler(nn.Module):
    def __init__(self, inputs: int, outputs: int, act: nn.Module, pool: int = 2) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs - inputs, 3, stride=2, padding=1)
        self.pool = nn.MaxPool2d(pool, 2, padding=pool - 2)
        self.norm = nn.BatchNorm2d(outputs)
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.norm(torch.cat([self.conv(x), self.pool(x)], 1)))


def whole_numbers(network: nn.Module, generator: torch.Generator, head: nn.Conv2d) -> None:
    """Give a network small whole weights, most of them 0 but for the head, so that every value is whole and small."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            density = 12 if module is head else 2
            chosen = torch.rand(module.weight.shape, generator=generator) < density / module.weight[0].numel()
            module.weight.data = chosen.float() * torch.randint(-1, 2, module.weight.shape, generator=generator)
            module.bias.data = torch.randint(-2, 3, module.bias.shape, generator=generator).float()
        elif isinstance(module, nn.BatchNorm2d):
            module.running_var.fill_(1 - module.eps)
            module.weight.data = torch.randint(0, 2, module.weight.shape, generator=generator) * 2.0 - 1
            module.bias.data = torch.randint(-2, 3, module.bias.shape, generator=generator).float()
        elif isinstance(module, nn.PReLU):
            module.weight.data = torch.randint(-1, 2, module.weight.shape, generator=generator).float()


class Encoder(nn.Module):
    """Three downsamplers with a convolution between the last two, all of whole numbers."""

    def __init__(self, widths: tuple[int, ...], relu: bool, pool: int = 2, seed: int = 0) -> None:
        super().__init__()
        first, second, third = (nn.ReLU() if relu else nn.PReLU(width) for width in widths)
        self.first = Downsampler(3, widths[0], first, pool)
        self.second = Downsampler(widths[0], widths[1], second, pool)
        self.middle = nn.Sequential(nn.Conv2d(widths[1], widths[1], (1, 3), padding=(0, 1)), nn.ReLU())
        self.third = Downsampler(widths[1], widths[2], third, pool)
        self.head = nn.Conv2d(widths[2], 5, 1)
        whole_numbers(self, torch.Generator().manual_seed(seed), self.head)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.third(self.middle(self.second(self.first(x)))))


def ranges_of(network: nn.Module, x: Tensor) -> dict[str, tuple[float, float]]:
    """Return a range for every layer, having checked that values keep to it, are whole."""

    def check(name: str, output: Tensor) -> None:
        assert torch.equal(output, output.round()), name
        if name.endswith("act"):
            assert LAYER_RANGE[0] <= output.min(), name
            assert output.max() <= LAYER_RANGE[1], name

    handles = [m.register_forward_hook(lambda _m, _i, out, name=name: check(name, out)) for name, m in network.named_modules()]
    network(x)
    for handle in handles:
        handle.remove()
    assert INPUT_RANGE[0] <= x.min()
    return {"input": INPUT_RANGE} | dict.fromkeys(dict(network.named_modules()), LAYER_RANGE)


def lowered(
    network: nn.Module, shape: tuple[int, ...], unit: VectorUnit, dtype: DType, ranges: Any = None
) -> tuple[tvm.IRModule, list[Any]]:
    templates = cpu_templates(unit)
    lowering = LowerKernels(templates, ranges=ranges)
    fusing = [FoldBatchNorm(), FuseInitialBlock(templates), FuseConv2D(templates)]
    passes = [*fusing, BlockLayout(templates, dtype), lowering, SoftwareDots()]
    return tvm.transform.Sequential(passes)(from_torch(network.eval(), shape)), lowering.launches


CASES = {
    "ERFNet's": ((16, 64, 128), VectorUnit(8, 16), 2, True),
    "with PReLU": ((16, 64, 128), VectorUnit(8, 16), 2, False),
    "narrow": ((8, 20, 36), VectorUnit(8, 16), 2, False),
    "of no block": ((16, 30, 44), VectorUnit(4, 32), 2, False),
    "3x3 pooling": ((16, 32, 64), VectorUnit(8, 16), 3, True),
}


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "uint8"])
@pytest.mark.parametrize("case", CASES)
@torch.inference_mode()
def test_several_of_them(run_relax, case: str, dtype: DType):
    widths, unit, pool, relu = CASES[case]
    network = Encoder(widths, relu, pool).eval()
    x = torch.randint(-4, 20, (1, 3, 24, 40), generator=torch.Generator().manual_seed(1)).float()
    ranges = ranges_of(network, x)
    expected = network(x).numpy()
    assert np.unique(expected).size >= 10, "the test network says too little"
    mod, launches = lowered(network, tuple(x.shape), unit, dtype, ranges)
    np.testing.assert_allclose(run_relax(mod, x.numpy()), expected, rtol=0, atol=1e-3)
    if widths == (16, 64, 128):
        assert [launch.kernel for launch in launches if "pool" in " ".join(launch.ops)] == [
            "initial_block",
            "downsampler_16to64_10x6",
            "downsampler_64to128_5x3",
        ]
        assert {launch.layout.dtype for launch in launches[:-1]} == {dtype}
        assert len(launches) == 5


@pytest.mark.slow
@torch.inference_mode()
def test_the_range_of_what_a_layer_made_of_the_picture(run_relax):
    """A convolution in front of the initial block: what the block makes codes of has that layer's range, not the network's."""
    network = nn.Sequential(nn.Conv2d(3, 3, 1), Downsampler(3, 16, nn.PReLU(16)), nn.Conv2d(16, 5, 1)).eval()
    whole_numbers(network, torch.Generator().manual_seed(3), network[2])
    network[0].weight.copy_(-2 * torch.eye(3)[:, :, None, None])
    x = torch.randint(-4, 20, (1, 3, 8, 16), generator=torch.Generator().manual_seed(1)).float()
    ranges = ranges_of(network, x)
    assert network[0](x).min() < INPUT_RANGE[0]
    mod, launches = lowered(network, tuple(x.shape), VectorUnit(8, 16), "uint8", ranges)
    assert [launch.layout.dtype for launch in launches] == ["float32", "uint8", "float32"]
    np.testing.assert_allclose(run_relax(mod, x.numpy()), network(x).numpy(), rtol=0, atol=1e-3)


@torch.inference_mode()
def test_a_picture_that_calibration_has_not_seen(run_relax, network_of):
    """What TVM's own operators make has no range, so the block computes in float32."""
    network = network_of(
        lambda net, x: net.head(net.block(2 * x - 40)), block=Downsampler(3, 16, nn.ReLU()), head=nn.Conv2d(16, 5, 1)
    )
    whole_numbers(network, torch.Generator().manual_seed(3), network.head)
    x = torch.randint(-4, 20, (1, 3, 8, 16), generator=torch.Generator().manual_seed(1)).float()
    mod, launches = lowered(network, tuple(x.shape), VectorUnit(8, 16), "uint8", {"input": INPUT_RANGE})
    assert [launch.layout.dtype for launch in launches if launch.kernel == "initial_block"] == ["float32"]
    np.testing.assert_allclose(run_relax(mod, x.numpy()), network(x).numpy(), rtol=0, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("pool", [2, 3])
@torch.inference_mode()
def test_several_of_them_on_a_gpu(run_relax, pool: int):
    network = Encoder((16, 64, 128), False, pool).eval()
    x = torch.randint(-4, 20, (1, 3, 16, 24), generator=torch.Generator().manual_seed(1)).float()
    mod = from_torch(network, tuple(x.shape))
    phases = gpu_phases(GpuUnit(2, 80))
    for phase in phases[: [phase.name for phase in phases].index("lower-kernels") + 1]:
        mod = tvm.transform.Sequential(phase.passes)(mod)
    names = {str(name.name_hint) for name, function in mod.functions_items() if isinstance(function, tvm.tirx.PrimFunc)}
    assert len([name for name in names if name.startswith("initial_block")]) == 3
    for name, function in mod.functions_items():
        if isinstance(function, tvm.tirx.PrimFunc):
            mod.update_func(name, serial_threads(function))
    np.testing.assert_allclose(run_relax(mod, x.numpy()), network(x).numpy(), rtol=0, atol=1e-3)
