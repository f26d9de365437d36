"""Networks of Caffe's model zoo, read from files of raw numbers: GoogLeNet and SqueezeNet 1.1.

Every layer has a file of filters (output, height, width, input) and one of biases, float32, little endian. Caffe takes
images in the order blue, green, red, from 0 to 255, less a mean. Here `Normalized` subtracts, in the order red, green,
blue, and the input channels of the first filter are turned around when it is read.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from uaplib.models import originals


def _unit(inputs: int, outputs: int, size: int, stride: int = 1, padding: int = 0) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, size, stride, padding), nn.ReLU())


class Pool(nn.MaxPool2d):
    """Caffe's pooling 3 x 3 at stride 2: at the right and below, the last window may stick out."""

    def __init__(self):
        super().__init__(3, stride=2, ceil_mode=True)


class ResponseNorm(nn.Module):
    """Response normalisation across five channels (Krizhevsky et al., 2012), with GoogLeNet's constants.

    y = x / t^0.75 with t = 1 + 1e-4 * (mean square of the five channels around each). The same as
    `nn.LocalResponseNorm(5, 1e-4, 0.75, 1.0)`, but a step of DeepFool on GoogLeNet takes a quarter less
    time (`benchmarks/steps.py`). It has first derivatives only.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (N, C, H, W)."""
        return _Normalise.apply(x)


_REACH, _SHARE, _EXPONENT = 2, 1e-4 / 5, 0.75


