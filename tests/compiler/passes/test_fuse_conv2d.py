from __future__ import annotations

import pytest
import torch
import tvm
from torch import nn
from torch.nn import functional as F

from enet_tvm.compiler.kernels.cpu.register_tile import VectorUnit
from enet_tvm.compiler.kernels.cpu.templates import cpu_templates
from enet_tvm.compiler.passes.fold_batch_norm import FoldBatchNorm
from enet_tvm.compiler.passes.fuse_conv2d import FuseConv2D
from enet_tvm.networks.enet import Bottleneck, DecoderBottleneck, UpsamplingBottleneck

SHAPE = (1, 16, 4, 6)
BIAS = ["conv2d", "bias_add"]


@pytest.fixture
def passed(transformed):
    """The module after folding and this pass, checked against PyTorch."""

    def run(network: nn.Module, shape: tuple[int, int, int, int] = SHAPE) -> tvm.IRModule:
        return transformed(network, shape, FoldBatchNorm(), FuseConv2D(cpu_templates(VectorUnit(16, 32))))

    return run


@pytest.fixture
def chains(passed, operators, fused):
    """What was fused in each convolution, and what else is left."""

    def run(network: nn.Module, shape: tuple[int, int, int, int] = SHAPE) -> tuple[list[list[str]], list[str]]:
        mod = passed(network, shape)
        return [attrs.operators for attrs in fused(mod)], [name for name in operators(mod) if name != "fused_conv2d"]

    return run


def conv(inputs: int = 16, outputs: int = 16, kernel: int = 1, **options) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, **options)


@pytest.mark.quick_cases(2)
@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda net, x: net.plain(x), BIAS),
        (lambda net, x: net.conv(x), BIAS),
        (lambda net, x: F.relu(net.conv(x)), [*BIAS, "relu"]),
        (lambda net, x: net.act(net.conv(x)), [*BIAS, "prelu"]),
        (lambda net, x: net.one(net.conv(x)), [*BIAS, "prelu"]),
        (lambda net, x: net.conv(x) + x, [*BIAS, "add"]),
        (lambda net, x: x + net.conv(x), [*BIAS, "add"]),
        (lambda net, x: net.act(net.plain(x) + x), [*BIAS, "add", "prelu"]),
        (lambda net, x: net.act(net.norm(net.plain(x)) + torch.sigmoid(x)), [*BIAS, "add", "prelu"]),
        (lambda net, x: net.act(net.up(x)), ["conv2d_transpose", "bias_add", "prelu"]),
        (lambda net, x: net.act(net.small(x) + F.pad(x[:, :8], (0, 0, 0, 0, 0, 8))), [*BIAS, "pad", "add", "prelu"]),
    ],
    ids=["plain", "bias", "relu", "prelu", "one slope", "add", "added to", "add, prelu", "norm, add", "transposed", "pad"],
)
def test_what_follows_goes_into_the_epilogue(network_of, chains, function, expected: list[str]):
    network = network_of(
        function,
        conv=conv(),
        plain=conv(bias=False),
        small=conv(),
        norm=nn.BatchNorm2d(16),
        act=nn.PReLU(16),
        one=nn.PReLU(),
        up=nn.ConvTranspose2d(16, 16, 2, stride=2),
    )
    found, left = chains(network)
    assert found == [expected]
    assert set(left) <= {"sigmoid", "strided_slice"}


