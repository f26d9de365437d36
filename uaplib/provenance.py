"""Where a result comes from: versions, weights, device and commit."""

import hashlib
import importlib.metadata
import json
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import uaplib


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that a number depends on."""
    packages = {name: importlib.metadata.version(name) for name in ("torch", "torchvision", "numpy")}
    return {"python": platform.python_version(), "uaplib": uaplib.__version__, **packages}


def weights_sha256(model: nn.Module) -> str:
    """Return a digest of a model's parameters and buffers: their names, types, shapes and values.

    That of an ensemble (`uaplib.models.ensemble`) is made of its members', so that who knows theirs knows its own.
    """
    members = getattr(getattr(model, "network", None), "members", ())
    if members:
        return together([weights_sha256(each) for each in members])
    total = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        _add(total, name, tensor)
    return total.hexdigest()


def together(weights: Sequence[str]) -> str:
    """Return the digest of an ensemble's weights from those of its members, in their order."""
    return digest(list(weights))


def _add(total, name: str, value: object) -> None:
    """Add an entry of a state dictionary; networks of integers keep tuples, types and scales there, too."""
    if isinstance(value, tuple | list):
        for number, part in enumerate(value):
            _add(total, f"{name}.{number}", part)
    elif not isinstance(value, Tensor):
        total.update(f"{name} {value!r}".encode())
    elif value.is_quantized:
        _add(total, f"{name} {_scale(value)}", value.int_repr())
    else:
        total.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        total.update(_bytes(value))


def _scale(value: Tensor) -> str:
    """How the integers of a quantised tensor are to be read."""
    if value.qscheme() in (torch.per_tensor_affine, torch.per_tensor_symmetric):
        return f"{value.qscheme()} {value.q_scale()} {value.q_zero_point()}"
    scales, zeros = value.q_per_channel_scales().tolist(), value.q_per_channel_zero_points().tolist()
    return f"{value.qscheme()} {value.q_per_channel_axis()} {scales} {zeros}"


def _bytes(tensor: Tensor) -> bytes:
    """The values as they lie in memory, of any type; numpy itself knows no bfloat16."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def sha256_of(images: Tensor) -> str:
    """Return a digest of the values of a tensor."""
    return hashlib.sha256(_bytes(images)).hexdigest()


def digest(value: object) -> str:
    """Return a digest of a JSON-safe value; the order of keys does not matter."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def key(**parts: Any) -> str:
    """Return the key of a computation: a digest, in 32 hexadecimal digits, of all that its result depends on.

    parts: JSON-safe. Whatever is kept is kept with its key: a perturbation, a checkpoint, a cell of a table. A result
    whose key is another is out of date.
    """
    return digest(parts)[:32]


def images_record(images: Tensor) -> dict:
    """Return which images an attack has seen, as a JSON-safe entry of its parameters: how many, and their digest."""
    return {"images": len(images), "images_sha256": sha256_of(images)}


def commit() -> str | None:
    """Return the commit of the checkout that the library runs from, or None when it is installed otherwise."""
    try:
        answer = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return answer.stdout.strip()
