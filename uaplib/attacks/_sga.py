"""Stochastic gradient aggregation (Liu et al., 2023): the gradients along many small steps make one large one."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from uaplib.attacks import _sgd_uap, _stochastic, rules, runs
from uaplib.attacks._sgd_uap import SGDUAPSettings
from uaplib.attacks._stochastic import Batch
from uaplib.balls import NormBall
from uaplib.checks import check_fields
from uaplib.perturbation import UniversalPerturbation


@dataclass(frozen=True, kw_only=True)
class SGASettings(SGDUAPSettings):
    """Settings of `sga`: those of `sgd_uap`, where `batch_size` is that of an outer step, and two more.

    inner_batch_size: images of an inner step. rounds: how often an outer batch is gone through by inner steps.
    """

    batch_size: int = 50
    inner_batch_size: int = 10
    rounds: int = 4

    def __post_init__(self):
        """Check the numbers."""
        super().__post_init__()
        check_fields(self, at_least_1=("inner_batch_size", "rounds"))
        if self.inner_batch_size > self.batch_size:
            raise ValueError(
                f"inner_batch_size={self.inner_batch_size} is more than the {self.batch_size} images of an outer batch"
            )


PRESETS = {
    "sga": {"authors": {"batch_size": 250, "max_gradients": 800_000}}
}  # 20 epochs of 10,000 images, 4 rounds each


def sga(
    model: nn.Module,
    images: Tensor | DataLoader,
    ball: NormBall,
    *,
    labels: Tensor | None = None,
    settings: SGASettings | None = None,
    seed: int = 0,
    source: str = "",
    checkpoint: str | Path | None = None,
    progress: bool = False,
) -> UniversalPerturbation:
    """Craft one perturbation for all images by aggregated gradients, as the authors' program does.

    An outer step takes a batch of B images. From v, rounds B / b inner sign steps are taken, each on b images of the
    batch drawn anew; their end is thrown away, and v takes one sign step along the mean of their gradients. The loss
    is that of `sgd_uap`, which this is where there is one inner step with the whole batch. A step costs rounds B
    gradients, so that a run of few gradients is one of few steps.

    Arguments, history, errors and warnings: as in `sgd_uap`.
    """
    settings = settings or SGASettings()
    feed = _stochastic.feed_of(model, images, labels, settings)
    return runs.craft(_Run("sga", model, feed, ball, settings, seed, source), checkpoint, progress)


class _Run(_sgd_uap._Run):
    def move(self, batch: Batch) -> None:
        """Take an outer step."""
        self.rules.step(torch.stack(self.inner_gradients(batch)).mean(0))

    def inner_gradients(self, batch: Batch) -> list[Tensor]:
        """The gradients along the inner steps, which begin at the perturbation and leave it as it is."""
        size = min(self.settings.inner_batch_size, len(batch.images))
        inner, found = rules.SignSteps(self.rules.v, self.ball, self.rules.size), []
        for _ in range(self.settings.rounds * len(batch.images) // size):
            drawn = torch.randperm(len(batch.images))[:size].to(batch.images.device)
            found.append(self.gradient(inner.v, batch.subset(drawn)))
            inner.step(found[-1])
        return found


settings, run = _stochastic.entries(sga, SGASettings)
