"""Singular vectors of a hidden layer as universal perturbations (Khrulkov and Oseledets, 2018)."""

import math
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from uaplib import features, provenance
from uaplib.attacks import runs
from uaplib.balls import NormBall
from uaplib.checks import check_fields, check_finite_gradient, check_gradients, check_images, warn_without_gradient
from uaplib.devices import device_of
from uaplib.features import Layer
from uaplib.models.ensemble import check_single
from uaplib.perturbation import UniversalPerturbation

PASSES = 2  # of an image in an iteration beside the plain one: forwards for J v, backwards for J^T of something


@dataclass(frozen=True, kw_only=True)
class SVUAPSettings:
    """Settings of `sv_uap`.

    layer: the module whose outputs are to move most, by its name in the model; None: the first of the model's blocks
    or convolutions. q: the norm in which they move, at least 1. max_iterations: of the power method; fewer where the
    perturbation has stopped changing. batch_size: images that are in memory at a time; it changes nothing but rounding.
    """

    layer: str | None = None
    q: float = 10.0
    max_iterations: int = 20
    batch_size: int = 8

    def __post_init__(self):
        """Check the numbers."""
        check_fields(self, at_least_1=("max_iterations", "batch_size"))
        if not (1 <= self.q < math.inf):
            raise ValueError(f"q must be a finite number of at least 1, not {self.q}")
        if not isinstance(self.layer, str | None):
            raise TypeError(f"layer must be a module's name or None, not {self.layer!r}")


def sv_uap(
    model: nn.Module,
    images: Tensor,
    ball: NormBall,
    *,
    settings: SVUAPSettings | None = None,
    seed: int = 0,
    source: str = "",
    checkpoint: str | Path | None = None,
    progress: bool = False,
) -> UniversalPerturbation:
    """Craft the perturbation that moves a hidden layer most, to first order, by the power method.

    J stacks the Jacobians of the layer's output with respect to the pixels at all images, normalisation included. The
    perturbation is eps v, where v maximises the q-norm of J v among all v whose p-norm is 1, p that of the ball:
    v <- psi_p'(J^T psi_q(J v)), scaled to norm 1, where psi_r(u) has the sign of u and its size to the power of r - 1,
    and 1/p + 1/p' = 1; for the l-infinity ball psi_p' is the sign. For p = q = 2 it is the power method for J^T J.

    model: takes (N, C, H, W) in [0, 1]. images: few are enough, the authors take 64; labels and the network's last
    layers play no part. ball: l2 or l-infinity. source, seed, checkpoint, progress: as in `uap`. The history has
    the q-norm of J v before every iteration.

    Raises ValueError or TypeError for bad images or settings, a layer that does not exist or does not fire, an
    ensemble, and a model in training mode; FloatingPointError for a gradient that is not finite. Derivatives are
    carried forward, which PyTorch cannot do through every operation: attention needs its plain form
    (`torch.nn.attention.sdpa_kernel`).
    """
    settings = settings or SVUAPSettings()
    check_images(images)
    check_single(model, "sv_uap")
    check_gradients(model, images[:1].to(device_of(model)))
    if not ball.eps > 0:
        raise ValueError(f"the ball must have some room, not {ball}")
    images = images.detach()
    layer = _layer(model, images[:1].to(device_of(model)), settings.layer)
    record = asdict(settings) | provenance.images_record(images)
    return runs.craft(_Run(model, images, layer, ball, settings, seed, source, record), checkpoint, progress)


def _layer(model: nn.Module, image: Tensor, name: str | None) -> Layer:
    selection = features.default_kind(model) if name is None else [name]
    return features.choose(model, image, selection)[0]


