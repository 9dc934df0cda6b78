"""ENet (Paszke, Chaurasia, Kim, Culurciello, 2016, arXiv 1606.02147), as the paper and its authors' code define it.

Where the paper is silent the authors' Torch code (``e-lab/ENet-training``, ``train/models``) decides:

* the internal width of a bottleneck is a quarter of its *output* width, also when it downsamples;
* asymmetric bottlenecks apply the horizontal convolution first and give it no bias;
* batch normalisation has ``eps = 1e-3``; Torch 7's default momentum of 0.1 is PyTorch's too;
* the encoder's non-linearities are PReLU with a slope per channel, the decoder's are ReLU;
* the decoder has no dropout, and max-unpools with the window indices of the encoder's pooling.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

BN_EPS = 1e-3


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=BN_EPS)


class InitialBlock(nn.Module):
    """3x3 stride-2 convolution beside 2x2 max pooling of the picture, concatenated (paper, figure 2a).

    Parameters
    ----------
    in_channels, out_channels : int
        Channels of the picture and of the block; the convolution makes their difference.
    """

    def __init__(self, in_channels: int = 3, out_channels: int = 16) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels - in_channels, 3, stride=2, padding=1)
        self.pool = nn.MaxPool2d(2)
        self.norm = _norm(out_channels)
        self.act = nn.PReLU(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output, at half the height and width."""
        return self.act(self.norm(torch.cat([self.conv(x), self.pool(x)], dim=1)))


class Bottleneck(nn.Module):
    """Encoder bottleneck (paper, figure 2b): project, convolve, expand, add the shortcut.

    Parameters
    ----------
    in_channels, out_channels : int
        Widths at its two ends; the inner one is ``out_channels // 4``.
    kind : {"regular", "dilated", "asymmetric"}
        What the middle convolution is.
    dilation : int
        Of a dilated bottleneck's 3x3 convolution.
    downsample : bool
        Project with a 2x2 stride-2 convolution, max-pool the shortcut and zero-pad its channels.
    dropout : float
        Probability of spatial dropout at the end of the main branch.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kind: Literal["regular", "dilated", "asymmetric"] = "regular",
        *,
        dilation: int = 1,
        downsample: bool = False,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        inner = out_channels // 4
        stride = 2 if downsample else 1
        self.project = nn.Sequential(
            nn.Conv2d(in_channels, inner, stride, stride=stride, bias=False), _norm(inner), nn.PReLU(inner)
        )
        middle: list[nn.Module]
        if kind == "asymmetric":
            middle = [
                nn.Conv2d(inner, inner, (1, 5), padding=(0, 2), bias=False),
                nn.Conv2d(inner, inner, (5, 1), padding=(2, 0)),
            ]
        else:
            middle = [nn.Conv2d(inner, inner, 3, padding=dilation, dilation=dilation)]
        self.conv = nn.Sequential(*middle, _norm(inner), nn.PReLU(inner))
        self.expand = nn.Sequential(nn.Conv2d(inner, out_channels, 1, bias=False), _norm(out_channels))
        self.dropout = nn.Dropout2d(dropout)
        self.pool = nn.MaxPool2d(2, return_indices=True) if downsample else None
        self.extra_channels = out_channels - in_channels
        self.act = nn.PReLU(out_channels)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the block's output and, when it downsamples, the indices of its pooling."""
        indices = None
        shortcut = x
        if self.pool is not None:
            shortcut, indices = self.pool(x)
        if self.extra_channels:
            shortcut = nn.functional.pad(shortcut, (0, 0, 0, 0, 0, self.extra_channels))
        main = self.dropout(self.expand(self.conv(self.project(x))))
        return self.act(main + shortcut), indices


class DecoderBottleneck(nn.Module):
    """Decoder bottleneck at constant resolution: ReLU, no dropout."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = channels // 4
        self.project = nn.Sequential(nn.Conv2d(channels, inner, 1, bias=False), _norm(inner), nn.ReLU())
        self.conv = nn.Sequential(nn.Conv2d(inner, inner, 3, padding=1), _norm(inner), nn.ReLU())
        self.expand = nn.Sequential(nn.Conv2d(inner, channels, 1, bias=False), _norm(channels))
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output, of its input's shape."""
        return self.act(self.expand(self.conv(self.project(x))) + x)


