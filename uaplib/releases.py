"""The perturbations that were released with the papers, as a table; `uaplib.published` reads them.

The table is alone here so that `uaplib list` does without PyTorch.
"""

import csv
from collections.abc import Mapping
from importlib import resources
from itertools import product
from types import MappingProxyType
from typing import NamedTuple

LAYOUTS = tuple(map("-".join, product(("HWC", "WHC", "CHW", "CWH"), ("RGB", "BGR"), ("255", "1", "std"))))

_ORIGINS = {
    "lts4": "LTS4/universal/2e5ab1544a5c0ea53f07b6c21dbecb6053bb1ca1",
    "fff": "val-iisc/fast-feature-fool/d7370fe0259a659c0f32be0002cdcd13145219c6",
    "gd-uap": "val-iisc/GD-UAP/26ec96911c2c63cec7f2c7aa23c075973638eb8b",
    "port": "psandovalsegura/pytorch-gd-uap/e49a61bb7d53748c8a8eb6a35323b1f994533d65",
    "sfr": "tsborkar/Selective-feature-regeneration/b5e2b93a94e2e7ca0bf2b5fa99676607cb8819ce",
}

_AT_HAND = {"GoogLeNet": "googlenet-caffe"}  # of the papers' Caffe networks, by their names there


class Release(NamedTuple):
    """One released file: what it is, where it comes from, and what must be found in it.

    origin: whose files it is among, for instance "lts4" or "sfr". network: as the paper calls it. norm: of the budget,
    "inf" or "2". budget_255, l2_255: budget and l2 norm in 255ths, whose largest possible value at 224 pixels and
    10/255 is 3880. layout: as `uaplib.published.read` takes it. scale: what the values are multiplied by. file: inside
    the folder "published-perturbations" of the data folder. size: of its side in pixels. delta_sha256:
    `uaplib.provenance.sha256_of` what is read. saturation: the share of values at the budget, None for an l2 budget.
    proof: how it is known that the file is to be read so.
    """

    origin: str
    method: str
    network: str
    norm: str
    budget_255: float
    layout: str
    scale: float
    file: str
    url: str
    sha256: str
    size: int
    delta_sha256: str
    saturation: float | None
    l2_255: float
    proof: str


def of_the_matrix() -> list[str]:
    """Return the names of those in the book's transfer matrix, all of 10/255: of the authors of UAP, FFF and GD-UAP."""
    return [name for name, release in RELEASES.items() if release.origin in ("lts4", "fff", "gd-uap")]


def crafted_on(name: str) -> str:
    """Return the network that a release was crafted on, by its name in `uaplib.models` where it is among them.

    The port's were crafted on torchvision's networks, whose weights are others.
    """
    release = RELEASES[name]
    return release.network if release.origin == "port" else _AT_HAND.get(release.network, release.network)


def _release(row: dict[str, str]) -> Release:
    about = {name: row[name] for name in Release._fields if name in row}
    about["url"] = f"https://raw.githubusercontent.com/{_ORIGINS[row['origin']]}/{row['path']}"
    about["size"], about["saturation"] = int(row["size"]), float(row["saturation"]) if row["saturation"] else None
    about |= {name: float(row[name]) for name in ("budget_255", "scale", "l2_255")}
    return Release(**about)


def _table() -> dict[str, Release]:
    file = resources.files("uaplib") / "tables" / "releases.csv"
    with file.open(encoding="utf-8", newline="") as stream:
        return {row["name"]: _release(row) for row in csv.DictReader(stream)}


RELEASES: Mapping[str, Release] = MappingProxyType(_table())
