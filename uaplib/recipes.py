"""Named recipes for perturbations on Fashion-MNIST: what `uaplib craft` runs, and what chapters load."""

import math
import warnings
from dataclasses import dataclass
from pathlib import Path

from uaplib import models, perturbation, provenance
from uaplib.attacks import uap
from uaplib.balls import NormBall
from uaplib.data import fashion_mnist
from uaplib.files import data_folder
from uaplib.names import check_name
from uaplib.perturbation import UniversalPerturbation

METHODS = ("noise", "uap")
HELD_OUT_IMAGES = 2000
ARTIFACTS = Path(__file__).parents[1] / "artifacts"  # exists in a checkout of the book, not in an installed package


@dataclass(frozen=True)
class Recipe:
    """How to craft one perturbation: on the first `images` training images, measured on the first test images.

    Raises ValueError for an unknown method or model (nearest names given).
    """

    method: str
    model: str
    ball: NormBall
    images: int = 100
    seed: int = 0
    max_passes: int = 5
    target_rate: float = 1.0

    def __post_init__(self):
        """Check the names."""
        check_name("method", self.method, METHODS)
        check_name("model", self.model, models.names())

    @property
    def name(self) -> str:
        """The artifact's name, for instance 'uap-resnet-mini-linf24-n100-p5-s0'."""
        budget = f"l2_{self.ball.eps:g}" if self.ball.p == 2 else f"linf{self.ball.eps * 255:g}"
        if self.method == "noise":
            return f"noise-{budget}-s{self.seed}"
        target = "" if self.target_rate == 1 else f"-t{self.target_rate:g}"
        return f"{self.method}-{self.model}-{budget}-n{self.images}-p{self.max_passes}{target}-s{self.seed}"

    def craft(self, progress: bool = False, checkpoint: Path | None = None) -> UniversalPerturbation:
        """Run the recipe."""
        if self.method == "noise":
            return perturbation.noise(self.ball, (1, 28, 28), self.seed)
        crafting = fashion_mnist.load("train", self.images)
        return uap(
            models.load(self.model),
            crafting.images,
            self.ball,
            labels=crafting.labels,
            held_out=fashion_mnist.load("test", HELD_OUT_IMAGES),
            seed=self.seed,
            target_rate=self.target_rate,
            max_passes=self.max_passes,
            source=self.model,
            checkpoint=checkpoint,
            progress=progress,
        )

    def find(self, folder: Path) -> UniversalPerturbation | None:
        """Return the artifact in `folder`, or None when it is missing or was made from other weights."""
        path = folder / f"{self.name}.safetensors"
        if not path.exists():
            return None
        found = UniversalPerturbation.load(path)
        today = self.method == "noise" or found.source_sha256 == provenance.weights_sha256(models.load(self.model))
        return found if today else None

    def load_or_craft(self) -> UniversalPerturbation:
        """Return the artifact, from the checkout or from the data folder; where there is none, craft and keep it."""
        kept = data_folder() / "artifacts"
        for folder in (ARTIFACTS, kept):
            if found := self.find(folder):
                return found
        crafted = self.craft()
        try:
            crafted.save(kept / f"{self.name}.safetensors")
        except OSError as error:
            warnings.warn(f"the perturbation could not be kept for the next run: {error}", stacklevel=2)
        return crafted


SIZES = (50, 100, 500, 1000, 4000)
BUDGETS_255 = (4, 8, 12, 16, 20, 24, 32, 48)
SEEDS = 5
CHAPTER_MODEL, CHAPTER_EPS_255, CHAPTER_EPS_L2 = "resnet-mini", 24, 2.0
SIZE_PASSES = 3  # 4,000 images take minutes a pass


def uap_study(
    model: str = CHAPTER_MODEL, eps_255: float = CHAPTER_EPS_255, eps_l2: float = CHAPTER_EPS_L2, seed: int = 0
) -> dict[str, list[Recipe]]:
    """Return the recipes of the chapter on UAPs, by the question that each list answers."""
    ball = linf(eps_255)
    return {
        "budgets": [Recipe("uap", model, linf(budget), seed=seed) for budget in BUDGETS_255],
        "sizes": [Recipe("uap", model, ball, images=size, seed=seed, max_passes=SIZE_PASSES) for size in SIZES],
        "seeds": [Recipe("uap", model, ball, seed=seed + k) for k in range(SEEDS)],
        "norms": [Recipe("uap", model, ball, seed=seed), Recipe("uap", model, NormBall(2, eps_l2), seed=seed)],
    }


def book() -> list[Recipe]:
    """Return every recipe that the book's chapters load with their default parameters, once."""
    return list(dict.fromkeys(recipe for recipes in uap_study().values() for recipe in recipes))


def linf(eps_255: float) -> NormBall:
    """Return the l-infinity ball of radius eps_255 / 255."""
    return NormBall(math.inf, eps_255 / 255)
