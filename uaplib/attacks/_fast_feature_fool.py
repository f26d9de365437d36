"""Fast Feature Fool (Mopuri, Garg and Babu, 2017): over-activate all layers at once, without a single image."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from uaplib import features, priors
from uaplib.attacks.activations import (
    ABLATIONS,
    Settings,
    Task,
    changed,
    check_normalized,
    craft,
    mean_activation,
    parameters,
    scaled,
)
from uaplib.balls import NormBall
from uaplib.features import Selection
from uaplib.models import Normalized
from uaplib.perturbation import UniversalPerturbation

# The authors' program: Adam, 0.1 on the scale of 0 to 255, the variable left free and clipped inside the network;
# halved every 300 iterations, measured 200 after each halving, stopped after 5 measurements without improvement.
PAPER = Settings(
    learning_rate=0.1 / 255, batch_size=1, max_iterations=10_000, check_every=300, check_after=200, patience=5,
    halve_every=300, clip=False, project=False,
)  # fmt: skip
DEFAULT = Settings(
    learning_rate=10 / 255, batch_size=1, max_iterations=400, check_every=50, check_after=0, patience=4, halve_every=25
)
_SMALL = {"learning_rate": 1 / 255}
PRESETS = {
    "fff": ABLATIONS
    | {"authors": asdict(PAPER), "small-steps": _SMALL, "small-steps-no-halving": _SMALL | ABLATIONS["no-halving"]}
}


def fast_feature_fool(
    model: Normalized,
    ball: NormBall,
    *,
    selection: Tensor | None = None,
    layers: Selection | None = None,
    settings: Settings | None = None,
    seed: int = 0,
    source: str = "",
    checkpoint: str | Path | None = None,
    progress: bool = False,
) -> UniversalPerturbation:
    """Craft a perturbation that maximises the mean activation of all layers, the sum of log(mean(abs(a))) (eq. 3).

    The network sees the mean image plus the perturbation, and nothing else. Arguments as in
    `uaplib.attacks.gd_uap`; settings: `PAPER`, or the default, which takes larger steps (in proportion to the budget),
    halves more often, and keeps the variable itself in the ball.

    Raises ValueError for bad arguments, FloatingPointError for dead layers.
    """
    check_normalized(model)
    chosen = features.choose(model, model.mean_image(), layers or features.default_kind(model))
    mean = model.mean_image()
    settings = settings or scaled(DEFAULT, ball)
    if type(settings) is not Settings:
        raise TypeError(f"settings must be a Settings, not a {type(settings).__name__}: no picture is chosen here")
    record = parameters(settings, chosen, selection)
    if selection is None:
        selection = priors.selection_pictures(model)
    task = Task(model, ball, chosen, mean_activation, lambda count: mean, selection, "fff", source, seed, record)
    return craft(task, settings, checkpoint, progress)


def settings(ball: NormBall, **changes: Any) -> dict[str, Any]:
    """Return all settings; see `uaplib.attacks.methods`."""
    return changed(DEFAULT, ball, changes)


def run(
    model: Normalized, ball: NormBall, settings: dict[str, Any], data: Mapping[str, Any], **options: Any
) -> UniversalPerturbation:
    """Craft with all settings; see `uaplib.attacks.methods`."""
    layers = settings.pop("layers")
    return fast_feature_fool(model, ball, layers=layers, settings=Settings(**settings), **data, **options)
