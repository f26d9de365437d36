"""How much a network withstands one perturbation per image: projected gradients with restarts (Madry et al., 2018)."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from uaplib.balls import NormBall
from uaplib.checks import ask, check_classifier, check_fields, check_images, check_labels, check_seed
from uaplib.defences._search import search
from uaplib.devices import device_of
from uaplib.metrics import Proportion, share


@dataclass(frozen=True, kw_only=True)
class PGDSettings:
    """Settings of `pgd`.

    steps: of each restart. step: as a share of eps; 2.5 / steps, as Madry et al. advise, reaches the border from
    wherever a run begins. restarts: how often an image that still has its label is attacked anew. clip: whether sums
    are clipped to [0, 1].
    """

    steps: int = 20
    step: float = 0.125
    restarts: int = 5
    clip: bool = True

    def __post_init__(self):
        """Check the numbers."""
        check_fields(self, at_least_1=("steps", "restarts"))
        if not self.step > 0:
            raise ValueError(f"step must be positive, a share of the budget, not {self.step}")


class PGDResult(NamedTuple):
    """What projected gradients did to N images.

    correct: booleans (N,), whether an image has its true label clean and after every restart. perturbations:
    (N, C, H, W) in the ball, the one that took the label away, or that of the last restart; zero for an image that was
    wrong before.
    """

    correct: Tensor
    perturbations: Tensor

    @property
    def accuracy(self) -> Proportion:
        """The share of images that are correct, an upper bound of what is left under the best attack."""
        return share(self.correct)


def pgd(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    ball: NormBall,
    *,
    settings: PGDSettings | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    progress: bool = False,
) -> PGDResult:
    """Attack each image by itself: from a random start in the ball, steps up its cross-entropy, with restarts.

    A step is step eps times the sign of the gradient for an l-infinity ball, along the gradient for an l2 ball, and is
    followed by a projection onto the ball and, with `clip`, onto [0, 1]. An image counts as correct if neither itself
    nor the end of any restart is misclassified: the worst case, image by image.

    model: in evaluation mode, takes (N, C, H, W) in [0, 1], returns logits (N, K). labels: int64 (N,), the true ones.
    batch_size: images at a time; when absent, 500 of up to 64 x 64 pixels and 8 larger ones. The seed decides all
    starts. Raises ValueError or TypeError for bad images, labels, settings, or a model in training mode.
    """
    settings, device = settings or PGDSettings(), device_of(model)
    check_images(images)
    outputs = check_classifier(model, images[:1].to(device))
    check_labels(labels, images, outputs)
    generator = torch.Generator().manual_seed(check_seed(seed))
    batch_size = batch_size or (500 if images[0, 0].numel() <= 64 * 64 else 8)
    pairs = list(zip(images.detach().split(batch_size), labels.split(batch_size), strict=True))
    found = [
        _attack(model, some.to(device), truth.to(device), ball, settings, generator)
        for some, truth in tqdm(pairs, desc="pgd", unit="batch", disable=not progress, leave=False)
    ]
    correct, perturbations = (torch.cat(each) for each in zip(*found, strict=True))
    return PGDResult(correct.to(images.device), perturbations.to(images.device))


def _attack(
    model: nn.Module, images: Tensor, labels: Tensor, ball: NormBall, settings: PGDSettings, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Whether each image of a batch stays correct, and its perturbation."""
    perturbations = torch.zeros_like(images)
    correct = _labels(model, images) == labels
    for _ in range(settings.restarts):
        left = correct.nonzero()[:, 0]
        if not len(left):
            break
        perturbations[left] = v = _run(model, images[left], labels[left], ball, settings, generator)
        seen = (images[left] + v).clamp(0, 1) if settings.clip else images[left] + v
        correct[left] = _labels(model, seen) == labels[left]
    return correct, perturbations


def _run(
    model: nn.Module, images: Tensor, labels: Tensor, ball: NormBall, settings: PGDSettings, generator: torch.Generator
) -> Tensor:
    """The perturbations at the end of one run from a random start."""

    def loss(seen: Tensor) -> Tensor:
        return F.cross_entropy(ask(model, seen), labels, reduction="sum")

    size = settings.step * ball.eps
    return search(loss, images, ball, steps=settings.steps, size=size, clip=settings.clip, generator=generator)


@torch.no_grad()
def _labels(model: nn.Module, images: Tensor) -> Tensor:
    return ask(model, images).argmax(1)
