"""Several networks at once, as one network by the name "first+second": what is crafted on it is crafted on all."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from uaplib import models
from uaplib.models.normalized import Normalized
from uaplib.models.spec import Network


class Ensemble(nn.Module):
    """The mean of several networks' logits.

    members: `Normalized` networks for images of one size. mean, std: of the normalisation of the model around it,
    which is undone, for each member has its own. Attacks that know of `members` average their losses instead.
    """

    def __init__(self, members: Sequence[Normalized], mean: Sequence[float], std: Sequence[float]):
        super().__init__()
        self.members = nn.ModuleList(members)
        self.mean, self.std = (torch.tensor(each).view(1, -1, 1, 1) for each in (mean, std))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, K) of normalised images (N, C, H, W)."""
        images = x * self.std.to(x) + self.mean.to(x)
        return torch.stack([member(images) for member in self.members]).mean(0)


def members_of(model: nn.Module) -> list[nn.Module]:
    """Return the networks of an ensemble, each for images in [0, 1], or the model alone."""
    inside = getattr(model, "network", None)
    return list(inside.members) if isinstance(inside, Ensemble) else [model]


def row(names: Sequence[str]) -> Network:
    """Return the row of the ensemble of these networks; its normalisation is the mean of theirs.

    Raises ValueError for one member, for the same twice, and for members that see other images or have other tasks.
    """
    rows = [models.find(each) for each in names]
    first = rows[0]
    if len(set(names)) < len(names):
        raise ValueError(f"{names} has a network twice")
    if any((each.shape, each.task, each.data_set) != (first.shape, first.task, first.data_set) for each in rows):
        raise ValueError(f"{names}: the networks of an ensemble must see images of one kind and one size")
    mean, std = (
        [sum(values) / len(rows) for values in zip(*(getattr(each, what) for each in rows), strict=True)]
        for what in ("mean", "std")
    )

    def build() -> nn.Module:
        return Ensemble([models.load(each) for each in names], mean, std)

    def structure() -> nn.Module:
        return Ensemble([models.structure(each) for each in names], mean, std)

    licences = "; ".join(dict.fromkeys(each.licence for each in rows))
    return replace(
        first, build=build, mean=mean, std=std, training=None, source=f"the mean of {', '.join(names)}",
        licence=licences, weights_sha256="", structure=structure,
    )  # fmt: skip


def check_single(model: nn.Module, attack: str) -> None:
    """Raise ValueError where the model is an ensemble, of which the attack could use one network alone."""
    if len(members_of(model)) > 1:
        raise ValueError(f"{attack} is for one network, and the model is an ensemble; craft on each of its networks")
