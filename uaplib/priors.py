"""What lies under a perturbation while it is crafted: nothing, noise in the range of images, or real images.

GD-UAP (Mopuri, Ganeshan and Babu, 2018) calls these its priors. All pictures are floating point (N, C, H, W) in [0, 1].
Randomness comes from PyTorch's global generator on the CPU, so that a seed means the same pictures on every device.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from uaplib.models import Normalized
from uaplib.provenance import sha256_of

if TYPE_CHECKING:
    from torchvision.transforms import v2

NOISE_PICTURES = "noise pictures"  # what an iterate is chosen on where there is no image
ANGLES = (-10, -7, -5, -3, 3, 5, 7, 10)


def range_pictures(
    model: Normalized, count: int, smoothness: float = 0.0, grey: float = 0.0, size: tuple[int, int] | None = None
) -> Tensor:
    """Return Gaussian noise with the mean and standard deviation of the model's normalisation, clipped to [0, 1].

    The amplitude of a spatial frequency f falls like 1 / f^smoothness: 0 is white noise, 1 is about what photographs
    have. grey: the share of the variance that all channels have in common. size: height and width; the model's own when
    absent.
    """
    height, width = size or model.height_width
    noise = torch.randn(count, model.mean.shape[1], height, width)
    if grey:
        noise = (1 - grey) ** 0.5 * noise + grey**0.5 * torch.randn(count, 1, height, width)
    if smoothness:
        vertical, horizontal = torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)
        frequency = torch.hypot(vertical, horizontal).clamp_min(1 / max(height, width))
        noise = torch.fft.irfft2(torch.fft.rfft2(noise) / frequency**smoothness, s=(height, width))
        noise = noise / noise.std((1, 2, 3), keepdim=True)
    return (model.mean + model.std * noise.to(model.mean)).clamp(0, 1)


def selection_pictures(model: Normalized, count: int = 100) -> Tensor:
    """Return the pictures on which an iterate is chosen without any image: smooth, mostly grey noise of half contrast.

    They are the same in every run. On them a perturbation's fooling rate rises with the one on photographs on the
    networks of the EfficientNet-Lite family, though it is another number; on the Caffe GoogLeNet nearly everything
    fools all of them, and they tell nothing (measured in the book's chapter 6).
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return (range_pictures(model, count, smoothness=1.0, grey=0.8) + model.mean) / 2


def selection_record(selection: Tensor | None) -> dict:
    """Return what the iterate is chosen on, as JSON-safe entries of a perturbation's parameters."""
    if selection is None:
        return {"selection": NOISE_PICTURES}
    return {"selection": f"{len(selection)} images", "selection_sha256": sha256_of(selection)}


def augmentation(height_width: tuple[int, int], fill: list[float]) -> "v2.Transform":
    """Return GD-UAP's augmentation of one image, each part with probability 1/2.

    Scaling of the short side by 0.75 to 1.5, mirroring, rotation by one of eight angles, Gaussian blur with standard
    deviation 1, a random crop (small images are padded with `fill`); in the end a short side of 256/224 the network's
    and the centre of the network's size. Where the rotation leaves corners, the authors crop to the largest rectangle
    inside; here they are filled.
    """
    from torchvision.transforms import InterpolationMode, v2  # slow to import, and most crafting does without

    size = min(height_width)
    rotations = [v2.RandomRotation((angle, angle), InterpolationMode.BILINEAR, fill=fill) for angle in ANGLES]
    blurs = [v2.GaussianBlur(taps, sigma=1.0) for taps in (3, 5, 7, 9)]
    return v2.Compose(
        [
            v2.RandomApply([v2.RandomResize(int(0.75 * size), int(1.5 * size) + 1)]),
            v2.RandomHorizontalFlip(),
            v2.RandomApply([v2.RandomChoice(rotations)]),
            v2.RandomApply([v2.RandomChoice(blurs)]),
            v2.RandomApply([v2.RandomCrop(height_width, pad_if_needed=True, fill=fill)]),
            v2.Resize(round(size * 256 / 224)),
            v2.CenterCrop(height_width),
        ]
    )
