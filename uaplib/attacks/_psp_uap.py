"""Pseudo-semantic priors (Lee et al., 2025): a data-free perturbation trained on crops of itself over noise."""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from uaplib import features, priors
from uaplib.attacks import activations, runs
from uaplib.attacks.activations import Clock, Settings, Task, check_has_saturation, check_normalized, scaled
from uaplib.balls import NormBall
from uaplib.checks import check_fields, check_finite_gradient, check_images, check_seed, warn_without_gradient
from uaplib.features import CONVOLUTIONS, Layer
from uaplib.models import Normalized
from uaplib.models.ensemble import members_of
from uaplib.names import check_name
from uaplib.perturbation import UniversalPerturbation

PICTURES = ("gauss", "jigsaw")
_DOUBLINGS = {"gauss": (1600, 2400, 3200), "jigsaw": (1600, 3200)}  # iterations at which there are twice as many
_SMALLEST = 1e-8  # a divergence; below it there is rounding


@dataclass(frozen=True, kw_only=True)
class PSPUAPSettings(Settings):
    """Settings of `psp_uap`: those of `Settings`, a batch being the pictures of the first iterations, and more.

    pictures: under the perturbation, "gauss" (noise, its contrast growing) or "jigsaw" (rectangles, more and more of
    them). crops: random crops of each. share: of the convolutions, the first ones count. temperature: of the
    softmax that compares a crop with and without the perturbation. reweighted: whether crops that the perturbation
    has changed less count more. transformed: whether crops are rotated, made stronger or shuffled. pace: how many
    iterations of the authors' schedule one iteration is.

    What follows is False in the default, and makes the authors' program where it is True. unnormalised: the network
    sees pictures as they are, without its normalisation. rectified: an activation counts where it is positive, as
    where a ReLU works in place. cumulative_patience: failures are counted from the beginning. last_iterate: the last
    iterate that was measured is returned, and not the best.
    """

    learning_rate: float = 10 / 255
    batch_size: int = 1
    max_iterations: int = 1000
    check_every: int = 100
    check_after: int = 0
    patience: int = 5
    halve_every: int | None = 100
    clip: bool = False
    pictures: str = "jigsaw"
    crops: int = 10
    share: float = 0.7
    temperature: float = 3.0
    reweighted: bool = True
    transformed: bool = True
    pace: float = 1.0
    unnormalised: bool = False
    rectified: bool = False
    cumulative_patience: bool = False
    last_iterate: bool = False

    def __post_init__(self):
        """Check the numbers and names."""
        super().__post_init__()
        check_fields(self, at_least_1=("crops",))
        check_name("pictures", self.pictures, PICTURES)
        if not (0 < self.share <= 1 and self.temperature > 0 and self.pace > 0):
            raise ValueError(
                "share must lie in (0, 1], temperature and pace be positive, not "
                f"{self.share}, {self.temperature} and {self.pace}"
            )


_FAULTS = {"unnormalised": True, "cumulative_patience": True, "last_iterate": True}
_AUTHORS = {
    "learning_rate": 0.1, "max_iterations": 10_000, "check_every": 400, "check_after": 200, "halve_every": None,
    "selection": "images",
}  # fmt: skip
PRESETS = {
    "psp-uap": {
        "authors": _AUTHORS | _FAULTS,
        "unnormalised": {"unnormalised": True},
        "equal-weights": {"reweighted": False},
        "untransformed": {"transformed": False},
        "gauss": {"pictures": "gauss"},
    }
}


