"""The book's studies: lists of recipes, by the question that each answers."""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache, partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from uaplib import features, models, provenance, published, releases
from uaplib.attacks import METHODS
from uaplib.balls import NormBall, linf
from uaplib.cells import LABELS
from uaplib.controls import CONTROLS
from uaplib.experiments import store
from uaplib.experiments.images import images_for
from uaplib.experiments.recipes import SELECTION_IMAGES, Recipe, ablation, cell_keys
from uaplib.journal import Journal
from uaplib.models.spec import CHAPTER_MODEL
from uaplib.perturbation import UniversalPerturbation
from uaplib.releases import RELEASES, Release

if TYPE_CHECKING:
    from uaplib.transfer import TransferMatrix

SIZES = (50, 100, 500, 1000, 4000)
BUDGETS_255 = (4, 8, 12, 16, 20, 24, 32, 48)
SEEDS, SIZE_SEEDS = 5, 3
CHAPTER_EPS_255, CHAPTER_EPS_L2 = 24, 2.0
SIZE_PASSES = 3  # 4,000 images take minutes a pass

IMAGENET_MODELS = ("efficientnet-lite0", "efficientnet-lite1", "efficientnet-lite2")
SMALL_MODEL = "mobilenet-v1-0.25"  # 0.5 million parameters, 128 pixels
PAPER_NETWORK = "googlenet-caffe"  # for which the papers have numbers
SECOND_MODEL = "mobilenet-v1-0.5"  # on which nobody tuned anything
OTHERS = (PAPER_NETWORK, "squeezenet1_1-caffe", "tiny-darknet", SMALL_MODEL, SECOND_MODEL)  # of other families
IMAGENET_EPS_255, IMAGENET_SEEDS, TRANSFER_SEEDS, NOISE_DRAWS = 10, 3, 3, 10
PAPER_NETWORKS = ("alexnet", "googlenet", "vgg16", "vgg19", "resnet152")
FAMILIES = {  # the networks for photographs by their design
    "GoogLeNet": (PAPER_NETWORK,),
    "SqueezeNet": ("squeezenet1_1-caffe",),
    "Darknet": ("tiny-darknet",),
    "MobileNet v1": ("mobilenet-v1", "mobilenet-v1-0.75", SECOND_MODEL, SMALL_MODEL),
    "MobileNet v2": ("mobilenet-v2",),
    "EfficientNet-Lite": IMAGENET_MODELS,
}
KEPT_STUDIES = ("fashion-mnist", "fashion-mnist-modern", "imagenet", "families")
OVERACTIVATING = ("noise", "fff", "gd-uap-none", "gd-uap-range", "gd-uap-data")
NOT_OPTIMISED = ("noise", "chessboard", "stripes", "fourier", "blocks")  # beside every attack
PRIORS = ("gd-uap-none", "gd-uap-range", "gd-uap-data")
EARLIER = ("fff", "gd-uap-range", "gd-uap-data")  # beside which the methods since 2018 stand
MODERN = ("sgd-uap", "sga", "df-uap", "cosine-uap", "dm-uap", "sv-uap", "psp-uap")
SEARCHES = tuple(name for name in METHODS if name.endswith("-search"))
MODERN_SEEDS = 3
MODERN_LARGER = ("sgd-uap", "sga", "df-uap", "sv-uap", "psp-uap")  # where a run takes ten minutes of a core
COST_MODEL, COSTS = "vgg19-mini", (1000, 3000, 10_000, 30_000, 100_000)
TARGETS = (9, 174, 573, 771)  # ostrich, elkhound, go-kart, safe: classes that nobody chose after seeing a rate
MODERN_NETWORKS = (PAPER_NETWORK, IMAGENET_MODELS[0])
TWO_MODELS = f"{IMAGENET_MODELS[0]}+{PAPER_NETWORK}"  # of two families, both for 224 pixels
THREE_MODELS = f"{TWO_MODELS}+mobilenet-v2"
SHORT_PSP = {"max_iterations": 200}  # a fifth of the default: on several networks an iteration takes seconds
SUBMISSIONS = "submissions"  # folder of the artifacts for perturbations of others, see `leaderboard`
Control = Callable[[UniversalPerturbation], UniversalPerturbation]


