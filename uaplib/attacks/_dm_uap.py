"""Universal perturbations against networks and images that were made harder to fool first (Zhang et al., 2025)."""

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.utils.data import DataLoader

from uaplib.attacks import _stochastic, losses, rules, runs
from uaplib.attacks._stochastic import Batch
from uaplib.balls import NormBall
from uaplib.checks import check_fields
from uaplib.models.ensemble import check_single
from uaplib.perturbation import UniversalPerturbation


@dataclass(frozen=True, kw_only=True)
class DMUAPSettings(_stochastic.Settings):
    """Settings of `dm_uap`; `step` is the learning rate of AdamW, as a share of the budget.

    beta: the cross-entropy at which an image counts no more. weight_decay: AdamW's. stages: in so many equal parts of
    the cost the radii grow. weight_radius: how far all weights together move in the last stage, in the l2 norm.
    image_radius: how far images do, as the root of the mean square over an image's values; the default is the authors'
    25 for 224 x 224 pixels. weight_steps, image_steps: in how many steps. smoothing: of the labels while weights move.
    training_mode: whether weights move in training mode, where dropout and batch normalisation vary.
    """

    batch_size: int = 20
    step: float = 2.55  # 0.1 at 10/255
    start: str = "uniform"
    clip: bool = False
    beta: float = 9.0
    weight_decay: float = 0.01
    stages: int = 20
    weight_radius: float = 4.0
    image_radius: float = 25 / math.sqrt(3 * 224 * 224)
    weight_steps: int = 10
    image_steps: int = 10
    smoothing: float = 0.2
    training_mode: bool = True

    def __post_init__(self):
        """Check the numbers."""
        super().__post_init__()
        check_fields(self, at_least_1=("stages", "weight_steps", "image_steps"))
        if not self.beta > 0:
            raise ValueError(f"beta must be positive, or no image has a gradient, not {self.beta}")
        if not 0 <= self.smoothing <= 1:
            raise ValueError(f"smoothing must lie in [0, 1], not {self.smoothing}")
        if not (self.weight_radius >= 0 and self.image_radius >= 0 and self.weight_decay >= 0):
            raise ValueError(
                "weight_radius, image_radius and weight_decay must be at least 0, not "
                f"{self.weight_radius}, {self.image_radius} and {self.weight_decay}"
            )


# 20 epochs of 500 images, 21 gradients each
PRESETS = {"dm-uap": {"authors": {"batch_size": 125, "max_gradients": 210_000}}}


def dm_uap(
    model: nn.Module,
    images: Tensor | DataLoader,
    ball: NormBall,
    *,
    settings: DMUAPSettings | None = None,
    seed: int = 0,
    source: str = "",
    checkpoint: str | Path | None = None,
    progress: bool = False,
) -> UniversalPerturbation:
    """Craft one perturbation by AdamW on weights and images that are harder to fool, as the authors' program does.

    Before each step of the perturbation the network's weights, a copy of them, take normalised steps down the
    smoothed cross-entropy to the clean predictions, and then the images do, in l2 balls around what they were; the
    perturbation maximises min(CE, beta) there, and the copy is thrown away. The radii grow from stage to stage. A step
    costs 1 + weight_steps + image_steps gradients of each image; with radii of 0 nothing moves, and it costs one.

    All else as in `sgd_uap`; labels are the network's own. Loss and rate of the history are those of the moved network
    on moved images. In training mode a batch of one image may be too few for batch normalisation, and a network must
    return logits there, too. The authors' program also takes negative smoothing, which is not possible here.
    """
    settings = settings or DMUAPSettings()
    check_single(model, "dm_uap")
    feed = _stochastic.feed_of(model, images, None, settings)
    return runs.craft(_Run("dm-uap", model, feed, ball, settings, seed, source), checkpoint, progress)


