"""Transformations of images that are hoped to remove a perturbation before the network sees it.

Each is a module from images (N, C, H, W) to images of the same shape and type, so that
`nn.Sequential(JPEG(75), model).eval()` is a defended network like any other. Where a transformation has no gradient
of use, its backward pass is that of the identity (BPDA: Athalye, Carlini and Wagner, 2018): an attack that knows of it
goes straight through.
"""

import io
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from uaplib.checks import check_tensor, whole
from uaplib.defences._seeds import derived_seed


class _Configured(nn.Module):
    """A module with settings, whole numbers by name.

    They are part of its state dictionary, so that networks behind different transformations have different digests
    (`uaplib.provenance.weights_sha256`), by which checkpoints and records tell one from another.
    """

    def __init__(self, **settings: int):
        super().__init__()
        self.settings = settings

    def get_extra_state(self) -> dict[str, Any]:
        """Return what this is."""
        return {"module": type(self).__name__} | self.settings

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Raise ValueError where a state dictionary is that of another module, or of other settings."""
        if state != self.get_extra_state():
            raise ValueError(f"this is {self.get_extra_state()}, and the state dictionary that of {state}")

    def extra_repr(self) -> str:
        """Write the settings."""
        return ", ".join(f"{name}={value}" for name, value in self.settings.items())


class JPEG(_Configured):
    """Compression as JPEG and back, by Pillow, at its default subsampling: colours at half the resolution.

    quality: 1 ... 100. Takes one channel (grey) or three (RGB). An image is clipped to [0, 1] and rounded to 8 bits
    first, for a file holds nothing else. The backward pass is the identity, also where an image was clipped.

    Raises ValueError for another quality, another number of channels, and images far from [0, 1].
    """

    def __init__(self, quality: int = 75):
        super().__init__(quality=_within("quality", quality, 1, 100))

    def forward(self, images: Tensor) -> Tensor:
        """Return the decoded files, multiples of 1/255, (N, C, H, W)."""
        _check(images)
        if images.shape[1] not in (1, 3):
            raise ValueError(f"JPEG takes images of 1 channel (grey) or 3 (RGB), not of {images.shape[1]}")
        levels = (255 * images.detach().clamp(0, 1)).round().to("cpu", torch.uint8)
        decoded = np.stack([self._decoded(image) for image in levels])
        decoded = torch.from_numpy(decoded).view(len(images), *images.shape[2:], -1).permute(0, 3, 1, 2)
        return _straight_through(images, decoded.to(images) / 255)

    def _decoded(self, levels: Tensor) -> np.ndarray:
        """What is left of an image (C, H, W) of 8 bits: (H, W), or (H, W, 3)."""
        with io.BytesIO() as file:
            picture = Image.fromarray(levels.permute(1, 2, 0).squeeze(-1).numpy())
            picture.save(file, "JPEG", quality=self.settings["quality"])
            return np.array(Image.open(file))


class BitDepth(_Configured):
    """Rounding to 2^bits equally spaced values from 0 to 1 (Xu, Evans and Qi, 2018).

    bits: 1 ... 8. An image is clipped to [0, 1] first. The backward pass is the identity, also where it was clipped.
    Raises ValueError for other bits, and images far from [0, 1].
    """

    def __init__(self, bits: int = 4):
        super().__init__(bits=_within("bits", bits, 1, 8))

    def forward(self, images: Tensor) -> Tensor:
        """Return the rounded images, (N, C, H, W)."""
        _check(images)
        highest = 2 ** self.settings["bits"] - 1
        return _straight_through(images, (highest * images.detach().clamp(0, 1)).round() / highest)


class MedianFilter(_Configured):
    """The median over size x size pixels around each, channel by channel; beyond the border the nearest pixel counts.

    size: odd. What leaves [0, 1] is not clipped. The backward pass is the true one: a median is one of its pixels,
    and the gradient goes there. It exists almost everywhere and says which pixels matter, which the identity does not;
    among equal pixels PyTorch chooses one. Raises ValueError for an even size, and images far from [0, 1].
    """

    def __init__(self, size: int = 3):
        size = whole(size=size)["size"]
        if size < 1 or size % 2 == 0:
            raise ValueError(f"size must be odd and at least 1, or the median has no pixel in its middle, not {size}")
        super().__init__(size=size)

    def forward(self, images: Tensor) -> Tensor:
        """Return the medians, (N, C, H, W)."""
        _check(images)
        size = self.settings["size"]
        padded = F.pad(images, [size // 2] * 4, mode="replicate")
        return padded.unfold(2, size, 1).unfold(3, size, 1).flatten(-2).median(-1).values


class RandomResizePad(_Configured):
    """Each image at a random smaller size, at a random place on black (Xie et al., 2018).

    The paper enlarges; here the shape stays, so an image of H x W becomes one of H - k rows, k drawn from 0 ... shrink,
    with its proportions kept to a pixel, by the nearest pixel. What leaves [0, 1] is not clipped. The backward pass is
    the true one: every pixel was one of the image, or black.

    shrink: rows to take away at most. seed: of all that is drawn, 0 ... 2^64 - 1; PyTorch's own generator is neither
    used nor changed. Each call draws anew, for each image; `restart` begins again with the first draw. No checkpoint
    knows how many calls there were. Raises ValueError for a shrink that leaves nothing of an image, and images far from
    [0, 1].
    """

    def __init__(self, shrink: int = 3, seed: int = 0):
        super().__init__(shrink=_within("shrink", shrink, 1, 2**31), seed=_within("seed", seed, 0, 2**64 - 1))
        self.calls = 0

    def restart(self) -> None:
        """Draw from now on what was drawn first."""
        self.calls = 0

    def forward(self, images: Tensor) -> Tensor:
        """Return the images, smaller on black, (N, C, H, W)."""
        _check(images)
        count, channels, height, width = images.shape
        if self.settings["shrink"] >= height:
            raise ValueError(f"shrink={self.settings['shrink']} leaves nothing of images of {height} rows")
        generator = torch.Generator().manual_seed(derived_seed(self.settings["seed"], self.calls))
        self.calls += 1
        heights = height - torch.randint(self.settings["shrink"] + 1, (count,), generator=generator)
        widths = (heights * width / height).round().long().clamp_min(1)
        rows, in_rows = _origins(heights, height, generator)
        columns, in_columns = _origins(widths, width, generator)
        inside = (in_rows[:, None, :, None] & in_columns[:, None, None, :]).to(images.device)
        numbers, colours = torch.arange(count).view(-1, 1, 1, 1), torch.arange(channels).view(-1, 1, 1)
        nearest = images[numbers, colours, rows[:, None, :, None], columns[:, None, None, :]]
        return torch.where(inside, nearest, 0)


def _origins(sizes: Tensor, side: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Where each of `side` positions comes from when a side becomes as long as `sizes` (N,), at a random place.

    Both (N, side): the old position, and whether there is one; elsewhere is the padding.
    """
    places = (torch.rand(len(sizes), generator=generator) * (side - sizes + 1)).long()
    positions = torch.arange(side) - places[:, None]
    inside = (positions >= 0) & (positions < sizes[:, None])
    return torch.where(inside, positions, 0) * side // sizes[:, None], inside