def uap_study(
    model: str = CHAPTER_MODEL, eps_255: float = CHAPTER_EPS_255, eps_l2: float = CHAPTER_EPS_L2, seed: int = 0
) -> dict[str, list[Recipe]]:
    """Return the recipes of the chapter on UAPs, by the question that each list answers."""
    ball = linf(eps_255)
    sizes = [{"images": size, "max_passes": SIZE_PASSES} for size in SIZES]
    return {
        "budgets": [Recipe("uap", model, linf(budget), seed) for budget in BUDGETS_255],
        "sizes": [Recipe("uap", model, ball, seed + k, settings) for settings in sizes for k in range(SIZE_SEEDS)],
        "seeds": [Recipe("uap", model, ball, seed + k) for k in range(SEEDS)],
        "norms": [Recipe("uap", model, ball, seed), Recipe("uap", model, NormBall(2, eps_l2), seed)],
    }


def imagenet_study() -> list[Recipe]:
    """Return the recipes of the chapters on Fast Feature Fool and GD-UAP; the first network with several seeds."""
    ball = linf(IMAGENET_EPS_255)
    first = [Recipe(method, IMAGENET_MODELS[0], ball, k) for method in OVERACTIVATING for k in range(IMAGENET_SEEDS)]
    return first + [Recipe(method, model, ball) for model in IMAGENET_MODELS[1:] for method in OVERACTIVATING]


def long_uaps() -> dict[str, Recipe]:
    """Return, by their networks, the recipes of UAPs with as many photographs as there are, and many passes.

    A pass takes half a minute of a core on the small network, a quarter of an hour on the papers', and five minutes on
    EfficientNet-Lite0.
    """
    passes = {SMALL_MODEL: 15, PAPER_NETWORK: 5, IMAGENET_MODELS[0]: 17}
    return {
        model: Recipe("uap", model, linf(IMAGENET_EPS_255), settings={"images": 900, "max_passes": count})
        for model, count in passes.items()
    }


def floor_study() -> dict[str, dict[str, list[Recipe]]]:
    """Return, by their networks, the recipes of what attacks have to rise above, at the book's budgets."""
    balls = dict.fromkeys(IMAGENET_MODELS + OTHERS, linf(IMAGENET_EPS_255))
    balls |= dict.fromkeys(models.names(), linf(CHAPTER_EPS_255))
    return {model: floor_recipes(model, ball) for model, ball in balls.items()}


def floor_recipes(model: str, ball: NormBall) -> dict[str, list[Recipe]]:
    """Return what an attack has to rise above: recipes of "noise" of several draws, and "patterns" of several sizes."""
    sizes = [("chessboard", {"size": size}) for size in (1, 2, 4, 8)]
    sizes += [("stripes", {"size": size, "direction": way}) for size in (2, 4) for way in ("columns", "rows")]
    sizes += [("fourier", {}), ("blocks", {})]
    return {
        "noise": [Recipe("noise", model, ball, seed) for seed in range(NOISE_DRAWS)],
        "patterns": [Recipe(name, model, ball, settings=settings) for name, settings in sizes],
    }


def pattern_name(recipe: Recipe) -> str:
    """Return a pattern's name in tables, for instance "stripes, 4 pixels, columns"."""
    settings = recipe.all_settings
    size = [f"{settings['size']} pixel{'s' if settings['size'] > 1 else ''}"] if "size" in settings else []
    return ", ".join([recipe.method, *size, *([settings["direction"]] if "direction" in settings else [])])


def paper_network_study() -> dict[str, dict[str, Recipe]]:
    """Return, by method and way, the recipes for a network of the papers.

    Ways: "default"; "image-selected", where photographs choose the iterate, as in the papers; and for GD-UAP "authors",
    their rules and their layers, photographs choosing, too, but one picture at a time. With their 20 an iteration takes
    seconds on a processor; without data all 20 are the same.
    """
    ball, layers = linf(IMAGENET_EPS_255), features.paper_layers("gd-uap", "googlenet")
    study = {method: {"default": Recipe(method, PAPER_NETWORK, ball)} for method in OVERACTIVATING}
    for method in ("fff", *PRIORS):
        study[method]["image-selected"] = ablation(method, PAPER_NETWORK, ball, "image-selected")
    for method in PRIORS:
        rules = METHODS[method].presets["authors"] | {"batch_size": 1, "layers": layers, "selection": "images"}
        study[method]["authors"] = Recipe(method, PAPER_NETWORK, ball, settings=rules)
    return study


