"""Universal perturbations (Moosavi-Dezfooli et al., 2017), several images at a time: steps at the same v are summed."""

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from uaplib.attacks import _uap, runs
from uaplib.attacks._deepfool import meaningful
from uaplib.balls import NormBall
from uaplib.checks import ask, check_classifier, check_images, whole
from uaplib.perturbation import UniversalPerturbation


def batched_uap(
    model: nn.Module,
    images: Tensor,
    ball: NormBall,
    *,
    batch: int = 8,
    labels: Tensor | None = None,
    held_out: Tensor | tuple[Tensor, Tensor | None] | None = None,
    seed: int = 0,
    target_rate: float = 0.8,
    max_passes: int = 10,
    num_classes: int = 10,
    overshoot: float = 0.02,
    max_iterations: int = 10,
    clip: bool = True,
    source: str = "",
    checkpoint: str | Path | None = None,
    progress: bool = False,
) -> UniversalPerturbation:
    """Craft one perturbation as `uap` does, but visit `batch` images at a time.

    Those of them that the perturbation v does not fool get their DeepFool steps on top of the same v, together; what
    `uap` would keep of these is summed, and v plus the sum is projected onto the ball once. With batch = 1 this is
    `uap`. It is not in the paper: the steps of a batch know nothing of each other.

    batch: at least 1; so many images are in memory at a time, each with the gradients of `num_classes` - 1 rivals. All
    else as in `uap`, errors and warnings too.
    """
    check_images(images)
    num_outputs = check_classifier(model, images)
    numbers = _uap.checked(target_rate, max_passes, num_classes, overshoot, max_iterations, clip) | _checked(batch)
    run = _uap.begun(_Run, model, images, ball, numbers, labels, held_out, seed, source, num_outputs)
    return runs.craft(run, checkpoint, progress)


def _checked(batch: int) -> dict[str, int]:
    if whole(batch=batch)["batch"] < 1:
        raise ValueError(f"batch must be at least 1, not {batch}")
    return whole(batch=batch)


def settings(ball: NormBall, batch: int = inspect.signature(batched_uap).parameters["batch"].default, **changes: Any):
    """Return all settings; see `uaplib.attacks.methods`."""
    return _uap.settings(ball, **changes) | _checked(batch)


def run(
    model: nn.Module, ball: NormBall, settings: dict[str, Any], data: Mapping[str, Any], **options: Any
) -> UniversalPerturbation:
    """Craft with all settings; see `uaplib.attacks.methods`."""
    return batched_uap(model, ball=ball, **settings, **data, **options)


class _Run(_uap.Run):
    """As that of `uap`; a stretch of images is a batch."""

    name = "uap-batched"

    def __init__(self, *about: Any):
        super().__init__(*about)
        self.first_screen = self.longest_screen = self.parameters["batch"]

    def visit(self, block: Tensor) -> int:
        """Visit all images of `block` with the same perturbation; return how many they are."""
        perturbed = self.perturbed(self.images[block])
        with torch.no_grad():
            fooled = ask(self.model, perturbed).argmax(1) != self.clean["crafting"][block]
        if not fooled.all():
            steps, labels, new_labels = self.smallest_step(perturbed[~fooled])
            kept = steps[(new_labels != labels) & meaningful(steps)]
            self.moved = self.moved or bool(steps.any())
            self.accepted += len(kept)
            self.v = self.ball.project(self.v + kept.to(self.v).sum(0, keepdim=True)) if len(kept) else self.v
        return len(block)
