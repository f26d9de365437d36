"""Who perturbs the batch: the rules by which networks are trained on perturbed images.

A rule is its settings. What it carries from batch to batch is in a dictionary of tensors, its memory, which a
checkpoint keeps.
"""

import math
from dataclasses import asdict, dataclass, fields
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from uaplib import provenance
from uaplib.attacks.losses import clipped_cross_entropy
from uaplib.balls import NormBall, added
from uaplib.checks import check_fields, check_tensor
from uaplib.defences._search import gradient_at, search, steepest
from uaplib.features import Layer, activation
from uaplib.names import check_name

MODES = ("alternating", "simultaneous")
Memory = dict[str, Tensor]
Parts = list[tuple[float, Tensor]]


class Batch(NamedTuple):
    """Images (B, C, H, W), their labels (B,), and the network that learns them. smoothing: of the labels."""

    model: nn.Module
    images: Tensor
    labels: Tensor
    smoothing: float = 0.0

    def logits(self, images: Tensor) -> Tensor:
        """Return what the network says of other images (B, C, H, W)."""
        return self.model(images.clone())  # some networks work in place

    def loss(self, images: Tensor) -> Tensor:
        """Return the mean cross-entropy of other images in place of those of the batch."""
        return F.cross_entropy(self.logits(images), self.labels, label_smoothing=self.smoothing)


@dataclass(frozen=True, kw_only=True, eq=False)
class Rule:
    """What a network sees in place of a batch: the batch itself, unless a subclass says otherwise.

    A subclass has its settings as fields. `train` takes any; this is all that it asks of one.
    """

    def __post_init__(self):
        """Check the settings."""
        check_fields(self)

    def check(self, model: nn.Module, images: Tensor, batch_size: int) -> None:
        """Raise ValueError where the rule does not fit the model, its images (N, C, H, W) or the size of a batch."""

    def begin(self, images: Tensor) -> Memory:
        """Return the memory before the first step. images: one or more, where the model is."""
        return {}

    def parts(self, batch: Batch, memory: Memory) -> Parts:
        """Return the parts of the loss that the weights take a step down: each a weight and images (B, C, H, W)."""
        return [(1.0, batch.images)]

    def after(self, batch: Batch, memory: Memory) -> None:
        """Change the memory after that step; `batch.model` has the new weights."""

    def record(self) -> dict:
        """Return the rule and its settings, JSON-safe; of a tensor its digest."""
        return {"rule": type(self).__name__} | {each.name: _plain(getattr(self, each.name)) for each in fields(self)}


def _plain(value: object) -> object:
    if isinstance(value, Tensor):
        return provenance.sha256_of(value)
    return {name: str(part) for name, part in asdict(value).items()} if isinstance(value, NormBall) else value


@dataclass(frozen=True, kw_only=True, eq=False)
class CleanTraining(Rule):
    """Training on the images as they are: what every other rule is to be compared with, after as many epochs."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PoolTraining(Rule):
    """Training with fixed universal perturbations (Moosavi-Dezfooli et al., 2017, section 5).

    Each image gets, with a probability, one perturbation drawn from the pool, and is clean otherwise. The paper takes
    ten perturbations of the network, half of the images, and five epochs.

    pool: (K, C, H, W), in units of [0, 1]. probability: in [0, 1]. clip: whether sums are clipped to [0, 1].
    """

    pool: Tensor
    probability: float = 0.5
    clip: bool = True

    def __post_init__(self):
        """Check the settings."""
        super().__post_init__()
        check_tensor("pool", self.pool)
        _check_share("probability", self.probability)
        object.__setattr__(self, "pool", self.pool.detach())

    def check(self, model: nn.Module, images: Tensor, batch_size: int) -> None:
        """Raise ValueError where the perturbations are not of the images' shape."""
        if self.pool.shape[1:] != images.shape[1:]:
            raise ValueError(
                f"pool: its perturbations are {tuple(self.pool.shape[1:])}, the images {tuple(images.shape[1:])}"
            )

    def parts(self, batch: Batch, memory: Memory) -> Parts:
        """Return the images, some of them perturbed."""
        count, device = len(batch.images), batch.images.device
        perturbed = (torch.rand(count) < self.probability).view(-1, 1, 1, 1).to(device)
        drawn = self.pool[torch.randint(len(self.pool), (count,))].to(batch.images)
        return [(1.0, torch.where(perturbed, added(batch.images, drawn, self.clip), batch.images))]