def modern_study() -> dict[str, list[Recipe]]:
    """Return, by their networks, the recipes of the methods since 2018, at one cost: 10,000 gradients of one image.

    On the mini networks at their budget, and on a small network for photographs, where the best of many patterns stand
    beside them, several seeds each; on two larger networks one seed. Three earlier methods stand beside them.
    """
    balls = dict.fromkeys(models.names(), linf(CHAPTER_EPS_255))
    balls |= dict.fromkeys((SMALL_MODEL, *MODERN_NETWORKS), linf(IMAGENET_EPS_255))
    methods = dict.fromkeys(balls, EARLIER + MODERN) | {SMALL_MODEL: EARLIER + MODERN + SEARCHES}
    methods |= dict.fromkeys(MODERN_NETWORKS, EARLIER + MODERN_LARGER)
    seeds = dict.fromkeys(balls, MODERN_SEEDS) | dict.fromkeys(MODERN_NETWORKS, 1)
    return {
        model: [Recipe(name, model, ball, k) for name in methods[model] for k in range(seeds[model])]
        for model, ball in balls.items()
    }


def cost_study() -> dict[str, dict[int, list[Recipe]]]:
    """Return, by method and cost, the recipes of stochastic gradients and their aggregation on one mini network.

    "sga, 250" takes outer batches of the size in its authors' program.
    """
    ways = {"sgd-uap": ("sgd-uap", {}), "sga": ("sga", {}), "sga, 250": ("sga", {"batch_size": 250})}
    ball = linf(CHAPTER_EPS_255)
    return {
        way: {
            cost: [Recipe(name, COST_MODEL, ball, k, {**changes, "max_gradients": cost}) for k in range(MODERN_SEEDS)]
            for cost in COSTS
        }
        for way, (name, changes) in ways.items()
    }


def psp_study() -> dict[str, list[Recipe]]:
    """Return the recipes of pseudo-semantic priors on the small network by preset, several seeds each.

    "default" is what they differ from.
    """
    ball = linf(IMAGENET_EPS_255)
    presets = ["", *(name for name in METHODS["psp-uap"].presets if name != "authors")]
    return {
        preset or "default": [ablation("psp-uap", SMALL_MODEL, ball, preset, k) for k in range(MODERN_SEEDS)]
        for preset in presets
    }


def frequency_study() -> dict[str, Recipe]:
    """Return, by their networks, the recipes that try about 200 frequencies one by one; their histories are the rates.

    The networks are of four families, and take their first samples in different ways.
    """
    networks, ball = (SMALL_MODEL, "squeezenet1_1-caffe", *MODERN_NETWORKS), linf(IMAGENET_EPS_255)
    return {model: ablation("fourier-search", model, ball, "fine") for model in networks}


def ensemble_study() -> dict[str, list[Recipe]]:
    """Return, by their networks, the recipes of perturbations for several networks at once, of two or three families.

    Two methods that see no data. Beside them stand the same methods on each of the networks alone, with the settings
    that they have here.
    """
    ball, settings = linf(IMAGENET_EPS_255), {"gd-uap-range": {}, "psp-uap": SHORT_PSP}
    networks = (TWO_MODELS, THREE_MODELS, *THREE_MODELS.split("+"))
    return {model: [Recipe(name, model, ball, settings=own) for name, own in settings.items()] for model in networks}


def for_several_networks() -> Recipe:
    """Return the recipe of the book's perturbation for networks that nobody has seen: data-free, on three families."""
    return Recipe("psp-uap", THREE_MODELS, linf(IMAGENET_EPS_255), settings=SHORT_PSP)


