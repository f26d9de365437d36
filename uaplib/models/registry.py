"""Networks by their names: what the table says of each, and each with its weights.

`uaplib list` reads it without PyTorch: whatever needs that is imported when a network is built.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from uaplib import models  # a package that imports its modules when these are used
from uaplib.models.spec import NETWORKS, PATTERNS, Network
from uaplib.names import check_name

if TYPE_CHECKING:
    import torch

    from uaplib.models.normalized import Normalized

SEPARATOR = "+"  # between the names of an ensemble's networks
WEIGHTS = Path(__file__).parent / "weights"
_REGISTERED: dict[str, Network] = {}  # the user's


def names() -> list[str]:
    """Return the names of the mini networks, the book's six first."""
    return [name for name in trained_here() if NETWORKS[name].data_set == "fashion-mnist"]


def trained_here() -> list[str]:
    """Return the names of the networks that the project trains, the mini networks first."""
    return [name for name, network in NETWORKS.items() if network.training]


def pretrained_names() -> list[str]:
    """Return the names of the networks that others have trained, without timm's."""
    return [name for name, network in _table().items() if not network.training] + _listed_elsewhere()


def register(name: str, network: Network) -> None:
    """Add a network of your own for the rest of the process: everything then works by its name.

    Raises ValueError for a name that a network has already or that cannot be a file's name, TypeError for another thing
    than a `Network`.
    """
    if not isinstance(network, Network):
        raise TypeError(f"network must be a uaplib.models.Network, not {type(network).__name__}")
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise ValueError(f"name={name!r} must consist of letters, digits, '-', '_' and '.': files are named after it")
    if _is_known(name):
        raise ValueError(f"name={name!r} is a network already; choose another name")
    _REGISTERED[name] = network


def find(name: str) -> Network:
    """Return the row of a network: the project's, the user's, torchvision's or, as "timm:NAME", timm's.

    Names with "+" between them are an ensemble of these classifiers, whose logits are the mean of theirs.

    Raises ValueError for an unknown name (nearest names given), ImportError where timm is needed and missing.
    """
    check_model_name(name, "name")
    if name in _table():
        return _table()[name]
    if SEPARATOR in name:
        return models.ensemble.row(name.split(SEPARATOR))
    pattern = next(pattern for pattern in PATTERNS if pattern.knows(name))
    return pattern.row(name, pattern.task)


def says(name: str) -> str:
    """Return what the named network says: "label" of an image, "classes" of its pixels, or their "depth"."""
    check_model_name(name, "name")
    if name in _table():
        return _table()[name].task
    if SEPARATOR in name:
        return says(name.partition(SEPARATOR)[0])
    return next(pattern.task for pattern in PATTERNS if pattern.knows(name))  # timm itself need not be there


def check_model_name(name: str, argument: str = "model") -> str:
    """Return `name` if `load` knows it; raise ValueError with the argument and the nearest names otherwise."""
    return name if _is_known(name) else check_name(argument, name, [*_table(), *_listed_elsewhere()])


def _table() -> dict[str, Network]:
    return NETWORKS | _REGISTERED


def _is_known(name: str) -> bool:
    if SEPARATOR in name:
        return all(_is_known(part) for part in name.split(SEPARATOR))
    return name in _table() or any(pattern.knows(name) for pattern in PATTERNS)


def _listed_elsewhere() -> list[str]:
    return [name for pattern in PATTERNS for name in pattern.names()]


def preprocessing(name: str) -> Callable:
    """Return the transform from a photograph to what a network takes: float32 (3, H, W) in [0, 1].

    Raises ValueError for a network that sees other images than photographs, and for an unknown name.
    """
    of_photographs = [each for each, network in _table().items() if network.resize]
    if name in _table() or not _is_known(name):
        check_name("name", name, [*of_photographs, *_listed_elsewhere()])
    return models.pretrained.preprocessing(find(name))


def weights_file(name: str) -> Path:
    """Return the path of the weights of a network that is trained here."""
    return WEIGHTS / f"{check_trained(name)}.safetensors"


def check_trained(name: str) -> str:
    """Return `name` if the network has a training schedule; raise ValueError with the nearest names otherwise."""
    return check_name("name", name, [each for each, network in _table().items() if network.training])


def card(name: str) -> dict:
    """Return a model's card: how it was trained, how long that took and how accurate it is."""
    return json.loads(weights_file(name).with_suffix(".json").read_text(encoding="utf-8"))


def build(name: str) -> Normalized:
    """Return a network that is trained here with freshly initialised weights, in training mode."""
    return _normalized(find(check_trained(name)))


def _normalized(network: Network) -> Normalized:
    return models.Normalized(network.build(), network.mean, network.std, network.size)


def structure(name: str) -> Normalized:
    """Return the named network in evaluation mode, with random weights where its own would have to be downloaded.

    It has the layers of the loaded one. Raises as `load` does where it cannot be made without its files.
    """
    import torch

    network = find(name)
    if not network.structure:
        return load(name)
    with torch.random.fork_rng(devices=[]):
        return _normalized(replace(network, build=network.structure)).eval()


def load(name: str, device: str | torch.device = "cpu", weights: str | Path | None = None) -> Normalized:
    """Return the named pretrained model in evaluation mode, its parameters frozen.

    It takes float32 images in [0, 1] and returns logits: (N, 1, 28, 28) and (N, 10) for the six mini networks
    (`names()`), (N, 3, size, size) and (N, 1000) for the ImageNet networks: "efficientnet-lite0" to "2" (packages of
    the extra `imagenet`), "googlenet-caffe" and all others of `spec.ORIGINALS`, every classifier of torchvision by its
    name there, and "timm:NAME" where timm is installed.

    Networks for dense tasks return maps (N, K, H, W) of the images' size: logits of K classes for the segmenters
    "lite0-camvid", "unet-camvid", "lite0-scenes", "unet-scenes" and those of torchvision, positive depth in metres,
    K = 1, for "unet-depth", and inverse depth up to a factor for "midas-small".

    device: where it computes, or "auto": a GPU where there is one.
    weights: a file that `uaplib train` wrote, for a network that is trained here; its own when absent.

    Raises ValueError for an unknown name (nearest names given) or damaged weights, FileNotFoundError or ImportError
    when weights or packages are missing, saying which and how to get them.
    """
    import torch

    from uaplib.devices import pick_device

    network = find(name)
    if weights and not network.training:
        raise ValueError(f"weights are for the networks that the project trains; {name} brings its own")
    with torch.random.fork_rng(devices=[]):  # initial weights are overwritten; they are to cost no random numbers
        model = _normalized(network)
    if network.training:
        _read_weights(name, model, Path(weights) if weights else weights_file(name))
    # Channels last is the faster layout of these networks' weights, on a processor as on a GPU.
    return model.eval().requires_grad_(False).to(pick_device(device), memory_format=torch.channels_last)


def _read_weights(name: str, model: Normalized, path: Path) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.exists():
        raise FileNotFoundError(f"{path} is missing. `uaplib train {name} --out {path.parent}` makes it.")
    try:
        model.network.load_state_dict(load_file(path))
    except (SafetensorError, RuntimeError) as error:
        raise ValueError(f"{path} does not hold the weights of {name}: {error}") from error
