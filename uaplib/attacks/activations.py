"""The engine behind Fast Feature Fool and GD-UAP: a perturbation that drives a network's activations up.

A loss on layer activations, pictures under the perturbation (or none), Adam, a test for saturation that halves the
perturbation, and a clock that says when to measure and when to stop.
"""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from tqdm import tqdm

from uaplib import features, priors, provenance
from uaplib.balls import NormBall, clamp
from uaplib.checks import check_gradients, check_images, check_seed, plain, warn_without_gradient
from uaplib.devices import device_name
from uaplib.features import Layer
from uaplib.files import save_checkpoint, write_atomically
from uaplib.metrics import fooling_rate, predict
from uaplib.models import Normalized
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
    itself is projected after every step; the authors let it run free and clip what the network sees. augment: whether
    pictures are augmented (`uaplib.priors.augmentation`). smoothness: of the range prior's noise, see
    `uaplib.priors.range_pictures`; with one_picture, one fixed picture of white noise takes its place. contiguous:
    whether a batch of data is a run of consecutive images, as the authors take it. forget_std: a mistake to study, of
    a public port: the network sees the perturbation without division by the standard deviation.
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
    augment: bool = False
    smoothness: float = 0.0
    one_picture: bool = False
    contiguous: bool = False
    forget_std: bool = False

    def __post_init__(self):
        """Check the numbers."""
        counts = ("batch_size", "max_iterations", "check_every", "patience", "halve_every")
        for name, value in plain(**vars(self)).items():
            object.__setattr__(self, name, value)
        for name in counts:
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < 1):
                raise ValueError(f"{name} must be a whole number of at least 1, not {value!r}")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate must be positive, not {self.learning_rate}")
        if self.check_after < 0:
            raise ValueError(f"check_after must be at least 0, not {self.check_after}")


def scaled(settings: Settings, ball: NormBall) -> Settings:
    """Return settings that were found at 10/255 for another budget: the steps grow and shrink with it."""
    return replace(settings, learning_rate=settings.learning_rate * (ball.eps / (10 / 255) or 1))


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

    Raises TypeError for a network that does not know its mean, standard deviation and size.
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

    def __post_init__(self):
        """Check the seed."""
        self.seed = check_seed(self.seed)


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
    """Run the optimisation and return the best iterate.

    With `checkpoint`, the whole state is written there after every measurement, and where Ctrl-C stops the run; the
    same call continues from there, on a CPU bit for bit. Raises ValueError for a checkpoint of another run,
    FloatingPointError for dead layers or gradients that are not finite. Warns when the gradient is zero everywhere.
    """
    check_images(task.selection, "selection images")
    if task.ball.p == 2 or task.ball.eps == 0:
        raise ValueError(f"saturation is defined for l-infinity balls with eps > 0, not for {task.ball}")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(task.seed)  # all random numbers are drawn on the CPU
        run = _Run(task, settings)
        run.resume(checkpoint)
        run.go_on(checkpoint, progress)
        return run.result()


