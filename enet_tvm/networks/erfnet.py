"""ERFNet (Romera, Álvarez, Bergasa, Arroyo, 2018, IEEE Transactions on Intelligent Transportation Systems 19(1), 263-272).

The paper, "ERFNet: Efficient Residual Factorized ConvNet for Real-Time Semantic Segmentation", cuts every 3x3 convolution
of a residual block into a 3x1 and a 1x3 one (section III-A, figure 2c: non-bottleneck-1D), puts ENet's initial block wherever
the resolution is halved, and gives the decoder plain transposed convolutions in place of unpooling by indices (section III-B,
table I). Children here have the numbers of table I's layers.

Where the paper is silent the authors' code (``Eromera/erfnet_pytorch``) decides:

* every convolution has a bias, also before a batch norm; batch normalisation has ``eps = 1e-3``;
* the non-linearity is ReLU, also between the two halves of a factorised convolution, where no norm is;
* the pair that is dilated is the second of a block; dropout is spatial, 0.03 in layers 3 to 7 and 0.3 in layers 9 to 16;
* the decoder has no dropout, and its last layer is a 2x2 transposed convolution.
"""

from __future__ import annotations

from torch import Tensor, nn

from enet_tvm.networks.base import SegmentationNetwork
from enet_tvm.networks.concatenated import ConvolutionBesidePooling

BN_EPS = 1e-3

DILATIONS = (2, 4, 8, 16, 2, 4, 8, 16)
"""Dilation of the second convolution pair of layers 9 to 16, in order."""


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=BN_EPS)


class Downsampler(ConvolutionBesidePooling):
    """3x3 stride-2 convolution beside 2x2 max pooling, concatenated (the paper, section III-B).

    Parameters
    ----------
    in_channels, out_channels : int
        Channels of the input and of the block; the convolution makes their difference.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(
            nn.Conv2d(in_channels, out_channels - in_channels, 3, stride=2, padding=1),
            nn.MaxPool2d(2),
            _norm(out_channels),
            nn.ReLU(),
        )


def _factorised(channels: int, dilation: int) -> list[nn.Module]:
    """Return a 3x3 convolution as a vertical and a horizontal one with a non-linearity between them, and its norm."""
    return [
        nn.Conv2d(channels, channels, (3, 1), padding=(dilation, 0), dilation=(dilation, 1)),
        nn.ReLU(),
        nn.Conv2d(channels, channels, (1, 3), padding=(0, dilation), dilation=(1, dilation)),
        _norm(channels),
    ]


class NonBottleneck1D(nn.Module):
    """Residual block of two factorised 3x3 convolutions at constant width (the paper, section III-A).

    Parameters
    ----------
    channels : int
        Number of channels of the input, of the output and inside.
    dilation : int
        Dilation of the second factorised convolution.
    dropout : float
        Probability of spatial dropout at the end of the main branch.
    """

    def __init__(self, channels: int, dilation: int = 1, dropout: float = 0.0) -> None:
        super().__init__()
        self.first = nn.Sequential(*_factorised(channels, 1), nn.ReLU())
        self.second = nn.Sequential(*_factorised(channels, dilation))
        self.dropout = nn.Dropout2d(dropout) if dropout else nn.Identity()
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output, of its input's shape."""
        return self.act(self.dropout(self.second(self.first(x))) + x)


def _upsampler(in_channels: int, out_channels: int) -> nn.Sequential:
    """Return a transposed convolution that doubles the resolution, with norm and activation."""
    deconvolution = nn.ConvTranspose2d(in_channels, out_channels, 3, stride=2, padding=1, output_padding=1)
    return nn.Sequential(deconvolution, _norm(out_channels), nn.ReLU())


class ERFNet(SegmentationNetwork):
    """ERFNet: an encoder of 16 layers that reduces the picture 8 times and a decoder of 7 that restores its size.

    Parameters
    ----------
    num_classes : int
        Number of output channels.

    Notes
    -----
    Input is N x 3 x H x W float32, normalised; H and W must be divisible by 8. Output is the N x num_classes x H x W
    float32 logits.
    """

    name = "erfnet"

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.downsampler1 = Downsampler(3, 16)
        self.downsampler2 = Downsampler(16, 64)
        for layer in range(3, 8):
            self.add_module(f"nonbottleneck{layer}", NonBottleneck1D(64, dropout=0.03))
        self.downsampler8 = Downsampler(64, 128)
        for layer, dilation in enumerate(DILATIONS, start=9):
            self.add_module(f"nonbottleneck{layer}", NonBottleneck1D(128, dilation, dropout=0.3))
        self.upsampler17 = _upsampler(128, 64)
        self.nonbottleneck18 = NonBottleneck1D(64)
        self.nonbottleneck19 = NonBottleneck1D(64)
        self.upsampler20 = _upsampler(64, 16)
        self.nonbottleneck21 = NonBottleneck1D(16)
        self.nonbottleneck22 = NonBottleneck1D(16)
        self.output23 = nn.ConvTranspose2d(16, num_classes, 2, stride=2)

    def encode(self, x: Tensor) -> Tensor:
        """Return the encoder's output, N x 128 x H/8 x W/8: that of layer 16."""
        return self._run(x, range(1, 17))

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits, N x num_classes x H x W."""
        return self._run(x, range(1, 24))

    def _run(self, x: Tensor, layers: range) -> Tensor:
        """Return the output of a range of layers of table I, applied to `x` in order."""
        for _, layer in list(self.named_children())[layers.start - 1 : layers.stop - 1]:
            x = layer(x)
        return x
