"""Normalisation as the first layer of a model, so that perturbations live in pixel space."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Normalized(nn.Module):
    """A model that takes images in [0, 1] and normalises them itself: network((x - mean) / std).

    `mean` and `std` hold one number per channel, in units of [0, 1]. `size` is the height and width of the images
    that the network was trained on, where that is known: one number for both, or a pair. Raises ValueError when mean
    and std differ in length, a standard deviation is not positive, or one of them is on the scale of 0 to 255.
    """

    def __init__(
        self,
        network: nn.Module,
        mean: Sequence[float],
        std: Sequence[float],
        size: int | tuple[int, int] | None = None,
    ):
        super().__init__()
        if not 0 < len(mean) == len(std) or not min(std) > 0:
            raise ValueError(f"mean and std need one number per channel and std > 0, not mean={mean}, std={std}")
        if not (min(mean) >= 0 and max(*mean, *std) <= 1):
            raise ValueError(
                f"mean and std are of pixels in [0, 1], so they lie there too, not mean={mean}, std={std}; "
                "divide numbers on the scale of 0 to 255 by 255"
            )
        self.network, self.size = network, size
        self.register_buffer("mean", torch.tensor([float(m) for m in mean]).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor([float(s) for s in std]).view(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Return what the network says of images (N, C, H, W) in [0, 1]: logits (N, K), or a map (N, K, H, W)."""
        if images.shape[1] < self.mean.shape[1]:  # they would be repeated without a word
            raise ValueError(f"images have {images.shape[1]} channels, the model takes {self.mean.shape[1]}")
        return self.network((images - self.mean) / self.std)

    def mean_image(self) -> Tensor:
        """Return the image (1, C, H, W) that is zero after normalisation: what "no data" means. Needs `size`."""
        return self.mean.expand(-1, -1, *self.height_width)

    @property
    def height_width(self) -> tuple[int, int]:
        """The height and width of the network's images. Raises ValueError when they are not known."""
        if self.size is None:
            raise ValueError("the model does not know the size of its images; give size=... to Normalized")
        return (self.size, self.size) if isinstance(self.size, int) else tuple(self.size)
