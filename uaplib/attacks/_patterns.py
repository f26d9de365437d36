"""Patterns as methods: what nobody optimised, at the whole budget, on the size of the network's images."""

import inspect
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from uaplib import patterns
from uaplib.balls import NormBall
from uaplib.checks import plain
from uaplib.models import Normalized
from uaplib.names import check_name
from uaplib.perturbation import UniversalPerturbation

PATTERNS = {
    each.__name__: each
    for each in (
        patterns.chessboard, patterns.stripes, patterns.fourier, patterns.blocks, patterns.circles, patterns.perlin,
        patterns.gabor,
    )
}  # fmt: skip
_LARGE = (1, 512, 512)  # on smaller images the pattern may refuse what is possible here
_NO_SETTINGS = ("shape", "seed")


def settings(ball: NormBall, pattern: str, **changes: Any) -> dict[str, Any]:
    """Return all settings of a pattern: those of its function in `uaplib.patterns`, changed by `changes`.

    Raises ValueError or TypeError for a bad value.
    """
    parameters = inspect.signature(PATTERNS[check_name("pattern", pattern, PATTERNS)]).parameters
    defaults = {name: each.default for name, each in parameters.items() if name not in _NO_SETTINGS}
    found = plain(**(defaults | changes))
    PATTERNS[pattern](_LARGE, **found)  # which checks them
    return {"pattern": pattern} | found


def run(
    model: Normalized, ball: NormBall, settings: dict[str, Any], data: Mapping[str, Any], seed: int = 0, **options: Any
) -> UniversalPerturbation:
    """Return the pattern of the size of the model's images; see `uaplib.attacks.methods`."""
    found = make(ball, tuple(model.mean_image().shape[1:]), settings, seed)
    return replace(found, delta=found.delta.to(model.mean.device))


def make(ball: NormBall, shape: tuple[int, int, int], settings: dict[str, Any], seed: int = 0) -> UniversalPerturbation:
    """Return the pattern of shape (C, H, W) that uses the whole budget."""
    chosen = dict(settings)
    pattern = PATTERNS[chosen.pop("pattern")]
    found = pattern(shape, **chosen, **({"seed": seed} if "seed" in inspect.signature(pattern).parameters else {}))
    delta = ball.eps * (found if ball.p == math.inf else found / found.norm())
    return UniversalPerturbation(delta, ball, method=pattern.__name__, seed=seed, parameters=settings)
