"""Attacks, one private module per published method, and the settings of those that over-activate."""

from uaplib.attacks import _fast_feature_fool, _gd_uap
from uaplib.attacks._deepfool import DeepFoolResult, deepfool
from uaplib.attacks._fast_feature_fool import fast_feature_fool
from uaplib.attacks._fgsm import fgsm, iterated_fgsm
from uaplib.attacks._gd_uap import gd_uap
from uaplib.attacks._uap import uap

#: The settings of Fast Feature Fool's authors, for the argument `settings`.
FFF_PAPER = _fast_feature_fool.PAPER
#: Fast Feature Fool's settings when none are given; its steps are in proportion to the budget.
FFF_DEFAULT = _fast_feature_fool.DEFAULT
#: The settings of GD-UAP's authors, for the argument `settings`.
GD_UAP_PAPER = _gd_uap.PAPER
#: GD-UAP's settings by the prior, when none are given; their steps are in proportion to the budget.
GD_UAP_DEFAULTS = _gd_uap.DEFAULTS

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