def unpooled(net: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the convolution of a picture, and its maxima back in their places."""
    pooled, indices = F.max_pool2d(x, 2, return_indices=True)
    return net.conv(x), F.max_unpool2d(torch.sigmoid(pooled), indices, 2, output_size=x.shape[2:])


def added(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return a + b


def test_unpooled_shortcut(network_of, chains):
    found, left = chains(network_of(lambda net, x: net.act(added(*unpooled(net, x))), conv=conv(), act=nn.PReLU(16)))
    assert found == [[*BIAS, "max_unpool2d", "add", "prelu"]]
    assert "max_unpool2d" not in left


def test_unpooled_shortcut_that_is_read_twice(network_of, chains):
    """It has to exist anyway, and is added as it is."""

    def function(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
        main, shortcut = unpooled(net, x)
        return torch.tanh(main + shortcut) * shortcut

    found, left = chains(network_of(function, conv=conv()))
    assert found == [[*BIAS, "add"]]
    assert left.count("max_unpool2d") == 1


def test_unpooling_to_an_odd_size(network_of, chains):
    """Its last row belongs to no window: the template does not know that."""
    found, left = chains(network_of(lambda net, x: added(*unpooled(net, x)), conv=conv()), (1, 16, 5, 7))
    assert found == [[*BIAS, "add"]]
    assert left.count("max_unpool2d") == 1


@pytest.mark.quick_cases(2)
@pytest.mark.parametrize(
    "pad",
    [
        lambda x: F.pad(x[:, :8], (0, 0, 0, 0, 8, 0)),
        lambda x: F.pad(x[:, :8], (0, 0, 0, 0, 0, 8), value=1.0),
        lambda x: F.pad(x[:, :, 1:], (0, 0, 0, 1)),
        lambda x: F.pad(x[:, :8, :, 1:], (1, 0, 0, 0, 0, 8)),
    ],
    ids=["before", "ones", "rows", "columns too"],
)
def test_other_padding_stays_an_operator(network_of, chains, pad):
    found, left = chains(network_of(lambda net, x: net.conv(x) + pad(x), conv=conv()))
    assert found == [[*BIAS, "add"]]
    assert "pad" in left


def test_channels_that_fit_no_block(network_of, chains):
    """A shortcut of three channels cannot be read block by block."""
    found, left = chains(
        network_of(lambda net, x: net.conv(x) + F.pad(x[:, :3], (0, 0, 0, 0, 0, 13)), conv=conv()), (1, 16, 4, 6)
    )
    assert found in ([[*BIAS, "add"]], [BIAS])
    assert "pad" in left


def test_both_addends_are_convolutions(network_of, chains):
    """The sum goes into one of them, and is not computed twice."""
    found, left = chains(network_of(lambda net, x: net.act(net.a(x) + net.b(x)), a=conv(), b=conv(), act=nn.PReLU(16)))
    assert sorted(found, key=len) == [BIAS, [*BIAS, "add", "prelu"]]
    assert left == []


def test_a_convolution_added_to_itself(network_of, chains):
    found, left = chains(network_of(lambda net, x: (lambda y: y + y)(net.conv(x)), conv=conv()))
    assert (found, left) == ([BIAS], ["add"])


def test_a_sum_of_three(network_of, chains):
    """One shortcut fits into an epilogue; the other addition remains."""
    found, left = chains(network_of(lambda net, x: net.conv(x) + x + torch.sigmoid(x), conv=conv()))
    assert found == [[*BIAS, "add"]]
    assert left == ["sigmoid", "add"]


@pytest.mark.quick_cases(2)
@pytest.mark.parametrize("inner", [nn.ReLU(), nn.PReLU(16)], ids=str)
@pytest.mark.parametrize("outer", [nn.Identity(), nn.ReLU(), nn.PReLU(16)], ids=str)
def test_addition_after_the_activation(network_of, chains, inner: nn.Module, outer: nn.Module):
    """An activation of the convolution, and one of the sum: both have their own slopes."""
    network = network_of(lambda net, x: net.outer(net.inner(net.conv(x)) + x), conv=conv(), inner=inner, outer=outer)
    found, left = chains(network)
    names = {nn.ReLU: ["relu"], nn.PReLU: ["prelu"], nn.Identity: []}
    assert (found, left) == ([[*BIAS, *names[type(inner)], "add", *names[type(outer)]]], [])


def test_unpooling_after_the_activation(network_of, chains):
    def function(net, x):
        pooled, indices = net.pool(net.conv(x))
        return net.act(F.relu(net.other(x)) + net.unpool(pooled, indices))

    layers = {"pool": nn.MaxPool2d(2, return_indices=True), "unpool": nn.MaxUnpool2d(2), "act": nn.PReLU(16)}
    found, left = chains(network_of(function, conv=conv(), other=conv(), **layers))
    assert (found, left) == ([BIAS, [*BIAS, "relu", "max_unpool2d", "add", "prelu"]], ["max_pool2d_with_window"])


def test_one_activation_after_another(network_of, chains):
    found, left = chains(network_of(lambda net, x: net.act(F.relu(net.conv(x)) - 1), conv=conv(), act=nn.PReLU(16)))
    assert found == [[*BIAS, "relu"]]
    assert left == ["subtract", "prelu"]


@pytest.mark.quick_cases(2)
@pytest.mark.parametrize(
    "function",
    [
        lambda net, x: (lambda y: F.relu(y) + y)(net.conv(x)),
        lambda net, x: (lambda y: net.other(F.relu(y)) + y)(net.conv(x)),
        lambda net, x: (lambda y: (y, F.relu(y)))(net.conv(x)),
        lambda net, x: (lambda y: (F.relu(y), y + x))(net.plain(x)),
    ],
    ids=["added", "convolved", "returned", "before the bias"],
)
def test_what_is_read_elsewhere_is_not_fused_away(network_of, chains, function):
    found, _ = chains(network_of(function, conv=conv(), plain=conv(bias=False), other=conv()))
    assert found[0] == BIAS


@pytest.mark.quick_cases(2)
@pytest.mark.parametrize(
    "layer",
    [
        conv(groups=2),
        conv(groups=16),
        nn.ConvTranspose2d(16, 16, 3, stride=2, padding=1),
        nn.ConvTranspose2d(16, 16, 3, padding=1),
        nn.ConvTranspose2d(16, 16, 3, stride=2, padding=2, output_padding=1, dilation=2),
        conv(16, 6, stride=2),
    ],
    ids=["groups", "depthwise", "odd output", "stride 1", "dilated transposed", "few channels, strided"],
)
def test_what_no_template_covers_stays_with_tvm(network_of, chains, layer: nn.Module):
    found, left = chains(network_of(lambda net, x: F.relu(net.conv(x)), conv=layer))
    assert found == []
    assert left[0] in ("conv2d", "conv2d_transpose")


@pytest.mark.quick_cases(3)
@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(16, 16, (1, 5), padding=(0, 2)),
        nn.Conv2d(16, 16, (5, 1), padding=(2, 0)),
        nn.Conv2d(16, 16, 3, padding=4, dilation=4),
        nn.Conv2d(16, 16, 2, stride=2),
        nn.Conv2d(16, 16, 3, stride=(2, 1)),
        nn.Conv2d(16, 8, (3, 4), padding=(2, 3), dilation=(2, 1)),
        nn.Conv2d(16, 11, 3, padding=1),
    ],
    ids=str,
)
def test_kernels_of_all_kinds(network_of, chains, layer: nn.Module):
    """Each is one kernel, whatever its size, stride and padding."""
    found, _ = chains(network_of(lambda net, x: F.relu(net.conv(x)), conv=layer))
    assert found == [[*BIAS, "relu"]]


@pytest.mark.quick_cases(2)
@pytest.mark.parametrize("shape", [(16, 4, 6), (4, 6), (6,), (1, 16, 1, 1), (1, 1, 4, 6)], ids=str)
def test_a_computed_addend_that_broadcasts(network_of, chains, shape: tuple[int, ...]):
    """Not a shortcut: the kernel would read past its end."""

    def function(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
        axes = [axis for axis in range(4) if axis < 4 - len(shape) or shape[axis - 4] == 1]
        return net.conv(x) + x.mean(axes).reshape(shape)

    found, left = chains(network_of(function, conv=conv()), (2, 16, 4, 6))
    assert found == [BIAS]
    assert "add" in left


@pytest.mark.quick_cases(3)
@pytest.mark.parametrize("shape", [(16, 1, 1), (6,), (4, 1), (1, 16, 4, 6), ()], ids=str)
def test_a_constant_addend(network_of, chains, shape: tuple[int, ...]):
    added = torch.linspace(-1, 2, torch.Size(shape).numel()).reshape(shape)
    found, _ = chains(network_of(lambda net, x: net.plain(x) + added, plain=conv(bias=False)))
    assert found == [BIAS], "a bias of zeros, or the constant itself where it is one value a channel"


def test_layers_in_order(randomised, passed, fused):
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = Bottleneck(64, 64)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.block(x)[0]

    found = fused(passed(randomised(Named()), (1, 64, 4, 6)))
    assert [attrs.layers for attrs in found] == [
        ("block.project.0", "block.project.1", "block.project.2"),
        ("block.conv.0", "block.conv.1", "block.conv.2"),
        ("block.expand.0", "block.dropout", "block", "block.act"),
    ]


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize(
    ("network", "kernels"),
    [(Bottleneck(16, 64, downsample=True), 3), (Bottleneck(64, 64, "asymmetric"), 4), (DecoderBottleneck(16), 3)],
    ids=["down", "asymmetric", "decoder"],
)
def test_a_kernel_for_each_convolution_of_a_bottleneck(network_of, chains, network: nn.Module, kernels: int):
    def function(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
        result = net.block(x)
        return result[0] if isinstance(result, tuple) else result

    channels = next(m for m in network.modules() if isinstance(m, nn.Conv2d)).in_channels
    found, left = chains(network_of(function, block=network), (1, channels, 4, 8))
    assert len(found) == kernels
    assert set(left) <= {"max_pool2d_with_window"}


@pytest.mark.slow
def test_a_kernel_for_each_convolution_of_an_upsampling_bottleneck(network_of, chains):
    def function(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
        pooled, indices = F.max_pool2d(x, 2, return_indices=True)
        return net.block(torch.cat([pooled, pooled], 1), indices)

    found, left = chains(network_of(function, block=UpsamplingBottleneck(32, 16)), (1, 16, 4, 8))
    assert sorted(found[-1:]) == [[*BIAS, "max_unpool2d", "add", "relu"]]
    assert len(found) == 4
    assert set(left) == {"max_pool2d_with_window", "concat"}