class _Normalise(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        t = 1 + _SHARE * _over_channels(x * x)
        shrink = t.pow(-_EXPONENT)
        y = x * shrink
        saved = x, shrink, 2 * _SHARE * _EXPONENT * y / t
        ctx.save_for_backward(*saved)
        ctx.save_for_forward(*saved)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> Tensor:
        x, shrink, neighbours = ctx.saved_tensors
        return gradient * shrink - x * _over_channels(gradient * neighbours)

    @staticmethod
    def jvp(ctx, tangent: Tensor) -> Tensor:
        x, shrink, neighbours = ctx.saved_tensors
        return tangent * shrink - neighbours * _over_channels(x * tangent)


def _over_channels(x: Tensor) -> Tensor:
    """For each channel the sum of itself and of its neighbours on either side."""
    total = x.clone()
    for distance in range(1, _REACH + 1):
        total[:, distance:] += x[:, :-distance]
        total[:, :-distance] += x[:, distance:]
    return total


class Inception(nn.Module):
    """Inception module (Szegedy et al., 2015): four branches side by side; the parts have the names of Caffe's layers.

    widths: outputs of the 1x1 branch; of the reduction and the convolution of the 3x3 branch; the same of the 5x5
    branch; and of the projection after pooling.
    """

    def __init__(self, inputs: int, widths: Sequence[int]):
        super().__init__()
        one, reduce3, three, reduce5, five, projection = widths
        self.conv1x1 = _unit(inputs, one, 1)
        self.conv3x3_reduce, self.conv3x3 = _unit(inputs, reduce3, 1), _unit(reduce3, three, 3, padding=1)
        self.conv5x5_reduce, self.conv5x5 = _unit(inputs, reduce5, 1), _unit(reduce5, five, 5, padding=2)
        self.pool, self.pool_proj = nn.MaxPool2d(3, stride=1, padding=1), _unit(inputs, projection, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Concatenate the four branches along the channels."""
        three, five = self.conv3x3(self.conv3x3_reduce(x)), self.conv5x5(self.conv5x5_reduce(x))
        return torch.cat([self.conv1x1(x), three, five, self.pool_proj(self.pool(x))], dim=1)


_INCEPTIONS = {
    "3a": (64, 96, 128, 16, 32, 32), "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64), "4b": (160, 112, 224, 24, 64, 64), "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64), "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128), "5b": (384, 192, 384, 48, 128, 128),
}  # fmt: skip


class GoogLeNet(nn.Module):
    """GoogLeNet as Caffe's model zoo has it, the network of the papers' tables, without the auxiliary heads.

    The names of its parts are torchvision's, so `uaplib.features.paper_layers` fits.
    """

    def __init__(self):
        super().__init__()
        self.conv1 = _unit(3, 64, 7, stride=2, padding=3)
        self.conv2, self.conv3 = _unit(64, 64, 1), _unit(64, 192, 3, padding=1)
        self.norm, self.pool = ResponseNorm(), Pool()
        inputs = 192
        for name, widths in _INCEPTIONS.items():
            setattr(self, f"inception{name}", Inception(inputs, widths))
            one, _, three, _, five, projection = widths
            inputs = one + three + five + projection
        self.average, self.classifier = nn.AdaptiveAvgPool2d(1), nn.Linear(inputs, 1000)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, 1000) of images (N, 3, H, W), RGB from 0 to 255, less the mean."""
        x = self.norm(self.pool(self.conv1(x)))
        x = self.pool(self.norm(self.conv3(self.conv2(x))))
        x = self.pool(self.inception3b(self.inception3a(x)))
        x = self.inception4d(self.inception4c(self.inception4b(self.inception4a(x))))
        x = self.pool(self.inception4e(x))
        x = self.inception5b(self.inception5a(x))
        return self.classifier(self.average(x).flatten(1))


class Fire(nn.Module):
    """Fire module (Iandola et al., 2016): one layer squeezes the channels, two side by side widen them."""

    def __init__(self, inputs: int, squeezed: int, expanded: int):
        super().__init__()
        self.squeeze1x1 = _unit(inputs, squeezed, 1)
        self.expand1x1, self.expand3x3 = _unit(squeezed, expanded, 1), _unit(squeezed, expanded, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return twice `expanded` channels."""
        x = self.squeeze1x1(x)
        return torch.cat([self.expand1x1(x), self.expand3x3(x)], dim=1)


class SqueezeNet(nn.Module):
    """SqueezeNet 1.1 as its authors released it for Caffe: a ReLU comes before the average of the class maps."""

    def __init__(self):
        super().__init__()
        self.conv1, self.pool = _unit(3, 64, 3, stride=2), Pool()
        self.fire2, self.fire3 = Fire(64, 16, 64), Fire(128, 16, 64)
        self.fire4, self.fire5 = Fire(128, 32, 128), Fire(256, 32, 128)
        self.fire6, self.fire7 = Fire(256, 48, 192), Fire(384, 48, 192)
        self.fire8, self.fire9 = Fire(384, 64, 256), Fire(512, 64, 256)
        self.conv10, self.average = _unit(512, 1000, 1), nn.AdaptiveAvgPool2d(1)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, 1000), none of them negative, of images as for `GoogLeNet`."""
        x = self.pool(self.conv1(x))
        x = self.pool(self.fire3(self.fire2(x)))
        x = self.pool(self.fire5(self.fire4(x)))
        x = self.fire9(self.fire8(self.fire7(self.fire6(x))))
        return self.average(self.conv10(x)).flatten(1)


def googlenet() -> GoogLeNet:
    """Return GoogLeNet with the weights of Caffe's model zoo. Raises what `originals.find` raises."""
    network = GoogLeNet()
    stem = {"conv1/7x7_s2": network.conv1, "conv2/3x3_reduce": network.conv2, "conv2/3x3": network.conv3}
    layers = {name: unit[0] for name, unit in stem.items()} | {"loss3/classifier": network.classifier}
    for name in _INCEPTIONS:
        layers |= _convolutions(getattr(network, f"inception{name}"), f"inception_{name}")
    return _filled(network, layers, "bvlc_googlenet/weights")


def squeezenet() -> SqueezeNet:
    """Return SqueezeNet 1.1 with its authors' weights. Raises what `originals.find` raises."""
    network = SqueezeNet()
    layers = {"conv1": network.conv1[0], "conv10": network.conv10[0]}
    for number in range(2, 10):
        layers |= _convolutions(getattr(network, f"fire{number}"), f"fire{number}")
    return _filled(network, layers, "squeezenet/weights")


def _convolutions(block: nn.Module, name: str) -> dict[str, nn.Conv2d]:
    """The convolutions of a block by Caffe's names; Python's must not begin with a digit."""
    units = {part: unit for part, unit in block.named_children() if isinstance(unit, nn.Sequential)}
    return {f"{name}/{part.removeprefix('conv')}": unit[0] for part, unit in units.items()}


@torch.no_grad()
def _filled(network: GoogLeNet | SqueezeNet, layers: Mapping[str, nn.Module], folder: str) -> nn.Module:
    """The network, with the two files of every layer read."""
    places = [f"{folder}/{name}_{part}.bin" for name in layers for part in ("filter", "bias")]
    paths = iter(originals.find(*places))
    for layer in layers.values():
        layer.weight.copy_(filters(next(paths), layer.weight.shape))
        layer.bias.copy_(numbers(next(paths), layer.bias.shape))
    first = network.conv1[0]
    first.weight.copy_(first.weight.flip(1))  # it was for blue, green, red
    return network


def filters(path: Path, shape: Sequence[int]) -> Tensor:
    """Return the filters (output, input, height, width), or the matrix (output, input), of a file in Caffe's layout.

    Raises ValueError when the file does not hold as many numbers.
    """
    outputs, inputs, *size = shape
    values = numbers(path, (outputs, *size, inputs))
    return values.permute(0, 3, 1, 2) if size else values


def numbers(path: Path, shape: Sequence[int]) -> Tensor:
    """Return the numbers of a file of nothing but float32; raises ValueError for another size."""
    found, wanted = path.stat().st_size, 4 * torch.Size(shape).numel()
    if found != wanted:
        raise ValueError(f"{path} has {found:,} bytes, and the layer's numbers, {tuple(shape)}, need {wanted:,}")
    return torch.from_numpy(np.fromfile(path, "<f4").astype(np.float32)).view(*shape)
