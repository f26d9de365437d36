"""DeepFool (Moosavi-Dezfooli, Fawzi and Frossard, 2016): the smallest step across the decision boundary."""

import math
import warnings
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from tqdm import tqdm

from uaplib.balls import NormBall
from uaplib.checks import (
    ask,
    check_classifier,
    check_finite_gradient,
    check_images,
    check_labels,
    warn_without_gradient,
)
from uaplib.names import check_name

_CPU_BATCH, _BATCH = 32, 128  # on a CPU, small batches stay in the cache for all backward passes of a step
# Up to this many images of at most this many values, one pass over a copy of each image per rival beats one backward
# pass a rival; a copy of a large image costs more memory traffic than the calls it saves (`benchmarks/steps.py`).
_REPEATED_IMAGES, _REPEATED_VALUES = 2, 3 * 144 * 144


class Convention(NamedTuple):
    """Where the authors' own implementations differ.

    margin: added to each step's length. overshoot_inside: whether the network is linearised at
    x + (1 + overshoot) r, or at x + r with the overshoot in the stopping test alone.
    """

    margin: float
    overshoot_inside: bool


CONVENTIONS = {
    "python": Convention(margin=1e-4, overshoot_inside=True),
    "matlab": Convention(margin=0.0, overshoot_inside=False),
    "universal": Convention(margin=0.0, overshoot_inside=True),  # the copy inside the authors' UAP code
}


@dataclass(frozen=True)
class DeepFoolResult:
    """What DeepFool found for N images.

    perturbations: (N, C, H, W), overshoot included; zero where the model already contradicts the given label.
    iterations: int64 (N,). labels: the labels to leave, int64 (N,). new_labels: those of the perturbed images.
    """

    perturbations: Tensor
    iterations: Tensor
    labels: Tensor
    new_labels: Tensor

    @property
    def success(self) -> Tensor:
        """Whether a perturbation that means something changed the label, as booleans (N,); see `meaningful`."""
        return (self.labels != self.new_labels) & meaningful(self.perturbations)


def meaningful(perturbations: Tensor) -> Tensor:
    """Return which perturbations (N, C, H, W) are no longer than from a black image to a white one, as booleans (N,).

    Where a network's gradient is nearly zero, as behind a saturated softmax, linear steps are as long as rounding
    errors make them, and a label that changes there says nothing.
    """
    return torch.linalg.vector_norm(perturbations, dim=(1, 2, 3)) <= math.sqrt(perturbations[0].numel())


def deepfool(
    model: nn.Module,
    images: Tensor,
    labels: Tensor | None = None,
    *,
    p: float = 2,
    num_classes: int = 10,
    overshoot: float = 0.02,
    max_iterations: int = 50,
    convention: str = "python",
    clip: bool = False,
    batch_size: int | None = None,
    progress: bool = False,
) -> DeepFoolResult:
    """Find, for each image, a small perturbation in the p-norm (2 or infinity) that changes its label.

    Algorithm 2 of the paper; with p = infinity its eq. 12. In every step the `num_classes` - 1 best rivals of the
    label on the clean image compete, and the nearest linearised boundary is crossed. Images whose label has changed
    leave the batch.

    images: float (N, C, H, W) in [0, 1]. labels: int64 (N,), the labels to leave; the model's own predictions when
    absent, as in the authors' code. overshoot: relative, applied to the sum of the steps. convention: "python" or
    "matlab" for the authors' two programs, "universal" for the copy in their UAP code. clip: keep image plus
    perturbation in [0, 1] after every step; the authors do not. batch_size: images at a time, 32 on a CPU and 128
    elsewhere when absent.

    Raises ValueError or TypeError for bad images, labels or parameters, a model in training mode, or one that does
    not return logits. Warns when the gradient is zero, or so small that the steps mean nothing.
    """
    check_images(images)
    outputs = check_classifier(model, images)
    check_name("convention", convention, CONVENTIONS)
    NormBall(p, 0)  # refuses a norm other than 2 and infinity
    if num_classes < 2 or max_iterations < 1 or not overshoot >= 0:
        raise ValueError(
            "num_classes must be at least 2, max_iterations at least 1 and overshoot at least 0, "
            f"not {num_classes}, {max_iterations} and {overshoot}"
        )
    if labels is not None:
        check_labels(labels, images, outputs)
    images = images.detach()
    step = LinearStep(p, min(num_classes, outputs), overshoot, max_iterations, CONVENTIONS[convention], clip)
    batch_size = batch_size or (_CPU_BATCH if images.device.type == "cpu" else _BATCH)
    parts = []
    with tqdm(total=len(images), desc="DeepFool", unit="image", disable=not progress, leave=False) as bar:
        for start in range(0, len(images), batch_size):
            chunk = slice(start, start + batch_size)
            parts.append(step.attack(model, images[chunk], None if labels is None else labels[chunk]))
            bar.update(len(images[chunk]))
    found = DeepFoolResult(*(torch.cat(fields) for fields in zip(*parts, strict=True)))
    _warn(found)
    return found


