"""Named recipes for perturbations: what `uaplib craft` runs, and what chapters load."""

import json
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

from torch import Tensor

from uaplib import features, models, perturbation, provenance, published
from uaplib.attacks import _fast_feature_fool, _gd_uap, _uap, fast_feature_fool, gd_uap, uap
from uaplib.attacks.activations import Settings, parameters, scaled
from uaplib.balls import NormBall
from uaplib.catalogue import CHAPTER_MODEL, DATA_FREE, METHODS
from uaplib.checks import check_seed, whole
from uaplib.data import fashion_mnist, pictures
from uaplib.features import Layer
from uaplib.files import check_writable, checkout, data_folder, write_text
from uaplib.metrics.tasks import TASKS
from uaplib.names import check_name
from uaplib.perturbation import UniversalPerturbation

HELD_OUT_IMAGES = 2000
CRAFTING_IMAGES = 300
_ROOM = 2**22  # bytes that a perturbation and its record may need
_ROOT = checkout()
ARTIFACTS = _ROOT / "artifacts" if _ROOT else None  # the book's own; an installed package has none


def kept_folder() -> Path:
    """Return the folder for what is crafted here: the checkout's artifacts, or a folder beside the data."""
    return ARTIFACTS or data_folder() / "artifacts"


@cache
def weights_sha256(model: str) -> str:
    """Return the digest of the named model's weights, computed once."""
    return provenance.weights_sha256(models.load(model))


@cache
def crafting_set(model: str, count: int | None = None) -> tuple[Tensor, Tensor]:
    """Return images and labels to craft on, from the training split of what the network has learnt.

    For ImageNet's networks, the 300 ImageNet samples for it; for those that say something about pixels, see
    `labelled_scenes`. `count`: how many; 300 by default. Raises ValueError when there are fewer.
    """
    if count is not None and count < 1:
        raise ValueError(f"images must be at least 1, not {count}")
    if model in models.MINIS:
        found = fashion_mnist.load("train", count or CRAFTING_IMAGES)
    elif model in models.DENSE:
        found = labelled_scenes(model, "train", count or CRAFTING_IMAGES)
    else:
        found = pictures.samples_or_pictures("crafting")[slice(count)].load(models.preprocessing(model))
    if count and count > len(found[0]):
        raise ValueError(f"images={count} is more than the {len(found[0])} crafting images there are")
    return found


@cache
def selection_set(model: str) -> tuple[Tensor, Tensor]:
    """Return the images and labels for choosing an iterate: 100 ImageNet samples, or 100 validation scenes."""
    if model in models.DENSE:
        return labelled_scenes(model, "val", 100)
    return pictures.samples_or_pictures("selection").load(models.preprocessing(model))


@cache
def evaluation_set(model: str, count: int | None = None) -> tuple[Tensor, Tensor]:
    """Return images and labels to measure on: Fashion-MNIST's test images, test scenes, or 600 ImageNet samples.

    Raises ValueError for a segmenter or a depth network whose pixels nobody has labelled here.
    """
    if model in models.MINIS:
        return fashion_mnist.load("test", count)
    if model in models.DENSE:
        return labelled_scenes(model, "test", count)
    if models.says(model) != "label":
        raise ValueError(
            f"{model} says something about pixels, and no pictures with such labels are at hand; "
            "give yours to uaplib.metrics.segmentation.evaluate or uaplib.metrics.depth.evaluate"
        )
    return pictures.samples_or_pictures("evaluation")[slice(count)].load(models.preprocessing(model))


def images_from(model: str, part: str) -> str:
    """Return in words where the images of a part come from: "crafting", "selection" or "evaluation"."""
    split = {"crafting": "train", "selection": "val", "evaluation": "test"}[part]
    if model in models.MINIS:
        return f"Fashion-MNIST, {split} split"
    if model in models.DENSE:
        return f"{models.DENSE[model].data_set}, {split} split"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # who loads them is warned
        return pictures.samples_or_pictures(part).source


def labelled_scenes(model: str, split: str, count: int | None = None) -> tuple[Tensor, Tensor]:
    """Return the first `count` images (N, 3, H, W) of a split that a dense network of the project has learnt from.

    And what it is to say about them, (N, H, W): classes, int64, or depth, float32.
    """
    spec = models.DENSE[model]
    scenes = spec.data.load(split, count)
    return scenes.images, scenes.depth if spec.says == "depth" else scenes.labels


