from __future__ import annotations

import numpy as np
import pytest
import torch
import tvm
from torch import nn
from torch.nn import functional as F
from tvm import relax

from enet_tvm.compiler.dataflow import Dataflow, constant, constant_value, is_call
from enet_tvm.compiler.passes.fold_batch_norm import FoldBatchNorm
from enet_tvm.networks.enet import InitialBlock

SHAPE = (2, 4, 6, 10)


def norm(channels: int = 8) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)


@pytest.fixture
def folded(transformed, operators):
    """The module after the pass, checked against PyTorch and for batch norms left in it."""

    def fold(network: nn.Module, shape: tuple[int, int, int, int] = SHAPE) -> tvm.IRModule:
        mod = transformed(network, shape, FoldBatchNorm())
        assert "batch_norm" not in operators(mod)
        return mod

    return fold


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 8, 3, padding=1, bias=False),
        nn.Conv2d(4, 8, 3, padding=1),
        nn.Conv2d(4, 8, (2, 3), stride=(1, 2), dilation=2),
        nn.ConvTranspose2d(4, 8, 3, stride=2, padding=1, output_padding=1, bias=False),
        nn.ConvTranspose2d(4, 8, 2, stride=2),
    ],
    ids=str,
)
def test_into_a_convolution(network_of, folded, operators, layer: nn.Module):
    mod = folded(network_of(lambda net, x: net.norm(net.conv(x)), conv=layer, norm=norm()))
    convolution = "conv2d_transpose" if isinstance(layer, nn.ConvTranspose2d) else "conv2d"
    assert operators(mod) == [convolution, "add"], "the scale is in the weights, the shift is the bias"


def test_one_norm_after_another(network_of, folded, operators):
    mod = folded(network_of(lambda net, x: net.b(net.a(net.conv(x))), conv=nn.Conv2d(4, 8, 1), a=norm(), b=norm()))
    assert operators(mod)[:2] == ["conv2d", "add"]


def test_small_variances(network_of, folded):
    """Epsilon decides here: a wrong one is off by half."""
    network = network_of(lambda net, x: net.norm(net.conv(x)), conv=nn.Conv2d(4, 8, 1), norm=norm())
    network.norm.running_var.fill_(1e-3)
    folded(network)


def test_through_the_initial_blocks_concatenation(randomised, folded, operators):
    mod = folded(randomised(InitialBlock(3, 8)), (2, 3, 6, 10))
    assert sorted(operators(mod)) == ["add", "add", "concat", "conv2d", "max_pool2d", "multiply", "prelu"]


def test_through_a_concatenation_of_three(network_of, folded, operators):
    """Each part gets its own channels of the scale."""
    mod = folded(
        network_of(
            lambda net, x: net.norm(torch.cat([net.a(x), x, net.b(x)], 1)),
            a=nn.Conv2d(4, 3, 1, bias=False),
            b=nn.Conv2d(4, 5, 3, padding=1),
            norm=norm(12),
        )
    )
    assert operators(mod).count("multiply") == 1


def test_a_concatenation_of_rows_is_no_concatenation_of_channels(network_of, folded, operators):
    conv = nn.Conv2d(4, 8, 1)
    mod = folded(network_of(lambda net, x: net.norm(torch.cat([net.conv(x), net.conv(2 * x)], 2)), conv=conv, norm=norm()))
    assert operators(mod)[-3:] == ["concat", "multiply", "add"]


def test_a_concatenation_read_twice(network_of, folded):
    def function(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
        both = torch.cat([net.conv(x), x], 1)
        return net.norm(both) + both

    folded(network_of(function, conv=nn.Conv2d(4, 4, 1), norm=norm()))


def test_a_part_read_twice(network_of, folded):
    """The convolution's own value is needed as well: it must not be scaled."""

    def function(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
        y = net.conv(x)
        return net.norm(torch.cat([y, x], 1)) + torch.cat([x, y], 1)

    folded(network_of(function, conv=nn.Conv2d(4, 4, 1), norm=norm()))


def test_a_convolution_read_twice(network_of, folded, operators):
    def function(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
        y = net.conv(x)
        return net.norm(y) + torch.sigmoid(y)

    network = network_of(function, conv=nn.Conv2d(4, 8, 1, bias=False), norm=norm())
    mod = folded(network)
    assert operators(mod).count("conv2d") == 1
    weight = next(constant_value(b.value.args[1]) for b in Dataflow(mod).bindings if is_call(b.value, "relax.nn.conv2d"))
    assert np.array_equal(weight, network.conv.weight.detach().numpy())


def test_two_norms_of_one_convolution(network_of, folded, operators):
    def function(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
        y = net.conv(x)
        return net.a(y) * net.b(y)

    assert operators(folded(network_of(function, conv=nn.Conv2d(4, 8, 1), a=norm(), b=norm()))).count("conv2d") == 1


def test_one_weight_of_two_convolutions(network_of, folded):
    def function(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
        return net.norm(net.conv(x)) + net.conv(x * x)

    folded(network_of(function, conv=nn.Conv2d(4, 8, 1), norm=norm()))


@pytest.mark.quick_cases(2)
@pytest.mark.parametrize(
    ("function", "left"),
    [
        (lambda net, x: net.norm(F.max_pool2d(x, 2)), ["max_pool2d", "multiply", "add"]),
        (lambda net, x: net.norm(torch.relu(net.conv(x))), ["conv2d", "add", "relu", "multiply", "add"]),
        (lambda net, x: net.norm(x), ["multiply", "add"]),
        (lambda net, x: net.norm(net.grouped(x)), ["conv2d", "multiply", "add"]),
        (lambda net, x: net.norm(net.conv(x) + x), ["conv2d", "add", "add", "multiply", "add"]),
    ],
    ids=["pooling", "activation", "input", "groups", "sum"],
)
def test_without_weights_to_go_into(network_of, folded, operators, function, left: list[str]):
    layers = {"conv": nn.Conv2d(4, 4, 1), "grouped": nn.Conv2d(4, 4, 3, padding=1, groups=2), "norm": norm(4)}
    assert operators(folded(network_of(function, **layers))) == left


@pytest.mark.quick_cases(2)
@pytest.mark.parametrize("shape", [(10,), (1, 10), (6, 1), (1, 1, 1, 10), ()], ids=str)
def test_a_constant_that_is_no_bias(network_of, folded, shape: tuple[int, ...]):
    """As many values as channels, but along the width: they are not scaled like a bias."""
    added = torch.linspace(-2, 2, int(np.prod(shape))).reshape(shape)
    network = network_of(lambda net, x: net.norm(net.conv(x) + added), conv=nn.Conv2d(4, 10, 1, bias=False), norm=norm(10))
    folded(network)


@pytest.mark.parametrize("known", [True, False], ids=["training", "statistics unknown"])
def test_norms_without_fixed_statistics(relax_main, known: bool):
    def body(b: relax.BlockBuilder, x: relax.Var, mean: relax.Var) -> relax.Var:
        ones = constant(np.ones(4, np.float32))
        result = b.emit(relax.op.nn.batch_norm(x, ones, ones, ones if known else mean, ones, axis=1, training=known))
        return b.emit(relax.TupleGetItem(result, 0))

    with pytest.raises(ValueError, match="no fixed statistics"):
        FoldBatchNorm()(relax_main(body, SHAPE, (4,)))


def test_nothing_to_do(network_of, folded, operators):
    assert operators(folded(network_of(lambda net, x: torch.relu(net.conv(x)), conv=nn.Conv2d(4, 8, 1)))) == [
        "conv2d",
        "add",
        "relu",
    ]
