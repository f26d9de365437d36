"""The best of many patterns that nobody optimised: what can be had from a network by questions alone.

The single Fourier attack (Tsuzuku and Sato, 2019) tries frequencies; attacks by procedural noise (Co et al., 2019)
search the parameters of Perlin and Gabor noise, there by Bayesian optimisation, here at random.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from uaplib import provenance
from uaplib.attacks import _patterns, runs
from uaplib.balls import NormBall
from uaplib.checks import check_fields, check_images, check_model, classes
from uaplib.metrics import fooling_rate, predict
from uaplib.names import check_name
from uaplib.perturbation import UniversalPerturbation


def _uniform(low: float, high: float) -> float:
    return low + (high - low) * torch.rand(()).item()


def _whole(low: int, high: int) -> int:
    return int(torch.randint(low, high + 1, ()))


def _chessboard(side: int) -> dict[str, Any]:
    return {"size": _whole(1, max(1, side // 4))}


def _perlin(side: int) -> dict[str, Any]:
    return {"period": 1 / _uniform(1 / 160, 1 / 20), "octaves": _whole(1, 4), "sine": _uniform(4, 32)}


def _gabor(side: int) -> dict[str, Any]:
    return {
        "wavelength": _uniform(2, 16), "sigma": _uniform(1, 8), "angle": _uniform(0, math.pi), "sides": _whole(1, 8),
    }  # fmt: skip


def _circles(side: int) -> dict[str, Any]:
    return {"tile": _whole(min(8, side), side), "period": _uniform(2, 16)}


# What is drawn for images of so many pixels a side; a pattern with a seed gets one, too. Perlin's are the paper's.
DRAWN: Mapping[str, Callable[[int], dict[str, Any]]] = {
    "chessboard": _chessboard, "perlin": _perlin, "gabor": _gabor, "circles": _circles,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class PatternSearchSettings:
    """Settings of `pattern_search`.

    pattern: "fourier", or one of those that are drawn at random. trials: how many are tried; of "fourier" about so many
    on a regular grid of frequencies. clip: whether image plus pattern is clipped to [0, 1].
    """

    pattern: str = "fourier"
    trials: int = 100
    clip: bool = True

    def __post_init__(self):
        """Check the numbers and the name."""
        check_name("pattern", self.pattern, ["fourier", *DRAWN])
        check_fields(self, at_least_1=("trials",))


PRESETS = {"fourier-search": {"fine": {"trials": 240}}}


def pattern_search(
    model: nn.Module,
    images: Tensor,
    ball: NormBall,
    *,
    settings: PatternSearchSettings | None = None,
    seed: int = 0,
    source: str = "",
    checkpoint: str | Path | None = None,
    progress: bool = False,
) -> UniversalPerturbation:
    """Return the pattern, of many of one kind, that fools most of the images; it needs no gradient, only labels.

    The patterns are those of `uaplib.patterns` at the whole budget. The history has an entry for each that was tried:
    its parameters, and its fooling rate. The cost is the number of images that the network was asked about.

    model: takes (N, C, H, W) in [0, 1], returns logits (N, K). images: crafting images, a few hundred at most,
    where the model is. ball: l2 or l-infinity. source, seed, checkpoint, progress: as in `uap`.

    Raises ValueError or TypeError for bad images or settings, or a model in training mode.
    """
    settings = settings or PatternSearchSettings()
    check_images(images)
    classes(check_model(model, images))
    if not ball.eps > 0:
        raise ValueError(f"the ball must have some room, not {ball}")
    return runs.craft(_Run(model, images.detach(), ball, settings, seed, source), checkpoint, progress)


class _Run(runs.Run):
    """The number of patterns that were tried, and the best so far."""

    unit = "pattern"

    def __init__(self, model, images, ball, settings, seed, source):
        record = asdict(settings) | provenance.images_record(images)
        super().__init__(f"{settings.pattern}-search", model, ball, seed, source, record)
        self.images, self.settings, self.shape = images, settings, tuple(images.shape[1:])

    def begin(self) -> None:
        self.clean = predict(self.model, self.images)
        self.tried, self.best_rate = 0, -1.0
        self.best = torch.zeros_like(self.images[:1])
        self.grid = _frequencies(self.shape, self.settings.trials) if self.settings.pattern == "fourier" else None

    def step(self) -> bool:
        """Try one pattern."""
        parameters, seed = self.candidate()
        chosen = {"pattern": self.settings.pattern} | parameters
        delta = _patterns.make(self.ball, self.shape, chosen, seed).delta.to(self.images)
        rate = fooling_rate(self.clean, predict(self.model, self.images, delta, clip=self.settings.clip)).value
        self.tried += 1
        self.history.append({"tried": self.tried, **parameters, "seed": seed, "rate": rate})
        if rate > self.best_rate:
            self.best, self.best_rate = delta, rate
        return True

    def candidate(self) -> tuple[dict[str, Any], int]:
        """The parameters of the next pattern and its seed."""
        if self.grid:
            return dict(zip(("rows", "columns"), self.grid[self.tried], strict=True)), 0
        return DRAWN[self.settings.pattern](min(self.shape[1:])), _whole(0, 2**31 - 1)

    def finished(self) -> bool:
        return self.tried >= self.progress()[1]

    def progress(self) -> tuple[int, int]:
        return self.tried, len(self.grid) if self.grid else self.settings.trials

    def state(self) -> tuple[dict[str, Tensor], dict]:
        return {"best": self.best}, {"tried": self.tried, "best_rate": self.best_rate}

    def restore(self, tensors: dict[str, Tensor], rest: dict) -> None:
        vars(self).update(rest)
        self.best = tensors["best"].to(self.images.device)

    def delta(self) -> Tensor:
        return self.best

    def counts(self) -> dict:
        return {"patterns": self.tried, "gradients": 0, "queries": (self.tried + 1) * len(self.images)}


def _frequencies(shape: tuple[int, int, int], trials: int) -> list[tuple[int, int]]:
    """About so many pairs of rows and columns on a regular grid over the plane, each wave once."""
    across = max(3, round(math.sqrt(2 * trials)) | 1)  # odd, so that zero is there
    down = max(2, round(trials / across))
    rows = torch.linspace(0, shape[1] // 2, down).round().int().unique().tolist()
    columns = torch.linspace(-(shape[2] // 2), shape[2] // 2, across).round().int().unique().tolist()
    _, height, width = shape
    waves = {}  # a frequency and its negative, and those that differ by whole images of pixels, are one wave
    for r, c in ((r, c) for r in rows for c in columns if r or c):
        waves.setdefault(frozenset({(r % height, c % width), (-r % height, -c % width)}), (r, c))
    return list(waves.values())


def settings(ball: NormBall, **changes: Any) -> dict[str, Any]:
    """Return all settings; see `uaplib.attacks.methods`."""
    return asdict(PatternSearchSettings(**changes))


def run(
    model: nn.Module, ball: NormBall, settings: dict[str, Any], data: Mapping[str, Any], **options: Any
) -> UniversalPerturbation:
    """Craft with all settings; see `uaplib.attacks.methods`."""
    return pattern_search(model, ball=ball, settings=PatternSearchSettings(**settings), **data, **options)
