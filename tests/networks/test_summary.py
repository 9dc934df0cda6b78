"""Counts of ENet's work, pinned and checked against PyTorch's own counter."""

import json
import pickle

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from enet_tvm.networks import ENet
from enet_tvm.networks.summary import summarise
from enet_tvm.networks.table import NETWORKS
from enet_tvm.size import Size

PAPER_SIZE = NETWORKS["enet"].costs.size


@pytest.mark.parametrize(("classes", "parameters", "macs"), [(12, 363_856, 1_697_760_000), (19, 364_311, 1_723_564_800)])
def test_enet_totals_at_the_papers_size(classes, parameters, macs):
    network = ENet(classes)
    total = summarise(network, PAPER_SIZE).total
    assert (total.parameters, total.macs, total.flops) == (parameters, macs, 2 * macs)
    assert total.parameters == sum(p.numel() for p in network.parameters())
    assert total.output_shape == (1, classes, 360, 640)


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("size", [Size(64, 32), Size(40, 24)])
def test_flops_agree_with_pytorchs_counter(size):
    network = ENet(12).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(1, 3, size.height, size.width))
    assert summarise(network, size).total.flops == counter.get_total_flops()


@pytest.mark.slow
def test_papers_figures_are_near_and_given_only_where_they_hold():
    summary = summarise(ENet(20), PAPER_SIZE)
    assert summary.total.parameters == pytest.approx(summary.paper["parameters"], rel=0.03)
    assert summary.total.flops == pytest.approx(summary.paper["flops"], rel=0.15)
    assert "flops" not in summarise(ENet(20), Size(64, 64)).paper
    assert summarise(nn.Sequential(nn.Conv2d(3, 4, 1)), PAPER_SIZE).paper is None


def test_layers_blocks_and_total_agree():
    summary = summarise(ENet(5), Size(64, 32))
    for costs in (summary.layers, summary.blocks):
        for name in ("parameters", "macs", "activation_bytes"):
            assert sum(getattr(cost, name) for cost in costs) == getattr(summary.total, name)
    assert [block.name for block in summary.blocks] == [name for name, _ in ENet(5).named_children()]


def test_one_layer_of_each_kind():
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1),
        nn.PReLU(8),
        nn.ConvTranspose2d(8, 4, 2, stride=2),
        nn.Conv2d(4, 4, 3, groups=2),
    )
    conv, act, transposed, grouped = summarise(network, Size(16, 8)).layers
    assert (conv.output_shape, conv.parameters, conv.macs) == ((1, 8, 4, 8), 8 * 27 + 8, 8 * 32 * 27)
    assert (act.parameters, act.macs, act.activation_bytes) == (8, 0, 8 * 32 * 4)
    assert (transposed.output_shape, transposed.macs) == ((1, 4, 8, 16), 32 * 8 * 4 * 4)
    assert (grouped.output_shape, grouped.macs) == ((1, 4, 6, 14), 4 * 84 * 2 * 9)


def test_pooling_counts_its_indices():
    pool = next(layer for layer in summarise(ENet(2), Size(64, 32)).layers if layer.name == "bottleneck1_0.pool")
    assert pool.activation_bytes == 16 * 8 * 16 * (4 + 8)


def test_network_is_left_as_it_was():
    network = ENet(3).train()
    network.initial.eval()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    summarise(network, Size(64, 32))
    assert network.training
    assert not network.initial.training
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    pickle.dumps(network)  # fails if a module still has a hook: functions within functions cannot be pickled


def test_json_is_plain():
    content = json.loads(json.dumps(summarise(ENet(3), Size(64, 32)).to_json()))
    assert content["size"] == "64x32"
    assert content["total"]["flops"] == 2 * content["total"]["macs"]
    assert len(content["layers"]) > len(content["blocks"]) == 29
