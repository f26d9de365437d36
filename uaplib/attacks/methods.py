"""The methods that craft a universal perturbation, one row each: recipes, commands, figures and tests read them here.

The table is importable without PyTorch; a row imports its attack when it is used. Beside the attack itself, the module
of a method has

- `settings(ball, **changes)`: all settings of the method, the defaults changed by `changes`; checked and JSON-safe;
- `run(model, ball, settings, data, **options)`: crafts with such settings. data: what the method `sees`, by name
  (`images`, `labels`, `held_out`, `selection`). options: seed, source, checkpoint and progress, as in `uap`;
- `PRESETS`, where the book compares settings with the default: by the method's name, changes by their names.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from types import MappingProxyType, ModuleType
from typing import TYPE_CHECKING, Any

from uaplib.names import check_name

if TYPE_CHECKING:
    from torch import nn

    from uaplib.balls import NormBall
    from uaplib.perturbation import UniversalPerturbation

SEES = ("nothing", "images", "predictions", "labels")  # of the data, from least to most


@dataclass(frozen=True)
class Method:
    """One method: what it is called, what crafts by it, and what it needs.

    title, short: as lists and figures show it. module: the attack's, below `uaplib.attacks`. sees: one of `SEES`; a
    method that sees anything crafts on `images` images unless told otherwise. held_out: on how many evaluation images
    its history reports. selects: whether it chooses its iterate by the fooling rate on selection images. paper: its key
    in the book's bibliography. cost: in words, what crafting takes. tasks: what a network may say: "label", "classes"
    or "depth". norms: of the balls that it takes. fixed: settings that make it this method. book: the settings from
    which recipes start. name_parts: settings that always stand in an artifact's name, with their letters. version:
    counts the changes after which the same settings give another perturbation. optimised: whether anything is; what is
    not knows no network, only the size of its images, and is made anew rather than kept.
    """

    name: str
    title: str
    short: str
    module: str
    sees: str
    paper: str
    cost: str
    images: int | None = None
    held_out: int = 0
    selects: bool = False
    tasks: tuple[str, ...] = ("label", "classes", "depth")
    norms: tuple[float, ...] = (math.inf,)
    fixed: Mapping[str, Any] = field(default_factory=dict, hash=False)
    book: Mapping[str, Any] = field(default_factory=dict, hash=False)
    name_parts: Mapping[str, str] = field(default_factory=dict, hash=False)
    version: int = 1
    optimised: bool = True

    @property
    def attack(self) -> ModuleType:
        """The module of the attack, imported when it is first used."""
        return import_module(f"uaplib.attacks.{self.module}")

    @property
    def presets(self) -> Mapping[str, Mapping[str, Any]]:
        """Changes of the settings by name, for instance the authors' own, or the book's ablations."""
        return getattr(self.attack, "PRESETS", {}).get(self.name, {})

    def settings(self, ball: NormBall, **changes: Any) -> dict[str, Any]:
        """Return all settings, JSON-safe: the book's defaults for the ball, changed by `changes`.

        Raises ValueError or TypeError for a name that is no setting of the method, and for a bad value.
        """
        known = self.attack.settings(ball, **self.fixed, **self.book).keys() - self.fixed.keys()
        for name in changes:
            check_name(f"{self.name}: setting", name, sorted(known))
        return self.attack.settings(ball, **{**self.fixed, **self.book, **changes})

    def craft(
        self, model: nn.Module, ball: NormBall, settings: Mapping[str, Any], data: Mapping[str, Any], **options: Any
    ) -> UniversalPerturbation:
        """Craft with settings that `settings` returned; data and options as in `run` above."""
        return self.attack.run(model, ball, dict(settings), data, **options)

    def make(self, ball: NormBall, shape: tuple[int, int, int], seed: int = 0) -> UniversalPerturbation:
        """Return what is not `optimised` with the default settings, of shape (C, H, W)."""
        return self.attack.make(ball, shape, self.settings(ball), seed)


def _pattern(name: str, title: str, paper: str = "") -> Method:
    """A pattern of `uaplib.patterns`."""
    return Method(
        name, title, title, "_patterns", sees="nothing", paper=paper, cost="nothing",
        norms=(2.0, math.inf), fixed={"pattern": name}, optimised=False,
    )  # fmt: skip


def _search(pattern: str, title: str, paper: str = "") -> Method:
    """The best of many patterns of one kind."""
    return Method(
        f"{pattern}-search", f"{title}, the best of many", f"best {title}", "_pattern_search", sees="predictions",
        paper=paper, cost="a hundred patterns, each on all images; no gradient", images=100, tasks=("label",),
        norms=(2.0, math.inf), fixed={"pattern": pattern},
    )  # fmt: skip


_ROWS = (
    Method(
        "noise", "random signs", "noise", "_noise", sees="nothing", paper="", cost="nothing",
        norms=(2.0, math.inf), optimised=False,
    ),
    _pattern("chessboard", "chessboard"),
    _pattern("stripes", "stripes"),
    _pattern("fourier", "Fourier basis function", paper="tsuzuku2019structural"),
    _pattern("blocks", "random blocks"),
    _pattern("circles", "tiled circles", paper="zhang2022practical"),
    _pattern("perlin", "Perlin noise", paper="co2019procedural"),
    _pattern("gabor", "Gabor noise", paper="co2019procedural"),
    Method(
        "uap", "UAP", "UAP", "_uap", sees="predictions", paper="moosavi2017universal",
        cost="DeepFool on every image that is not fooled yet, pass after pass", images=100, held_out=2000,
        tasks=("label",), norms=(2.0, math.inf), book={"max_passes": 5, "target_rate": 1.0},
        name_parts={"images": "n", "max_passes": "p"},
    ),
    Method(
        "uap-batched", "UAP in batches", "UAP, batches", "_batched_uap", sees="predictions",
        paper="moosavi2017universal", cost="as of UAP, several images at a time", images=100, held_out=2000,
        tasks=("label",), norms=(2.0, math.inf), book={"max_passes": 5, "target_rate": 1.0},
        name_parts={"images": "n", "max_passes": "p"},
    ),
    Method(
        "fff", "Fast Feature Fool", "FFF", "_fast_feature_fool", sees="nothing", paper="mopuri2017fast",
        cost="up to 400 iterations, one picture each", selects=True,
    ),
    Method(
        "gd-uap-none", "GD-UAP, no data", "GD-UAP, no data", "_gd_uap", sees="nothing",
        paper="mopuri2018generalizable", cost="up to 400 iterations, one picture each", selects=True,
        fixed={"prior": "none"},
    ),
    Method(
        "gd-uap-range", "GD-UAP, range prior", "GD-UAP, range prior", "_gd_uap", sees="nothing",
        paper="mopuri2018generalizable", cost="up to 300 iterations, four pictures each", selects=True,
        fixed={"prior": "range"},
    ),
    Method(
        "gd-uap-data", "GD-UAP, data prior", "GD-UAP, data prior", "_gd_uap", sees="images",
        paper="mopuri2018generalizable", cost="up to 400 iterations, four pictures each", images=300, selects=True,
        fixed={"prior": "data"},
    ),
    Method(
        "psp-uap", "pseudo-semantic priors", "PSP-UAP", "_psp_uap", sees="nothing", paper="lee2025data",
        cost="up to 1,000 iterations, ten crops each", selects=True, tasks=("label",),
    ),
    Method(
        "sgd-uap", "UAP by stochastic gradients", "SGD-UAP", "_sgd_uap", sees="predictions",
        paper="shafahi2020universal", cost="10,000 gradients of one image", images=900, tasks=("label",),
    ),
    Method(
        "sga", "stochastic gradient aggregation", "SGA", "_sga", sees="predictions", paper="liu2023enhancing",
        cost="10,000 gradients of one image", images=900, tasks=("label",),
    ),
    Method(
        "df-uap", "UAP by margins of logits", "DF-UAP", "_df_uap", sees="predictions", paper="zhang2020understanding",
        cost="10,000 gradients of one image", images=900, tasks=("label",),
    ),
    Method(
        "cosine-uap", "UAP by the cosine of logits", "Cosine-UAP", "_cosine_uap", sees="images",
        paper="zhang2021data", cost="10,000 gradients of one image", images=900, tasks=("label",),
    ),
    Method(
        "dm-uap", "UAP against hardened networks and images", "DM-UAP", "_dm_uap", sees="predictions",
        paper="zhang2025improving", cost="10,000 gradients of one image, 21 of each image a step", images=900,
        tasks=("label",),
    ),
    Method(
        "sv-uap", "singular vector of a hidden layer", "SV-UAP", "_sv_uap", sees="images", paper="khrulkov2018art",
        cost="up to 20 iterations, two derivatives of each image", images=64, norms=(2.0, math.inf),
    ),
    _search("chessboard", "chessboard"),
    _search("fourier", "Fourier basis function", paper="tsuzuku2019structural"),
    _search("perlin", "Perlin noise", paper="co2019procedural"),
    _search("gabor", "Gabor noise", paper="co2019procedural"),
    _search("circles", "tiled circles", paper="zhang2022practical"),
)  # fmt: skip
METHODS: Mapping[str, Method] = MappingProxyType({row.name: row for row in _ROWS})
