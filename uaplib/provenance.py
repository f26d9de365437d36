"""Where a result comes from: versions, weights, device and commit."""

import hashlib
import importlib.metadata
import platform
import subprocess
from pathlib import Path

from torch import Tensor, nn

import uaplib


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that a number depends on."""
    packages = {name: importlib.metadata.version(name) for name in ("torch", "torchvision", "numpy")}
    return {"python": platform.python_version(), "uaplib": uaplib.__version__, **packages}


def weights_sha256(model: nn.Module) -> str:
    """Return a digest of a model's parameters and buffers: their names, types, shapes and values."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def sha256_of(images: Tensor) -> str:
    """Return a digest of the values of a tensor."""
    return hashlib.sha256(images.detach().cpu().contiguous().numpy().tobytes()).hexdigest()


def commit() -> str | None:
    """Return the commit of the checkout that the library runs from, or None when it is installed otherwise."""
    try:
        answer = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return answer.stdout.strip()
