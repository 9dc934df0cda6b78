"""ENet's structure is the paper's."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from enet_tvm.networks import ENet
from enet_tvm.networks.enet import Bottleneck, DecoderBottleneck, InitialBlock, UpsamplingBottleneck

ENCODER = ("initial", "bottleneck1", "bottleneck2", "bottleneck3")


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return ENet(5).eval()


@given(rows=st.integers(1, 5), columns=st.integers(1, 5), batch=st.sampled_from([1, 3]))
@settings(max_examples=8, deadline=None)
def test_output_has_the_pictures_size_whenever_it_divides_by_eight(network, rows, columns, batch):
    with torch.no_grad():
        logits = network(torch.randn(batch, 3, 8 * rows, 8 * columns))
    assert logits.shape == (batch, 5, 8 * rows, 8 * columns)
    assert torch.isfinite(logits).all()


def test_sizes_within_the_network_are_those_of_table_1(network):
    shapes = {}
    hooks = [
        module.register_forward_hook(
            lambda _, __, out, name=name: shapes.update({name: tuple((out[0] if isinstance(out, tuple) else out).shape[1:])})
        )
        for name, module in network.named_children()
    ]
    with torch.no_grad():
        network(torch.zeros(1, 3, 128, 128))  # a quarter of the table's 512
    for hook in hooks:
        hook.remove()
    expected = {"initial": (16, 64, 64), "fullconv": (5, 128, 128)}
    expected |= {f"bottleneck1_{i}": (64, 32, 32) for i in range(5)}
    expected |= {f"bottleneck2_{i}": (128, 16, 16) for i in range(9)} | {f"bottleneck3_{i}": (128, 16, 16) for i in range(1, 9)}
    expected |= {f"bottleneck4_{i}": (64, 32, 32) for i in range(3)} | {f"bottleneck5_{i}": (16, 64, 64) for i in range(2)}
    assert shapes == expected


def test_inner_width_is_a_quarter_of_the_output(network):
    for name, block in network.named_children():
        if isinstance(block, (Bottleneck, DecoderBottleneck, UpsamplingBottleneck)):
            outer = block.expand[0].out_channels
            assert block.project[0].out_channels == block.expand[0].in_channels == outer // 4, name


def test_normalisation_is_the_authors(network):
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms
    assert all(norm.eps == 1e-3 and norm.momentum == 0.1 for norm in norms)


def test_encoder_has_prelu_and_dropout_and_decoder_relu(network):
    for name, block in network.named_children():
        kinds = {type(module) for module in block.modules()}
        if name.startswith(ENCODER):
            assert nn.PReLU in kinds, name
            assert nn.ReLU not in kinds, name
        else:
            assert not kinds & {nn.PReLU, nn.Dropout2d}, name
    slopes = {m.num_parameters for m in network.bottleneck2_1.modules() if isinstance(m, nn.PReLU)}
    assert slopes == {32, 128}, "a slope per channel"


def test_dropout_rates(network):
    rates = {name: block.dropout.p for name, block in network.named_children() if isinstance(block, Bottleneck)}
    assert all(rate == (0.01 if name.startswith("bottleneck1") else 0.1) for name, rate in rates.items())


def test_middle_convolutions(network):
    for stage in (2, 3):
        middle = [network.get_submodule(f"bottleneck{stage}_{i}").conv for i in range(1, 9)]
        assert [conv[0].dilation[0] for conv in middle] == [1, 2, 1, 4, 1, 8, 1, 16]
        for i in (2, 6):
            first, second = middle[i][0], middle[i][1]
            assert (first.kernel_size, second.kernel_size) == ((1, 5), (5, 1))
            assert first.bias is None
            assert second.bias is not None


def test_downsampling(network):
    for block in (network.bottleneck1_0, network.bottleneck2_0):
        assert block.project[0].kernel_size == block.project[0].stride == (2, 2)
        assert block.pool.return_indices
        assert block.pool.kernel_size == 2
    assert isinstance(network.initial, InitialBlock)
    assert network.initial.conv.out_channels == 13
    assert (network.fullconv.kernel_size, network.fullconv.stride) == ((2, 2), (2, 2))


def test_padded_shortcut_channels_are_zero():
    block = Bottleneck(4, 8, downsample=True).eval()
    for module in block.expand:
        nn.init.zeros_(module.weight)
    x = torch.randn(2, 4, 8, 8)
    out, indices = block(x)
    pooled, expected = nn.functional.max_pool2d(x, 2, return_indices=True)
    assert torch.equal(out[:, :4], nn.functional.prelu(pooled, block.act.weight[:4]))
    assert torch.equal(out[:, 4:], torch.zeros(2, 4, 4, 4))
    assert torch.equal(indices, expected)


def test_decoder_reuses_the_encoders_indices(network):
    seen = {}
    hooks = [
        network.bottleneck1_0.pool.register_forward_hook(lambda _, __, out: seen.update(pool1=out[1])),
        network.bottleneck2_0.pool.register_forward_hook(lambda _, __, out: seen.update(pool2=out[1])),
        network.bottleneck4_0.unpool.register_forward_hook(lambda _, inputs, __: seen.update(unpool4=inputs[1])),
        network.bottleneck5_0.unpool.register_forward_hook(lambda _, inputs, __: seen.update(unpool5=inputs[1])),
    ]
    with torch.no_grad():
        network(torch.randn(1, 3, 32, 48))
    for hook in hooks:
        hook.remove()
    assert seen["unpool4"] is seen["pool2"]
    assert seen["unpool5"] is seen["pool1"]


def test_number_of_classes_is_free():
    for classes in (1, 11, 37):
        assert ENet(classes).eval()(torch.zeros(1, 3, 16, 16)).shape[1] == classes
