"""Networks as plain PyTorch modules; nothing here knows TVM."""

from enet_tvm.networks.base import SegmentationNetwork
from enet_tvm.networks.enet import ENet
from enet_tvm.networks.erfnet import ERFNet
from enet_tvm.networks.segnet import SegNet
from enet_tvm.networks.variant import ENetVariant
from enet_tvm.networks.weights import NetworkInMemory, WeightsInfo, load_network, read_info, save_network

__all__ = [
    "ENet",
    "ENetVariant",
    "ERFNet",
    "NetworkInMemory",
    "SegNet",
    "SegmentationNetwork",
    "WeightsInfo",
    "load_network",
    "read_info",
    "save_network",
]
