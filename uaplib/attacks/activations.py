"""The engine behind Fast Feature Fool and GD-UAP: a perturbation that drives a network's activations up.

A loss on layer activations, pictures under the perturbation (or none), Adam, a test for saturation that halves the
perturbation, and a clock that says when to measure and when to stop.
"""

import math
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from uaplib import features, priors
from uaplib.attacks import rules, runs
from uaplib.balls import NormBall, clamp
from uaplib.checks import check_fields, check_gradients, check_images, warn_without_gradient
from uaplib.features import Layer
from uaplib.metrics import fooling_rate, predict
from uaplib.models import Normalized
from uaplib.models.ensemble import members_of
from uaplib.perturbation import UniversalPerturbation

SATURATED = 1 - 1e-6  # a pixel counts as saturated from this share of the budget on


def mean_activation(activation: Tensor) -> Tensor:
    """Return mean(abs(a)), Fast Feature Fool's measure of a layer."""
    return _norm(activation, 1) / activation.numel()


def energy(activation: Tensor) -> Tensor:
    """Return norm(a)**2 / 2 over the whole batch, GD-UAP's measure of a layer."""
    return _norm(activation, 2).square() / 2


def _norm(activation: Tensor, p: int) -> Tensor:
    """The p-norm; sums over a whole layer overflow in half precision."""
    wide = torch.promote_types(activation.dtype, torch.float32)
    return torch.linalg.vector_norm(activation, p, dtype=wide)


def activation_loss(
    model: nn.Module, images: Tensor, layers: list[Layer], statistic: Callable[[Tensor], Tensor]
) -> Tensor:
    """Return -sum_i log statistic(a_i) over the layers; low when all of them fire strongly.

    Raises FloatingPointError that names the layers which are dead (all zero) or not finite.
    """
    values = features.measure(model, images, layers, statistic)
    loss = -values.log().sum()
    if not torch.isfinite(loss):
        bad = [layer.name for layer, value in zip(layers, values.tolist(), strict=True) if not 0 < value < float("inf")]
        raise FloatingPointError(f"the activations of {bad} are all zero or not finite; leave these layers out")
    return loss


@dataclass(frozen=True)
class Settings:
    """How the optimisation runs. Lengths of time are counted in iterations.

    learning_rate: Adam's, in pixel units of [0, 1]. batch_size: pictures under the perturbation in each iteration.

    GD-UAP halves the perturbation at saturation events: more than `saturation` of its pixels are saturated, and this
    share changed by less than `still`. It measures the fooling rate `check_every` iterations after the last
    measurement or halving, or at an event more than `check_after` later. With `halve_every`, as in Fast Feature Fool,
    the clock rules alone: halve every so many iterations, measure every `check_every`, the first time after
    `check_after` (0: after `check_every`). What is due together is measured first and halved then. patience: stop
    after so many measurements in a row without improvement.

    clip: whether the network sees picture plus perturbation clipped to [0, 1]. project: whether the optimised variable
    itself is projected after every step; the authors let it run free and clip what the network sees.
    """

    learning_rate: float
    batch_size: int
    max_iterations: int
    check_every: int
    check_after: int
    patience: int
    halve_every: int | None = None
    saturation: float = 0.5
    still: float = 1e-5
    clip: bool = True
    project: bool = True

    def __post_init__(self):
        """Check the numbers."""
        counts = ("batch_size", "max_iterations", "check_every", "patience", "halve_every")
        check_fields(self, at_least_1=counts)
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate must be positive, not {self.learning_rate}")
        if self.check_after < 0:
            raise ValueError(f"check_after must be at least 0, not {self.check_after}")


def scaled(settings: Settings, ball: NormBall) -> Settings:
    """Return settings that were found at 10/255 for another budget: the steps grow and shrink with it."""
    return replace(settings, learning_rate=settings.learning_rate * (ball.eps / (10 / 255) or 1))


# Ablations that make sense for every method that watches layers; see `uaplib.attacks.methods`.
ABLATIONS = {
    "convolutions": {"layers": "convolutions"},
    "saturation-halving": {"halve_every": None, "check_every": 50, "check_after": 25},
    "no-halving": {"halve_every": None, "saturation": 1.0},
    "image-selected": {"selection": "images"},
}


