"""The fast gradient sign method (Goodfellow, Shlens and Szegedy, 2015) and its iterated form (Kurakin et al., 2017)."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from uaplib.balls import NormBall
from uaplib.checks import (
    ask,
    check_classifier,
    check_finite_gradient,
    check_images,
    check_labels,
    warn_without_gradient,
)


def fgsm(
    model: nn.Module,
    images: Tensor,
    eps: float,
    labels: Tensor | None = None,
    *,
    targeted: bool = False,
    clip: bool = True,
) -> Tensor:
    """Return adversarial images x + eps sign(grad_x J(x, y)), where J is the cross-entropy (eq. 2 of the paper).

    model: takes (N, C, H, W) in [0, 1], returns logits (N, K). eps: in units of [0, 1]. labels: int64 (N,); the
    model's own predictions when absent. targeted: step towards `labels` instead of away from them. clip: clip the
    result to [0, 1]. Raises ValueError or TypeError for bad images, labels, eps, or a model in training mode.
    """
    return iterated_fgsm(model, images, eps, labels, step=eps, steps=1, targeted=targeted, clip=clip)


def iterated_fgsm(
    model: nn.Module,
    images: Tensor,
    eps: float,
    labels: Tensor | None = None,
    *,
    step: float,
    steps: int,
    targeted: bool = False,
    clip: bool = True,
) -> Tensor:
    """Take `steps` sign steps of size `step`, each followed by a projection onto the l-infinity ball of radius eps.

    Arguments and errors as in `fgsm`, which is the case steps = 1, step = eps. Returns images (N, C, H, W).
    """
    check_images(images)
    check_classifier(model, images)
    if targeted and labels is None:
        raise ValueError("a targeted attack needs labels: the class that each image is to become")
    ball = NormBall(math.inf, eps)  # it refuses or doubts a budget that means nothing
    if steps < 1 or not step >= 0:
        raise ValueError(f"steps must be at least 1 and step at least 0, not {steps} and {step}")
    images = adversarial = images.detach()
    for step_number in range(steps):
        point = adversarial.clone().requires_grad_()
        with torch.enable_grad():
            logits = ask(model, point)
            if labels is None:
                labels = logits.argmax(1)
            check_labels(labels, images, logits.shape[1])
            loss = F.cross_entropy(logits, labels, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, point)
        check_finite_gradient(gradient)
        if step_number == 0:
            warn_without_gradient((gradient == 0).flatten(1).all(1))
        direction = -gradient.sign() if targeted else gradient.sign()
        adversarial = images + ball.project(adversarial + step * direction - images)
        adversarial = adversarial.clamp(0, 1) if clip else adversarial
    return adversarial
