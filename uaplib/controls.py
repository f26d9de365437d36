"""What a perturbation is set beside: noise of its norm, its pixels shuffled, its direction at the whole budget.

A universal attack that takes few steps leaves most of an l-infinity budget unused. Beside noise of the whole budget it
looks weak; beside noise of its own norm it shows what the algorithm found; at the whole budget its direction shows what
that is worth.
"""

import math
from dataclasses import replace

import torch
from torch import Tensor

from uaplib.checks import check_seed, real
from uaplib.perturbation import UniversalPerturbation

FACTOR = 4.0


def equal_norm_noise(perturbation: UniversalPerturbation, seed: int = 0) -> UniversalPerturbation:
    """Return random signs of one size, of the perturbation's shape and l2 norm."""
    generator = torch.Generator().manual_seed(check_seed(seed))
    signs = torch.randint(2, perturbation.delta.shape, generator=generator).to(perturbation.delta) * 2 - 1
    return _control(perturbation, "equal-norm noise", signs * (perturbation.delta.norm() / signs.norm()), seed=seed)


def shuffled(perturbation: UniversalPerturbation, seed: int = 0) -> UniversalPerturbation:
    """Return the perturbation with its pixels, colours and all, in random order: its values without its shapes."""
    generator = torch.Generator().manual_seed(check_seed(seed))
    flat = perturbation.delta.flatten(2)
    order = torch.randperm(flat.shape[2], generator=generator).to(flat.device)
    return _control(perturbation, "shuffled", flat[:, :, order].view_as(perturbation.delta), seed=seed)


def rescaled(perturbation: UniversalPerturbation, factor: float = FACTOR) -> UniversalPerturbation:
    """Return `factor` times the perturbation, projected onto its ball: about its direction, at more of the budget.

    Raises ValueError for a factor that is not a finite number above 0.
    """
    if not 0 < real(factor=factor)["factor"] < math.inf:
        raise ValueError(f"factor must be a finite number above 0, not {factor}")
    delta = perturbation.ball.project(factor * perturbation.delta)
    return _control(perturbation, "rescaled", delta, factor=factor)


def signs(perturbation: UniversalPerturbation) -> UniversalPerturbation:
    """Return the signs of an l-infinity perturbation times the budget; values of 0 stay.

    Raises ValueError for another ball, where signs are no direction of its own.
    """
    if perturbation.ball.p == 2:
        raise ValueError("signs are for perturbations of an l-infinity budget; rescale one of an l2 budget")
    return _control(perturbation, "sign", perturbation.ball.eps * perturbation.delta.sign())


CONTROLS = {"equal-norm noise": equal_norm_noise, "shuffled": shuffled, "rescaled": rescaled, "sign": signs}


def _control(perturbation: UniversalPerturbation, name: str, delta: Tensor, **settings: float) -> UniversalPerturbation:
    """A perturbation whose method and parameters say what was done to which; it has no history of its own."""
    return replace(
        perturbation,
        delta=delta,
        method=f"{perturbation.method}, {name}",
        parameters={"control": name, "of": perturbation.key, **settings},
        history=[],
        run={},
    )
