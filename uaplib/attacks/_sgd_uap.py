"""Universal perturbations by stochastic gradients (Shafahi et al., 2020): a sign step on a batch's mean gradient."""

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn
from torch.utils.data import DataLoader

from uaplib.attacks import _stochastic, losses, rules, runs
from uaplib.attacks._stochastic import Batch
from uaplib.balls import NormBall
from uaplib.perturbation import UniversalPerturbation


@dataclass(frozen=True, kw_only=True)
class SGDUAPSettings(_stochastic.LabelSettings):
    """Settings of `sgd_uap`.

    beta: the cross-entropy at which an image counts no more. floor: with a target, the cross-entropy down to which an
    image counts. momentum: of the sign steps, as in MI-FGSM.
    """

    beta: float = 9.0
    floor: float = 0.0
    momentum: float = 0.0

    def __post_init__(self):
        """Check the numbers."""
        super().__post_init__()
        if not self.beta > 0:
            raise ValueError(f"beta must be positive, or no image has a gradient, not {self.beta}")
        if not (self.floor >= 0 and 0 <= self.momentum < 1):
            raise ValueError(
                f"floor must be at least 0 and momentum lie in [0, 1), not {self.floor} and {self.momentum}"
            )


PRESETS = {
    "sgd-uap": {
        # Shafahi et al.'s, in their public program for ImageNet: 10 epochs of 2,000 labelled images.
        "authors": {"beta": 12.0, "step": 0.7, "batch_size": 100, "max_gradients": 20_000, "labels": "truth"},
        # The baseline in the program of SGA: 20 epochs of 10,000 images.
        "spgd": {"batch_size": 250, "max_gradients": 200_000},
    }
}


def sgd_uap(
    model: nn.Module,
    images: Tensor | DataLoader,
    ball: NormBall,
    *,
    labels: Tensor | None = None,
    settings: SGDUAPSettings | None = None,
    seed: int = 0,
    source: str = "",
    checkpoint: str | Path | None = None,
    progress: bool = False,
) -> UniversalPerturbation:
    """Craft one perturbation for all images by sign steps along the mean gradient of batches (Shafahi et al., 2020).

    A step maximises the mean of min(CE(f(clip(x + v)), y), beta) over a batch: v <- project(v + step sign(gradient)),
    with the same step to the end. With a target t it minimises that of max(CE(f(clip(x + v)), t), floor): the cap of
    the untargeted loss would take the gradient from those images that need it.

    model: takes (N, C, H, W) in [0, 1], returns logits (N, K). images: a tensor, on any device, or a DataLoader, which
    returns images or pairs of images and labels and makes its own batches. ball: an l-infinity ball. labels: int64
    (N,), needed where the settings say "truth", and used nowhere else. settings: the defaults when absent, which see
    the network's own predictions. source, seed, checkpoint, progress: as in `uap`; a run with a DataLoader goes on bit
    for bit if the loader draws with PyTorch's generator, and only at the beginning of a pass.

    The history has an entry for each hundredth of the cost: the gradients of single images spent so far, and loss and
    fooling rate over the images since the last entry, each as it was perturbed then.

    Raises ValueError or TypeError for bad images, labels or settings, among them a target that is no class; warns when
    the gradient is zero everywhere, as with a beta below every image's loss.
    """
    settings = settings or SGDUAPSettings()
    feed = _stochastic.feed_of(model, images, labels, settings)
    return runs.craft(_Run("sgd-uap", model, feed, ball, settings, seed, source), checkpoint, progress)


class _Run(_stochastic.Run):
    def losses(self, logits: Tensor, batch: Batch) -> Tensor:
        return label_losses(logits, batch, self.settings)

    def rule(self, v: Tensor) -> rules.SignSteps:
        return rules.SignSteps(v, self.ball, self.settings.step * self.ball.eps, self.settings.momentum)


def label_losses(logits: Tensor, batch: Batch, settings: SGDUAPSettings) -> Tensor:
    """Return what is minimised, (B,): the clipped cross-entropy from the labels, or that to the target."""
    if settings.target is None:
        return losses.clipped_cross_entropy(logits, settings.labels_of(batch), settings.beta)
    return losses.cross_entropy_to(logits, settings.target_of(batch), settings.floor)


settings, run = _stochastic.entries(sgd_uap, SGDUAPSettings)
