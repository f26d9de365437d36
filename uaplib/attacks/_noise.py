"""Random signs, or a random direction, of the whole budget: what every attack is compared with."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from uaplib import perturbation
from uaplib.balls import NormBall
from uaplib.models import Normalized
from uaplib.perturbation import UniversalPerturbation


def settings(ball: NormBall) -> dict[str, Any]:
    """Return the settings: there are none."""
    return {}


def run(
    model: Normalized, ball: NormBall, settings: dict[str, Any], data: Mapping[str, Any], seed: int = 0, **options: Any
) -> UniversalPerturbation:
    """Return noise of the size of the model's images; see `uaplib.attacks.methods`."""
    found = make(ball, tuple(model.mean_image().shape[1:]), settings, seed)
    return replace(found, delta=found.delta.to(model.mean.device))


def make(ball: NormBall, shape: tuple[int, int, int], settings: dict[str, Any], seed: int = 0) -> UniversalPerturbation:
    """Return noise of shape (C, H, W) that uses the whole budget."""
    return perturbation.noise(ball, shape, seed)
