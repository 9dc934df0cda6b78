"""ERFNet's structure is table I of its paper, and its cost what the paper says."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from enet_tvm.networks import ERFNet
from enet_tvm.networks.erfnet import Downsampler, NonBottleneck1D
from enet_tvm.networks.folded import folded
from enet_tvm.networks.summary import summarise
from enet_tvm.size import Size

TABLE_1 = """
1 downsampler 16 2    2 downsampler 64 4
3 nonbottleneck 64 4  4 nonbottleneck 64 4  5 nonbottleneck 64 4  6 nonbottleneck 64 4  7 nonbottleneck 64 4
8 downsampler 128 8
9 nonbottleneck 128 8   10 nonbottleneck 128 8  11 nonbottleneck 128 8  12 nonbottleneck 128 8
13 nonbottleneck 128 8  14 nonbottleneck 128 8  15 nonbottleneck 128 8  16 nonbottleneck 128 8
17 upsampler 64 4       18 nonbottleneck 64 4   19 nonbottleneck 64 4
20 upsampler 16 2       21 nonbottleneck 16 2   22 nonbottleneck 16 2
23 output 20 1
"""
"""Layer, kind, channels of its output, and by what the resolution is reduced there."""


def on_meta(classes: int = 20) -> ERFNet:
    with torch.device("meta"):
        return ERFNet(classes).eval()


def test_layers_are_those_of_the_papers_table():
    network, shapes = on_meta(), []
    for name, child in network.named_children():
        child.register_forward_hook(lambda _, __, y, name=name: shapes.append((name, *y.shape[1:])))
    network(torch.empty(1, 3, 512, 1024, device="meta"))
    words = TABLE_1.split()
    assert shapes == [
        (f"{kind}{layer}", int(channels), 512 // int(reduction), 1024 // int(reduction))
        for layer, kind, channels, reduction in zip(*(words[i::4] for i in range(4)), strict=True)
    ]


def test_dilations_and_dropout():
    blocks = {name: module for name, module in on_meta().named_children() if isinstance(module, NonBottleneck1D)}
    dilations = [(block.second[0].dilation, block.second[2].dilation) for block in blocks.values()]
    assert [(vertical, horizontal) for (vertical, one), (other, horizontal) in dilations if one == other == 1] == [
        (d, d) for d in (*[1] * 5, 2, 4, 8, 16, 2, 4, 8, 16, *[1] * 4)
    ]
    assert all(block.first[0].dilation == block.first[2].dilation == (1, 1) for block in blocks.values())
    assert [getattr(block.dropout, "p", 0) for block in blocks.values()] == [*[0.03] * 5, *[0.3] * 8, *[0] * 4]
    assert {norm.eps for norm in on_meta().modules() if isinstance(norm, nn.BatchNorm2d)} == {1e-3}


def test_parameters_are_those_of_the_paper():
    """Counted from table I: 2.06 million, which the paper rounds up."""

    def block(width: int) -> int:
        return 4 * (3 * width * width + width) + 2 * 2 * width

    def downsampler(inputs: int, outputs: int) -> int:
        return 9 * inputs * (outputs - inputs) + (outputs - inputs) + 2 * outputs

    def upsampler(inputs: int, outputs: int) -> int:
        return 9 * inputs * outputs + outputs + 2 * outputs

    counted = downsampler(3, 16) + downsampler(16, 64) + downsampler(64, 128) + 7 * block(64) + 8 * block(128)
    counted += upsampler(128, 64) + upsampler(64, 16) + 2 * block(16) + 4 * 16 * 20 + 20
    summary = summarise(on_meta(), Size(1024, 512))
    assert summary.total.parameters == counted == 2_064_256
    assert summary.total.parameters == pytest.approx(summary.paper["parameters"], rel=0.02)


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("size", [Size(64, 32), Size(640, 360)], ids=str)
def test_flops_agree_with_pytorchs_counter(size: Size):
    network = on_meta()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.empty(1, 3, size.height, size.width, device="meta"))
    assert summarise(network, size).total.flops == counter.get_total_flops()


def test_blocks_compute_what_the_paper_draws(randomised):
    """Figure 2c and the downsampler, written out with PyTorch's functions."""
    down, block = randomised(Downsampler(3, 8)), randomised(NonBottleneck1D(8, dilation=2, dropout=0.3))
    x = torch.randn(1, 3, 16, 24, generator=torch.Generator().manual_seed(0))

    def norm(y: torch.Tensor, layer: nn.BatchNorm2d) -> torch.Tensor:
        return F.batch_norm(y, layer.running_mean, layer.running_var, layer.weight, layer.bias, eps=1e-3)

    def pair(y: torch.Tensor, layers: nn.Sequential, dilation: int) -> torch.Tensor:
        vertical, _, horizontal, last, *_ = layers
        y = F.conv2d(y, vertical.weight, vertical.bias, padding=(dilation, 0), dilation=(dilation, 1)).relu()
        y = F.conv2d(y, horizontal.weight, horizontal.bias, padding=(0, dilation), dilation=(1, dilation))
        return norm(y, last)

    with torch.no_grad():
        filtered = F.conv2d(x, down.conv.weight, down.conv.bias, stride=2, padding=1)
        halved = norm(torch.cat([filtered, F.max_pool2d(x, 2)], 1), down.norm).relu()
        torch.testing.assert_close(down(x), halved)
        main = pair(pair(halved, block.first, 1).relu(), block.second, 2)
        torch.testing.assert_close(block(halved), (main + halved).relu())


def test_it_folds(randomised):
    network = randomised(ERFNet(3)).double()
    lean = folded(network)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in lean.modules())
    x = torch.randn(1, 3, 16, 24, dtype=torch.double)
    with torch.inference_mode():
        torch.testing.assert_close(lean(x), network(x), rtol=1e-9, atol=1e-9)
