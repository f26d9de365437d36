"""What a perturbation does to a network, for each task, with its counts and 95 % intervals.

Labels and intervals are here; `segmentation` and `depth` have measures of their own, and `tasks` says which a network
needs.
"""

from uaplib.metrics.intervals import Estimate, Proportion, bootstrap, json_safe, share
from uaplib.metrics.labels import (
    Evaluation,
    accuracy,
    dominant_label,
    evaluate,
    fooling_rate,
    norms,
    predict,
    rho_adv,
)
from uaplib.metrics.paired import Comparison, difference, paired

__all__ = [
    "Comparison",
    "Estimate",
    "Evaluation",
    "Proportion",
    "accuracy",
    "bootstrap",
    "difference",
    "dominant_label",
    "evaluate",
    "fooling_rate",
    "json_safe",
    "norms",
    "paired",
    "predict",
    "rho_adv",
    "share",
]
