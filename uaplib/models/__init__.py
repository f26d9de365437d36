"""Named models: `load("vgg16-mini")` returns a network that takes images in [0, 1] and gives logits."""

from uaplib.models.normalized import Normalized
from uaplib.models.pretrained import names as pretrained_names
from uaplib.models.registry import MINIS, card, check_model_name, load, names, preprocessing, weights_file

__all__ = [
    "MINIS",
    "Normalized",
    "card",
    "check_model_name",
    "load",
    "names",
    "preprocessing",
    "pretrained_names",
    "weights_file",
]
