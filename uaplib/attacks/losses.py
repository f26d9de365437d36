"""What attacks on labels minimise: one number for each image, from logits (N, K). Low is good for the attacker."""

import torch
from torch import Tensor
from torch.nn import functional as F


def clipped_cross_entropy(logits: Tensor, labels: Tensor, beta: float) -> Tensor:
    """Return -min(CE(z, y), beta), (N,): an image that is fooled well enough pulls no more (Shafahi et al., 2020)."""
    return -F.cross_entropy(logits, labels, reduction="none").clamp(max=beta)


def cross_entropy_to(logits: Tensor, labels: Tensor, floor: float = 0.0) -> Tensor:
    """Return max(CE(z, t), floor), (N,), for the classes t that images are to become.

    The cap of `clipped_cross_entropy` would take the gradient from those images that are far from t, which need it
    most; a floor takes it from those that are there.
    """
    return F.cross_entropy(logits, labels, reduction="none").clamp(min=floor)


def margin(logits: Tensor, labels: Tensor, kappa: float, fixed_rival: bool = False) -> Tensor:
    """Return max(z_y - max_{j != y} z_j, -kappa), (N,): how far the label y is ahead (Zhang et al., 2020).

    fixed_rival: whether the rival's logit counts as a constant, so that the gradient is that of z_y alone.
    """
    own, rival = _own_and_rival(logits, labels)
    return (own - (rival.detach() if fixed_rival else rival)).clamp(min=-kappa)


def margin_to(logits: Tensor, labels: Tensor, kappa: float, fixed_rival: bool = True) -> Tensor:
    """Return max(max_{j != t} z_j - z_t, -kappa), (N,): how far the class t that images are to become is behind."""
    own, rival = _own_and_rival(logits, labels)
    return ((rival.detach() if fixed_rival else rival) - own).clamp(min=-kappa)


def cosine(logits: Tensor, clean_logits: Tensor) -> Tensor:
    """Return the cosine between the logits with and without the perturbation, (N,) (Zhang et al., 2021)."""
    return F.cosine_similarity(logits, clean_logits)


def _own_and_rival(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    own = logits.gather(1, labels[:, None])[:, 0]
    return own, logits.scatter(1, labels[:, None], -torch.inf).amax(1)
