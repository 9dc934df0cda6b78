"""Networks as plain PyTorch modules; nothing here knows TVM."""

from enet_tvm.networks.enet import ENet
from enet_tvm.networks.segnet import SegNet
from enet_tvm.networks.variant import ENetVariant
from enet_tvm.networks.weights import WeightsInfo, load_network, read_info, save_network

__all__ = ["ENet", "ENetVariant", "SegNet", "WeightsInfo", "load_network", "read_info", "save_network"]
