"""Attacks, one private module per published method, and the settings of those that over-activate."""

from uaplib.attacks._deepfool import DeepFoolResult, deepfool
from uaplib.attacks._fast_feature_fool import DEFAULT as FFF_DEFAULT
from uaplib.attacks._fast_feature_fool import PAPER as FFF_PAPER
from uaplib.attacks._fast_feature_fool import fast_feature_fool
from uaplib.attacks._fgsm import fgsm, iterated_fgsm
from uaplib.attacks._gd_uap import DEFAULTS as GD_UAP_DEFAULTS
from uaplib.attacks._gd_uap import PAPER as GD_UAP_PAPER
from uaplib.attacks._gd_uap import gd_uap
from uaplib.attacks._uap import uap

__all__ = [
    "FFF_DEFAULT",
    "FFF_PAPER",
    "GD_UAP_DEFAULTS",
    "GD_UAP_PAPER",
    "DeepFoolResult",
    "deepfool",
    "fast_feature_fool",
    "fgsm",
    "gd_uap",
    "iterated_fgsm",
    "uap",
]