class _Run(_stochastic.Run):
    """As of `sgd_uap`, on a network whose weights, a copy of them, move before every step."""

    def move(self, batch: Batch) -> None:
        share = self.stage() / self.settings.stages
        labels, images = batch.of_member(0).predictions, batch.images
        self.weights = {name: value.detach() for name, value in self.model.named_parameters()}
        # In training mode batch normalisation writes into these, and what comes after uses what it wrote.
        self.buffers = {name: value.clone() for name, value in self.model.named_buffers()}
        if self.settings.weight_radius and self.weights:
            self.harden_weights(images, labels, share * self.settings.weight_radius)
        if self.settings.image_radius:
            radius = share * self.settings.image_radius * math.sqrt(images[0].numel())
            images = self.harden_images(images, labels, radius)
        self.rules.step(self.gradient(self.rules.v, batch._replace(images=images)))

    def stage(self) -> int:
        """Which part of the cost this step belongs to, from 1 on."""
        chosen = self.settings
        return min(chosen.stages, 1 + self.gradients * chosen.stages // chosen.max_gradients)

    def harden_weights(self, images: Tensor, labels: Tensor, radius: float) -> None:
        """Move the weights down the smoothed loss, by steps that together are as long as the radius."""
        chosen, step = self.settings, radius / self.settings.weight_steps
        for _ in range(chosen.weight_steps):
            weights = {name: value.detach().requires_grad_() for name, value in self.weights.items()}
            with torch.enable_grad(), _training(self.model, chosen.training_mode), self.seeded(images.device):
                logits = functional_call(self.model, weights | self.buffers, (images.clone(),))
                loss = F.cross_entropy(logits, labels, label_smoothing=chosen.smoothing)
                gradients = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
            self.gradients += len(images)
            moving = {name: g for name, g in zip(weights, gradients, strict=True) if g is not None}
            length = torch.stack([_norm(gradient) for gradient in moving.values()]).norm().clamp_min(1e-12)
            self.weights |= {
                name: self.weights[name] - (step / length * gradient).to(gradient) for name, gradient in moving.items()
            }

    @contextlib.contextmanager
    def seeded(self, device: torch.device) -> Iterator[None]:
        """Inside, dropout on a GPU draws what the seed decides, as on the CPU; the GPU's generator stays as it was."""
        if device.type != "cuda" or not torch.cuda.is_available():
            yield
            return
        with torch.random.fork_rng(devices=[]):  # a glance at the next number, which the next batch draws again
            seed = int(torch.randint(2**31, ())) + self.gradients
        before = torch.cuda.get_rng_state(device)
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)
        try:
            yield
        finally:
            torch.cuda.set_rng_state(before, device)

    def harden_images(self, images: Tensor, labels: Tensor, radius: float) -> Tensor:
        """Move the images down the loss, by steps of an eighth of the radius, in balls of that radius and in [0, 1]."""
        ball, moved = NormBall(2, radius), images
        for _ in range(self.settings.image_steps):
            point = moved.detach().requires_grad_()
            with torch.enable_grad():
                loss = F.cross_entropy(self.hardened(point.clone()), labels, reduction="sum")
                (gradient,) = torch.autograd.grad(loss, point)
            self.gradients += len(images)
            length = _norm(gradient.flatten(1), 1).view(-1, 1, 1, 1).clamp_min(1e-10)
            moved = (images + ball.project(moved - radius / 8 * gradient / length - images)).to(images).clamp(0, 1)
        return moved.detach()

    def networks(self) -> list[Callable[[Tensor], Tensor]]:
        return [self.hardened]

    def hardened(self, images: Tensor) -> Tensor:
        """What the network says with the moved weights."""
        return functional_call(self.model, self.weights | self.buffers, (images,))

    def losses(self, logits: Tensor, batch: Batch) -> Tensor:
        return losses.clipped_cross_entropy(logits, batch.predictions, self.settings.beta)

    def rule(self, v: Tensor) -> rules.AdamSteps:
        chosen = self.settings
        return rules.AdamSteps(v, self.ball, chosen.step * self.ball.eps, chosen.weight_decay)


@contextlib.contextmanager
def _training(model: nn.Module, wanted: bool) -> Iterator[None]:
    """Inside, the model is in training mode, if that is wanted; all of it was in evaluation mode before."""
    try:
        model.train(wanted)
        yield
    finally:
        model.eval()


def _norm(values: Tensor, dimension: int | None = None) -> Tensor:
    """The l2 norm; small numbers vanish in half precision."""
    return torch.linalg.vector_norm(values, dim=dimension, dtype=torch.promote_types(values.dtype, torch.float32))


settings, run = _stochastic.entries(dm_uap, DMUAPSettings)