@dataclass(frozen=True, kw_only=True, eq=False)
class UniversalTraining(Rule):
    """Universal adversarial training (Shafahi et al., 2020): min over w of max over v of mean l(w, x + v).

    One perturbation v, from zero on, lives through the whole training: it is in the memory as "delta", (1, C, H, W).
    In each step the weights go down the loss at x + v, and v goes up it by step eps sign(gradient), projected onto the
    ball (for an l2 ball along the gradient).

    ball: l-infinity or l2. mode: "alternating" takes the gradient for v with the new weights, a second forward and
    backward pass; "simultaneous" takes it from the backward pass of the weights, at about the cost of plain training.
    step: as a share of eps. clip: whether sums are clipped to [0, 1].
    """

    ball: NormBall
    mode: str = MODES[0]
    step: float = 1.0
    clip: bool = True

    def __post_init__(self):
        """Check the settings."""
        super().__post_init__()
        check_name("mode", self.mode, MODES)
        _check_step(self.step)

    def begin(self, images: Tensor) -> Memory:
        """Return the perturbation, zero."""
        return {"delta": torch.zeros_like(images[:1])}

    def parts(self, batch: Batch, memory: Memory) -> Parts:
        """Return the perturbed images."""
        memory["delta"] = memory["delta"].detach().requires_grad_(self.mode == "simultaneous")
        return [(1.0, added(batch.images, memory["delta"], self.clip))]

    def after(self, batch: Batch, memory: Memory) -> None:
        """Move the perturbation."""
        delta = memory["delta"]
        if self.mode == "simultaneous":
            gradient = delta.grad
        else:
            gradient = gradient_at(lambda v: batch.loss(added(batch.images, v, self.clip)), delta)
        moved = delta.detach() + self.step * self.ball.eps * steepest(gradient, self.ball)
        memory["delta"] = self.ball.project(moved)


@dataclass(frozen=True, kw_only=True, eq=False)
class SharedTraining(Rule):
    """Shared adversarial training (Mummadi et al., 2019): a batch is split into heaps, each with one perturbation.

    A heap's perturbation begins anew in every batch, uniform in the ball, and takes steps up the mean over the heap of
    min(CE, cap). The weights take a step down sigma l(x + v) + (1 - sigma) l(x). A heap of 1, sigma = 1 and no cap is
    the usual adversarial training (Madry et al., 2018); the larger the heap, the weaker the adversary, and the closer
    to a universal one.

    ball: l-infinity or l2. heap: images of a heap; it must divide the batch. steps, step: of the perturbation, the
    second as a share of eps. sigma: in [0, 1]. cap: None, or the cross-entropy at which an image counts no more for the
    perturbation. clip: whether sums are clipped to [0, 1]. A batch costs steps + 2 passes forward and backward, with
    sigma = 1 one less.
    """

    ball: NormBall
    heap: int = 64
    steps: int = 4
    step: float = 0.5
    sigma: float = 0.5
    cap: float | None = -math.log(0.2)
    clip: bool = True

    def __post_init__(self):
        """Check the settings."""
        check_fields(self, at_least_1=("heap", "steps"))
        _check_step(self.step)
        _check_share("sigma", self.sigma)
        if self.cap is not None and not self.cap > 0:
            raise ValueError(f"cap must be positive, or no image has a gradient, not {self.cap}")

    def check(self, model: nn.Module, images: Tensor, batch_size: int) -> None:
        """Raise ValueError where the heap does not divide the batch."""
        if batch_size % self.heap:
            raise ValueError(f"heap={self.heap} must divide batch_size={batch_size}")

    def parts(self, batch: Batch, memory: Memory) -> Parts:
        """Return the perturbed and the clean images."""
        cap = math.inf if self.cap is None else self.cap

        def gain(images: Tensor) -> Tensor:
            return -clipped_cross_entropy(batch.logits(images), batch.labels, cap).sum()

        v = search(
            gain, batch.images, self.ball, steps=self.steps, size=self.step * self.ball.eps, heap=self.heap,
            clip=self.clip,
        )  # fmt: skip
        return [(self.sigma, added(batch.images, v, self.clip)), (1 - self.sigma, batch.images)]