class ExpectationOverTransformation(_Configured):
    """The mean of a network's logits over several draws of a random transformation (Athalye et al., 2018).

    It is for an attack that knows of the transformation: the gradient of the mean logits is the mean of the gradients
    of `samples` draws, so that a step is not ruled by the luck of one. Where the attack is to be measured, take
    `nn.Sequential(transformation, model)`, which draws once. Memory and time are `samples` times those of one draw.

    Raises ValueError unless `samples` is at least 1.
    """

    def __init__(self, model: nn.Module, transformation: nn.Module, samples: int = 10):
        super().__init__(samples=_within("samples", samples, 1, 2**31))
        self.model, self.transformation = model, transformation

    def forward(self, images: Tensor) -> Tensor:
        """Return mean logits (N, K) of images (N, C, H, W)."""
        draws = range(self.settings["samples"])
        return torch.stack([self.model(self.transformation(images)) for _ in draws]).mean(0)


def _straight_through(images: Tensor, transformed: Tensor) -> Tensor:
    """`transformed` in the forward pass, bit for bit, and in the backward pass the images themselves."""
    return transformed + (images - images.detach())  # what is added is zero; images + (transformed - images) rounds


def _check(images: Tensor) -> None:
    """Raise unless these are images, perturbed ones too, which may leave [0, 1] by as much as its length."""
    check_tensor("images", images)
    low, high = images.detach().aminmax()
    if low < -1 or high > 2:
        raise ValueError(
            f"images must lie in [0, 1], perturbed ones not far from it, not in [{low:g}, {high:g}]; "
            "divide 8-bit values by 255"
        )


def _within(argument: str, value: int, low: int, high: int) -> int:
    """The whole number, checked."""
    value = whole(**{argument: value})[argument]
    if not low <= value <= high:
        raise ValueError(f"{argument} must lie in {low} ... {high}, not {value}")
    return value
