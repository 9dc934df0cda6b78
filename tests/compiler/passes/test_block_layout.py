from __future__ import annotations

import numpy as np
import pytest
import torch
import tvm
from torch import nn
from torch.nn import functional as F
from tvm import relax

from enet_tvm.compiler import ops
from enet_tvm.compiler.dataflow import Dataflow, constant, is_call
from enet_tvm.compiler.kernels.cpu.conv2d import column_reach
from enet_tvm.compiler.kernels.cpu.register_tile import VectorUnit
from enet_tvm.compiler.kernels.cpu.templates import cpu_templates
from enet_tvm.compiler.ops import PLANAR, FusedConv2D, Layout
from enet_tvm.compiler.passes.block_layout import BlockLayout
from enet_tvm.compiler.passes.fold_batch_norm import FoldBatchNorm
from enet_tvm.compiler.passes.fuse_conv2d import FuseConv2D
from enet_tvm.compiler.passes.lower_kernels import LowerKernels

SHAPE = (1, 16, 4, 6)
UNITS = {4: VectorUnit(4, 32), 8: VectorUnit(8, 16), 16: VectorUnit(16, 32)}


@pytest.fixture
def laid_out(transformed, operators):
    """The module after the pass, checked against PyTorch, and how often it packs and unpacks."""

    def run(network: nn.Module, shape: tuple[int, int, int, int] = SHAPE, lanes: int = 16) -> tuple[tvm.IRModule, int, int]:
        templates = cpu_templates(UNITS[lanes])
        passes = (FoldBatchNorm(), FuseConv2D(templates), BlockLayout(templates))
        mod = transformed(network, shape, *passes, unit=UNITS[lanes])
        check_storage(mod)
        names = operators(mod)
        return mod, names.count("pack"), names.count("unpack")

    return run


def check_storage(mod: tvm.IRModule) -> None:
    """Fail unless every convolution gets what it says it reads, with as many columns of zeros as it needs."""
    stored: dict[relax.Var, Layout] = {}
    pools: dict[relax.Var, ops.MaxPool2DWithWindow] = {}
    for binding in Dataflow(mod).bindings:
        value = binding.value
        if is_call(value, "enet.fused_conv2d"):
            attrs = FusedConv2D.from_call(value)
            assert stored.get(value.args[0], PLANAR) == attrs.data_layout
            assert attrs.data_layout.pad >= column_reach(attrs)
            if attrs.residual != "none":
                at = 4 if attrs.activation == "prelu" else 3
                assert stored.get(value.args[at], PLANAR) == attrs.residual_layout
                assert attrs.residual_layout.block == attrs.out_layout.block
            stored[binding.var] = attrs.out_layout
        elif is_call(value, "enet.pack"):
            stored[binding.var] = Layout.from_attr(value.attrs["layout"])
        elif is_call(value, "enet.initial_block"):
            stored[binding.var] = ops.InitialBlockAttrs.from_call(value).out_layout
        elif is_call(value, "enet.max_pool2d_with_window"):
            pools[binding.var] = ops.MaxPool2DWithWindow.from_call(value)
            assert stored.get(value.args[0], PLANAR) == pools[binding.var].data_layout
        elif isinstance(value, relax.TupleGetItem) and value.tuple_value in pools:
            maxima = pools[value.tuple_value].out_layout
            stored[binding.var] = Layout(maxima.block) if value.index else maxima
        elif is_call(value, "enet.max_unpool2d"):
            layouts = ops.MaxUnpool2D.from_call(value)
            assert stored.get(value.args[0], PLANAR) == layouts.data_layout
            assert stored.get(value.args[1], PLANAR) == Layout(layouts.data_layout.block)
            stored[binding.var] = layouts.out_layout
        if binding.var in stored:
            assert binding.var.ty.ndim == (5 if stored[binding.var].block else 4)


