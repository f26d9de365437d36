"""Attacks, one module per published method."""

from uaplib.attacks.deepfool import DeepFoolResult, deepfool
from uaplib.attacks.fast_feature_fool import fast_feature_fool
from uaplib.attacks.fgsm import fgsm, iterated_fgsm
from uaplib.attacks.gd_uap import gd_uap
from uaplib.attacks.uap import uap

__all__ = ["DeepFoolResult", "deepfool", "fast_feature_fool", "fgsm", "gd_uap", "iterated_fgsm", "uap"]
