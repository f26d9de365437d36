"""MobileNets (Howard et al., 2017; Sandler et al., 2018), read from 8-bit files and computed with real numbers.

What 8 bits cannot say, more than 6 after a ReLU6 for instance, is clamped. Nothing is rounded, so that the networks
have gradients, and logits are not clamped, so that these do not vanish where the network is sure.
"""

from collections.abc import Sequence
from itertools import zip_longest

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from uaplib.models import originals, tflite

_BACKGROUND = 1  # the files' first class, which is no class of ImageNet
# Outputs, for width 1, and stride of each separable block of version 1.
_SEPARABLE = (
    (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2),
    (512, 1), (512, 1), (512, 1), (512, 1), (512, 1), (1024, 2), (1024, 1),
)  # fmt: skip
# Of version 2, as in its paper's table 2: how much blocks widen, their outputs, their number, the first one's stride.
_INVERTED = (
    (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
)  # fmt: skip
_FILES = {  # of version 1, by width; width 1 comes in two parts
    1.0: ("mobilenet_v1_1.0_224_quant_embedding_extractor", "mobilenet_quant_v1_224_head_layers"),
    0.75: ("mobilenet_v1_0.75_192_quant",),
    0.5: ("mobilenet_v1_0.5_160_quant",),
    0.25: ("mobilenet_v1_0.25_128_quant",),
}


class SameConv2d(nn.Conv2d):
    """A convolution with TensorFlow's padding SAME: ceil(size / stride) outputs.

    The odd row and column of zeros come below and on the right.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return maps (N, K, ceil(H / stride), ceil(W / stride))."""
        padding = []
        for size, kernel, stride in zip(x.shape[:1:-1], self.kernel_size[::-1], self.stride[::-1], strict=True):
            missing = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            padding += [missing // 2, missing - missing // 2]
        return super().forward(F.pad(x, padding))


class Unit(nn.Sequential):
    """A convolution with batch normalisation folded in, and the range of its output: 0 to 6 is ReLU6."""

    def __init__(self, inputs: int, outputs: int, size: int, stride: int = 1, groups: int = 1):
        super().__init__(SameConv2d(inputs, outputs, size, stride, groups=groups), nn.Hardtanh(0, 6))


class Sum(nn.Module):
    """A sum of two maps, and its range."""

    def __init__(self):
        super().__init__()
        self.range = nn.Hardtanh(0, 6)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the clamped sum."""
        return self.range(x + y)


class SeparableBlock(nn.Module):
    """A depthwise convolution, which filters each channel by itself, and a pointwise one, which mixes them."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.depthwise, self.pointwise = Unit(inputs, inputs, 3, stride, groups=inputs), Unit(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return maps (N, outputs, ceil(H / stride), ceil(W / stride))."""
        return self.pointwise(self.depthwise(x))


class InvertedResidual(nn.Module):
    """Widen, filter each channel, narrow without ReLU6, and add the input where the sizes agree."""

    def __init__(self, inputs: int, outputs: int, stride: int, factor: int):
        super().__init__()
        wide = factor * inputs
        self.expand = Unit(inputs, wide, 1) if factor > 1 else nn.Identity()
        self.depthwise, self.project = Unit(wide, wide, 3, stride, groups=wide), Unit(wide, outputs, 1)
        self.sum = Sum() if stride == 1 and inputs == outputs else None

    def forward(self, x: Tensor) -> Tensor:
        """Return maps (N, outputs, ceil(H / stride), ceil(W / stride))."""
        y = self.project(self.depthwise(self.expand(x)))
        return self.sum(x, y) if self.sum else y


class MobileNet(nn.Module):
    """Convolutions and blocks, an average, and a linear classifier."""

    def __init__(self, features: Sequence[nn.Module], width: int):
        super().__init__()
        self.features, self.average = nn.Sequential(*features), nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(width, 1000)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, 1000) of images (N, 3, H, W), RGB in [-1, 1]."""
        return self.classifier(self.average(self.features(x)).flatten(1))


def mobilenet_v1(width: float = 1.0) -> MobileNet:
    """Return MobileNet, its layers `width` (1, 0.75, 0.5 or 0.25) times as wide as the paper's, with its weights.

    Raises what `originals.find` and `tflite.layers` raise, and ValueError for another width and for a file of another
    network.
    """
    if width not in _FILES:
        raise ValueError(f"width must be one of {', '.join(map(str, _FILES))}, not {width}")
    network = build_v1(width)
    _read(network, _FILES[width])
    return network


def mobilenet_v2() -> MobileNet:
    """Return MobileNet 2 with its weights; raises as `mobilenet_v1` does."""
    network = build_v2()
    _read(network, ("mobilenet_v2_1.0_224_quant",))
    return network


def build_v1(width: float) -> MobileNet:
    """Return MobileNet of this width without its weights."""
    inputs = int(32 * width)
    features = [Unit(3, inputs, 3, stride=2)]
    for outputs, stride in _SEPARABLE:
        features.append(SeparableBlock(inputs, int(outputs * width), stride))
        inputs = int(outputs * width)
    return MobileNet(features, inputs)


def build_v2() -> MobileNet:
    """Return MobileNet 2 without its weights."""
    inputs = 32
    features = [Unit(3, inputs, 3, stride=2)]
    for factor, outputs, count, stride in _INVERTED:
        for number in range(count):
            features.append(InvertedResidual(inputs, outputs, 1 if number else stride, factor))
            inputs = outputs
    return MobileNet([*features, Unit(inputs, 1280, 1)], 1280)


def _read(network: MobileNet, names: Sequence[str]) -> None:
    paths = originals.find(*(f"mobilenet/{name}.tflite" for name in names))
    fill(network, [layer for path in paths for layer in tflite.layers(path)], " and ".join(map(str, paths)))


@torch.no_grad()
def fill(network: MobileNet, layers: Sequence[tflite.Layer], where: str) -> None:
    """Fill the network with layers that were read; raises ValueError when they are not its own, saying `where`."""
    parts = [module for module in network.features.modules() if isinstance(module, Unit | Sum)]
    _compare(network, parts, layers, where)
    for part, layer in zip(parts, layers, strict=False):  # the last layer is the classifier
        last = part.range if isinstance(part, Sum) else part[1]
        last.min_val, last.max_val = layer.low, layer.high
        if isinstance(part, Unit):
            part[0].weight.copy_(layer.weight)
            part[0].bias.copy_(layer.bias)
    network.classifier.weight.copy_(layers[-1].weight[_BACKGROUND:, :, 0, 0])
    network.classifier.bias.copy_(layers[-1].bias[_BACKGROUND:])


def _compare(network: MobileNet, parts: Sequence[nn.Module], layers: Sequence[tflite.Layer], where: str) -> None:
    """Refuse layers of another network."""
    outputs, inputs = network.classifier.weight.shape
    wanted = [*(_module_in_words(part) for part in parts), _in_words((outputs + _BACKGROUND, inputs, 1, 1), 1)]
    found = ["a sum" if layer.weight is None else _in_words(layer.weight.shape, layer.stride) for layer in layers]
    for number, (have, want) in enumerate(zip_longest(found, wanted, fillvalue="nothing")):
        if have != want:
            raise ValueError(f"{where} holds another network: layer {number} is {have}, and should be {want}")


def _module_in_words(part: nn.Module) -> str:
    return "a sum" if isinstance(part, Sum) else _in_words(part[0].weight.shape, part[0].stride[0])


def _in_words(shape: Sequence[int], stride: int) -> str:
    return f"a convolution {' x '.join(map(str, shape))} at stride {stride}"