class UpsamplingBottleneck(nn.Module):
    """Decoder bottleneck that doubles the resolution: transposed convolution beside max-unpooling."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        inner = out_channels // 4
        self.project = nn.Sequential(nn.Conv2d(in_channels, inner, 1, bias=False), _norm(inner), nn.ReLU())
        self.conv = nn.Sequential(
            nn.ConvTranspose2d(inner, inner, 3, stride=2, padding=1, output_padding=1), _norm(inner), nn.ReLU()
        )
        self.expand = nn.Sequential(nn.Conv2d(inner, out_channels, 1, bias=False), _norm(out_channels))
        self.shortcut = nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, bias=False), _norm(out_channels))
        self.unpool = nn.MaxUnpool2d(2)
        self.act = nn.ReLU()

    def forward(self, x: Tensor, indices: Tensor) -> Tensor:
        """Return the block's output at twice the height and width, unpooled by the encoder's `indices`."""
        return self.act(self.expand(self.conv(self.project(x))) + self.unpool(self.shortcut(x), indices))


class ENet(nn.Module):
    """ENet: an encoder that reduces the picture 8 times and a small decoder that restores its size.

    Parameters
    ----------
    num_classes : int
        Number of output channels.

    Notes
    -----
    Input is N x 3 x H x W float32, normalised; H and W must be divisible by 8. Output is the
    N x num_classes x H x W float32 logits. Sub-modules are named after table 1 of the paper.
    """

    name = "enet"
    encoder_channels = 128
    decoder_layers = ("bottleneck4_0", "bottleneck4_1", "bottleneck4_2", "bottleneck5_0", "bottleneck5_1", "fullconv")
    """What follows the encoder's output, N x encoder_channels x H/8 x W/8."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.initial = InitialBlock()
        self.bottleneck1_0 = Bottleneck(16, 64, downsample=True, dropout=0.01)
        for i in range(1, 5):
            self.add_module(f"bottleneck1_{i}", Bottleneck(64, 64, dropout=0.01))
        self.bottleneck2_0 = Bottleneck(64, 128, downsample=True)
        for stage in (2, 3):
            for i, block in enumerate(_constant_resolution_stage(), start=1):
                self.add_module(f"bottleneck{stage}_{i}", block)
        self.bottleneck4_0 = UpsamplingBottleneck(128, 64)
        self.bottleneck4_1 = DecoderBottleneck(64)
        self.bottleneck4_2 = DecoderBottleneck(64)
        self.bottleneck5_0 = UpsamplingBottleneck(64, 16)
        self.bottleneck5_1 = DecoderBottleneck(16)
        self.fullconv = nn.ConvTranspose2d(16, num_classes, 2, stride=2)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the encoder's output (N x 128 x H/8 x W/8) and the indices of its two poolings."""
        x, indices1 = self.bottleneck1_0(self.initial(x))
        for i in range(1, 5):
            x, _ = self.get_submodule(f"bottleneck1_{i}")(x)
        x, indices2 = self.bottleneck2_0(x)
        for stage in (2, 3):
            for i in range(1, 9):
                x, _ = self.get_submodule(f"bottleneck{stage}_{i}")(x)
        return x, indices1, indices2

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits, N x num_classes x H x W."""
        x, indices1, indices2 = self.encode(x)
        x = self.bottleneck4_0(x, indices2)
        x = self.bottleneck4_2(self.bottleneck4_1(x))
        x = self.bottleneck5_0(x, indices1)
        return self.fullconv(self.bottleneck5_1(x))


def _constant_resolution_stage() -> list[Bottleneck]:
    """Return the eight bottlenecks that stages 2 and 3 share (paper, table 1)."""
    return [
        Bottleneck(128, 128),
        Bottleneck(128, 128, "dilated", dilation=2),
        Bottleneck(128, 128, "asymmetric"),
        Bottleneck(128, 128, "dilated", dilation=4),
        Bottleneck(128, 128),
        Bottleneck(128, 128, "dilated", dilation=8),
        Bottleneck(128, 128, "asymmetric"),
        Bottleneck(128, 128, "dilated", dilation=16),
    ]