def _warn(found: DeepFoolResult) -> None:
    """Say when DeepFool had nothing to go by."""
    stuck = (found.iterations > 0) & (found.perturbations == 0).flatten(1).all(1)
    warn_without_gradient(stuck)
    lost = int((~meaningful(found.perturbations)).sum())
    if 2 * lost > len(stuck):  # a single one may be an accident of linearisation, and `success` tells it
        warnings.warn(
            f"for {lost} of {len(stuck)} images the steps are longer than from black to white, so that they count as "
            "failures: the gradient is nearly zero there. Does the network end with a softmax?",
            stacklevel=3,
        )


@dataclass(frozen=True)
class LinearStep:
    """DeepFool with its parameters fixed and its input trusted: what `deepfool` and `uap` share."""

    p: float = 2
    num_classes: int = 10
    overshoot: float = 0.02
    max_iterations: int = 50
    convention: Convention = CONVENTIONS["python"]
    clip: bool = False

    def attack(self, model: nn.Module, images: Tensor, labels: Tensor | None) -> tuple[Tensor, ...]:
        """Return perturbations, iterations, labels and new labels of one batch."""
        total = torch.zeros_like(images)
        iterations = torch.zeros(len(images), dtype=torch.int64, device=images.device)
        live = torch.arange(len(images), device=images.device)
        inside, scale = self.convention.overshoot_inside, 1 + self.overshoot
        for step in range(self.max_iterations + 1):
            point, logits = _pass(model, self._clipped(images[live] + scale * total[live]))
            predictions = logits.detach().argmax(1)
            if step == 0:
                labels = predictions if labels is None else labels
                classes, new_labels = self._rivals(logits.detach(), labels), predictions.clone()
            new_labels[live] = predictions
            unfinished = predictions == labels[live]
            live = live[unfinished]
            if step == self.max_iterations or len(live) == 0:
                break
            if not (inside and unfinished.all()):  # otherwise the pass that checked the labels serves the step too
                linearised_at = images[live] + (scale if inside else 1) * total[live]
                point, logits = self._clipped(linearised_at), None
            margins, normals = margins_and_normals(model, point, classes[live], logits)
            check_finite_gradient(normals)
            moved = total[live] + self._step(margins, normals)
            if self.clip:  # what left [0, 1] would otherwise come back in later steps
                moved = (self._clipped(images[live] + scale * moved) - images[live]) / scale
            total[live] = moved
            iterations[live] += 1
        found = self._clipped(images + scale * total) - images
        return found, iterations, labels, new_labels

    def _clipped(self, images: Tensor) -> Tensor:
        return images.clamp(0, 1) if self.clip else images

    def _rivals(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The label and its best rivals on the clean image, (N, num_classes)."""
        others = logits.scatter(1, labels[:, None], -math.inf)
        return torch.cat([labels[:, None], others.topk(self.num_classes - 1, dim=1).indices], dim=1)

    def _step(self, margins: Tensor, normals: Tensor) -> Tensor:
        """The smallest step onto the nearest linearised boundary, (N, C, H, W)."""
        dual = normals.flatten(2).norm(2 if self.p == 2 else 1, dim=2)
        distances = torch.where(dual > 0, margins.abs() / dual, math.inf)
        distance, nearest = distances.min(1)
        rows = torch.arange(len(nearest), device=nearest.device)
        normal, length = normals[rows, nearest], dual[rows, nearest]
        direction = normal / length.view(-1, 1, 1, 1) if self.p == 2 else normal.sign()
        step = (distance + self.convention.margin).view(-1, 1, 1, 1) * direction
        step = torch.where(torch.isfinite(distance).view(-1, 1, 1, 1), step, 0)  # no gradient at all: stand still
        return step.to(normals)  # of the images' type, whatever the network computes in


def _pass(model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return the images and the model's logits, connected for gradients."""
    point = images.detach().requires_grad_()
    with torch.enable_grad():
        return point, ask(model, point)


def margins_and_normals(
    model: nn.Module, point: Tensor, classes: Tensor, logits: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return f_k - f_label (N, K - 1) and its gradients with respect to the images (N, K - 1, C, H, W).

    point: the images. classes: (N, K), the label first, then its rivals. logits: what the model made of `point`,
    connected for gradients, where that is known already.
    """
    rivals = classes.shape[1] - 1
    if len(point) <= _REPEATED_IMAGES and point[0].numel() <= _REPEATED_VALUES:
        copies, logits = _pass(model, point.repeat_interleave(rivals, 0))
        pairs = torch.stack([classes[:, :1].expand(-1, rivals), classes[:, 1:]], dim=2).flatten(0, 1)
        with torch.enable_grad():
            margins = _margins(logits, pairs)
        (normals,) = torch.autograd.grad(margins, copies, torch.ones_like(margins))
        return margins.detach().view(-1, rivals), normals.view(-1, rivals, *point.shape[1:])
    if logits is None:
        point, logits = _pass(model, point)
    with torch.enable_grad():
        margins = _margins(logits, classes)
        sums = margins.sum(0).unbind()
    normals = [torch.autograd.grad(total, point, retain_graph=total is not sums[-1])[0] for total in sums]
    return margins.detach(), torch.stack(normals, dim=1)


def _margins(logits: Tensor, classes: Tensor) -> Tensor:
    return logits.gather(1, classes[:, 1:]) - logits.gather(1, classes[:, :1])
