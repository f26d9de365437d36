"""The registry of named models and their weights."""

import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from uaplib.data import fashion_mnist
from uaplib.models import minis, pretrained
from uaplib.models.normalized import Normalized
from uaplib.names import check_name

MINIS: dict[str, Callable[[], nn.Module]] = {
    "caffenet-mini": minis.caffenet_mini,
    "vgg-f-mini": minis.vgg_f_mini,
    "googlenet-mini": minis.googlenet_mini,
    "vgg16-mini": minis.vgg16_mini,
    "vgg19-mini": minis.vgg19_mini,
    "resnet-mini": minis.resnet_mini,
}
WEIGHTS = Path(__file__).parent / "weights"


def names() -> list[str]:
    """Return the names of the six mini networks."""
    return list(MINIS)


def check_model_name(name: str, argument: str = "model") -> str:
    """Return `name` if `load` knows it; raise ValueError with the argument and the nearest names otherwise."""
    return name if pretrained.known(name) else check_name(argument, name, [*MINIS, *pretrained.names()])


def preprocessing(name: str) -> Callable:
    """Return the transform from a photograph to what a pretrained ImageNet model takes: float32 (3, H, W) in [0, 1].

    Raises ValueError for the name of a mini network, or for an unknown one.
    """
    if not pretrained.known(name):
        check_name("name", name, pretrained.names())
    return pretrained.find(name).preprocessing()


def weights_file(name: str) -> Path:
    """Return the path of a model's weights."""
    return WEIGHTS / f"{check_name('name', name, MINIS)}.safetensors"


def card(name: str) -> dict:
    """Return a model's card: how it was trained, how long that took and how accurate it is."""
    return json.loads(weights_file(name).with_suffix(".json").read_text(encoding="utf-8"))


def build(name: str) -> Normalized:
    """Return the named network with freshly initialised weights, in training mode."""
    check_name("name", name, MINIS)
    return Normalized(MINIS[name](), fashion_mnist.MEAN, fashion_mnist.STD, fashion_mnist.SIZE)


def load(name: str, device: str | torch.device = "cpu") -> Normalized:
    """Return the named pretrained model in evaluation mode, its parameters frozen.

    It takes float32 images in [0, 1] and returns logits: (N, 1, 28, 28) and (N, 10) for the six mini networks
    (`names()`), (N, 3, size, size) and (N, 1000) for the ImageNet networks: "efficientnet-lite0" to "2" (packages of
    the extra `imagenet`), every classifier of torchvision by its name there, and "timm:NAME" where timm is installed.

    Raises ValueError for an unknown name (nearest names given) or damaged weights, FileNotFoundError or ImportError
    when weights or packages are missing, saying which and how to get them.
    """
    check_model_name(name, "name")
    model = _load_mini(name) if name in MINIS else pretrained.find(name).load()
    # Channels last is the faster layout of these networks' weights, on a processor as on a GPU.
    return model.eval().requires_grad_(False).to(device, memory_format=torch.channels_last)


def _load_mini(name: str) -> Normalized:
    path = weights_file(name)
    with torch.random.fork_rng(devices=[]):  # the initial weights are overwritten; they are to cost no random numbers
        model = build(name)
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing. `uaplib train {name}` makes it.")
    try:
        model.network.load_state_dict(load_file(path))
    except (SafetensorError, RuntimeError) as error:
        raise ValueError(f"{path} does not hold the weights of {name}: {error}") from error
    return model
