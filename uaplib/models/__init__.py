"""Named models: `load("vgg16-mini")` returns a network that takes images in [0, 1] and gives logits, or a map.

`find` has what is known of each, and `register` adds one of your own.
"""

from importlib import import_module

from uaplib.models.registry import (
    build,
    card,
    check_model_name,
    find,
    load,
    names,
    preprocessing,
    pretrained_names,
    register,
    says,
    structure,
    trained_here,
    weights_file,
)
from uaplib.models.spec import Network, Schedule

__all__ = [
    "Network",
    "Normalized",
    "Schedule",
    "build",
    "card",
    "check_model_name",
    "find",
    "load",
    "structure",
    "names",
    "preprocessing",
    "pretrained_names",
    "register",
    "says",
    "trained_here",
    "weights_file",
]

_MODULES = ("caffe", "darknet", "dense", "ensemble", "minis", "mobilenets", "pretrained")


def __dir__() -> list[str]:
    return [*globals(), "Normalized", *_MODULES]


def __getattr__(name: str) -> object:
    """Import what needs PyTorch when it is first used: `uaplib list models` does without (PEP 562)."""
    if name == "Normalized":
        return import_module(f"{__name__}.normalized").Normalized
    if name in _MODULES:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
