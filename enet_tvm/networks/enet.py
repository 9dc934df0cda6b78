"""ENet (Paszke, Chaurasia, Kim, Culurciello, 2016, arXiv 1606.02147), as the paper and its authors' code define it.

Where the paper is silent the authors' Torch code (``e-lab/ENet-training``, ``train/models``) decides:

* the internal width of a bottleneck is a quarter of its *output* width, also when it downsamples;
* asymmetric bottlenecks apply the horizontal convolution first and give it no bias;
* batch normalisation has ``eps = 1e-3``; Torch 7's default momentum of 0.1 is PyTorch's too;
* the encoder's non-linearities are PReLU with a slope per channel, the decoder's are ReLU;
* the decoder has no dropout, and max-unpools with the window indices of the encoder's pooling.

Others decided differently; what they did is an `ENetVariant`.
"""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor, nn

from enet_tvm.networks.base import SegmentationNetwork
from enet_tvm.networks.concatenated import ConvolutionBesidePooling
from enet_tvm.networks.variant import PAPER, Activation, ENetVariant

BN_EPS = PAPER.epsilon


def _norm(channels: int, variant: ENetVariant) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=variant.epsilon)


def _act(kind: Activation, channels: int, variant: ENetVariant) -> nn.Module:
    if kind == "relu":
        return nn.ReLU()
    return nn.PReLU(channels if variant.slopes == "channel" else 1)


def _dropout(probability: float) -> nn.Module:
    return nn.Dropout2d(probability) if probability else nn.Identity()


def _inner(in_channels: int, out_channels: int, variant: ENetVariant) -> int:
    """Return the width inside a bottleneck."""
    return (out_channels if variant.inner_width == "output" else in_channels) // 4


def _expansion(inner: int, out_channels: int, kind: Activation, variant: ENetVariant) -> nn.Sequential:
    layers = [nn.Conv2d(inner, out_channels, 1, bias=False), _norm(out_channels, variant)]
    if variant.activate_expansion:
        layers.append(_act(kind, out_channels, variant))
    return nn.Sequential(*layers)


class InitialBlock(ConvolutionBesidePooling):
    """3x3 stride-2 convolution beside 2x2 max pooling of the picture, concatenated (paper, figure 2a).

    Parameters
    ----------
    in_channels, out_channels : int
        Channels of the picture and of the block; the convolution makes their difference.
    variant : ENetVariant
    """

    def __init__(self, in_channels: int = 3, out_channels: int = 16, variant: ENetVariant = PAPER) -> None:
        super().__init__(
            nn.Conv2d(in_channels, out_channels - in_channels, 3, stride=2, padding=1, bias=variant.biases),
            nn.MaxPool2d(2) if variant.initial_pool == 2 else nn.MaxPool2d(3, stride=2, padding=1),
            _norm(out_channels, variant),
            _act(variant.encoder_activation, out_channels, variant),
        )


class Bottleneck(nn.Module):
    """Encoder bottleneck (paper, figure 2b): project, convolve, expand, add the shortcut.

    Parameters
    ----------
    in_channels, out_channels : int
        Channels of the input and of the output; the inner width is ``out_channels // 4`` in the paper's variant.
    kind : {"regular", "dilated", "asymmetric"}
        Kind of the middle convolution.
    dilation : int
        Dilation of the middle 3x3 convolution; without effect on the kind "asymmetric".
    downsample : bool
        Whether to halve height and width: a 2x2 stride-2 projection, and max pooling of the shortcut.
    dropout : float
        Probability of spatial dropout at the end of the main branch.
    variant : ENetVariant
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
        variant: ENetVariant = PAPER,
    ) -> None:
        super().__init__()
        inner = _inner(in_channels, out_channels, variant)
        stride = 2 if downsample else 1

        def activated() -> list[nn.Module]:
            return [_norm(inner, variant), _act(variant.encoder_activation, inner, variant)]

        self.project = nn.Sequential(nn.Conv2d(in_channels, inner, stride, stride=stride, bias=False), *activated())
        middle: list[nn.Module]
        if kind == "asymmetric":
            kernels = [(1, 5), (5, 1)] if variant.asymmetric_first == "horizontal" else [(5, 1), (1, 5)]
            paddings = [(rows // 2, columns // 2) for rows, columns in kernels]
            between = activated() if variant.normalise_between else []
            middle = [
                nn.Conv2d(inner, inner, kernels[0], padding=paddings[0], bias=False),
                *between,
                nn.Conv2d(inner, inner, kernels[1], padding=paddings[1], bias=variant.biases),
            ]
        else:
            middle = [nn.Conv2d(inner, inner, 3, padding=dilation, dilation=dilation, bias=variant.biases)]
        self.conv = nn.Sequential(*middle, *activated())
        self.expand = _expansion(inner, out_channels, variant.encoder_activation, variant)
        self.dropout = nn.Dropout2d(dropout)
        self.pool = nn.MaxPool2d(2, return_indices=True) if downsample else None
        self.extra_channels = out_channels - in_channels
        self.act = _act(variant.encoder_activation, out_channels, variant)

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
    """Decoder bottleneck at constant resolution; in the paper's variant with ReLU and without dropout."""

    def __init__(self, channels: int, variant: ENetVariant = PAPER) -> None:
        super().__init__()
        inner, kind = channels // 4, variant.decoder_activation
        self.project = nn.Sequential(
            nn.Conv2d(channels, inner, 1, bias=False), _norm(inner, variant), _act(kind, inner, variant)
        )
        self.conv = nn.Sequential(
            nn.Conv2d(inner, inner, 3, padding=1, bias=variant.biases), _norm(inner, variant), _act(kind, inner, variant)
        )
        self.expand = _expansion(inner, channels, kind, variant)
        self.dropout = _dropout(variant.decoder_dropout)
        self.act = _act(kind, channels, variant)

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output, of its input's shape."""
        return self.act(self.dropout(self.expand(self.conv(self.project(x)))) + x)


