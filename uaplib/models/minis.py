"""Six small networks for 28 x 28 grey images, each true to the family it is named after.

They keep what makes a family what it is (large strided first kernels, response normalisation, inception modules,
13 or 16 convolutions of 3 x 3, residual blocks) and what it lacks: only the residual network has batch
normalisation, as in the originals. Where the originals pool right after a strided first convolution, these do not: 28
pixels leave nothing to throw away. All of them take normalised images of shape (N, 1, 28, 28) and return logits of
shape (N, 10).
"""

import torch
from torch import Tensor, nn


def _head(features: int, hidden: int, num_classes: int) -> list[nn.Module]:
    """The three fully connected layers that close AlexNet-like and VGG networks."""
    return [
        nn.Flatten(),
        nn.Linear(features, hidden), nn.ReLU(), nn.Dropout(0.2),
        nn.Linear(hidden, hidden), nn.ReLU(), nn.Dropout(0.2),
        nn.Linear(hidden, num_classes),
    ]  # fmt: skip


def caffenet_mini(num_classes: int = 10) -> nn.Sequential:
    """CaffeNet (Jia et al., 2014): large strided first kernel, pooling before normalisation, grouped convolutions."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 7, stride=2, padding=3), nn.ReLU(),
        nn.Conv2d(32, 64, 5, padding=2, groups=2), nn.ReLU(), nn.MaxPool2d(3, 2, padding=1), nn.LocalResponseNorm(5),
        nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(),
        nn.Conv2d(64, 64, 3, padding=1, groups=2), nn.ReLU(),
        nn.Conv2d(64, 64, 3, padding=1, groups=2), nn.ReLU(), nn.MaxPool2d(3, 2),
        *_head(64 * 3 * 3, 128, num_classes),
    )  # fmt: skip


def vgg_f_mini(num_classes: int = 10) -> nn.Sequential:
    """VGG-F (Chatfield et al., 2014): large strided first kernel, normalisation before pooling, no groups."""
    return nn.Sequential(
        nn.Conv2d(1, 24, 7, stride=2, padding=3), nn.ReLU(), nn.LocalResponseNorm(5),
        nn.Conv2d(24, 48, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2, padding=1),
        nn.Conv2d(48, 48, 3, padding=1), nn.ReLU(),
        nn.Conv2d(48, 48, 3, padding=1), nn.ReLU(),
        nn.Conv2d(48, 48, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2),
        *_head(48 * 3 * 3, 128, num_classes),
    )  # fmt: skip


class Inception(nn.Module):
    """Inception module (Szegedy et al., 2015): 1x1, 3x3, 5x5 and pooled branches, concatenated."""

    def __init__(self, inputs: int, one: int, three: tuple[int, int], five: tuple[int, int], pool: int):
        super().__init__()
        self.one = nn.Sequential(nn.Conv2d(inputs, one, 1), nn.ReLU())
        self.three = nn.Sequential(
            nn.Conv2d(inputs, three[0], 1), nn.ReLU(), nn.Conv2d(three[0], three[1], 3, padding=1), nn.ReLU()
        )
        self.five = nn.Sequential(
            nn.Conv2d(inputs, five[0], 1), nn.ReLU(), nn.Conv2d(five[0], five[1], 5, padding=2), nn.ReLU()
        )
        self.pool = nn.Sequential(nn.MaxPool2d(3, 1, padding=1), nn.Conv2d(inputs, pool, 1), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        """Concatenate the four branches along the channels."""
        return torch.cat([self.one(x), self.three(x), self.five(x), self.pool(x)], dim=1)


def googlenet_mini(num_classes: int = 10) -> nn.Sequential:
    """GoogLeNet (Szegedy et al., 2015): a strided stem, five inception modules, global average pooling."""
    return nn.Sequential(
        nn.Conv2d(1, 24, 5, stride=2, padding=2), nn.ReLU(),
        nn.Conv2d(24, 48, 3, padding=1), nn.ReLU(),
        Inception(48, 16, (16, 32), (8, 16), 16), nn.MaxPool2d(3, 2, padding=1),
        Inception(80, 32, (24, 48), (8, 16), 16),
        Inception(112, 32, (24, 48), (8, 16), 16),
        Inception(112, 32, (32, 64), (12, 24), 24), nn.MaxPool2d(3, 2, padding=1),
        Inception(144, 64, (40, 80), (16, 32), 32),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(208, num_classes),
    )  # fmt: skip


def _vgg(convolutions_per_block: tuple[int, ...], num_classes: int) -> nn.Sequential:
    """Blocks of 3x3 convolutions, each closed by a pooling that halves the map (28, 14, 7, 4, 2, 1)."""
    layers, inputs = [], 1
    for count, width in zip(convolutions_per_block, (16, 32, 64, 64, 64), strict=True):
        for _ in range(count):
            layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.ReLU()]
            inputs = width
        layers.append(nn.MaxPool2d(2, ceil_mode=True))
    return nn.Sequential(*layers, *_head(inputs, 128, num_classes))


def vgg16_mini(num_classes: int = 10) -> nn.Sequential:
    """VGG-16 (Simonyan and Zisserman, 2015): 13 convolutions in five blocks, three fully connected layers."""
    return _vgg((2, 2, 3, 3, 3), num_classes)


def vgg19_mini(num_classes: int = 10) -> nn.Sequential:
    """VGG-19 (Simonyan and Zisserman, 2015): 16 convolutions in five blocks, three fully connected layers."""
    return _vgg((2, 2, 4, 4, 4), num_classes)


class BasicBlock(nn.Module):
    """Residual block (He et al., 2016): two 3x3 convolutions with batch normalisation, added to the input."""

    def __init__(self, inputs: int, width: int, stride: int):
        super().__init__()
        self.residual = nn.Sequential(
            nn.Conv2d(inputs, width, 3, stride, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width),
        )  # fmt: skip
        self.shortcut = nn.Identity()
        if stride != 1 or inputs != width:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, width, 1, stride, bias=False), nn.BatchNorm2d(width))
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Add the residual branch to the shortcut, then rectify."""
        return self.relu(self.residual(x) + self.shortcut(x))


def resnet_mini(num_classes: int = 10) -> nn.Sequential:
    """ResNet (He et al., 2016): a stem, six residual blocks in three stages, global average pooling."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        BasicBlock(16, 24, stride=2), BasicBlock(24, 24, stride=1),
        BasicBlock(24, 48, stride=2), BasicBlock(48, 48, stride=1),
        BasicBlock(48, 96, stride=2), BasicBlock(96, 96, stride=1),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(96, num_classes),
    )  # fmt: skip
