"""The book's studies: lists of recipes, by the question that each answers."""

import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from uaplib import models, published
from uaplib.attacks import METHODS
from uaplib.balls import NormBall, linf
from uaplib.cells import LABELS
from uaplib.experiments import store
from uaplib.experiments.recipes import SELECTION_IMAGES, Recipe, ablation
from uaplib.journal import Journal
from uaplib.models.spec import CHAPTER_MODEL
from uaplib.perturbation import UniversalPerturbation

if TYPE_CHECKING:
    from uaplib.transfer import TransferMatrix

SIZES = (50, 100, 500, 1000, 4000)
BUDGETS_255 = (4, 8, 12, 16, 20, 24, 32, 48)
SEEDS = 5
CHAPTER_EPS_255, CHAPTER_EPS_L2 = 24, 2.0
SIZE_PASSES = 3  # 4,000 images take minutes a pass

IMAGENET_MODELS = ("efficientnet-lite0", "efficientnet-lite1", "efficientnet-lite2")
IMAGENET_EPS_255, IMAGENET_SEEDS, TRANSFER_SEEDS = 10, 3, 3
PAPER_NETWORKS = ("alexnet", "googlenet", "vgg16", "vgg19", "resnet152")
KEPT_STUDIES = ("fashion-mnist", "imagenet")
OVERACTIVATING = ("noise", "fff", "gd-uap-none", "gd-uap-range", "gd-uap-data")
PRIORS = ("gd-uap-none", "gd-uap-range", "gd-uap-data")


def uap_study(
    model: str = CHAPTER_MODEL, eps_255: float = CHAPTER_EPS_255, eps_l2: float = CHAPTER_EPS_L2, seed: int = 0
) -> dict[str, list[Recipe]]:
    """Return the recipes of the chapter on UAPs, by the question that each list answers."""
    ball = linf(eps_255)
    sizes = [{"images": size, "max_passes": SIZE_PASSES} for size in SIZES]
    return {
        "budgets": [Recipe("uap", model, linf(budget), seed) for budget in BUDGETS_255],
        "sizes": [Recipe("uap", model, ball, seed, settings) for settings in sizes],
        "seeds": [Recipe("uap", model, ball, seed + k) for k in range(SEEDS)],
        "norms": [Recipe("uap", model, ball, seed), Recipe("uap", model, NormBall(2, eps_l2), seed)],
    }


def imagenet_study() -> list[Recipe]:
    """Return the recipes of the chapters on Fast Feature Fool and GD-UAP; the first network with several seeds."""
    ball = linf(IMAGENET_EPS_255)
    first = [Recipe(method, IMAGENET_MODELS[0], ball, k) for method in OVERACTIVATING for k in range(IMAGENET_SEEDS)]
    return first + [Recipe(method, model, ball) for model in IMAGENET_MODELS[1:] for method in OVERACTIVATING]


def ablation_study() -> dict[str, dict[str, Recipe]]:
    """Return the recipes of the ablations of GD-UAP on the first ImageNet network, by the prior and the preset.

    Their perturbations are not kept, only their records and what they do.
    """
    names = {
        "none": ("convolutions", "saturation-halving", "no-halving", "image-selected", "paper", "paper-large-steps",
                 "paper-without-std", "paper-large-steps-without-std"),
        "range": ("convolutions", "no-halving", "white-noise", "pink-noise", "one-picture", "image-selected"),
        "data": ("convolutions", "no-halving", "augmented", "image-selected"),
    }  # fmt: skip
    ball, model = linf(IMAGENET_EPS_255), IMAGENET_MODELS[0]
    return {
        prior: {preset: ablation(f"gd-uap-{prior}", model, ball, preset) for preset in presets}
        for prior, presets in names.items()
    }


def mini_study(seeds: int = 1) -> list[Recipe]:
    """Return the recipes of the same methods on the six mini networks, with so many seeds."""
    ball = linf(CHAPTER_EPS_255)
    return [
        Recipe(method, model, ball, k) for model in models.names() for method in OVERACTIVATING for k in range(seeds)
    ]


def dense_study() -> list[Recipe]:
    """Return the recipes of the chapters on segmentation and depth: GD-UAP's priors on every dense network."""
    ball = linf(IMAGENET_EPS_255)
    dense = [name for name in models.trained_here() if models.says(name) != "label"]
    study = [Recipe(method, model, ball) for model in dense for method in ("noise", *PRIORS)]
    segmenters = [model for model in dense if models.says(model) == "classes"]
    return study + [ablation("gd-uap-data", model, ball, "less-background") for model in segmenters]