class UpsamplingBottleneck(nn.Module):
    """Decoder bottleneck that doubles the resolution: transposed convolution beside max-unpooling."""

    def __init__(self, in_channels: int, out_channels: int, variant: ENetVariant = PAPER) -> None:
        super().__init__()
        inner, kind = _inner(in_channels, out_channels, variant), variant.decoder_activation
        self.project = nn.Sequential(
            nn.Conv2d(in_channels, inner, 1, bias=False), _norm(inner, variant), _act(kind, inner, variant)
        )
        self.conv = nn.Sequential(
            _doubling(inner, inner, variant.upsampling_kernel, variant), _norm(inner, variant), _act(kind, inner, variant)
        )
        self.expand = nn.Sequential(nn.Conv2d(inner, out_channels, 1, bias=False), _norm(out_channels, variant))
        self.dropout = _dropout(variant.decoder_dropout)
        self.shortcut = nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, bias=False), _norm(out_channels, variant))
        self.unpool = nn.MaxUnpool2d(2)
        self.act = _act(kind, out_channels, variant)

    def forward(self, x: Tensor, indices: Tensor) -> Tensor:
        """Return the block's output at twice the height and width, unpooled by the encoder's `indices`."""
        main = self.dropout(self.expand(self.conv(self.project(x))))
        return self.act(main + self.unpool(self.shortcut(x), indices))


def _doubling(in_channels: int, out_channels: int, kernel: int, variant: ENetVariant) -> nn.ConvTranspose2d:
    """Return a transposed convolution that doubles the resolution."""
    outside = 1 if kernel == 3 else 0
    return nn.ConvTranspose2d(
        in_channels, out_channels, kernel, stride=2, padding=outside, output_padding=outside, bias=variant.biases
    )


class ENet(SegmentationNetwork):
    """ENet: an encoder that reduces the picture 8 times and a small decoder that restores its size.

    Parameters
    ----------
    num_classes : int
        Number of output channels.
    variant : ENetVariant
        Options of the implementation; the paper's by default.

    Notes
    -----
    Input is N x 3 x H x W float32, normalised; H and W must be divisible by 8. Output is the
    N x num_classes x H x W float32 logits. Sub-modules are named after table 1 of the paper.
    """

    name = "enet"

    def __init__(self, num_classes: int, variant: ENetVariant = PAPER) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.variant = variant
        self.initial = InitialBlock(variant=variant)
        self.bottleneck1_0 = Bottleneck(16, 64, downsample=True, dropout=0.01, variant=variant)
        for i in range(1, 5):
            self.add_module(f"bottleneck1_{i}", Bottleneck(64, 64, dropout=0.01, variant=variant))
        self.bottleneck2_0 = Bottleneck(64, 128, downsample=True, variant=variant)
        for stage in (2, 3):
            for i, block in enumerate(_constant_resolution_stage(variant), start=1):
                self.add_module(f"bottleneck{stage}_{i}", block)
        self.bottleneck4_0 = UpsamplingBottleneck(128, 64, variant)
        self.bottleneck4_1 = DecoderBottleneck(64, variant)
        self.bottleneck4_2 = DecoderBottleneck(64, variant)
        self.bottleneck5_0 = UpsamplingBottleneck(64, 16, variant)
        self.bottleneck5_1 = DecoderBottleneck(16, variant)
        self.fullconv = _doubling(16, num_classes, variant.head_kernel, variant)

    def variant_json(self) -> dict[str, Any]:
        """Return the options of `ENetVariant` that are not the paper's."""
        return self.variant.to_json()

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


def _constant_resolution_stage(variant: ENetVariant) -> list[Bottleneck]:
    """Return the eight bottlenecks that stages 2 and 3 share (paper, table 1)."""
    return [
        Bottleneck(128, 128, variant=variant),
        Bottleneck(128, 128, "dilated", dilation=2, variant=variant),
        Bottleneck(128, 128, "asymmetric", variant=variant),
        Bottleneck(128, 128, "dilated", dilation=4, variant=variant),
        Bottleneck(128, 128, variant=variant),
        Bottleneck(128, 128, "dilated", dilation=8, variant=variant),
        Bottleneck(128, 128, "asymmetric", variant=variant),
        Bottleneck(128, 128, "dilated", dilation=16, variant=variant),
    ]