class _Run:
    """The state of a run: the optimised variable, Adam's moments, the clock, the random generator, the best."""

    def __init__(self, task: Task, settings: Settings):
        self.task, self.settings, self.clock = task, settings, Clock(settings)
        self.clean = predict(task.model, task.selection)
        start = task.ball.sample(task.selection[:1].shape).to(task.selection)
        # Adam's small numbers are lost in half precision.
        start = start.to(torch.promote_types(start.dtype, torch.float32))
        self.v = start.requires_grad_()
        self.adam = torch.optim.Adam([self.v], lr=settings.learning_rate)
        self.best, self.history, self.seconds = self.delta(), [], 0.0
        self.kept = self.state()

    def delta(self) -> Tensor:
        """A copy of the perturbation as the network sees it."""
        return self.task.ball.project(self.v.detach()).clone()

    def go_on(self, checkpoint: str | Path | None, progress: bool) -> None:
        before, started = self.seconds, time.perf_counter()
        total, done = self.settings.max_iterations, self.clock.iteration
        bar = tqdm(total=total, initial=done, desc=self.task.method, unit="it", disable=not progress)
        try:
            while not self.clock.finished():
                measured = self.iterate()
                self.seconds = before + time.perf_counter() - started
                self.kept = self.state()
                if measured:
                    self.save(checkpoint)
                bar.update()
                bar.set_postfix(self.history[-1], refresh=False)
            if "rate" not in self.history[-1]:
                self.measure()
                self.kept = self.state()
                self.save(checkpoint)
        except KeyboardInterrupt:
            self.save(checkpoint)  # the last whole iteration, wherever this one was interrupted
            raise
        finally:
            bar.close()

    def iterate(self) -> bool:
        """One step of Adam, then whatever the clock says; return whether the fooling rate was measured."""
        loss = self.step()
        delta = self.delta()
        saturation = (delta.abs() >= SATURATED * self.task.ball.eps).float().mean().item()
        measure, halve = self.clock.tick(saturation)
        self.history.append({"iteration": self.clock.iteration, "loss": loss, "saturation": saturation})
        if measure:
            self.measure()
        if halve:
            self.history[-1]["halved"] = True
            with torch.no_grad():
                self.v.copy_(delta / 2)
        return measure

    def step(self) -> float:
        pictures = self.task.pictures(self.settings.batch_size)
        with torch.enable_grad():
            delta = self.task.ball.project(self.v)
            seen = pictures + (delta * self.task.model.std if self.settings.forget_std else delta)
            seen = clamp(seen, 0, 1) if self.settings.clip else seen
            seen = seen.to(pictures)
            loss = activation_loss(self.task.model, seen, self.task.layers, self.task.statistic)
        (self.v.grad,) = torch.autograd.grad(loss, self.v)
        if not torch.isfinite(self.v.grad).all():
            raise FloatingPointError(f"the gradient is not finite in iteration {self.clock.iteration + 1}")
        if self.clock.iteration == 0:
            warn_without_gradient((self.v.grad == 0).flatten(1).all(1))
        self.adam.step()
        if self.settings.project:
            with torch.no_grad():
                self.v.copy_(self.task.ball.project(self.v))
        return loss.item()

    def measure(self) -> None:
        delta = self.delta()
        labels = predict(self.task.model, self.task.selection, delta, clip=self.settings.clip)
        rate = fooling_rate(self.clean, labels).value
        self.history[-1]["rate"] = rate
        if self.clock.improved(rate):
            self.best = delta

    def result(self) -> UniversalPerturbation:
        run = {
            "seconds": round(self.seconds, 1),
            "iterations": self.clock.iteration,
            "device": device_name(self.best.device),
            "commit": provenance.commit(),
        }
        return UniversalPerturbation(
            self.best, self.task.ball, self.task.method, self.task.source, provenance.weights_sha256(self.task.model),
            self.task.seed, self.task.record, self.history, run=run,
        )  # fmt: skip

    @cached_property
    def identity(self) -> str:
        """What tells this run from others: everything but its state."""
        return json.dumps([self.result().identity, provenance.sha256_of(self.task.selection)])

    def state(self) -> tuple[dict[str, Tensor], dict]:
        """A copy of all that changes: tensors by name, and the rest, JSON-safe.

        Of the history, that is its length and its last entry.
        """
        moments = self.adam.state[self.v] if self.clock.iteration else {}
        tensors = {"v": self.v, "best": self.best, "generator": torch.get_rng_state(), **moments}
        clock = {name: value for name, value in vars(self.clock).items() if name != "settings"}
        rest = {"clock": clock, "entries": len(self.history), "last": dict(*self.history[-1:]), "seconds": self.seconds}
        return {name: tensor.detach().clone() for name, tensor in tensors.items()}, rest

    def save(self, checkpoint: str | Path | None) -> None:
        """Write the state after the last whole iteration."""
        if checkpoint is None:
            return
        tensors, state = self.kept
        history = self.history[: state["entries"]]
        history[-1:] = [state["last"]] if history else []
        text = json.dumps({"identity": self.identity, **state, "history": history})
        content = save({name: tensor.cpu() for name, tensor in tensors.items()}, {"state": text})
        save_checkpoint(checkpoint, lambda path: write_atomically(path, lambda file: file.write_bytes(content)))

    def resume(self, checkpoint: str | Path | None) -> None:
        if checkpoint is None or not Path(checkpoint).exists():
            return
        try:
            with safe_open(checkpoint, framework="pt") as file:
                state = json.loads((file.metadata() or {}).get("state", "{}"))
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no mapping)
        except SafetensorError as error:
            raise ValueError(f"{checkpoint} is no checkpoint, or a damaged one; delete it: {error}") from error
        if state.get("identity") != self.identity:
            raise ValueError(f"{checkpoint} belongs to a run with other arguments; delete it or name another file")
        with torch.no_grad():
            self.v.copy_(tensors.pop("v"))
        self.best = tensors.pop("best").to(self.v.device)
        torch.set_rng_state(tensors.pop("generator"))
        if tensors:
            moments = {name: moment.to(self.v.device) for name, moment in tensors.items() if name != "step"}
            self.adam.state[self.v] = {"step": tensors["step"], **moments}
        vars(self.clock).update(state["clock"])
        self.history, self.seconds = state["history"], state["seconds"]
        self.kept = self.state()