@dataclass(frozen=True)
class TransferStudy:
    """One transfer matrix of the book: the recipes and released perturbations of its rows, and the networks."""

    recipes: Sequence[Recipe]
    victims: Sequence[str]
    released: Sequence[str] = ()

    @property
    def cells(self) -> str:
        """The place of its cells, those of its victims' data set, in a folder of artifacts."""
        return f"cells/{models.find(self.victims[0]).data_set}.jsonl"

    @property
    def rows(self) -> list[str]:
        """The names of its rows, first the recipes, then the releases."""
        return [recipe.name for recipe in self.recipes] + [f"published:{name}" for name in self.released]

    def kept(self) -> "TransferMatrix | None":
        """Return the matrix of its cells, rows and networks in its order; None where one is missing or out of date.

        Warns when what is kept is out of date.
        """
        from uaplib import transfer  # which draws, and is slow to import

        for place in store.places(self.cells):
            with suppress(KeyError, FileNotFoundError):  # readers' own cells may be few
                found = transfer.load(place).arranged(self.rows, self.victims)
                if self._is_current(place):
                    return found
                warnings.warn(f"{place} is not used: its cells are of other perturbations or weights", stacklevel=2)
        return None

    def _is_current(self, place: Path) -> bool:
        """Whether the cells of all recipes are of their perturbations and the networks' weights of today.

        Of releases, whose files need not be at hand, the names must do.
        """
        last = Journal(place).last(*LABELS)
        records = {recipe: recipe.find_record() for recipe in self.recipes}
        return all(
            record and last[recipe.name, victim, "label"][0] in recipe.cell_keys(record, victim)
            for recipe, record in records.items()
            for victim in self.victims
        )

    def sources(self) -> dict[str, UniversalPerturbation]:
        """Return the perturbations of its rows by name, crafted where they are not kept.

        Raises FileNotFoundError when a release can be had nowhere.
        """
        ours = {recipe.name: recipe.load_or_craft() for recipe in self.recipes}
        return ours | {f"published:{name}": published.load(name) for name in self.released}


def transfer_studies() -> dict[str, TransferStudy]:
    """Return the transfer matrices by name: the two that the book keeps, and the papers' networks.

    "fashion-mnist": the six mini networks, three seeds. "imagenet": the three networks whose weights are packages, and
    all released perturbations. "paper": the same rows for torchvision's successors of the papers' Caffe networks, for
    those who have their weights: AlexNet stands for CaffeNet, and nothing for VGG-F.
    """
    minis, lites = models.names(), IMAGENET_MODELS
    ours = [
        r for r in mini_study(TRANSFER_SEEDS) if r.method != "noise" or r.model == minis[0]
    ]  # noise knows no network
    ours += [Recipe("uap", model, linf(CHAPTER_EPS_255), k) for model in minis for k in range(TRANSFER_SEEDS)]
    return {
        "fashion-mnist": TransferStudy(ours, minis),
        "imagenet": TransferStudy(_large(lites), lites, list(published.RELEASES)),
        "paper": TransferStudy(_large(PAPER_NETWORKS), PAPER_NETWORKS, list(published.RELEASES)),
    }


def _large(networks: Sequence[str]) -> list[Recipe]:
    """Every method on every network; DeepFool on a thousand classes is slow, so UAP sees 300 pictures three times."""
    ball = linf(IMAGENET_EPS_255)
    rows = [Recipe(method, model, ball) for model in networks for method in OVERACTIVATING]
    return rows + [Recipe("uap", model, ball, settings={"images": 300, "max_passes": 3}) for model in networks]


def book() -> list[Recipe]:
    """Return every recipe that the book's chapters load with their default parameters, once."""
    studies = [recipe for recipes in uap_study().values() for recipe in recipes]
    studies += [recipe for recipes in ablation_study().values() for recipe in recipes.values()]
    rows = [recipe for name in KEPT_STUDIES for recipe in transfer_studies()[name].recipes]
    return list(dict.fromkeys([*studies, *imagenet_study(), *mini_study(), *dense_study(), *rows]))


def images_of_the_book() -> set[tuple[str, str, int | None]]:
    """Return which images the book's recipes meet, as model, role and number; see `uaplib.experiments.images`."""
    found = set()
    for recipe in book():
        found.add((recipe.model, "evaluation", None))
        if METHODS[recipe.method].sees != "nothing":
            found.add((recipe.model, recipe.all_settings["role"], recipe.images))
        if recipe.all_settings.get("selection") == "images":
            found.add((recipe.model, "selection", SELECTION_IMAGES))
    return found