def psp_uap(
    model: Normalized,
    ball: NormBall,
    *,
    selection: Tensor | None = None,
    settings: PSPUAPSettings | None = None,
    seed: int = 0,
    source: str = "",
    checkpoint: str | Path | None = None,
    progress: bool = False,
) -> UniversalPerturbation:
    """Craft a perturbation without any image that drives up activations on crops of itself.

    An iteration draws pictures z and random crops p of v + z, which are constants, and q = p + v. One transform a crop,
    the same for p and q, makes the crops vary. The loss is -sum over the first convolutions of
    log(sum_i w_i (squared norm of a(q_i)) / 2 + 1e-9), with the constants
    w_i = 1 / (T^2 KL(softmax(f(p_i) / T), softmax(f(q_i) / T))). Adam steps, halving and the choice of the iterate
    are those of `gd_uap`; crops, schedule and transforms those of the authors' program.

    Where this differs from that program, by default: the network normalises what it sees, the best iterate is returned,
    patience counts failures in a row, the iterate is chosen on noise pictures, and halving follows the clock. With
    equal weights the authors count positive activations alone; GoogLeNet and Inception have a schedule of their own.
    Their last halving by 0.8 and their random numbers are not carried over, pictures lie in [0, 1] around the mean
    image, which also fills what augmentation leaves empty, and a rotation's holes are where nothing was turned into.

    On an ensemble the losses of its networks are added up, each with its own layers and weights.

    selection, source, seed, checkpoint, progress: as in `gd_uap`. An iteration costs as many gradients as it has crops,
    of each network, and, where these are weighted, as many passes without gradient.

    Raises ValueError or TypeError for bad arguments; FloatingPointError for a gradient that is not finite.
    """
    check_normalized(model)
    seed = check_seed(seed)
    settings = settings or scaled(PSPUAPSettings(), ball)
    parts = [(member, _first_convolutions(member, settings.share)) for member in members_of(model)]
    record = asdict(settings) | priors.selection_record(selection)
    if selection is None:
        selection = priors.selection_pictures(model)
    layers = list(chain(*(chosen for _, chosen in parts)))
    task = Task(model, ball, layers, _energies, _draw(model, settings), selection, "psp-uap", source, seed, record)
    check_images(selection, "selection images")
    check_has_saturation(ball)
    return runs.craft(_Run(task, settings, parts), checkpoint, progress)


def _first_convolutions(model: Normalized, share: float) -> list[Layer]:
    """The outputs of the first convolutions of a network themselves, before anything that follows them."""
    names = [name for name, module in model.named_modules() if isinstance(module, CONVOLUTIONS)]
    fired = features.choose(model, model.mean_image(), names)
    return fired[: max(1, int(len(fired) * share))]


def _energies(activation: Tensor) -> Tensor:
    """The squared norm of each crop's activation, (N,)."""
    wide = torch.promote_types(activation.dtype, torch.float32)
    return activation.flatten(1).to(wide).square().sum(1)


def _positive_energies(activation: Tensor) -> Tensor:
    return _energies(activation.clamp_min(0))


