"""What people do against perturbations: they change the image first, or they train the network on perturbed ones.

`transformations` has the first kind, `training` and its rules the second. Whether either helps is told by an attack
that knows of the defence: on the network behind the transformation, and on the trained network.
"""

from uaplib.defences._pgd import PGDResult, PGDSettings, pgd
from uaplib.defences._rules import (
    Batch,
    CleanTraining,
    DemocraticTraining,
    PoolTraining,
    Rule,
    SharedTraining,
    UniversalTraining,
    deep_features,
    entropy,
)
from uaplib.defences.training import Trained, TrainingSettings, save_weights, train
from uaplib.defences.transformations import (
    JPEG,
    BitDepth,
    ExpectationOverTransformation,
    MedianFilter,
    RandomResizePad,
)

__all__ = [
    "JPEG",
    "Batch",
    "BitDepth",
    "CleanTraining",
    "DemocraticTraining",
    "ExpectationOverTransformation",
    "MedianFilter",
    "PGDResult",
    "PGDSettings",
    "PoolTraining",
    "RandomResizePad",
    "Rule",
    "SharedTraining",
    "Trained",
    "TrainingSettings",
    "UniversalTraining",
    "deep_features",
    "entropy",
    "pgd",
    "save_weights",
    "train",
]