@cache
def foreground_set(model: str) -> tuple[Tensor, Tensor]:
    """Return the 28 % of a segmenter's crafting scenes that show most objects, the share that GD-UAP's authors keep.

    Labels chose them: what is crafted on them is not free of labels, though none enters the objective.
    """
    images, labels = crafting_set(model)
    share = models.DENSE[model].data.object_share(labels)
    chosen = share.argsort(descending=True)[: round(0.28 * len(images))]
    return images[chosen], labels[chosen]


@dataclass(frozen=True)
class Variant:
    """What an ablation changes: settings (on top of the default or of the authors') and layers.

    selected: choose the iterate on the images for selection, as the papers do with other images. less_background:
    craft on `foreground_set`.
    """

    settings: dict = field(default_factory=dict)
    paper: bool = False
    layers: str | None = None
    selected: bool = False
    less_background: bool = False


# The authors' rules for 1,500 iterations of a single picture: the two-by-two ablation of the public port's two changes.
_PORT = {"batch_size": 1, "max_iterations": 1500, "check_every": 100, "check_after": 50}
VARIANTS = {
    "": Variant(),
    "convolutions": Variant(layers="convolutions"),
    "saturation-halving": Variant({"halve_every": None, "check_every": 50, "check_after": 25}),
    "no-halving": Variant({"halve_every": None, "saturation": 1.0}),
    "augmented": Variant({"augment": True}),
    "white-noise": Variant({"smoothness": 0.0}),
    "pink-noise": Variant({"smoothness": 1.0}),
    "one-picture": Variant({"one_picture": True, "augment": True}),
    "image-selected": Variant(selected=True),
    "less-background": Variant(less_background=True),
    "paper": Variant(_PORT, paper=True),
    "paper-large-steps": Variant(_PORT | {"learning_rate": 0.1}, paper=True),
    "paper-without-std": Variant(_PORT | {"forget_std": True}, paper=True),
    "paper-large-steps-without-std": Variant(_PORT | {"learning_rate": 0.1, "forget_std": True}, paper=True),
}