def _draw(model: Normalized, settings: PSPUAPSettings) -> Callable[[int], Tensor]:
    """Return the function from an iteration of the authors' schedule to its pictures, in [0, 1]."""
    shape = tuple(model.mean_image().shape[1:])
    augment = priors.augmentation(model.height_width, model.mean.flatten().tolist())

    def draw(iteration: int) -> Tensor:
        count = settings.batch_size * 2 ** sum(iteration >= each for each in _DOUBLINGS[settings.pictures])
        if settings.pictures == "jigsaw":
            return torch.stack([jigsaw(shape, _frequency(iteration)) for _ in range(count)])
        return torch.stack([augment(gauss(shape, min(127, 10 + 10 * (iteration // 400)))) for _ in range(count)])

    return draw


def _frequency(iteration: int) -> int:
    """How finely a jigsaw is cut: once more every 200 iterations of the first 1,000, then every 400."""
    return 1 + min(iteration, 999) // 200 + max(0, iteration // 400 - 2)


def gauss(shape: tuple[int, int, int], std_255: float) -> Tensor:
    """Return noise around 1/2 in [0, 1]; the last channel has this standard deviation, each before it 10 more."""
    stds = torch.tensor([std_255 + 10 * k for k in range(shape[0])]).flip(0).view(-1, 1, 1) / 255
    return (0.5 + stds * torch.randn(shape)).clamp(0, 1)


def jigsaw(shape: tuple[int, int, int], frequency: int) -> Tensor:
    """Return rectangles of random colours in [0, 1], cut at `frequency` columns and two more rows, smoothed."""
    _, height, width = shape
    picture = torch.empty(shape)
    for top, bottom in _intervals(height, frequency + 2):
        for left, right in _intervals(width, frequency):
            picture[:, top:bottom, left:right] = torch.randint(256, (shape[0], 1, 1)) / 255
    return _median(picture)


def _intervals(length: int, cuts: int) -> list[tuple[int, int]]:
    """The intervals between so many random cuts of 0 ... length."""
    ends = [0, *torch.randint(length + 1, (cuts,)).sort().values.tolist(), length]
    return list(zip(ends, ends[1:], strict=False))


def _median(picture: Tensor, radius: int = 5) -> Tensor:
    """The median over a disk around each pixel."""
    from scipy import ndimage  # slow to import, and most crafting does without

    offsets = torch.arange(-radius, radius + 1)
    disk = offsets[:, None] ** 2 + offsets**2 <= radius**2
    return torch.from_numpy(ndimage.median_filter(picture.numpy(), footprint=disk[None].numpy(), mode="nearest"))


class _Run(activations._Run):
    """As that of GD-UAP, with crops under the perturbation, and the authors' rules where they differ.

    parts: the networks that the crops are shown to, each with its layers.
    """

    def __init__(self, task: Task, settings: PSPUAPSettings, parts: list[tuple[Normalized, list[Layer]]]):
        super().__init__(task, settings)
        self.parts = parts

    def begin(self) -> None:
        super().begin()
        self.centre = self.model.mean_image()
        if self.settings.unnormalised:  # zero stands for the middle of noise, and for black of a jigsaw
            self.centre = torch.full_like(self.centre, 0.5 if self.settings.pictures == "gauss" else 0.0)
        self.clock = _Clock(self.settings)

    def optimise(self) -> float:
        """Take the step of Adam and return the loss before it."""
        iteration = round(self.settings.pace * (self.clock.iteration + 1))
        pictures = self.task.pictures(iteration).to(self.v)
        with torch.enable_grad():
            loss = self.loss(pictures)
        (gradient,) = torch.autograd.grad(loss, self.v)
        check_finite_gradient(gradient)
        if self.clock.iteration == 0:
            warn_without_gradient((gradient == 0).flatten(1).all(1))
        self.gradients += len(pictures) * self.settings.crops * len(self.parts)
        self.adam.step(gradient)
        return loss.item()

    def loss(self, pictures: Tensor) -> Tensor:
        """The loss on new crops of the perturbation over the pictures. All is around the image that stands for zero."""
        # A projected variable gets its gradient at the borders, too: the clamp comes after the step, not before.
        v = self.v if self.settings.project else self.ball.project(self.v)
        under = (v.detach() + pictures - self.centre).repeat(self.settings.crops, 1, 1, 1)
        p = torch.stack([_random_crop(each) for each in under])
        pairs = [(each, each + v[0]) for each in p]
        if self.settings.transformed:
            pairs = [_transformed(*pair) for pair in pairs]
        p, q = (self.shown(torch.stack(each)) for each in zip(*pairs, strict=True))
        return sum(self.loss_of(network, layers, p, q) for network, layers in self.parts)

    def loss_of(self, network: Normalized, layers: list[Layer], p: Tensor, q: Tensor) -> Tensor:
        """The loss of one network, as it is shown the crops."""
        if self.settings.unnormalised:
            network, layers = network.network, [Layer(each.name.removeprefix("network."), each.call) for each in layers]
        statistic = _positive_energies if self.settings.rectified else _energies
        energies, said_of_q = features.observe(network, q, layers, statistic)
        if self.settings.reweighted:
            with torch.no_grad():
                said_of_p = network(p)
            energies = energies * _weights(said_of_p, said_of_q.detach(), self.settings.temperature)
        return -(energies.sum(1) / 2 + 1e-9).log().sum()

    def shown(self, crops: Tensor) -> Tensor:
        """The crops as the network gets them."""
        if self.settings.unnormalised:
            return crops.to(self.model.mean)
        pictures = (crops + self.centre).to(self.model.mean)
        return pictures.clamp(0, 1) if self.settings.clip else pictures

    def measure(self) -> None:
        super().measure()
        if self.settings.last_iterate:
            self.best = self.iterate()


class _Clock(Clock):
    """The clock of GD-UAP, where halvings do not put off a measurement, and patience may count from the beginning."""

    def tick(self, saturation: float) -> tuple[bool, bool]:
        """As `Clock.tick`; without `halve_every`, more than `check_every` iterations after the last measurement."""
        if self.settings.halve_every:
            return super().tick(saturation)
        self.iteration, self.waited = self.iteration + 1, self.waited + 1
        halve = abs(saturation - self.saturation) < self.settings.still and saturation > self.settings.saturation
        measure = self.waited > self.settings.check_every or (halve and self.waited > self.settings.check_after)
        self.saturation, self.waited = saturation, 0 if measure else self.waited
        return measure, halve

    def improved(self, rate: float) -> bool:
        before = self.failures
        better = super().improved(rate)
        if self.settings.cumulative_patience and better:
            self.failures = before
        return better


def _weights(said_of_p: Tensor, said_of_q: Tensor, temperature: float) -> Tensor:
    """One over the divergence between what the network says of crops without and with the perturbation, (N,)."""
    expected, found = ((each / temperature).log_softmax(1) for each in (said_of_p, said_of_q))
    divergence = F.kl_div(found, expected, reduction="none", log_target=True).sum(1)
    return 1 / (temperature**2 * divergence.clamp_min(_SMALLEST))


def _random_crop(picture: Tensor) -> Tensor:
    """A crop of 8 to 100 % of the area, its sides in a ratio of 3/4 to 4/3, resized to the whole."""
    _, height, width = picture.shape
    tall, wide = height, width
    for _ in range(10):
        area = height * width * torch.empty(()).uniform_(0.08, 1).item()
        ratio = torch.empty(()).uniform_(3 / 4, 4 / 3).item()
        sides = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
        if sides[0] <= height and sides[1] <= width:
            tall, wide = sides
            break
    top, left = (int(torch.randint(most + 1, ())) for most in (height - tall, width - wide))
    crop = picture[None, :, top : top + tall, left : left + wide]
    return F.interpolate(crop, (height, width), mode="bilinear", antialias=True)[0]


def _transformed(p: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    """One of three transforms of both, with the same random numbers: rotation, strength, or places exchanged."""
    kind = int(torch.randint(3, ()))
    if kind == 0:
        angle = _truncated_normal(6.0)
        return _rotated(p, angle), _rotated(q, angle)
    if kind == 1:
        strength = torch.empty(()).uniform_(0.8, 4).item()
        return strength * p, strength * q
    order = _exchange(tuple(p.shape[1:]))
    return p[:, order[0]][:, :, order[1]], q[:, order[0]][:, :, order[1]]


def _truncated_normal(limit: float) -> float:
    """A normal number of standard deviation `limit`, drawn until it is at most that."""
    while True:
        found = limit * torch.randn(()).item()
        if abs(found) <= limit:
            return found


def _rotated(picture: Tensor, angle: float) -> Tensor:
    """The picture rotated by so many degrees; corners that nothing was turned into stay as they were."""
    from torchvision.transforms.v2 import InterpolationMode  # slow to import, and most crafting does without
    from torchvision.transforms.v2.functional import rotate

    both = rotate(torch.stack([picture, torch.ones_like(picture)]), angle, InterpolationMode.BILINEAR)
    return torch.where(both[1] == 0, picture, both[0])


def _exchange(sides: tuple[int, int]) -> list[Tensor]:
    """Rows and columns in an order in which two stretches of random lengths may have changed places."""
    orders = []
    for side in sides:
        first, second = torch.rand(2).tolist()
        cut = min(max(1, round(side * first / (first + second))), side - 1)
        whole = torch.arange(side)
        orders.append(torch.cat([whole[cut:], whole[:cut]]) if torch.rand(()) < 0.5 else whole)
    return orders


def settings(ball: NormBall, **changes: Any) -> dict[str, Any]:
    """Return all settings; see `uaplib.attacks.methods`."""
    defaults = asdict(scaled(PSPUAPSettings(), ball))
    return asdict(PSPUAPSettings(**(defaults | changes)))


def run(
    model: Normalized, ball: NormBall, settings: dict[str, Any], data: Mapping[str, Any], **options: Any
) -> UniversalPerturbation:
    """Craft with all settings; see `uaplib.attacks.methods`."""
    return psp_uap(model, ball, settings=PSPUAPSettings(**settings), **data, **options)