@dataclass(frozen=True, kw_only=True, eq=False)
class DemocraticTraining(Rule):
    """Democratic training (Sun et al., 2025): the network learns the labels of images of low entropy.

    Under a universal perturbation, the authors observe, the softmax over a network's deep features has less entropy.
    Here each image gets a perturbation of its own, uniform in the ball at first, that takes steps DOWN the entropy. No
    universal perturbation, and no label, is needed for that. The weights take a step down (1 - alpha) l(x) +
    alpha l(x + v).

    ball: l-infinity or l2. alpha: in [0, 1]. steps, step: of the perturbation, the second as a share of eps. layer: the
    module whose output counts as deep features; what the last linear layer takes, when absent. clip: whether sums are
    clipped to [0, 1]; the authors do not.
    """

    ball: NormBall
    alpha: float = 0.9
    steps: int = 5
    step: float = 0.25
    layer: str | None = None
    clip: bool = True

    def __post_init__(self):
        """Check the settings."""
        check_fields(self, at_least_1=("steps",))
        _check_step(self.step)
        _check_share("alpha", self.alpha)

    def check(self, model: nn.Module, images: Tensor, batch_size: int) -> None:
        """Raise ValueError where the network has no such layer."""
        deep_features(model, images[:1], self.layer)

    def parts(self, batch: Batch, memory: Memory) -> Parts:
        """Return the perturbed and the clean images."""

        def certainty(images: Tensor) -> Tensor:
            return -entropy(deep_features(batch.model, images, self.layer)).sum()

        v = search(
            certainty, batch.images, self.ball, steps=self.steps, size=self.step * self.ball.eps, clip=self.clip
        )  # fmt: skip
        return [(self.alpha, added(batch.images, v, self.clip)), (1 - self.alpha, batch.images)]


def deep_features(model: nn.Module, images: Tensor, layer: str | None = None) -> Tensor:
    """Return a network's deep features of images, (N, F), connected for gradients.

    layer: the name of the module whose output they are; when absent, what the last linear layer takes. Raises
    ValueError where there is no linear layer, or none of this name, or it does not fire.
    """
    if layer is not None:
        return activation(model, images, Layer(layer)).flatten(1)
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise ValueError("the network has no linear layer; name the module whose output counts by layer=")
    taken = []
    handle = linear[-1].register_forward_pre_hook(lambda _, inputs: taken.append(inputs[0]))
    try:
        model(images.clone())
    finally:
        handle.remove()
    if not taken:
        raise ValueError("the network's last linear layer does not fire; name the module whose output counts by layer=")
    return taken[-1].flatten(1)


def entropy(features: Tensor) -> Tensor:
    """Return the entropy, in nats, of the softmax over features (N, F), of shape (N,)."""
    logarithms = F.log_softmax(features, dim=1)
    return -(logarithms.exp() * logarithms).sum(1)


def _check_share(argument: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{argument} must lie in [0, 1], not {value}")


def _check_step(step: float) -> None:
    if not step > 0:
        raise ValueError(f"step must be positive, a share of the budget, not {step}")
