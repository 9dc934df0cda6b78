"""One ENet whose every parameter matters, and ONNX files, for all tests of the frontend."""

import pytest
import torch
from shared import made_once
from torch import nn

from enet_tvm.networks import ENet, WeightsInfo

ONNX_SIZE = (64, 32)


@pytest.fixture(scope="session")
def enet():
    torch.manual_seed(0)
    network = ENet(3).eval()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(std=0.3)
                module.running_var.uniform_(0.5, 2)
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(std=0.3)
            elif isinstance(module, nn.PReLU):
                module.weight.uniform_(-0.2, 0.4)
    return network


@pytest.fixture(scope="session")
def info():
    return WeightsInfo(
        network="enet",
        classes=("sky", "road", "car"),
        palette=((1, 2, 3), (4, 5, 6), (7, 8, 9)),
        mean=(0.1, 0.2, 0.3),
        std=(0.4, 0.5, 0.6),
    )


@pytest.fixture(scope="session")
def onnx_file(enet, info):
    from enet_tvm.compiler.frontend.onnx_export import export_onnx
    from enet_tvm.size import Size

    return made_once("frontend.onnx", lambda path: export_onnx(enet, info, Size(*ONNX_SIZE), path))


@pytest.fixture(scope="session")
def small_onnx_file(info):
    """One convolution, which is exported in a tenth of the time."""
    from enet_tvm.compiler.frontend.onnx_export import export_onnx
    from enet_tvm.size import Size

    return made_once("small.onnx", lambda path: export_onnx(nn.Conv2d(3, 3, 1).eval(), info, Size(*ONNX_SIZE), path))