@dataclass(frozen=True)
class Recipe:
    """How to craft one perturbation.

    "noise" needs no image, nor do "fff", "gd-uap-none" and "gd-uap-range". "uap" sees the first `images` crafting
    images and obeys `max_passes` and `target_rate`; "gd-uap-data" sees 300 crafting images. variant: one of
    `VARIANTS`, for "fff" and GD-UAP.

    Raises ValueError for an unknown method, model or variant (nearest names given), and for a budget of nothing or of
    more than the whole range of a pixel.
    """

    method: str
    model: str
    ball: NormBall
    images: int = 100
    seed: int = 0
    max_passes: int = 5
    target_rate: float = 1.0
    variant: str = ""

    def __post_init__(self):
        """Check names and budget."""
        counts = whole(images=self.images, max_passes=self.max_passes)
        for name, value in (counts | {"seed": check_seed(self.seed)}).items():
            object.__setattr__(self, name, value)
        if min(counts.values()) < 1:
            raise ValueError(f"images and max_passes must be at least 1, not {self.images} and {self.max_passes}")
        if not self.ball.eps > 0 or (self.ball.p == math.inf and self.ball.eps > 1):
            raise ValueError(f"the budget must be more than 0 and, for l∞, at most 255/255, not {self.ball}")
        check_name("method", self.method, METHODS)
        models.check_model_name(self.model)
        check_name("variant", self.variant, VARIANTS)
        if self.variant and self.method in ("noise", "uap"):
            raise ValueError(f"variant={self.variant!r} is of 'fff' and GD-UAP, not of {self.method!r}")
        if self.method == "uap" and models.says(self.model) != "label":
            raise ValueError(f"method='uap' crosses borders between classes of images; {self.model} has none")
        segments = self.model in models.DENSE and models.says(self.model) == "classes"
        if VARIANTS[self.variant].less_background and not (segments and self.method == "gd-uap-data"):
            raise ValueError(f"variant={self.variant!r} needs a segmenter of the project and the method 'gd-uap-data'")

    @property
    def name(self) -> str:
        """The artifact's name, for instance 'uap-resnet-mini-linf24-n100-p5-s0'."""
        budget = f"l2_{self.ball.eps:g}" if self.ball.p == 2 else f"linf{self.ball.eps * 255:g}"
        model = self.model.replace(":", "-")
        if self.method != "uap":
            return "-".join(filter(None, (self.method, model, budget, self.variant, f"s{self.seed}")))
        target = "" if self.target_rate == 1 else f"-t{self.target_rate:g}"
        return f"uap-{model}-{budget}-n{self.images}-p{self.max_passes}{target}-s{self.seed}"

    def craft(self, progress: bool = False, checkpoint: Path | None = None) -> UniversalPerturbation:
        """Run the recipe."""
        model = models.load(self.model)
        if self.method == "noise":
            return perturbation.noise(self.ball, tuple(model.mean_image().shape[1:]), self.seed)
        common = {"seed": self.seed, "source": self.model, "checkpoint": checkpoint, "progress": progress}
        if self.method != "uap":
            return self._overactivate(model, common)
        images, labels = crafting_set(self.model, self.images)
        return uap(
            model,
            images,
            self.ball,
            labels=labels,
            held_out=evaluation_set(self.model, HELD_OUT_IMAGES),
            target_rate=self.target_rate,
            max_passes=self.max_passes,
            **common,
        )

    def _overactivate(self, model: models.Normalized, common: dict) -> UniversalPerturbation:
        """Run "fff" or GD-UAP in its variant."""
        variant = VARIANTS[self.variant]
        common |= {"settings": self._settings(), "layers": variant.layers}
        if variant.selected:
            common["selection"] = selection_set(self.model)[0]
        if self.method == "fff":
            return fast_feature_fool(model, self.ball, **common)
        prior = self.method.removeprefix("gd-uap-")
        images = _seen(self.model, self._part)[0] if prior == "data" else None
        return gd_uap(model, self.ball, prior=prior, images=images, **common)

    def _settings(self) -> Settings:
        """The settings of "fff" or GD-UAP in its variant."""
        variant, module = VARIANTS[self.variant], _fast_feature_fool if self.method == "fff" else _gd_uap
        default = module.DEFAULT if self.method == "fff" else module.DEFAULTS[self.method.removeprefix("gd-uap-")]
        return replace(module.PAPER if variant.paper else scaled(default, self.ball), **variant.settings)

    @property
    def _part(self) -> str:
        """The part of the data that it crafts on, with the number of images where the recipe says it."""
        if self.method == "uap":
            return f"crafting-{self.images}"
        return "foreground" if VARIANTS[self.variant].less_background else "crafting"

    def identity(self, images: Callable[[str, str], dict]) -> dict:
        """Return what the perturbation depends on: see `uaplib.perturbation.identity`.

        images: a function from the model and a part of its data, such as "crafting", to the record of the images.
        """
        if self.method == "noise":
            return perturbation.identity("noise", self.ball, "", self.seed, {})
        if self.method == "uap":
            given = {"target_rate": self.target_rate, "max_passes": self.max_passes}
            record = {name: _uap.uap.__kwdefaults__[name] for name in _uap.NUMBERS} | given
        else:
            record = parameters(self._settings(), _layers(self.model, VARIANTS[self.variant].layers), None)
            if VARIANTS[self.variant].selected:
                record["selection"] = f"{images(self.model, 'selection')['images']} images"
        if self.method.startswith("gd-uap-"):
            record["prior"] = self.method.removeprefix("gd-uap-")
        if self.method in ("uap", "gd-uap-data"):
            record |= images(self.model, self._part)
        return perturbation.identity(self.method, self.ball, weights_sha256(self.model), self.seed, record)

    def matches(self, found: UniversalPerturbation) -> bool:
        """Return whether it depends on what this recipe does, on the images of the book or on those at hand.

        Raises FileNotFoundError or ValueError when it cannot be told: the images, or so many, are in neither.
        """
        if "resized" in found.run or (self.method == "noise" and found.delta.shape != self.craft().delta.shape):
            return False
        try:
            if self.identity(book_images) == found.identity:
                return True
        except KeyError:  # the book knows no such images
            return self.identity(images_at_hand) == found.identity
        try:
            return self.identity(images_at_hand) == found.identity
        except (FileNotFoundError, ValueError):  # not here, or too few: then the book's count
            return False

    def find(self, folder: Path | None) -> UniversalPerturbation | None:
        """Return the artifact in `folder`; None when it is missing, or depends on something else than this recipe.

        That is, when it was made from other weights, with other settings, or on other images or fewer of them; a
        warning says so. Noise is not kept: its seed is as good as the file.
        """
        if self.method == "noise":
            return self.craft()
        path = folder / f"{self.name}.safetensors" if folder else None
        if path is None or not path.exists():
            return None
        found = UniversalPerturbation.load(path)
        if self.matches(found):
            return found
        warnings.warn(
            f"{path} is not used: it was crafted from other weights, settings or images than asked for", stacklevel=2
        )
        return None

    def load_or_craft(self, progress: bool = True) -> UniversalPerturbation:
        """Return the artifact, from the checkout or from the data folder; where there is none, craft and keep it.

        Interrupted crafting goes on in the next call. Warns when nothing can be kept.
        """
        kept = data_folder() / "artifacts"
        for folder in (ARTIFACTS, kept):
            if found := self.find(folder):
                return found
        path = kept / f"{self.name}.safetensors"
        writable = False
        with _what_is_not_kept_is_a_warning():
            check_writable(path, _ROOM)
            writable = True
        if not writable:
            return self.craft(progress)
        crafted = self._craft_resumably(path, progress)
        with _what_is_not_kept_is_a_warning():
            if path.exists():  # out of date, but perhaps not for ever: the images of then may come back
                path.replace(path.with_name(f"{path.name}.old"))
            self._keep(crafted, path)
        return crafted

    def craft_into(self, path: Path, progress: bool = False) -> UniversalPerturbation:
        """Craft, and keep the result at `path`; until then, a checkpoint beside it, from which the next call goes on.

        Raises OSError at once when the file could not be written in the end.
        """
        check_writable(path, _ROOM)
        crafted = self._craft_resumably(path, progress)
        self._keep(crafted, path)
        return crafted

    def _craft_resumably(self, path: Path, progress: bool) -> UniversalPerturbation:
        crafted = self.craft(progress, _checkpoint(path))
        if self.method in ("uap", "gd-uap-data"):
            crafted.run["images_from"] = images_from(self.model, "crafting")
        return crafted

    def _keep(self, crafted: UniversalPerturbation, path: Path) -> None:
        crafted.save(path)
        if self.method != "noise":  # which has no checkpoint: one that is there is another's
            _checkpoint(path).unlink(missing_ok=True)

    def measure(self, crafted: UniversalPerturbation, clip: bool = True, progress: bool = False) -> dict:
        """Return, JSON-safe, what the perturbation does to its own network on the evaluation images."""
        images, labels = evaluation_set(self.model)
        model = models.load(self.model)
        evaluate = TASKS[models.says(self.model)].evaluate
        found = evaluate(model, images, labels, crafted.delta, clip=clip, progress=progress)
        return {
            "recipe": self.name,
            "command": self.command,
            "model": self.model,
            "source_sha256": weights_sha256(self.model),
            "identity": provenance.digest(crafted.identity),
            "evaluated_on": provenance.images_record(images),
            **found.as_dict(),
            "saturation": crafted.saturation,
            "l2_norm": crafted.delta.norm().item(),
            "run": crafted.run,
        }

    @property
    def command(self) -> str:
        """The command that crafts it."""
        budget = f"--eps-255 {self.ball.eps * 255:g}" if self.ball.p == math.inf else f"--eps-l2 {self.ball.eps:g}"
        seen = f" --images {self.images} --passes {self.max_passes}" if self.method == "uap" else ""
        target = f" --target-rate {self.target_rate:g}" if self.method == "uap" and self.target_rate != 1 else ""
        variant = f" --variant {self.variant}" if self.variant else ""
        return f"uaplib craft {self.method} --model {self.model} {budget}{seen}{target}{variant} --seed {self.seed}"

    def measured(self) -> dict:
        """Return `measure` of the artifact: read where it was kept, crafted and measured now where it was not."""
        return self.find_measured(ARTIFACTS) or self.measure(self.load_or_craft())

    def find_measured(self, folder: Path | None) -> dict | None:
        """Return what `keep_measured` wrote into `folder`.

        None when it is missing, about another perturbation than this recipe's, or measured on other images than the
        book's and those at hand.
        """
        path = folder / f"{self.name}.json" if folder else None
        if path is None or not path.exists():
            return None
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path} is damaged: {error}") from error
        return found if self._measured_as_now(found) else None

    def _measured_as_now(self, found: dict) -> bool:
        for images in (book_images, images_at_hand):
            try:
                now = images(self.model, "evaluation"), provenance.digest(self.identity(images))
            except (KeyError, FileNotFoundError, ValueError):
                continue
            if now == (found.get("evaluated_on"), found.get("identity")):
                return found["source_sha256"] == weights_sha256(self.model)
        return False

    def keep_measured(self, crafted: UniversalPerturbation, folder: Path, progress: bool = False) -> None:
        """Write `measure` of the crafted perturbation, and the history of its rates, into `folder`."""
        found = self.measure(crafted, progress=progress)
        found["history"] = [entry for entry in crafted.history if "rate" in entry]
        write_text(folder / f"{self.name}.json", json.dumps(found, indent=2) + "\n")


