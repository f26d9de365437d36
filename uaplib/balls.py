"""Norm balls: the set of perturbations that count as small."""

import math
import warnings
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class NormBall:
    """All perturbations v with ||v||_p <= eps, for p = 2 or infinity.

    `eps` is in pixel units of [0, 1], so the papers' l-infinity budget is `NormBall(math.inf, 10 / 255)`; `p` may
    also be the text "inf". Tensors of four dimensions (N, C, H, W) are batches, and every perturbation in them is
    treated by itself; tensors of fewer dimensions are one perturbation.

    Raises ValueError for another p, and for an eps that is negative, infinite or not a number.
    """

    p: float
    eps: float

    def __post_init__(self):
        """Check the two numbers."""
        object.__setattr__(self, "p", float(self.p))
        object.__setattr__(self, "eps", float(self.eps))
        if self.p not in (2.0, math.inf):
            raise ValueError(f"p must be 2 or infinity, not {self.p}")
        if not (math.isfinite(self.eps) and self.eps >= 0):
            raise ValueError(f"eps must be a finite number of at least 0, not {self.eps}")
        if self.p == math.inf and self.eps > 1:
            warnings.warn(
                f"eps={self.eps:g} is more than the whole range [0, 1] of a pixel; did you mean {self.eps:g}/255?",
                stacklevel=3,
            )

    def __str__(self) -> str:
        """Write the ball as the book does, for instance 'l∞ ≤ 10/255'."""
        name = "l2" if self.p == 2 else "l∞"
        size = f"{self.eps:g}" if self.p == 2 else f"{self.eps * 255:g}/255"
        return f"{name} ≤ {size}"

    def norm(self, v: Tensor) -> Tensor:
        """Return the p-norm of each perturbation, of shape (N,), or () for a single one."""
        return torch.linalg.vector_norm(v, self.p, dim=_dimensions(v))

    def project(self, v: Tensor) -> Tensor:
        """Return the nearest point of the ball: scaled down for p = 2, clamped (see `clamp`) for p = infinity."""
        if self.p == math.inf:
            return clamp(v, -self.eps, self.eps)
        norm = torch.linalg.vector_norm(v, 2, dim=_dimensions(v), keepdim=True)
        return v * torch.where(norm > self.eps, self.eps / norm.clamp_min(torch.finfo(v.dtype).tiny), 1)

    def contains(self, v: Tensor, tolerance: float = 1e-6) -> Tensor:
        """Return whether each perturbation lies in the ball, as booleans (N,); `tolerance` is relative to eps."""
        return self.norm(v) <= self.eps * (1 + tolerance)

    def sample(self, shape: tuple[int, ...], generator: torch.Generator | None = None) -> Tensor:
        """Return random points of the ball, uniformly distributed, float32 of the given shape."""
        if self.p == math.inf:
            return torch.empty(shape).uniform_(-self.eps, self.eps, generator=generator)
        noise = self.sample_boundary(shape, generator)
        dimensions = _dimensions(noise)
        count = math.prod(shape[d] for d in dimensions)
        batch = [1 if d - len(shape) in dimensions else size for d, size in enumerate(shape)]
        return noise * torch.rand(batch, generator=generator) ** (1 / count)

    def sample_boundary(self, shape: tuple[int, ...], generator: torch.Generator | None = None) -> Tensor:
        """Return random perturbations that use the whole budget: signs times eps, or directions of length eps.

        This is the random noise that the book sets beside every attack.
        """
        noise = torch.randn(shape, generator=generator)
        if self.p == math.inf:
            return self.eps * torch.where(noise < 0, -1.0, 1.0)
        return self.eps * noise / torch.linalg.vector_norm(noise, 2, dim=_dimensions(noise), keepdim=True)


def linf(eps_255: float) -> NormBall:
    """Return the l-infinity ball of radius eps_255 / 255."""
    return NormBall(math.inf, eps_255 / 255)


def clamp(x: Tensor, low: float, high: float) -> Tensor:
    """Return x limited to [low, high]; the gradient is 1 strictly inside and 0 from the borders on.

    At the borders, `torch.clamp` has passed the gradient in some versions of PyTorch and cut it in others. The rule
    is written out here, so that a saturated pixel is stuck in every version, and in single as in double precision.
    """
    return torch.where((x > low) & (x < high), x, x.detach().clamp(low, high))


def added(images: Tensor, v: Tensor, clip: bool = True) -> Tensor:
    """Return images plus perturbations as a network sees them while one is crafted, of the images' type.

    With `clip` the sum is limited to [0, 1]. At the borders the gradient passes, or what is black could not become
    lighter; so the limits are the next numbers outside.
    """
    sums = (images + v).to(images)
    if not clip:
        return sums
    limits = torch.finfo(sums.dtype)
    return sums.clamp(-limits.tiny, 1 + min(limits.eps, 2e-7))


def _dimensions(v: Tensor) -> tuple[int, ...]:
    """The dimensions of one perturbation: the last three of a batch, otherwise all."""
    return tuple(range(-min(v.ndim, 3), 0))
