from __future__ import annotations

from collections import OrderedDict

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from enet_tvm.runtime import Segmenter


class Double(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Like pooling, it returns more than its result."""
        return 2 * x, x


class First(nn.Module):
    def forward(self, x: tuple[Tensor, Tensor]) -> Tensor:
        return x[0]


@pytest.fixture
def tiny_network(tiny_artifact) -> nn.Module:
    """The PyTorch twin of the tiny artifact."""
    conv = nn.Conv2d(3, 4, 1, bias=False)
    conv.weight = nn.Parameter(torch.from_numpy(tiny_artifact.weights[:, :, None, None].copy()))
    return nn.Sequential(OrderedDict(twice=Double(), first=First(), conv=conv)).eval()


@pytest.fixture
def tiny_segmenter(tiny_artifact):
    with Segmenter.load(tiny_artifact.directory, threads=1) as segmenter:
        yield segmenter


@pytest.fixture
def pictures() -> list[Image.Image]:
    rng = np.random.default_rng(7)
    return [Image.fromarray(rng.integers(0, 256, (height, 31, 3), dtype=np.uint8)) for height in (16, 40, 23)]
