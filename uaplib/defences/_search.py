"""Perturbations for a batch by projected steps up a loss (PGD: Madry et al., 2018), one for each image or each heap."""

from collections.abc import Callable

import torch
from torch import Tensor

from uaplib.balls import NormBall, added


def search(
    loss: Callable[[Tensor], Tensor],
    images: Tensor,
    ball: NormBall,
    *,
    steps: int,
    size: float,
    heap: int = 1,
    clip: bool = True,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Return perturbations (B, C, H, W) of images for which `loss` is high; those of a heap are one and the same.

    loss: maps perturbed images to a number that is a sum over images. heap: how many images, one after the other,
    share a perturbation; it divides B. size: of a step, in units of [0, 1]. The start is uniform in the ball, drawn on
    the CPU; PyTorch's generator when there is none. clip: whether the loss sees sums clipped to [0, 1].
    """
    heaps = images.unflatten(0, (-1, heap))
    # Beyond these, every image of a heap is clipped: nothing would change, and no gradient would lead back.
    low, high = (-heaps.amax(1), 1 - heaps.amin(1)) if clip else (None, None)

    def kept(v: Tensor) -> Tensor:
        return ball.project(v).clamp(low, high) if clip else ball.project(v)

    def spread(v: Tensor) -> Tensor:
        return v.repeat_interleave(heap, 0)

    v = kept(ball.sample((len(heaps), *images.shape[1:]), generator).to(images))
    for _ in range(steps):
        gradient = gradient_at(lambda v: loss(added(images, spread(v), clip)), v)
        v = kept(v + size * steepest(gradient, ball))
    return spread(v)


def gradient_at(loss: Callable[[Tensor], Tensor], v: Tensor) -> Tensor:
    """Return the gradient of a loss at v; those of the network's weights stay as they are."""
    v = v.detach().requires_grad_()
    with torch.enable_grad():
        return torch.autograd.grad(loss(v), v)[0]


def steepest(gradient: Tensor, ball: NormBall) -> Tensor:
    """Return the way up for each perturbation (N, C, H, W): signs for l-infinity, directions of length 1 for l2.

    Where a gradient is zero there is none, and zero is returned.
    """
    if ball.p == 2:
        length = torch.linalg.vector_norm(gradient.flatten(1), dim=1).view(-1, 1, 1, 1)
        return gradient / length.clamp_min(torch.finfo(gradient.dtype).tiny)
    return gradient.sign()
