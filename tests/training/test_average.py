"""Averaged weights, and batch-norm statistics of their own."""

import copy

import torch
from torch import nn

from enet_tvm.training.average import WeightAverage, with_statistics_of


def small():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout2d(0.5), nn.ReLU(), nn.BatchNorm2d(4)).eval()


def test_the_average_moves_towards_the_weights():
    network = small()
    average = WeightAverage(network, 0.5)
    before = copy.deepcopy(network[0].weight)
    with torch.no_grad():
        network[0].weight += 1
    average.update(network)
    torch.testing.assert_close(average.network[0].weight, before + 0.9)  # (1 + 0) / (10 + 0) of the old is kept at first
    assert average.updates == 1


def test_statistics_are_those_of_the_batches_and_the_network_stays_as_it_was():
    network = small()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    batches = [torch.randn(4, 3, 6, 6) * 3 + 1 for _ in range(3)]
    fresh = with_statistics_of(network, batches)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    with torch.no_grad():
        convolved = [network[0](batch) for batch in batches]
        means = torch.stack([values.mean((0, 2, 3)) for values in convolved]).mean(0)
        variances = torch.stack([values.transpose(0, 1).flatten(1).var(1) for values in convolved]).mean(0)
    torch.testing.assert_close(fresh[1].running_mean, means)
    torch.testing.assert_close(fresh[1].running_var, variances)
    # Without dropout, what the second norm sees is the first one's output, batch by batch normalised.
    assert fresh[4].running_mean.min() > 0.3
    assert not any(module.training for module in fresh.modules())
    assert fresh[1].momentum == network[1].momentum