@contextmanager
def _what_is_not_kept_is_a_warning() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        warnings.warn(f"the perturbation could not be kept for the next run: {error}", stacklevel=4)


def _checkpoint(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")


def _seen(model: str, part: str) -> tuple[Tensor, Tensor]:
    """Images and labels of a part: "crafting", "crafting-100", "foreground", "selection" or "evaluation"."""
    name, _, count = part.partition("-")
    if name == "crafting":
        return crafting_set(model, int(count) if count else None)
    return {"foreground": foreground_set, "selection": selection_set, "evaluation": evaluation_set}[name](model)


@cache
def images_at_hand(model: str, part: str) -> dict:
    """Return number and digest of the images of a part, as they are here."""
    return provenance.images_record(_seen(model, part)[0])


def book_images(model: str, part: str) -> dict:
    """Return number and digest of the images that the book's own artifacts were made on.

    So they are found where the images are not, and where they are encoded otherwise. Raises KeyError where there are
    none.
    """
    return _book_images()[_data(model)][part]


def _book_images() -> dict:
    file = ARTIFACTS / "images.json" if ARTIFACTS else None
    return json.loads(file.read_text(encoding="utf-8")) if file and file.exists() else {}


def keep_book_images(folder: Path) -> None:
    """Write numbers and digests of all images that the book's artifacts are made on into `folder`."""
    found = {}
    for recipe in book():
        for part in (recipe._part, "selection", "evaluation"):
            if part != "selection" or recipe.model not in models.MINIS:
                found.setdefault(_data(recipe.model), {})[part] = images_at_hand(recipe.model, part)
    write_text(folder / "images.json", json.dumps(found, indent=2, sort_keys=True) + "\n")


def _data(model: str) -> str:
    """The images that a network sees, in the size in which it sees them."""
    if model in models.MINIS:
        return "fashion-mnist"
    if model in models.DENSE:
        return models.DENSE[model].data_set
    return f"imagenet-samples {model}"


@cache
def _layers(model: str, selection: str | None) -> list[Layer]:
    """The layers that "fff" and GD-UAP watch."""
    network = models.load(model)
    return features.choose(network, network.mean_image(), selection or features.default_kind(network))


SIZES = (50, 100, 500, 1000, 4000)
BUDGETS_255 = (4, 8, 12, 16, 20, 24, 32, 48)
SEEDS = 5
CHAPTER_EPS_255, CHAPTER_EPS_L2 = 24, 2.0
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


IMAGENET_MODELS = ("efficientnet-lite0", "efficientnet-lite1", "efficientnet-lite2")
IMAGENET_EPS_255, IMAGENET_SEEDS, TRANSFER_SEEDS = 10, 3, 3
PAPER_NETWORKS = ("alexnet", "googlenet", "vgg16", "vgg19", "resnet152")
KEPT_STUDIES = ("fashion-mnist", "imagenet")
OVERACTIVATING = ("noise", *DATA_FREE, "gd-uap-data")


def imagenet_study() -> list[Recipe]:
    """Return the recipes of the chapters on Fast Feature Fool and GD-UAP; the first network with several seeds."""
    ball = linf(IMAGENET_EPS_255)
    first = [
        Recipe(method, IMAGENET_MODELS[0], ball, seed=k) for method in OVERACTIVATING for k in range(IMAGENET_SEEDS)
    ]
    return first + [Recipe(method, model, ball) for model in IMAGENET_MODELS[1:] for method in OVERACTIVATING]


def ablation_study() -> dict[str, list[Recipe]]:
    """Return the recipes of the ablations of GD-UAP on the first ImageNet network, by the prior they belong to.

    Their perturbations are not kept, only what they do.
    """
    names = {
        "none": ("convolutions", "saturation-halving", "no-halving", "image-selected", "paper", "paper-large-steps",
                 "paper-without-std", "paper-large-steps-without-std"),
        "range": ("convolutions", "no-halving", "white-noise", "pink-noise", "one-picture", "image-selected"),
        "data": ("convolutions", "no-halving", "augmented", "image-selected"),
    }  # fmt: skip
    ball, model = linf(IMAGENET_EPS_255), IMAGENET_MODELS[0]
    return {
        prior: [Recipe(f"gd-uap-{prior}", model, ball, variant=variant) for variant in variants]
        for prior, variants in names.items()
    }


def mini_study(seeds: int = 1) -> list[Recipe]:
    """Return the recipes of the same methods on the six mini networks, with so many seeds."""
    ball = linf(CHAPTER_EPS_255)
    return [
        Recipe(method, model, ball, seed=k)
        for model in models.names()
        for method in OVERACTIVATING
        for k in range(seeds)
    ]


def dense_study() -> list[Recipe]:
    """Return the recipes of the chapters on segmentation and depth: GD-UAP's priors on every dense network."""
    ball = linf(IMAGENET_EPS_255)
    methods = ("noise", "gd-uap-none", "gd-uap-range", "gd-uap-data")
    study = [Recipe(method, model, ball) for model in models.DENSE for method in methods]
    segmenters = [model for model in models.DENSE if models.says(model) == "classes"]
    return study + [Recipe("gd-uap-data", model, ball, variant="less-background") for model in segmenters]


@dataclass(frozen=True)
class TransferStudy:
    """One transfer matrix of the book: the recipes and released perturbations of its rows, and the networks."""

    recipes: Sequence[Recipe]
    victims: Sequence[str]
    released: Sequence[str] = ()

    def sources(self) -> dict[str, UniversalPerturbation]:
        """Return the rows by name: a recipe's artifact under the recipe's name, a release as "published:NAME".

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
    ours += [Recipe("uap", model, linf(CHAPTER_EPS_255), seed=k) for model in minis for k in range(TRANSFER_SEEDS)]
    return {
        "fashion-mnist": TransferStudy(ours, minis),
        "imagenet": TransferStudy(_large(lites), lites, list(published.RELEASES)),
        "paper": TransferStudy(_large(PAPER_NETWORKS), PAPER_NETWORKS, list(published.RELEASES)),
    }


def _large(networks: Sequence[str]) -> list[Recipe]:
    """Every method on every network; DeepFool on a thousand classes is slow, so UAP sees 300 pictures three times."""
    ball = linf(IMAGENET_EPS_255)
    rows = [Recipe(method, model, ball) for model in networks for method in OVERACTIVATING]
    return rows + [Recipe("uap", model, ball, images=300, max_passes=3) for model in networks]


def book() -> list[Recipe]:
    """Return every recipe that the book's chapters load with their default parameters, once."""
    studies = [recipe for study in (uap_study(), ablation_study()) for recipes in study.values() for recipe in recipes]
    rows = [recipe for name in KEPT_STUDIES for recipe in transfer_studies()[name].recipes]
    return list(dict.fromkeys([*studies, *imagenet_study(), *mini_study(), *dense_study(), *rows]))


def linf(eps_255: float) -> NormBall:
    """Return the l-infinity ball of radius eps_255 / 255."""
    return NormBall(math.inf, eps_255 / 255)
