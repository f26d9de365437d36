"""Tiny Darknet (Redmon, 2016), a plain network of convolutions like VGG, read from Darknet's own file."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from uaplib.models import originals

_WEIGHTS, _CLASSES = "tiny-darknet/tiny.weights", "tiny-darknet/imagenet.labels.list"
_HEADER = 16  # bytes: three numbers of Darknet's version, and how many images were seen in training
# Outputs and size of the filters of each convolution; None is a pooling.
_LAYERS = (
    (16, 3), None, (32, 3), None, (16, 1), (128, 3), (16, 1), (128, 3), None,
    (32, 1), (256, 3), (32, 1), (256, 3), None, (64, 1), (512, 3), (64, 1), (512, 3), (128, 1),
)  # fmt: skip


class TinyDarknet(nn.Module):
    """Fifteen convolutions with batch normalisation and leaky ReLU, and one that gives class maps to average."""

    def __init__(self):
        super().__init__()
        layers, inputs = [], 3
        for layer in _LAYERS:
            layers.append(_unit(inputs, *layer) if layer else nn.MaxPool2d(2))
            inputs = layer[0] if layer else inputs
        self.features = nn.Sequential(*layers)
        self.classifier, self.average = nn.Conv2d(inputs, 1000, 1), nn.AdaptiveAvgPool2d(1)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, 1000) of images (N, 3, H, W), RGB in [0, 1]."""
        return self.average(self.classifier(self.features(x))).flatten(1)


def _unit(inputs: int, outputs: int, size: int) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, size, padding=size // 2, bias=False)
    # Darknet adds 1e-6 to the deviation, PyTorch to the variance: here the outputs differ by 3e-5 at most, relatively.
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs, eps=1e-6), nn.LeakyReLU(0.1))


@torch.no_grad()
def tiny_darknet() -> TinyDarknet:
    """Return Tiny Darknet with its author's weights, its classes in the order of sorted WordNet ids.

    Raises what `originals.find` raises.
    """
    weights, classes = originals.find(_WEIGHTS, _CLASSES)
    network = TinyDarknet()
    read(network, weights)
    order = _sorted_order(classes)
    network.classifier.weight.copy_(network.classifier.weight[order])
    network.classifier.bias.copy_(network.classifier.bias[order])
    return network


@torch.no_grad()
def read(network: TinyDarknet, path: Path) -> None:
    """Fill the network with the numbers of a file; raises ValueError when there are more or less than it has."""
    tensors, found = list(_in_order(network)), path.stat().st_size
    sizes = [tensor.numel() for tensor in tensors]
    if found != (wanted := _HEADER + 4 * sum(sizes)):
        raise ValueError(f"{path} has {found:,} bytes, and the numbers of Tiny Darknet need {wanted:,}")
    numbers = torch.from_numpy(np.fromfile(path, "<f4", offset=_HEADER).astype(np.float32))
    for tensor, part in zip(tensors, numbers.split(sizes), strict=True):
        tensor.copy_(part.view_as(tensor))


def _in_order(network: TinyDarknet) -> Iterator[Tensor]:
    """Parameters and buffers in the order of the file."""
    for unit in network.features:
        if isinstance(unit, nn.Sequential):
            convolution, norm, _ = unit
            yield from (norm.bias, norm.weight, norm.running_mean, norm.running_var, convolution.weight)
    yield from (network.classifier.bias, network.classifier.weight)


def _sorted_order(classes: Path) -> list[int]:
    """Where in Darknet's order of classes each class is, in the order of sorted WordNet ids, which all others have."""
    names = classes.read_text(encoding="utf-8").split()[:1000]  # ImageNet's other classes come after them
    return sorted(range(1000), key=names.__getitem__)