def changed(default: Settings, ball: NormBall, changes: dict[str, Any]) -> dict[str, Any]:
    """Return all settings of a method that watches layers, JSON-safe: the default for the ball, and its changes.

    Beside those of `Settings`, `layers`: see `uaplib.features.choose`; None for the default kind of the network.
    """
    layers = changes.pop("layers", None)
    if not (layers is None or layers in features.KINDS or _are_names(layers)):
        raise ValueError(f"layers must be one of {features.KINDS} or a list of module names, not {layers!r}")
    layers = list(layers) if isinstance(layers, tuple) else layers
    return {"layers": layers, **asdict(replace(scaled(default, ball), **changes))}


def _are_names(layers: object) -> bool:
    return isinstance(layers, list | tuple) and bool(layers) and all(isinstance(name, str) for name in layers)


class Clock:
    """When to measure, when to halve, and when to stop: the rules of the papers, apart from any network."""

    def __init__(self, settings: Settings):
        self.settings, self.waited, self.failures, self.best, self.saturation = settings, 0, 0, -1.0, 0.0
        self.iteration = 0

    def tick(self, saturation: float) -> tuple[bool, bool]:
        """Count one iteration that ended with this share of saturated pixels; say whether to measure and to halve.

        Who is told to do both measures first, as the authors do.
        """
        s = self.settings
        self.iteration += 1
        self.waited += 1
        if s.halve_every:
            halve = self.iteration % s.halve_every == 0
            measure = self.iteration % s.check_every == s.check_after % s.check_every
        else:
            still = abs(saturation - self.saturation) < s.still
            halve = still and saturation > s.saturation
            measure = self.waited == s.check_every or (halve and self.waited > s.check_after)
        self.saturation = saturation
        if measure or halve:
            self.waited = 0
        return measure, halve

    def improved(self, rate: float) -> bool:
        """Take in a measurement; return whether it is the best so far."""
        if rate > self.best:
            self.best, self.failures = rate, 0
            return True
        self.failures += 1
        return False

    def finished(self) -> bool:
        """Return whether patience or the iterations are used up."""
        return self.failures >= self.settings.patience or self.iteration >= self.settings.max_iterations


@dataclass
class Task:
    """What is optimised: a loss on `model`, what lies under the perturbation, and what the iterate is chosen on.

    pictures: a function from a batch size to images (N, C, H, W). selection: images on which the fooling rate is
    measured to choose the iterate. record: JSON-safe, what the run depends on (see `parameters`), for the provenance.
    add: how the perturbation comes to the pictures.
    """

    model: Normalized
    ball: NormBall
    layers: list[Layer]
    statistic: Callable[[Tensor], Tensor]
    pictures: Callable[[int], Tensor]
    selection: Tensor
    method: str
    source: str
    seed: int
    record: dict
    add: Callable[[Tensor, Tensor], Tensor] = torch.add


def parameters(settings: Settings, layers: list[Layer], selection: Tensor | None) -> dict:
    """Return what a run depends on beside its network, pictures and seed, JSON-safe."""
    return asdict(settings) | features.record(layers) | priors.selection_record(selection)


def check_normalized(model: nn.Module) -> None:
    """Raise unless the model can be attacked without data: in evaluation mode, with a mean image to start from."""
    if not isinstance(model, Normalized):
        raise TypeError(
            f"the model is a {type(model).__name__}; this attack needs to know its normalisation and the size of its "
            "images: uaplib.models.Normalized(network, mean, std, size)"
        )
    check_gradients(model, model.mean_image())


def craft(
    task: Task, settings: Settings, checkpoint: str | Path | None = None, progress: bool = False
) -> UniversalPerturbation:
    """Run the optimisation and return the best iterate; checkpoint and progress as in `uaplib.attacks.runs.craft`.

    Raises FloatingPointError for dead layers or gradients that are not finite. Warns when the gradient is zero
    everywhere.
    """
    check_images(task.selection, "selection images")
    check_has_saturation(task.ball)
    return runs.craft(_Run(task, settings), checkpoint, progress)


def check_has_saturation(ball: NormBall) -> None:
    """Raise ValueError unless it is an l-infinity ball with some room."""
    if ball.p != math.inf or not ball.eps > 0:
        raise ValueError(f"saturation is defined for l-infinity balls with eps > 0, not for {ball}")


