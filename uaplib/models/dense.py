"""Networks that say something about every pixel: two encoder-decoders for segmentation and depth.

They take normalised images (N, 3, H, W) of any size from 32 x 32 on and return maps (N, K, H, W) of the same size.
"""

import importlib

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from uaplib.models import registry


class Block(nn.Module):
    """Two 3x3 convolutions, each with batch normalisation and a rectifier; the first may stride."""

    def __init__(self, inputs: int, width: int, stride: int = 1):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(inputs, width, 3, stride, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """Apply the two convolutions."""
        return self.layers(x)


class UNet(nn.Module):
    """U-Net (Ronneberger, Fischer and Brox, 2015), small: every level strides by two, and its features skip across."""

    def __init__(self, outputs: int, widths: tuple[int, ...] = (16, 32, 64, 96, 128)):
        super().__init__()
        inputs = (3, *widths[:-1])
        self.down = nn.ModuleList(Block(a, b, stride=2) for a, b in zip(inputs, widths, strict=True))
        self.up = nn.ModuleList(
            Block(below + skip, skip) for below, skip in zip(widths[:0:-1], widths[-2::-1], strict=True)
        )
        self.head = nn.Conv2d(widths[0], outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return a map of the size of `x`."""
        size, skips = x.shape[-2:], []
        for block in self.down:
            x = block(x)
            skips.append(x)
        for block, skip in zip(self.up, reversed(skips[:-1]), strict=True):
            x = block(torch.cat([_resize(x, skip.shape[-2:]), skip], dim=1))
        return _resize(self.head(x), size)


class LiteEncoder(nn.Module):
    """The stem and the first blocks of EfficientNet-Lite0 (Tan and Le, 2019); returns the outputs of the blocks `taps`.

    Raises ImportError, saying how to get it, when the package with the architecture is not installed.
    """

    def __init__(self, taps: tuple[int, ...]):
        super().__init__()
        try:
            networks = importlib.import_module("efficientnet_lite_pytorch")
        except ImportError as error:
            raise ImportError("the encoder needs efficientnet-lite-pytorch: pip install 'uaplib[imagenet]'") from error
        whole = networks.EfficientNet.from_name("efficientnet-lite0")
        self.stem = nn.Sequential(whole._conv_stem, whole._bn0, nn.ReLU6())
        self.blocks = whole._blocks[: taps[-1] + 1]
        self.taps = taps

    def widths(self) -> list[int]:
        """Return the number of channels of each output."""
        return [self.blocks[tap]._bn2.num_features for tap in self.taps]

    def load_imagenet_weights(self) -> None:
        """Take over the weights of the ImageNet classifier. Raises ImportError when they are not installed."""
        classifier = registry.load("efficientnet-lite0").network
        self.stem[0].load_state_dict(classifier._conv_stem.state_dict())
        self.stem[1].load_state_dict(classifier._bn0.state_dict())
        self.blocks.load_state_dict(classifier._blocks[: len(self.blocks)].state_dict())

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the features of the tapped blocks, finest first."""
        x, features = self.stem(x), []
        for number, block in enumerate(self.blocks):
            x = block(x)
            if number in self.taps:
                features.append(x)
        return features


class Merge(nn.Module):
    """One step of a feature pyramid (Lin et al., 2017): a 1x1 convolution of the skip, plus what comes from below."""

    def __init__(self, skip: int, width: int):
        super().__init__()
        self.lateral = nn.Conv2d(skip, width, 1)
        self.smooth = nn.Sequential(nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU())

    def forward(self, skip: Tensor, below: Tensor | None) -> Tensor:
        """Add the enlarged features from below to the skip's and smooth the sum."""
        x = self.lateral(skip)
        return self.smooth(x if below is None else x + _resize(below, x.shape[-2:]))


class LiteFPN(nn.Module):
    """An EfficientNet-Lite0 encoder under a light feature pyramid (Lin et al., 2017)."""

    def __init__(self, outputs: int, taps: tuple[int, ...] = (2, 4, 10, 14), width: int = 64):
        super().__init__()
        self.encoder = LiteEncoder(taps)
        self.merges = nn.ModuleList(Merge(skip, width) for skip in reversed(self.encoder.widths()))
        self.head = nn.Conv2d(width, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return a map of the size of `x`."""
        size, merged = x.shape[-2:], None
        for merge, skip in zip(self.merges, reversed(self.encoder(x)), strict=True):
            merged = merge(skip, merged)
        return _resize(self.head(merged), size)


class LogDepth(nn.Module):
    """A network whose one output is read as the logarithm of depth: positive whatever it says."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Return depth (N, 1, H, W)."""
        return self.network(x).exp()


def _resize(x: Tensor, size: torch.Size) -> Tensor:
    return F.interpolate(x, size, mode="bilinear")
