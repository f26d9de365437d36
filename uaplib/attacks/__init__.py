"""Attacks, one private module per published method; `METHODS` has those that craft a universal perturbation.

Their settings and losses are here, too. What is not used is not imported (PEP 562).
"""

from importlib import import_module

from uaplib.attacks.methods import METHODS, Method

# The attack of a method is the function that has the name of its module; random signs are no attack.
_LATER = {row.module[1:]: f"{row.module}:{row.module[1:]}" for row in METHODS.values() if row.optimised} | {
    "DeepFoolResult": "_deepfool:DeepFoolResult",
    "deepfool": "_deepfool:deepfool",
    "fgsm": "_fgsm:fgsm",
    "iterated_fgsm": "_fgsm:iterated_fgsm",
    # The settings of Fast Feature Fool's and of GD-UAP's authors, for the argument `settings`.
    "FFF_PAPER": "_fast_feature_fool:PAPER",
    "GD_UAP_PAPER": "_gd_uap:PAPER",
    # The settings when none are given, GD-UAP's by the prior; their steps are in proportion to the budget.
    "FFF_DEFAULT": "_fast_feature_fool:DEFAULT",
    "GD_UAP_DEFAULTS": "_gd_uap:DEFAULTS",
    "Settings": "activations:Settings",
    "GDUAPSettings": "_gd_uap:GDUAPSettings",
    "CosineUAPSettings": "_cosine_uap:CosineUAPSettings",
    "DFUAPSettings": "_df_uap:DFUAPSettings",
    "DMUAPSettings": "_dm_uap:DMUAPSettings",
    "PatternSearchSettings": "_pattern_search:PatternSearchSettings",
    "PSPUAPSettings": "_psp_uap:PSPUAPSettings",
    "SGASettings": "_sga:SGASettings",
    "SGDUAPSettings": "_sgd_uap:SGDUAPSettings",
    "SVUAPSettings": "_sv_uap:SVUAPSettings",
    "energy": "activations:energy",
    "mean_activation": "activations:mean_activation",
}
__all__ = ["METHODS", "Method", *sorted(_LATER)]


def __dir__() -> list[str]:
    return [*globals(), *_LATER]


def __getattr__(name: str) -> object:
    """Import an attack when it is first used: `uaplib list methods` does without PyTorch."""
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _LATER[name].partition(":")
    return getattr(import_module(f"{__name__}.{module}"), attribute)
