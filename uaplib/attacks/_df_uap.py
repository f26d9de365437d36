"""Universal perturbations from margins of logits (Zhang et al., 2020), also towards a class, and for some classes."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from uaplib.attacks import _stochastic, losses, rules, runs
from uaplib.attacks._stochastic import Batch
from uaplib.balls import NormBall
from uaplib.perturbation import UniversalPerturbation


@dataclass(frozen=True, kw_only=True)
class DFUAPSettings(_stochastic.LabelSettings):
    """Settings of `df_uap`; `step` is Adam's learning rate, as a share of the budget.

    kappa: the margin at which an image counts no more. fixed_rival: whether the logit beside that of the label, or of
    the target, counts as a constant; None: with a target, as in the authors' program. sources: the classes whose images
    are to be fooled while those of the others keep their labels; with `target`, the class that they are to become;
    None: all classes.
    """

    step: float = 0.1275  # 0.005 at 10/255
    kappa: float = 10.0
    fixed_rival: bool | None = None
    sources: list[int] | None = None

    def __post_init__(self):
        """Check the numbers."""
        super().__post_init__()
        if not self.kappa >= 0:
            raise ValueError(f"kappa must be at least 0, not {self.kappa}")
        chosen = self.sources
        if chosen is None:
            return
        if not (
            isinstance(chosen, list | tuple) and chosen and all(type(each) is int and each >= 0 for each in chosen)
        ):
            raise ValueError(f"sources must be a list of classes, from 0 on, or None, not {chosen!r}")
        if self.target in chosen:
            raise ValueError(f"target={self.target} is among the sources, whose images it would leave as they are")
        object.__setattr__(self, "sources", list(chosen))

    @property
    def uses_labels(self) -> bool:
        """Whether labels play a part: with sources they say who is attacked."""
        return super().uses_labels or self.sources is not None


# 2,000 iterations of 32 labelled images
PRESETS = {"df-uap": {"authors": {"clip": False, "max_gradients": 64_000, "labels": "truth"}}}


def df_uap(
    model: nn.Module,
    images: Tensor | DataLoader,
    ball: NormBall,
    *,
    labels: Tensor | None = None,
    settings: DFUAPSettings | None = None,
    seed: int = 0,
    source: str = "",
    checkpoint: str | Path | None = None,
    progress: bool = False,
) -> UniversalPerturbation:
    """Craft one perturbation by Adam on the margins of logits, averaged over batches.

    Untargeted: max(z_y - max_{j != y} z_j, -kappa), y the images' labels. With a `target` t, which any images can
    craft: max(max_{j != t} z_j - z_t, -kappa), the rival a constant. With `sources`, images of these classes alone are
    to be fooled, and for all others the cross-entropy to their label is minimised: class-discriminative without a
    target, double-targeted with one, half of whose loss is that the images leave their class. Images whose label the
    network gets wrong do not count there.

    model, images, ball, labels, source, seed, checkpoint, progress, history, errors: as in `sgd_uap`. The authors'
    programs do not clip image plus perturbation, and take true labels for the untargeted form.
    """
    settings = settings or DFUAPSettings()
    feed = _stochastic.feed_of(model, images, labels, settings)
    if settings.sources and max(settings.sources) >= feed.outputs:
        raise ValueError(f"sources must be classes of the model, 0 ... {feed.outputs - 1}, not {settings.sources}")
    return runs.craft(_Run("df-uap", model, feed, ball, settings, seed, source), checkpoint, progress)


class _Run(_stochastic.Run):
    def losses(self, logits: Tensor, batch: Batch) -> Tensor:
        chosen, labels = self.settings, self.settings.labels_of(batch)
        if chosen.sources is None and chosen.target is None:
            return losses.margin(logits, labels, chosen.kappa, bool(chosen.fixed_rival))
        if chosen.sources is None:
            return losses.margin_to(logits, chosen.target_of(batch), chosen.kappa, chosen.fixed_rival is not False)
        attacked = torch.isin(labels, torch.tensor(chosen.sources, device=labels.device))
        kept = F.cross_entropy(logits, labels, reduction="none")
        found = torch.where(attacked, self.discriminative(logits, batch, labels), kept)
        right = labels == batch.predictions  # others have no label to lose or to keep, and do not count in the mean
        return torch.where(right, found, 0) * (len(right) / right.sum().clamp_min(1))

    def discriminative(self, logits: Tensor, batch: Batch, labels: Tensor) -> Tensor:
        """The loss of images that are to be fooled where others are not."""
        chosen = self.settings
        if chosen.target is None:
            return losses.margin(logits, labels, chosen.kappa, bool(chosen.fixed_rival))
        fixed = chosen.fixed_rival is not False
        away = losses.margin(logits, labels, 0.0, fixed)
        return (away + losses.margin_to(logits, chosen.target_of(batch), chosen.kappa, fixed)) / 2

    def rule(self, v: Tensor) -> rules.AdamSteps:
        return rules.AdamSteps(v, self.ball, self.settings.step * self.ball.eps)


settings, run = _stochastic.entries(df_uap, DFUAPSettings)