def conv(kernel: int = 3, inputs: int = 16, outputs: int = 16, **options) -> nn.Conv2d:
    """Return a convolution along the rows, which is what padding is for; it compiles faster than a square one."""
    return nn.Conv2d(inputs, outputs, (1, kernel), **{"padding": (0, kernel // 2), **options})


def layouts(mod: tvm.IRModule) -> list[Layout]:
    values = [binding.value for binding in Dataflow(mod).bindings]
    return [FusedConv2D.from_call(value).out_layout for value in values if is_call(value, "enet.fused_conv2d")]


def test_a_chain_is_entered_once_and_left_by_its_last_kernel(network_of, laid_out):
    mod, packs, unpacks = laid_out(network_of(lambda net, x: net.c(net.b(net.a(x))), a=conv(), b=conv(), c=conv(1)))
    assert (packs, unpacks) == (1, 0)
    assert layouts(mod)[-1] == PLANAR


def test_a_chain_that_ends_with_a_shortcut_is_left_once(network_of, laid_out):
    _, packs, unpacks = laid_out(network_of(lambda net, x: net.b(net.a(x)) + x, a=conv(), b=conv()))
    assert (packs, unpacks) == (1, 1)


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("first", ["narrow", "wide"])
def test_producers_write_what_their_readers_need(network_of, laid_out, first: str):
    """As many columns of zeros as the widest of the readers looks past the edge, whichever comes first."""

    def function(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
        y = net.a(x)
        return net.d(net.narrow(y) + net.wide(y) if first == "narrow" else net.wide(y) + net.narrow(y))

    network = network_of(function, a=conv(1), narrow=conv(), wide=conv(padding=(0, 4), dilation=4), d=conv(1))
    mod, packs, unpacks = laid_out(network)
    assert (packs, unpacks) == (1, 0)
    assert [layout.pad for layout in layouts(mod)] == [4, 0, 0, 0]


def test_the_input_is_packed_once_for_all_readers(network_of, laid_out):
    network = network_of(lambda net, x: net.c(net.a(x) + net.b(x)) + x, a=conv(1), b=conv(), c=conv(1))
    _, packs, unpacks = laid_out(network)
    assert (packs, unpacks) == (1, 1)


def test_other_operators_see_nchw(network_of, laid_out):
    network = network_of(lambda net, x: net.b(torch.softmax(net.a(x), 3)), a=conv(), b=conv())
    mod, packs, unpacks = laid_out(network)
    assert (packs, unpacks) == (2, 0), "what only others read is made as NCHW"
    assert layouts(mod) == [PLANAR, PLANAR]


def test_convolutions_and_others_read_one_value(network_of, laid_out):
    """It is unpacked once for the others, and the convolution before and after them reads what is there."""

    def function(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
        y = net.a(x)
        return net.b(y) + torch.softmax(y, 3) + torch.sigmoid(y) + net.c(y)

    mod, packs, _ = laid_out(network_of(function, a=conv(), b=conv(), c=conv()))
    y = next(b.var for b in Dataflow(mod).bindings if b.var.name == "a")
    assert sum(is_call(b.value, "enet.unpack") and b.value.args[0].same_as(y) for b in Dataflow(mod).bindings) == 1
    assert packs <= 3


def test_other_operators_read_two_values(network_of, laid_out):
    def function(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
        y = net.a(x)
        z = net.b(y)
        return torch.cat([net.c(z), torch.cat([z, y, z], 1)], 1)

    laid_out(network_of(function, a=conv(), b=conv(), c=conv()))


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("lanes", UNITS)
def test_window_indices_stay_blocked(network_of, laid_out, operators, lanes: int):
    def function(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
        pooled, indices = F.max_pool2d(net.a(x), 2, return_indices=True)
        return net.d(net.c(x) + F.max_unpool2d(net.b(pooled), indices, 2))

    mod, packs, unpacks = laid_out(network_of(function, a=conv(), b=conv(1), c=conv(), d=conv(1)), lanes=lanes)
    assert (packs, unpacks) == (1, 0)
    assert operators(mod).count("max_pool2d_with_window") == 1


def test_pooling_of_what_others_read_too(network_of, laid_out):
    """Between the pooling and the reading of its results another operator makes the pooled tensor NCHW."""

    def function(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
        y = net.a(x)
        pooled, indices = F.max_pool2d(y, 2, return_indices=True)
        return torch.tanh(y) + F.max_unpool2d(torch.sigmoid(pooled) + net.b(pooled), indices, 2)

    laid_out(network_of(function, a=conv(), b=conv(1)))


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("shape", [(1, 16, 5, 7), (2, 16, 4, 8)])
def test_pooling_and_unpooling_stay_blocked(network_of, laid_out, shape: tuple[int, int, int, int]):
    """Odd planes too; the pooling pads for the convolution that reads it."""

    def function(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
        pooled, indices = F.max_pool2d(net.a(x), 2, return_indices=True)
        return net.c(F.max_unpool2d(net.b(pooled), indices, 2, output_size=x.shape[2:]))

    _, packs, unpacks = laid_out(network_of(function, a=conv(), b=conv(), c=conv()), shape)
    assert (packs, unpacks) == (1, 0)


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize(("channels", "lanes"), [(3, 8), (4, 16), (5, 16), (12, 8), (20, 16), (24, 16)])
def test_channels_that_do_not_fill_a_vector(network_of, laid_out, channels: int, lanes: int):
    network = network_of(
        lambda net, x: net.b(F.relu(net.a(x))), a=conv(inputs=channels, outputs=24), b=conv(inputs=24, outputs=channels)
    )
    laid_out(network, (1, channels, 4, 6), lanes)


def test_a_padded_shortcut_decides_the_block(network_of, laid_out):
    """20 of 32 channels are the shortcut's: a block of 4 is the largest that divides both."""

    def function(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
        return net.b(net.a(x) + F.pad(x, (0, 0, 0, 0, 0, 12)))

    mod, _, _ = laid_out(network_of(function, a=conv(inputs=20, outputs=32), b=conv(1, 32)), (1, 20, 4, 6))
    assert layouts(mod)[0].block == 4


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("shape", [(1, 16, 6, 1), (1, 16, 1, 1), (1, 16, 1, 8)], ids=str)
def test_slender_pictures(network_of, laid_out, shape: tuple[int, int, int, int]):
    laid_out(network_of(lambda net, x: net.b(F.relu(net.a(x))), a=conv(), b=conv(5)), shape)


def test_several_results(network_of, laid_out):
    def function(net: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        y = net.a(x)
        return y, net.b(y) + y, y

    laid_out(network_of(function, a=conv(stride=2), b=conv()), (1, 16, 4, 6))


def test_a_blocked_value_that_main_returns_itself(relax_main, run_relax):
    """As in a module that no importer made: the result is no copy of a variable, but that variable."""
    weight = np.random.default_rng(0).integers(-2, 3, (16, 16, 2, 2)).astype(np.float32)
    attrs = FusedConv2D((1, 16, 4, 6), (1, 16, 2, 3), (2, 2), (2, 2), (0, 0), (1, 1))
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType(attrs.data_shape, "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            call = ops.fused_conv2d(attrs, x, constant(weight), constant(np.zeros(16, np.float32)))
            out = builder.emit_output(call)
        builder.emit_func_output(out)
    data = np.random.default_rng(1).integers(-3, 4, attrs.data_shape).astype(np.float32)
    expected = F.conv2d(torch.from_numpy(data), torch.from_numpy(weight), stride=2).numpy()
    actual = run_relax(
        builder.get(), data, passes=[BlockLayout(cpu_templates(UNITS[8])), LowerKernels(cpu_templates(UNITS[8]))]
    )
    assert np.array_equal(actual, expected)


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("lanes", UNITS)
def test_enet_is_blocked_throughout(fused_enet: tvm.IRModule, operators, lanes: int):
    """The picture goes in and the logits come out as NCHW, without a conversion on the way."""
    mod = BlockLayout(cpu_templates(UNITS[lanes]))(fused_enet)
    check_storage(mod)
    assert not {"pack", "unpack"} & set(operators(mod))
    *inner, last = layouts(mod)
    assert last == PLANAR
    assert {layout.block for layout in inner} == {b for b in (4, 8, 16) if b <= lanes and (b == lanes or b == 4)}
    assert max(layout.pad for layout in inner) == 16, "before the convolution with dilation 16"
