"""SegNet (Badrinarayanan, Kendall, Cipolla, 2015, arXiv 1511.00561), the baseline that the ENet paper is measured against.

The encoder has the 13 convolutions of VGG-16 (Simonyan, Zisserman, 2014), each followed by batch normalisation and ReLU;
the decoder mirrors it and max-unpools by the indices of the encoder's poolings. A convolution before a batch norm has
no bias, which the norm would remove.

The ENet paper (table 3) gives SegNet 29.46 M parameters and 286.03 GFLOPs at 640x360 and does not say how it counted.
With 20 classes (Cityscapes' 19 and void) and poolings that drop an odd row (45 rows become 22), both figures come out to
the last digit when the running statistics of the batch norms count as parameters, and each batch norm as one multiply-add
per value beside the convolutions: 29,462,484 and 286.029 G. `enet_tvm.networks.summary` counts trainable parameters and
convolutions only: 29,446,612 and 285.823 G.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from enet_tvm.errors import UserError
from enet_tvm.networks.base import SegmentationNetwork

SMALLEST_SIDE = 32
"""Smallest height or width of the picture, in pixels: five poolings leave one pixel of it."""

WIDTHS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
"""Output channels of the encoder's convolutions, stage by stage (VGG-16)."""


class Stage(nn.Module):
    """Convolutions 3x3 of one resolution, each with batch norm and ReLU: ``conv1``, ``conv2`` and so on.

    Parameters
    ----------
    in_channels : int
        Channels of the input.
    widths : sequence of int
        Output channels of each convolution.
    """

    def __init__(self, in_channels: int, widths: Sequence[int]) -> None:
        super().__init__()
        for number, (inputs, outputs) in enumerate(zip((in_channels, *widths[:-1]), widths, strict=True), start=1):
            conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
            self.add_module(f"conv{number}", nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU()))
        self.depth = len(widths)

    def convolve(self, x: Tensor) -> Tensor:
        """Return the output of the convolutions, of the height and width of `x`."""
        for number in range(1, self.depth + 1):
            x = self.get_submodule(f"conv{number}")(x)
        return x


class EncoderStage(Stage):
    """Convolutions, then 2x2 max pooling, which drops the last row or column of an odd plane."""

    def __init__(self, in_channels: int, widths: Sequence[int]) -> None:
        super().__init__(in_channels, widths)
        self.pool = nn.MaxPool2d(2, return_indices=True)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, torch.Size]:
        """Return the pooled maxima, their indices, and the height and width before the pooling."""
        x = self.convolve(x)
        pooled, indices = self.pool(x)
        return pooled, indices, x.shape[2:]


class DecoderStage(Stage):
    """Max-unpooling, then convolutions."""

    def __init__(self, in_channels: int, widths: Sequence[int]) -> None:
        super().__init__(in_channels, widths)
        self.unpool = nn.MaxUnpool2d(2)

    def forward(self, x: Tensor, indices: Tensor, size: torch.Size) -> Tensor:
        """Return the stage's output of height and width `size`, unpooled by the encoder's `indices`."""
        return self.convolve(self.unpool(x, indices, list(size)))


class SegNet(SegmentationNetwork):
    """SegNet: the encoder of VGG-16 and its mirror image.

    Parameters
    ----------
    num_classes : int
        Number of output channels.

    Notes
    -----
    Input is N x 3 x H x W float32, normalised; H and W must be at least 32. Output is the N x num_classes x H x W
    float32 logits. Convolutions start as He et al. (2015) advise, like those of the authors.
    """

    name = "segnet"

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        inputs = 3
        for number, widths in enumerate(WIDTHS, start=1):
            self.add_module(f"encoder{number}", EncoderStage(inputs, widths))
            inputs = widths[-1]
        for number in range(len(WIDTHS), 0, -1):
            # The mirror of a stage ends in the width that it began with; the classifier mirrors the first convolution.
            widths = WIDTHS[number - 1]
            outputs = (*widths[1:], WIDTHS[number - 2][-1]) if number > 1 else widths[1:]
            self.add_module(f"decoder{number}", DecoderStage(widths[-1], outputs))
        self.classifier = nn.Conv2d(WIDTHS[0][0], num_classes, 3, padding=1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits, N x num_classes x H x W.

        Raises
        ------
        UserError
            When a side of `x` is below 32: a fifth pooling would leave nothing.
        """
        if min(x.shape[2:]) < SMALLEST_SIDE:
            height, width = x.shape[2:]
            raise UserError(f"SegNet halves its input five times, so {width}x{height} is too small; take 32x32 or more")
        kept = []
        for number in range(1, len(WIDTHS) + 1):
            x, indices, size = self.get_submodule(f"encoder{number}")(x)
            kept.append((indices, size))
        for number in range(len(WIDTHS), 0, -1):
            x = self.get_submodule(f"decoder{number}")(x, *kept.pop())
        return self.classifier(x)
