"""Attacks, one module per published method."""

from uaplib.attacks.deepfool import DeepFoolResult, deepfool
from uaplib.attacks.fgsm import fgsm, iterated_fgsm
from uaplib.attacks.uap import uap

__all__ = ["DeepFoolResult", "deepfool", "fgsm", "iterated_fgsm", "uap"]
