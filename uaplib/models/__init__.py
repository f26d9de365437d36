"""Named models: `load("vgg16-mini")` returns a network that takes images in [0, 1] and gives logits, or a map."""

from uaplib.models.normalized import Normalized
from uaplib.models.pretrained import names as pretrained_names
from uaplib.models.registry import (
    DENSE,
    MINIS,
    card,
    check_model_name,
    load,
    names,
    preprocessing,
    says,
    weights_file,
)

__all__ = [
    "DENSE",
    "MINIS",
    "Normalized",
    "card",
    "check_model_name",
    "load",
    "names",
    "preprocessing",
    "pretrained_names",
    "says",
    "weights_file",
]
