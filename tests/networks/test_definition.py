"""What a record refuses."""

from __future__ import annotations

import re

import pytest
import torch

from enet_tvm.errors import UserError
from enet_tvm.networks import SegmentationNetwork
from enet_tvm.networks.definition import Head, NetworkDefinition, PublishedCosts
from enet_tvm.networks.table import NETWORKS
from enet_tvm.size import Size


class Net(SegmentationNetwork):
    name = "net"

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.last = torch.nn.Conv2d(3, num_classes, 1)


NET = NetworkDefinition("net", "Net", "nowhere", Net, Head("last"), re.compile("last"), divisor=16, smallest_side=48)


@pytest.mark.parametrize(
    ("size", "sentence"),
    [
        (Size(64, 32), r"64x32 is too small for Net; take 48x48 or more"),
        (Size(648, 360), r"Net takes sides divisible by 16, not 648x360; try 640x352"),
    ],
)
def test_sizes(size: Size, sentence: str):
    NET.require_size(Size(640, 352))
    with pytest.raises(UserError, match=sentence):
        NET.require_size(size)


def test_variants():
    assert NET.new(4).num_classes == 4
    assert NET.new(4).variant_json() == {}
    with pytest.raises(UserError, match="Net is a Net, which has no variants"):
        NET.new(4, {"epsilon": 1e-5})
    enet = NETWORKS["enet"].new(4, {"epsilon": 1e-5})
    assert enet.variant_json() == {"epsilon": 1e-5}
    with pytest.raises(UserError, match="'depth' is not an option of ENet"):
        NETWORKS["enet"].new(4, {"depth": 3})


def test_tensors_without_the_head():
    with pytest.raises(UserError, match=r"file has no convolution 'last\.weight'"):
        NET.head.outputs({"last.weight": torch.zeros(3)}, "file")
    assert NET.head.without_output({"last.weight": torch.zeros(3, 2, 1, 1)}, 0)["last.weight"].shape == (2, 2, 1, 1)


def test_costs_hold_at_their_size():
    costs = PublishedCosts(5, 7, Size(64, 32))
    assert costs.at(Size(64, 32)) == {"parameters": 5, "flops": 7}
    assert costs.at(Size(64, 40)) == PublishedCosts(5).at(Size(64, 32)) == {"parameters": 5}