def targeted_study() -> dict[str, list[Recipe]]:
    """Return, by their networks, the recipes of perturbations towards one class each."""
    ball, methods = linf(IMAGENET_EPS_255), {SMALL_MODEL: ("df-uap", "sgd-uap"), IMAGENET_MODELS[0]: ("df-uap",)}
    targets = dict.fromkeys(methods, TARGETS) | {IMAGENET_MODELS[0]: TARGETS[:1]}
    return {
        model: [Recipe(name, model, ball, settings={"target": t}) for name in names for t in targets[model]]
        for model, names in methods.items()
    }


def halving_study() -> dict[str, list[Recipe]]:
    """Return the recipes of Fast Feature Fool with and without halving, by the step, several starts each.

    Their perturbations are not kept, only their records and what they do.
    """
    ways = {"large steps": ("", "no-halving"), "small steps": ("small-steps", "small-steps-no-halving")}
    ball, model = linf(IMAGENET_EPS_255), IMAGENET_MODELS[0]
    return {
        f"{steps}, {how}": [ablation("fff", model, ball, preset, k) for k in range(IMAGENET_SEEDS)]
        for steps, presets in ways.items()
        for how, preset in zip(("halved", "not halved"), presets, strict=True)
    }


def ablation_study(model: str = IMAGENET_MODELS[0]) -> dict[str, dict[str, Recipe]]:
    """Return the recipes of the ablations of GD-UAP on an ImageNet network, by the prior and the preset.

    "default" is what they differ from. The others' perturbations are not kept, only their records and what they do.
    The port's four are of the first network alone.
    """
    names = {
        "none": ("convolutions", "saturation-halving", "no-halving", "image-selected", "paper", "paper-large-steps",
                 "paper-without-std", "paper-large-steps-without-std"),
        "range": ("convolutions", "no-halving", "white-noise", "pink-noise", "one-picture", "image-selected"),
        "data": ("convolutions", "no-halving", "augmented", "image-selected"),
    }  # fmt: skip
    ball = linf(IMAGENET_EPS_255)
    return {
        prior: {"default": ablation(f"gd-uap-{prior}", model, ball)}
        | {
            preset: ablation(f"gd-uap-{prior}", model, ball, preset)
            for preset in presets
            if model == IMAGENET_MODELS[0] or "paper" not in preset
        }
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
    """One transfer matrix of the book: its rows, and the networks.

    Rows are recipes, released perturbations by their names, the `controls` of the recipes in `controlled`: functions
    from a perturbation to another, by their names, and those of others that were `submitted`, by their names.
    """

    recipes: Sequence[Recipe]
    victims: Sequence[str]
    released: Sequence[str] = ()
    controlled: Sequence[Recipe] = ()
    controls: Mapping[str, Control] = field(default_factory=lambda: CONTROLS, hash=False)
    submitted: Sequence[str] = ()

    @property
    def cells(self) -> str:
        """The place of its cells, those of its victims' data set, in a folder of artifacts."""
        return f"cells/{models.find(self.victims[0]).data_set}.jsonl"

    @property
    def rows(self) -> list[str]:
        """The names of its rows, first the recipes, then the releases, the submissions, and the controls."""
        names = [recipe.name for recipe in self.recipes] + [f"published:{name}" for name in self.released]
        names += [f"submitted:{name}" for name in self.submitted]
        return names + [control_row(recipe, control) for recipe in self.controlled for control in self.controls]

    def row_of(self, recipe: Recipe) -> "TransferStudy":
        """Return the study of one of its recipes alone."""
        return TransferStudy([recipe], self.victims)

    def kept(self) -> "TransferMatrix | None":
        """Return the matrix of its cells, rows and networks in its order; None where one is missing or out of date.

        Warns when what is kept is out of date.
        """
        from uaplib import transfer  # which draws, and is slow to import

        for place in store.places(self.cells):
            with suppress(KeyError, FileNotFoundError):  # readers' own cells may be few
                found = transfer.load(place).arranged(self.rows, self.victims)
                if not self._lacking(place):
                    return found
                warnings.warn(
                    f"{place} is not used: its cells are not of the perturbations and weights at hand", stacklevel=2
                )
        return None

    def _lacking(self, place: Path) -> list[str]:
        """The rows of which a cell is missing in a file, or is not of the perturbation and the weights of today."""
        current = self._current(place)
        return [row for row in self.rows if not all((row, victim) in current for victim in self.victims)]

    def _current(self, place: Path) -> dict[tuple[str, str], tuple[str, dict]]:
        """The cells in a file, with their keys, that are of the perturbations and the weights of today."""
        last, found = Journal(place).last(*LABELS), {}
        for row, keys in self._keys().items():
            for victim in self.victims:
                key, cell = last.get((row, victim, "label"), ("", {}))
                if keys and key in keys(victim):
                    found[row, victim] = (key, cell)
        return found

    def _keys(self) -> dict[str, Callable[[str], Iterator[str]] | None]:
        """For each row the keys that its cell on a network can have; None where there is no such perturbation."""
        found = {}
        for recipe in self.recipes:
            record = recipe.find_record()
            found[recipe.name] = record and partial(recipe.cell_keys, record)
        for name in self.released:
            release, ball = RELEASES[name], published.ball_of(name)
            found[f"published:{name}"] = partial(cell_keys, release.delta_sha256, _shape(release), ball)
        for recipe in self.controlled:
            made = self._made(recipe, crafted) if (crafted := recipe.find()) else {}
            found |= {row: _keys_of(one) for row, one in made.items()}
        found |= {f"submitted:{name}": _keys_of(submission(name)) for name in self.submitted}
        return {row: found.get(row) for row in self.rows}

    def _made(self, recipe: Recipe, crafted: UniversalPerturbation) -> dict[str, UniversalPerturbation]:
        """The rows that control a recipe's perturbation."""
        return {control_row(recipe, name): make(crafted) for name, make in self.controls.items()}

    def sources(self, rows: Sequence[str] | None = None) -> dict[str, UniversalPerturbation]:
        """Return the perturbations of its rows, or of some, by name, crafted where they are not kept.

        Raises FileNotFoundError when a release can be had nowhere.
        """
        wanted = set(self.rows if rows is None else rows)
        found = {recipe.name: recipe.load_or_craft() for recipe in self.recipes if recipe.name in wanted}
        found |= {f"published:{name}": published.load(name) for name in self.released if f"published:{name}" in wanted}
        found |= {f"submitted:{name}": submission(name) for name in self.submitted if f"submitted:{name}" in wanted}
        for recipe in self.controlled:
            if wanted & {control_row(recipe, name) for name in self.controls}:
                found |= self._made(recipe, recipe.load_or_craft())
        return {row: one for row, one in found.items() if row in wanted}

    def measure(self, device: str | torch.device = "cpu", folder: Path | None = None) -> "TransferMatrix":
        """Return the matrix after what is missing or out of date was measured.

        Cells are kept in a folder of artifacts, the reader's own by default; a row that has all its cells there needs
        no perturbation.
        """
        from uaplib import transfer

        cells = (folder or store.own_folder()) / self.cells
        lacking = self.rows
        with suppress(ImportError):  # of a network that is left out below
            self._take_over(cells)
            lacking = self._lacking(cells)
        done = [row for row in self.rows if row not in lacking]
        if not lacking:
            return transfer.load(cells).arranged(done, self.victims)

        def test(victim: str) -> tuple[torch.Tensor, torch.Tensor]:
            return images_for(victim, "evaluation")

        new = transfer.transfer_matrix(
            self.sources(lacking), self.victims, test, device=device, cells=cells, progress=True
        )
        if not done:
            return new
        measured = [victim for victim in self.victims if victim not in new.left_out]
        return new.joined(transfer.load(cells).arranged(done, measured)).arranged(self.rows, measured)

    def _take_over(self, cells: Path) -> None:
        """Add to a file the cells that are kept elsewhere, the book's for instance, which need not be measured."""
        journal, there = Journal(cells), self._current(cells)
        for place in store.places(self.cells):
            if place != cells:
                for pair, (key, cell) in self._current(place).items():
                    if pair not in there:
                        there[pair] = (key, cell)
                        journal.add(key, cell)


def submission(name: str) -> UniversalPerturbation:
    """Return a perturbation of someone else's that is kept. Raises FileNotFoundError where there is none."""
    place = f"{SUBMISSIONS}/{name}.safetensors"
    if (path := store.find(place)) is None:
        raise FileNotFoundError(f"there is no {place} among the artifacts")
    return UniversalPerturbation.load(path)


def _keys_of(one: UniversalPerturbation) -> Callable[[str], Iterator[str]]:
    return partial(cell_keys, provenance.sha256_of(one.delta), one.delta.shape, one.ball)


def _shape(release: Release) -> tuple[int, ...]:
    return (1, 3, release.size, release.size)


def control_row(recipe: Recipe, control: str) -> str:
    """Return the name of the row of a control beside that of a recipe."""
    return f"{recipe.name}, {control}"


def transfer_studies() -> dict[str, TransferStudy]:
    """Return the transfer matrices by name: those that the book keeps (`KEPT_STUDIES`), and the papers' networks.

    "fashion-mnist": the six mini networks, three seeds; "fashion-mnist-modern" the methods since 2018 on them, one.
    "imagenet": the three networks whose weights are packages, and the releases of `uaplib.releases.of_the_matrix`.
    "families": all networks for photographs, with what was crafted on them by each method, one seed. "paper": the rows
    of "imagenet" for torchvision's successors of the papers' Caffe networks, for those who have their weights: AlexNet
    stands for CaffeNet, and nothing for VGG-F.
    """
    minis, lites = models.names(), IMAGENET_MODELS
    ours = [
        r for r in mini_study(TRANSFER_SEEDS) if r.method != "noise" or r.model == minis[0]
    ]  # noise knows no network
    ours += [Recipe("uap", model, linf(CHAPTER_EPS_255), k) for model in minis for k in range(TRANSFER_SEEDS)]
    crafted = modern_study()
    modern = [recipe for name in minis for recipe in crafted[name] if recipe.method in MODERN and recipe.seed == 0]
    return {
        "fashion-mnist": TransferStudy(ours, minis),
        "fashion-mnist-modern": TransferStudy(modern, minis),
        "imagenet": _large(lites),
        "families": _families(),
        "paper": _large(PAPER_NETWORKS),
    }


def _large(networks: Sequence[str]) -> TransferStudy:
    """Every method on every network; DeepFool on a thousand classes is slow, so UAP sees 300 pictures three times."""
    ball = linf(IMAGENET_EPS_255)
    rows = [Recipe(method, model, ball) for model in networks for method in OVERACTIVATING]
    rows += [Recipe("uap", model, ball, settings={"images": 300, "max_passes": 3}) for model in networks]
    return TransferStudy(rows, networks, releases.of_the_matrix())


def _families() -> TransferStudy:
    """Methods on photographs' networks, one seed each, the releases and what nobody optimised, on six families."""
    first, ball = IMAGENET_MODELS[0], linf(IMAGENET_EPS_255)
    floors, crafted = floor_recipes(first, ball), modern_study()
    rows = [*floors["noise"][:1], *floors["patterns"]]
    rows += [recipe for recipe in _large(IMAGENET_MODELS).recipes if recipe.method != "noise"]
    rows += long_uaps().values()
    for model in (SMALL_MODEL, *MODERN_NETWORKS):
        rows += [recipe for recipe in crafted[model] if recipe.seed == 0 and recipe.method not in SEARCHES]
    rows += [Recipe("gd-uap-range", "tiny-darknet", ball), *chain(*ensemble_study().values())]
    return TransferStudy(list(dict.fromkeys(rows)), list(chain(*FAMILIES.values())), releases.of_the_matrix())


def control_studies() -> dict[str, TransferStudy]:
    """Return, by their networks, UAPs of networks for photographs, which use little of their budget, and controls.

    Beside them stands what nobody optimised, at the same budget.
    """
    uaps = [recipe for recipe in transfer_studies()["imagenet"].recipes if recipe.method == "uap"]
    return {
        recipe.model: TransferStudy([*_not_optimised(recipe), recipe], [recipe.model], (), [recipe])
        for recipe in [*uaps, *long_uaps().values()]
    }


def _not_optimised(beside: Recipe) -> list[Recipe]:
    """One draw of noise and one pattern of each kind, on the network and at the budget of a recipe."""
    return [Recipe(name, beside.model, beside.ball) for name in NOT_OPTIMISED]


def size_studies() -> dict[str, TransferStudy]:
    """Return, by what they do, what another input size costs on the three networks whose sizes differ.

    For each network the sisters' perturbations, "resized" instead of tiled; for the first one its own perturbations,
    too, resized to the next size "and back".
    """
    size = {name: models.find(name).size for name in IMAGENET_MODELS}
    crafted = [recipe for recipe in imagenet_study() if recipe.row.optimised and recipe.seed == 0]
    found = {}
    for victim, own in size.items():
        sisters = [recipe for recipe in crafted if recipe.model != victim]
        resized = {"resized": lambda one, own=own: one.resized(own, own)}
        found[f"{victim}, resized"] = TransferStudy([], [victim], (), sisters, resized)
    first, (own, other, *_) = IMAGENET_MODELS[0], size.values()
    back = {"there and back": lambda one: one.resized(other, other).resized(own, own)}
    mine = [recipe for recipe in crafted if recipe.model == first]
    return found | {f"{first}, there and back": TransferStudy([], [first], (), mine, back)}


def kept_studies() -> list[TransferStudy]:
    """Return every study whose cells the book keeps."""
    matrices = transfer_studies()
    return [*(matrices[name] for name in KEPT_STUDIES), *control_studies().values(), *size_studies().values()]


def keeps(recipe: Recipe) -> bool:
    """Whether the book keeps a perturbation itself; of others it keeps the record and what they do.

    Of ablations it does not, nor, where a file has half a megabyte, of what no chapter shows but in numbers.
    """
    return not recipe.preset and recipe not in _only_in_numbers()


@cache
def _only_in_numbers() -> set[Recipe]:
    crafted = modern_study()
    found = {recipe for recipe in crafted[SMALL_MODEL] if recipe.seed}
    found |= {recipe for recipe in crafted[PAPER_NETWORK] if recipe.method in MODERN}
    found |= set(chain(*ensemble_study().values()))
    shown = [for_several_networks(), *imagenet_study(), *(ways["default"] for ways in paper_network_study().values())]
    return found.difference(shown)


def book() -> list[Recipe]:
    """Return every recipe that the book's chapters load with their default parameters, once."""
    listed = [*chain(*uap_study().values()), *chain(*(study.values() for study in ablation_study().values()))]
    listed += [*chain(*halving_study().values()), *imagenet_study(), *mini_study(), *dense_study()]
    listed += [recipe for name in KEPT_STUDIES for recipe in transfer_studies()[name].recipes]
    # Last come those for whose networks files have to be downloaded.
    listed += [
        *chain(*(each for floor in floor_study().values() for each in floor.values())),
        *chain(*(study.values() for study in ablation_study(SECOND_MODEL).values())),
        *chain(*(ways.values() for ways in paper_network_study().values())),
        *long_uaps().values(),
        *chain(*modern_study().values()),
        *chain(*(made for costs in cost_study().values() for made in costs.values())),
        *chain(*psp_study().values()),
        *chain(*targeted_study().values()),
        *frequency_study().values(),
        *chain(*ensemble_study().values()),
    ]
    return list(dict.fromkeys(listed))


def images_of_the_book() -> set[tuple[str, str, int | None]]:
    """Return which images the book's recipes and victims meet, as model, role and number.

    See `uaplib.experiments.images`.
    """
    studied = (transfer_studies()[name] for name in KEPT_STUDIES)
    found = {(victim, "evaluation", None) for study in studied for victim in study.victims}
    for recipe in book():
        found.add((recipe.model, "evaluation", None))
        if METHODS[recipe.method].sees != "nothing":
            found.add((recipe.model, recipe.all_settings["role"], recipe.images))
        if recipe.all_settings.get("selection") == "images":
            found.add((recipe.model, "selection", SELECTION_IMAGES))
    return found
