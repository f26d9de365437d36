"""GD-UAP (Mopuri, Ganeshan and Babu, 2018): a generalisable data-free objective, with three priors."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from uaplib import features, priors
from uaplib.attacks.activations import (
    ABLATIONS,
    Settings,
    Task,
    changed,
    check_normalized,
    craft,
    energy,
    parameters,
    scaled,
)
from uaplib.balls import NormBall
from uaplib.checks import check_images, check_seed
from uaplib.features import Selection
from uaplib.models import Normalized
from uaplib.names import check_name
from uaplib.perturbation import UniversalPerturbation
from uaplib.provenance import images_record

PRIORS = ("none", "range", "data")


@dataclass(frozen=True)
class GDUAPSettings(Settings):
    """The settings of GD-UAP: how the optimisation runs (see `Settings`), and which pictures lie under it.

    augment: whether pictures are augmented (`uaplib.priors.augmentation`). smoothness: of the range prior's noise, see
    `uaplib.priors.range_pictures`; with one_picture, one fixed picture of white noise takes its place. contiguous:
    whether a batch of data is a run of consecutive images, as the authors take it. forget_std: a mistake to study, of
    a public port: the network sees the perturbation without division by the standard deviation.
    """

    augment: bool = False
    smoothness: float = 0.0
    one_picture: bool = False
    contiguous: bool = False
    forget_std: bool = False


# The authors' program: Adam, 0.1 on the scale of 0 to 255, the variable left free and clipped inside the network; a
# measurement every 400 iterations, or at a saturation event 200 after the last one; 10 failures end the run.
PAPER = GDUAPSettings(
    learning_rate=0.1 / 255, batch_size=20, max_iterations=40_000, check_every=400, check_after=200, patience=10,
    clip=False, project=False, augment=True, one_picture=True, contiguous=True,
)  # fmt: skip
_COMMON = {"check_every": 50, "check_after": 0, "patience": 5, "halve_every": 25}
DEFAULTS = {
    "none": GDUAPSettings(learning_rate=10 / 255, batch_size=1, max_iterations=400, **_COMMON),
    "range": GDUAPSettings(learning_rate=4 / 255, batch_size=4, max_iterations=300, smoothness=2.0, **_COMMON),
    "data": GDUAPSettings(learning_rate=2 / 255, batch_size=4, max_iterations=400, **_COMMON),
}
# The authors' rules for 1,500 iterations of a single picture: the two-by-two ablation of a public port's two changes.
_PORT = asdict(PAPER) | {"batch_size": 1, "max_iterations": 1500, "check_every": 100, "check_after": 50}
_COMMON_PRESETS = ABLATIONS | {
    "augmented": {"augment": True},
    "authors": asdict(PAPER),
    "paper": _PORT,
    "paper-large-steps": _PORT | {"learning_rate": 0.1},
    "paper-without-std": _PORT | {"forget_std": True},
    "paper-large-steps-without-std": _PORT | {"learning_rate": 0.1, "forget_std": True},
}
PRESETS = {
    "gd-uap-none": _COMMON_PRESETS,
    "gd-uap-range": _COMMON_PRESETS
    | {
        "white-noise": {"smoothness": 0.0},
        "pink-noise": {"smoothness": 1.0},
        "one-picture": {"one_picture": True, "augment": True},
    },
    "gd-uap-data": _COMMON_PRESETS | {"less-background": {"role": "foreground"}},
}


def gd_uap(
    model: Normalized,
    ball: NormBall,
    *,
    prior: str = "none",
    images: Tensor | None = None,
    selection: Tensor | None = None,
    layers: Selection | None = None,
    settings: Settings | None = None,
    seed: int = 0,
    source: str = "",
    checkpoint: str | Path | None = None,
    progress: bool = False,
) -> UniversalPerturbation:
    """Craft a perturbation that maximises the energy of a network's layers, the sum of log(norm(a)**2 / 2) (eq. 4).

    model: a `Normalized` network that knows the size of its images; what it says about them, a label, classes of
    pixels or depth, plays a part only in choosing the iterate (`uaplib.metrics.fooling_rate`). ball: an l-infinity
    ball. prior: what lies under the perturbation: "none" (the mean image), "range" (noise that is drawn from the
    normalisation's mean and standard deviation alone) or "data" (`images`, (N, C, H, W) in [0, 1]). selection: images
    on which the iterate with the highest fooling rate is chosen, as in the papers; when absent, noise pictures stand
    in and no image plays a part. layers: see `uaplib.features.choose`; the block outputs of networks that are built
    of blocks, otherwise the convolutions, when absent. settings: `PAPER`, or the default for the prior, its steps in
    proportion to the budget.

    The defaults differ from the authors' program: larger steps, halving by the clock instead of at saturation, the
    variable itself kept in the ball, picture plus perturbation clipped, no augmentation, random batches of 4 instead
    of runs of 20, fresh smooth noise instead of one augmented picture, and no image in choosing the iterate. They were
    found by looking at fooling rates of EfficientNet-Lite0 on photographs. The book's chapter 6 measures the steps,
    the halving, the layers, the augmentation, the noise and the choice of the iterate; clipping, the free variable
    and the size and order of batches are not measured there.

    source, seed, checkpoint, progress: as in `uap`. The history has one entry per iteration: loss and saturation, and
    where it was measured the fooling rate on the selection images.

    Raises ValueError for bad arguments, among them prior "data" without images, a batch larger than the data, and
    images that are also among the selection images; FloatingPointError for dead layers.
    """
    check_normalized(model)
    seed = check_seed(seed)
    check_name("prior", prior, PRIORS)
    settings = GDUAPSettings(**vars(settings or scaled(DEFAULTS[prior], ball)))
    if (prior == "data") != (images is not None):
        raise ValueError("images belong to prior='data': give them there, and nowhere else")
    if images is not None:
        _check_data(images, selection, settings.batch_size, model.mean_image())
    chosen = features.choose(model, model.mean_image(), layers or features.default_kind(model))
    pictures = _pictures(model, prior, images, settings, seed)
    record = {"prior": prior} | parameters(settings, chosen, selection)
    if images is not None:
        record |= images_record(images)
    if selection is None:
        selection = priors.selection_pictures(model)
    task = Task(model, ball, chosen, energy, pictures, selection, f"gd-uap-{prior}", source, seed, record)
    if settings.forget_std:
        task.add = lambda pictures, delta: pictures + delta * model.std
    return craft(task, settings, checkpoint, progress)


def _check_data(images: Tensor, selection: Tensor | None, batch_size: int, mean_image: Tensor) -> None:
    check_images(images)
    if images.shape[1:] != mean_image.shape[1:]:
        raise ValueError(f"images are {tuple(images.shape[1:])}, the model takes {tuple(mean_image.shape[1:])}")
    if batch_size > len(images):
        raise ValueError(f"batch_size={batch_size} is more than the {len(images)} images there are")
    if selection is not None:
        seen = {image.tobytes() for image in images.detach().cpu().numpy()}
        if any(image.tobytes() in seen for image in selection.detach().cpu().numpy()):
            raise ValueError("some selection images are also crafting images; the two must be disjoint")


def _pictures(
    model: Normalized, prior: str, images: Tensor | None, settings: Settings, seed: int
) -> Callable[[int], Tensor]:
    """Return the function that draws what lies under the perturbation, so many pictures at a time."""
    if prior == "none":
        mean = model.mean_image()
        return lambda count: mean  # copies of one picture would add nothing
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        larger = tuple(round(500 / 224 * side) for side in model.height_width)
        fixed = priors.range_pictures(model, 1, size=larger if settings.augment else None)
    augment = priors.augmentation(model.height_width, model.mean.flatten().tolist())

    def draw(count: int) -> Tensor:
        if prior == "data" and settings.contiguous:
            start = int(torch.randint(len(images) - count + 1, ()))
            drawn = images[start : start + count]
        elif prior == "data":
            drawn = images[torch.randperm(len(images))[:count].to(images.device)]
        elif settings.one_picture:
            drawn = fixed.expand(count, -1, -1, -1)
        else:
            drawn = priors.range_pictures(model, count, settings.smoothness)
        return torch.stack([augment(picture) for picture in drawn]) if settings.augment else drawn

    return draw


def settings(ball: NormBall, prior: str, **changes: Any) -> dict[str, Any]:
    """Return all settings, the prior among them; see `uaplib.attacks.methods`."""
    return {"prior": prior, **changed(DEFAULTS[prior], ball, changes)}


def run(
    model: Normalized, ball: NormBall, settings: dict[str, Any], data: Mapping[str, Any], **options: Any
) -> UniversalPerturbation:
    """Craft with all settings; see `uaplib.attacks.methods`."""
    chosen = {name: settings.pop(name) for name in ("prior", "layers")}
    return gd_uap(model, ball, **chosen, settings=GDUAPSettings(**settings), **data, **options)
