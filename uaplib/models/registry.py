"""The registry of named models and their weights.

`uaplib list` reads it without PyTorch: whatever needs that is imported when a network is built.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from uaplib import data, models  # packages that import their modules when these are used
from uaplib.names import check_name

if TYPE_CHECKING:
    import torch
    from torch import nn

    from uaplib.models.normalized import Normalized

MINIS: dict[str, Callable[[], nn.Module]] = {
    "caffenet-mini": lambda: models.minis.caffenet_mini(),
    "vgg-f-mini": lambda: models.minis.vgg_f_mini(),
    "googlenet-mini": lambda: models.minis.googlenet_mini(),
    "vgg16-mini": lambda: models.minis.vgg16_mini(),
    "vgg19-mini": lambda: models.minis.vgg19_mini(),
    "resnet-mini": lambda: models.minis.resnet_mini(),
}
IMAGENET_LITE = ((0.498,) * 3, (0.502,) * 3)  # the normalisation that EfficientNet-Lite's encoder was trained with


@dataclass(frozen=True)
class Dense:
    """A network that the project trains to say something about every pixel: "classes" or "depth" of `data`'s scenes."""

    build: Callable[[], nn.Module]
    says: str
    data_set: str
    mean: Sequence[float] = IMAGENET_LITE[0]
    std: Sequence[float] = IMAGENET_LITE[1]

    @property
    def data(self) -> ModuleType:
        """The module of the data set that it learns from."""
        return data.DATASETS[self.data_set]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images that it learns from."""
        return self.data.SIZE


_SMALL = (16, 32, 64, 96)
DENSE = {
    "lite0-camvid": Dense(lambda: models.dense.LiteFPN(len(data.camvid.CLASSES)), "classes", "camvid"),
    "unet-camvid": Dense(lambda: models.dense.UNet(len(data.camvid.CLASSES)), "classes", "camvid"),
    "lite0-scenes": Dense(lambda: models.dense.LiteFPN(len(data.scenes.CLASSES), (2, 4, 10)), "classes", "scenes"),
    "unet-scenes": Dense(lambda: models.dense.UNet(len(data.scenes.CLASSES), _SMALL), "classes", "scenes"),
    "unet-depth": Dense(lambda: models.dense.LogDepth(models.dense.UNet(1)), "depth", "scenes"),
}
WEIGHTS = Path(__file__).parent / "weights"


def names() -> list[str]:
    """Return the names of the six mini networks."""
    return list(MINIS)


def pretrained_names() -> list[str]:
    """Return the names of the networks that others have trained, without timm's."""
    return models.pretrained.names()


def check_model_name(name: str, argument: str = "model") -> str:
    """Return `name` if `load` knows it; raise ValueError with the argument and the nearest names otherwise."""
    if name in MINIS or name in DENSE or models.pretrained.known(name):
        return name
    return check_name(argument, name, [*MINIS, *DENSE, *pretrained_names()])


def preprocessing(name: str) -> Callable:
    """Return the transform from a photograph to what a pretrained model takes: float32 (3, H, W) in [0, 1].

    Raises ValueError for the name of a network that the project trains, or for an unknown one.
    """
    if not models.pretrained.known(name):
        check_name("name", name, pretrained_names())
    return models.pretrained.find(name).preprocessing()


def says(name: str) -> str:
    """Return what the named network says: "label" of an image, "classes" of its pixels, or their "depth"."""
    check_model_name(name, "name")
    if name in MINIS:
        return "label"
    return DENSE[name].says if name in DENSE else models.pretrained.says(name)


def weights_file(name: str) -> Path:
    """Return the path of a model's weights."""
    return WEIGHTS / f"{check_name('name', name, [*MINIS, *DENSE])}.safetensors"


def card(name: str) -> dict:
    """Return a model's card: how it was trained, how long that took and how accurate it is."""
    return json.loads(weights_file(name).with_suffix(".json").read_text(encoding="utf-8"))


def build(name: str) -> Normalized:
    """Return the named network with freshly initialised weights, in training mode."""
    if check_name("name", name, [*MINIS, *DENSE]) in DENSE:
        spec = DENSE[name]
        return models.Normalized(spec.build(), spec.mean, spec.std, spec.size)
    clothes = data.fashion_mnist
    return models.Normalized(MINIS[name](), clothes.MEAN, clothes.STD, clothes.SIZE)


def load(name: str, device: str | torch.device = "cpu", weights: str | Path | None = None) -> Normalized:
    """Return the named pretrained model in evaluation mode, its parameters frozen.

    It takes float32 images in [0, 1] and returns logits: (N, 1, 28, 28) and (N, 10) for the six mini networks
    (`names()`), (N, 3, size, size) and (N, 1000) for the ImageNet networks: "efficientnet-lite0" to "2" (packages of
    the extra `imagenet`), every classifier of torchvision by its name there, and "timm:NAME" where timm is installed.

    Networks for dense tasks return maps (N, K, H, W) of the images' size: logits of K classes for the segmenters
    "lite0-camvid", "unet-camvid", "lite0-scenes", "unet-scenes" and those of torchvision, positive depth in metres,
    K = 1, for "unet-depth", and inverse depth up to a factor for "midas-small".

    weights: a file that `uaplib train` wrote, for a network of the project; its own when absent.

    Raises ValueError for an unknown name (nearest names given) or damaged weights, FileNotFoundError or ImportError
    when weights or packages are missing, saying which and how to get them.
    """
    import torch

    check_model_name(name, "name")
    if name in MINIS or name in DENSE:
        model = _load_trained(name, Path(weights) if weights else weights_file(name))
    elif weights:
        raise ValueError(f"weights are for the networks that the project trains; {name} brings its own")
    else:
        model = models.pretrained.find(name).load()
    # Channels last is the faster layout of these networks' weights, on a processor as on a GPU.
    return model.eval().requires_grad_(False).to(device, memory_format=torch.channels_last)


def _load_trained(name: str, path: Path) -> Normalized:
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    with torch.random.fork_rng(devices=[]):  # the initial weights are overwritten; they are to cost no random numbers
        model = build(name)
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing. `uaplib train {name} --out {path.parent}` makes it.")
    try:
        model.network.load_state_dict(load_file(path))
    except (SafetensorError, RuntimeError) as error:
        raise ValueError(f"{path} does not hold the weights of {name}: {error}") from error
    return model