class _Run(runs.Run):
    """The optimised variable, Adam's moments, the clock, and the best iterate."""

    def __init__(self, task: Task, settings: Settings):
        super().__init__(task.method, task.model, task.ball, task.seed, task.source, task.record)
        self.task, self.settings = task, settings

    def begin(self) -> None:
        self.clock, selection, self.gradients = Clock(self.settings), self.task.selection, 0
        self.clean = predict(self.model, selection)
        start = self.ball.sample(selection[:1].shape).to(selection)
        # Adam's small numbers are lost in half precision.
        start = start.to(torch.promote_types(start.dtype, torch.float32))
        ball = self.ball if self.settings.project else None
        self.adam = rules.AdamSteps(start, ball, self.settings.learning_rate)
        self.v = self.adam.v
        self.best = self.iterate()

    def iterate(self) -> Tensor:
        """A copy of the perturbation as the network sees it."""
        return self.ball.project(self.v.detach()).clone()

    def step(self) -> bool:
        """One step of Adam, then whatever the clock says."""
        loss = self.optimise()
        iterate = self.iterate()
        saturation = (iterate.abs() >= SATURATED * self.ball.eps).float().mean().item()
        measure, halve = self.clock.tick(saturation)
        self.history.append({"iteration": self.clock.iteration, "loss": loss, "saturation": saturation})
        if measure:
            self.measure()
        if halve:
            self.history[-1]["halved"] = True
            with torch.no_grad():
                self.v.copy_(iterate / 2)
        return measure

    def optimise(self) -> float:
        """Take the step of Adam and return the loss before it."""
        pictures = self.task.pictures(self.settings.batch_size)
        with torch.enable_grad():
            seen = self.task.add(pictures, self.ball.project(self.v))
            seen = clamp(seen, 0, 1) if self.settings.clip else seen
            loss = activation_loss(self.model, seen.to(pictures), self.task.layers, self.task.statistic)
        (gradient,) = torch.autograd.grad(loss, self.v)
        if not torch.isfinite(gradient).all():
            raise FloatingPointError(f"the gradient is not finite in iteration {self.clock.iteration + 1}")
        if self.clock.iteration == 0:
            warn_without_gradient((gradient == 0).flatten(1).all(1))
        self.gradients += len(pictures) * len(members_of(self.model))  # of one picture on one network
        self.adam.step(gradient)
        return loss.item()

    def measure(self) -> None:
        """Measure the fooling rate on the selection images, and keep the iterate if it is the best so far."""
        iterate = self.iterate()
        labels = predict(self.model, self.task.selection, iterate, clip=self.settings.clip)
        rate = fooling_rate(self.clean, labels).value
        self.history[-1]["rate"] = rate
        if self.clock.improved(rate):
            self.best = iterate

    def finished(self) -> bool:
        return self.clock.finished()

    def end(self) -> bool:
        """Measure the last iterate, if that was not done."""
        left = "rate" not in self.history[-1]
        if left:
            self.measure()
        self.warn_of_blind_selection()
        return left

    def warn_of_blind_selection(self) -> None:
        """Say when the selection images could not tell one iterate from another."""
        rates = [entry["rate"] for entry in self.history if "rate" in entry]
        if len(rates) > 1 and min(rates) == 1:
            warnings.warn(
                f"{self.method}: each of the {len(rates)} iterates that were measured fools all selection images, so "
                "that these tell nothing and the first was kept. Give photographs as `selection` (of a recipe: "
                "selection=images)",
                stacklevel=2,
            )

    def progress(self) -> tuple[int, int]:
        return self.clock.iteration, self.settings.max_iterations

    def state(self) -> tuple[dict[str, Tensor], dict]:
        clock = {name: value for name, value in vars(self.clock).items() if name != "settings"}
        return {"best": self.best, **self.adam.state()}, {"clock": clock, "gradients": self.gradients}

    def restore(self, tensors: dict[str, Tensor], rest: dict) -> None:
        self.best = tensors.pop("best").to(self.v.device)
        self.adam.restore(tensors)
        vars(self.clock).update(rest["clock"])
        self.gradients = rest["gradients"]

    def delta(self) -> Tensor:
        return self.best

    def counts(self) -> dict:
        return {"iterations": self.clock.iteration, "gradients": self.gradients}
