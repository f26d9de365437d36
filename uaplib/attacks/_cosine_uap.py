"""Universal perturbations that turn logits away from what they were (Zhang et al., 2021): no label plays a part."""

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn
from torch.utils.data import DataLoader

from uaplib.attacks import _stochastic, losses, rules, runs
from uaplib.attacks._stochastic import Batch
from uaplib.balls import NormBall
from uaplib.perturbation import UniversalPerturbation


@dataclass(frozen=True, kw_only=True)
class CosineUAPSettings(_stochastic.Settings):
    """Settings of `cosine_uap`; `step` is Adam's learning rate, as a share of the budget."""

    step: float = 0.1275  # 0.005 at 10/255
    start: str = "uniform"  # at zero the cosine is 1, and its gradient vanishes


def cosine_uap(
    model: nn.Module,
    images: Tensor | DataLoader,
    ball: NormBall,
    *,
    settings: CosineUAPSettings | None = None,
    seed: int = 0,
    source: str = "",
    checkpoint: str | Path | None = None,
    progress: bool = False,
) -> UniversalPerturbation:
    """Craft one perturbation by Adam on the mean of cos(f(x), f(clip(x + v))) over batches.

    f: the logits. The authors have published no program; the paper names the loss, Adam, and no constant that could be
    checked. At v = 0 the cosine is at its maximum and has no gradient, so that the start is random.

    model, images, ball, source, seed, checkpoint, progress, history, errors: as in `sgd_uap`.
    """
    settings = settings or CosineUAPSettings()
    feed = _stochastic.feed_of(model, images, None, settings)
    return runs.craft(_Run("cosine-uap", model, feed, ball, settings, seed, source), checkpoint, progress)


class _Run(_stochastic.Run):
    def losses(self, logits: Tensor, batch: Batch) -> Tensor:
        return losses.cosine(logits, batch.clean_logits)

    def rule(self, v: Tensor) -> rules.AdamSteps:
        return rules.AdamSteps(v, self.ball, self.settings.step * self.ball.eps)


settings, run = _stochastic.entries(cosine_uap, CosineUAPSettings)