class _Run(runs.Run):
    """The vector v, and whether it still changes."""

    def __init__(self, model, images, layer, ball, settings, seed, source, record):
        super().__init__("sv-uap", model, ball, seed, source, record)
        self.images, self.layer, self.settings, self.device = images, layer, settings, device_of(model)

    def begin(self) -> None:
        kind = torch.promote_types(self.images.dtype, torch.float32)
        signs = torch.rand(1, *self.images.shape[1:]).sub(0.5).sign()
        self.v = self.scaled(signs.to(self.device, kind))
        self.iterations, self.still = 0, False

    def scaled(self, v: Tensor) -> Tensor:
        """v with norm 1; it stays zero where it is."""
        return v / self.ball.norm(v).clamp_min(torch.finfo(v.dtype).tiny)

    def step(self) -> bool:
        """One iteration of the power method."""
        length, direction = self.length_and_direction()
        check_finite_gradient(direction)
        if self.iterations == 0:
            warn_without_gradient((direction == 0).flatten(1).all(1))
        new = self.scaled(direction.sign() if self.ball.p == math.inf else direction)
        self.iterations += 1
        self.history.append({"iteration": self.iterations, "stretch": length, "moved": _share(new, self.v)})
        self.v, self.still = new, torch.equal(new, self.v)
        return True

    def length_and_direction(self) -> tuple[float, Tensor]:
        """||J v||_q, and J^T psi_q(J v) up to a positive factor, batch after batch.

        Powers of large numbers overflow, so that all is divided by the largest entry of J v so far.
        """
        q, largest, total, power = self.settings.q, 0.0, torch.zeros_like(self.v), 0.0
        for chunk in self.images.split(self.settings.batch_size):
            x, output, moved = self.moved(chunk.to(self.device))
            scale = moved.abs().max().item()
            if scale > largest:
                total, power = total * (largest / scale) ** (q - 1), power * (largest / scale) ** q
                largest = scale
            unit = moved / (largest or 1.0)
            (part,) = torch.autograd.grad(output, x, (unit.sign() * unit.abs() ** (q - 1)).to(output))
            total, power = total + part.sum(0, keepdim=True).to(total), power + (unit.abs() ** q).sum().item()
        return largest * power ** (1 / q), total

    def moved(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The images, the layer's output and J v, all from one pass in which every number carries its derivative."""
        x = images.clone().requires_grad_()
        with torch.enable_grad(), warnings.catch_warnings(), forward_ad.dual_level():
            warnings.filterwarnings("ignore", ".*torch.jit.script.*", FutureWarning)  # PyTorch's, about itself
            dual = forward_ad.make_dual(x, self.v.to(x).expand_as(x).contiguous())
            output, moved = forward_ad.unpack_dual(features.activation(self.model, dual, self.layer))
        return x, output, moved.detach().to(torch.promote_types(moved.dtype, torch.float32))  # powers and sums overflow

    def finished(self) -> bool:
        return self.still or self.iterations >= self.settings.max_iterations

    def progress(self) -> tuple[int, int]:
        return self.iterations, self.settings.max_iterations

    def state(self) -> tuple[dict[str, Tensor], dict]:
        return {"v": self.v}, {"iterations": self.iterations, "still": self.still}

    def restore(self, tensors: dict[str, Tensor], rest: dict) -> None:
        vars(self).update(rest)
        self.v = tensors["v"].to(self.device)

    def delta(self) -> Tensor:
        return self.ball.eps * self.v

    def counts(self) -> dict:
        return {"iterations": self.iterations, "gradients": PASSES * self.iterations * len(self.images)}


def _share(new: Tensor, old: Tensor) -> float:
    """The share of entries whose sign changes."""
    return (new.sign() != old.sign()).float().mean().item()


def settings(ball: NormBall, **changes: Any) -> dict[str, Any]:
    """Return all settings; see `uaplib.attacks.methods`."""
    return asdict(SVUAPSettings(**changes))


def run(
    model: nn.Module, ball: NormBall, settings: dict[str, Any], data: Mapping[str, Any], **options: Any
) -> UniversalPerturbation:
    """Craft with all settings; see `uaplib.attacks.methods`."""
    return sv_uap(model, ball=ball, settings=SVUAPSettings(**settings), **data, **options)
