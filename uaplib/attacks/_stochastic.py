"""The engine behind the attacks by stochastic gradients: batches of images, a loss on logits, a step on all of them.

An attack subclasses `Run` and says its loss; what it may see, how long it runs and how it steps are in its `Settings`.
"""

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from uaplib import provenance
from uaplib.attacks import rules, runs
from uaplib.balls import NormBall, added
from uaplib.checks import (
    ask,
    check_classifier,
    check_fields,
    check_finite_gradient,
    check_images,
    check_labels,
    warn_without_gradient,
)
from uaplib.devices import device_of
from uaplib.models.ensemble import members_of
from uaplib.names import check_name
from uaplib.perturbation import UniversalPerturbation, saturation

LABELS = ("predictions", "truth")
STARTS = ("zero", "uniform")
ENTRIES = 100  # of the history, at most about so many


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What all attacks by stochastic gradients have in common.

    max_gradients: the cost; a run ends with the step in which so many gradients of one image have been spent.
    batch_size: images whose gradients a step averages. step: a share of the budget; how far a sign step goes, or
    Adam's learning rate. start: "zero", or "uniform" in the ball. clip: whether the network sees image plus
    perturbation clipped to [0, 1].
    """

    max_gradients: int = 10_000
    batch_size: int = 32
    step: float = 0.1
    start: str = "zero"
    clip: bool = True

    def __post_init__(self):
        """Check the numbers."""
        check_fields(self, at_least_1=("max_gradients", "batch_size"))
        check_name("start", self.start, STARTS)
        if not self.step > 0:
            raise ValueError(f"step must be positive, a share of the budget, not {self.step}")


@dataclass(frozen=True, kw_only=True)
class LabelSettings(Settings):
    """Settings of attacks on labels.

    labels: which labels images are to lose, the network's own "predictions" or the "truth". target: the class that
    all images are to become instead, whatever their labels; None: any other.
    """

    labels: str = LABELS[0]
    target: int | None = None

    def __post_init__(self):
        """Check the numbers and names."""
        super().__post_init__()
        check_name("labels", self.labels, LABELS)
        if self.target is not None and self.target < 0:
            raise ValueError(f"target must be a class, from 0 on, not {self.target}")

    def labels_of(self, batch: "Batch") -> Tensor:
        """Return the labels (B,) that the images of a batch are to lose."""
        return batch.truth if self.labels == "truth" else batch.predictions

    @property
    def uses_labels(self) -> bool:
        """Whether labels play a part: with a target, none does."""
        return self.target is None

    def target_of(self, batch: "Batch") -> Tensor:
        """Return the class (B,) that all images of a batch are to become."""
        return torch.full_like(batch.predictions, self.target)


class Batch(NamedTuple):
    """Images (B, C, H, W), what is said of them unperturbed, and their true labels (B,) or None.

    clean_logits: of one network (B, K); as a feed returns it, of all networks of an ensemble (B, M, K).
    """

    images: Tensor
    clean_logits: Tensor
    truth: Tensor | None

    @property
    def predictions(self) -> Tensor:
        """Return the clean predictions (B,)."""
        return self.clean_logits.argmax(1)

    def subset(self, indices: Tensor) -> "Batch":
        """Return the images at these indices, and what is known of them."""
        return Batch(*(None if each is None else each[indices] for each in self))

    def of_member(self, number: int) -> "Batch":
        """Return the batch with what one network of an ensemble says."""
        return self._replace(clean_logits=self.clean_logits[:, number])


class Run(runs.Run):
    """The perturbation, the batches, and what has been spent. On an ensemble, the loss is the mean of its networks'.

    feed: a `TensorFeed` or a `LoaderFeed`. settings: its `Settings`.
    """

    unit = "gradient"

    def __init__(
        self, method: str, model: nn.Module, feed: "TensorFeed | LoaderFeed", ball: NormBall, settings: Settings,
        seed: int, source: str,
    ):  # fmt: skip
        check_ball(ball)
        super().__init__(method, model, ball, seed, source, asdict(settings) | feed.record())
        self.feed, self.settings = feed, settings

    @abstractmethod
    def losses(self, logits: Tensor, batch: Batch) -> Tensor:
        """Return what is minimised, a number for each image (B,)."""

    def rule(self, v: Tensor) -> rules.SignSteps | rules.AdamSteps:
        """Return the rule of its steps, beginning at v."""
        return rules.SignSteps(v, self.ball, self.settings.step * self.ball.eps)

    def networks(self) -> Sequence[Callable[[Tensor], Tensor]]:
        """The networks that the perturbation is to fool in this step, those of an ensemble."""
        return self.feed.members

    def begin(self) -> None:
        shape, device = self.feed.shape, self.feed.device
        start = torch.zeros(shape) if self.settings.start == "zero" else self.ball.sample(shape)
        self.feed.begin()
        # Small steps would be lost in half precision.
        self.rules = self.rule(start.to(device, torch.promote_types(self.feed.dtype, torch.float32)))
        self.gradients, self.steps, self.tally, self.begun = 0, 0, {}, False

    def step(self) -> bool:
        """Take one step, and add to the history where another hundredth of the cost is spent."""
        before = self._share_spent()
        self.move(self.feed.next())
        self.steps += 1
        if self.finished() or self._share_spent() > before:
            self.report()
            return True
        return False

    def move(self, batch: Batch) -> None:
        """Take one step with a batch."""
        self.rules.step(self.gradient(self.rules.v, batch))

    def gradient(self, v: Tensor, batch: Batch) -> Tensor:
        """Return the gradient of the mean loss with respect to v, which is paid for and reported."""
        v, networks, found = v.detach().requires_grad_(), self.networks(), 0
        for number, network in enumerate(networks):  # one after the other: their graphs need not fit together
            part = batch.of_member(number)
            with torch.enable_grad():
                logits = ask(network, added(part.images, v, self.settings.clip))
                losses = self.losses(logits, part)
                found = found + torch.autograd.grad(losses.mean() / len(networks), v)[0]
            self.note(losses.detach(), logits.detach().argmax(1), part)
        check_finite_gradient(found)
        if not self.begun:
            warn_without_gradient((found == 0).flatten(1).all(1))
            self.begun = True
        self.gradients += len(networks) * len(batch.images)
        return found

    def note(self, losses: Tensor, labels: Tensor, batch: Batch) -> None:
        """Count what the batch has shown until the next entry of the history."""
        found = {"images": len(labels), "loss": losses.sum().item()}
        found["changed"] = int((labels != batch.predictions).sum())
        target = getattr(self.settings, "target", None)
        if target is not None:
            found["reached"] = int((labels == target).sum())
        self.tally = {name: self.tally.get(name, 0) + value for name, value in found.items()}

    def report(self) -> None:
        """Add an entry: the means over the images since the last one, each perturbed as it was then."""
        images, v = self.tally["images"], self.delta()
        entry = {"gradients": self.gradients, "loss": self.tally["loss"] / images}
        entry["rate"] = self.tally["changed"] / images
        if "reached" in self.tally:
            entry["target_rate"] = self.tally["reached"] / images
        entry |= {"l2_norm": v.norm().item(), "saturation": saturation(v, self.ball)}
        self.history.append(entry)
        self.tally = {}

    def _share_spent(self) -> int:
        return self.gradients * ENTRIES // self.settings.max_gradients

    def finished(self) -> bool:
        return self.gradients >= self.settings.max_gradients

    def progress(self) -> tuple[int, int]:
        most = self.settings.max_gradients
        return min(self.gradients, most), most

    def state(self) -> tuple[dict[str, Tensor], dict]:
        tensors, feed = self.feed.state()
        numbers = {"gradients": self.gradients, "steps": self.steps, "tally": self.tally, "feed": feed}
        return self.rules.state() | {f"feed.{name}": tensor for name, tensor in tensors.items()}, numbers

    def restore(self, tensors: dict[str, Tensor], rest: dict) -> None:
        feed = {name: tensors.pop(name) for name in list(tensors) if name.startswith("feed.")}
        self.feed.restore({name.removeprefix("feed."): tensor for name, tensor in feed.items()}, rest.pop("feed"))
        self.rules.restore(tensors)
        vars(self).update(rest)
        self.begun = True

    def delta(self) -> Tensor:
        return self.ball.project(self.rules.v.detach())

    def counts(self) -> dict:
        return {"steps": self.steps, "gradients": self.gradients}


class TensorFeed:
    """Batches of a tensor of images, in a new order each time all have been seen; a last smaller batch counts.

    images (N, C, H, W) in [0, 1], and labels (N,) if known, may lie anywhere; batches lie where the model does.
    shape: (1, C, H, W), that of a perturbation.
    """

    def __init__(self, model: nn.Module, images: Tensor, labels: Tensor | None, batch_size: int):
        check_images(images)
        outputs = check_classifier(model, images[:1].to(device_of(model)))
        if labels is not None:
            check_labels(labels.to(images.device), images, outputs)
        self.members, self.images, self.labels, self.batch_size = members_of(model), images.detach(), labels, batch_size
        self.outputs, self.dtype, self.device = outputs, images.dtype, device_of(model)
        self.shape = (1, *images.shape[1:])

    def record(self) -> dict:
        """Which images these are, JSON-safe."""
        truth = {} if self.labels is None else {"truth_sha256": provenance.sha256_of(self.labels)}
        return provenance.images_record(self.images) | truth

    def begin(self) -> None:
        """Ask the network about the clean images."""
        self.order, self.position = torch.arange(0), 0
        chunks = self.images.split(self.batch_size)
        self.clean_logits = torch.cat([_logits(self.members, chunk.to(self.device)) for chunk in chunks])

    def next(self) -> Batch:
        """Return the next batch."""
        if self.position >= len(self.order):
            self.order, self.position = torch.randperm(len(self.images)), 0
        indices = self.order[self.position : self.position + self.batch_size]
        self.position += len(indices)
        known = (self.images, self.clean_logits, self.labels)
        return Batch(*(None if each is None else _at(each, indices, self.device) for each in known))

    def state(self) -> tuple[dict[str, Tensor], dict]:
        """Return where it is: tensors, and the rest, JSON-safe."""
        return {"order": self.order}, {"position": self.position}

    def restore(self, tensors: dict[str, Tensor], rest: dict) -> None:
        """Take over what `state` returned."""
        self.order, self.position = tensors["order"], rest["position"]


def _at(values: Tensor, indices: Tensor, device: torch.device) -> Tensor:
    return values[indices.to(values.device)].to(device)


class LoaderFeed:
    """The batches of a DataLoader, pass after pass: images, or pairs of images and labels.

    What it draws at the beginning of a pass comes from PyTorch's generator. Where a run goes on in the middle of a
    pass, the batches before are loaded once more and thrown away.
    """

    def __init__(self, model: nn.Module, loader: DataLoader, needs_labels: bool):
        self.members, self.loader, self.needs_labels = members_of(model), loader, needs_labels
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)  # the same first batch whenever the loader is asked so
            images, _ = self._checked(self._first(iter(loader)))
        self.first_sha256 = provenance.sha256_of(images)
        self.shape, self.dtype = (1, *images.shape[1:]), images.dtype
        self.device = device_of(model)
        self.outputs = check_classifier(model, images[:1].to(self.device))

    @staticmethod
    def _first(batches: Iterator) -> Any:
        found = next(batches, None)
        if found is None:
            raise ValueError("images: the DataLoader is empty")
        return found

    def _checked(self, found: Any) -> tuple[Tensor, Tensor | None]:
        """Images and labels of what the loader has returned."""
        pair = found if isinstance(found, list | tuple) else [found]
        if not (1 <= len(pair) <= 2 and isinstance(pair[0], Tensor)):
            raise TypeError(
                f"images: the DataLoader returns a {type(found).__name__}; it must return images, or pairs of images "
                "and labels: give it a collate_fn that does"
            )
        images, labels = pair[0], pair[1] if len(pair) == 2 else None
        check_images(images)
        if self.needs_labels:
            if labels is None:
                raise ValueError("labels='truth' needs a DataLoader that returns pairs of images and labels")
            check_labels(labels, images, self.outputs if hasattr(self, "outputs") else 2**31)
        return images, labels if self.needs_labels else None

    def record(self) -> dict:
        """How many images there are, as far as that is known, and what tells one loader from another.

        Nobody has seen all of the images, so that they have no digest; a first batch has.
        """
        dataset = self.loader.dataset
        count = len(dataset) if hasattr(dataset, "__len__") else None
        about = {"batch_size": self.loader.batch_size, "first_batch_sha256": self.first_sha256}
        return {"images": count, "images_sha256": ""} | about

    def begin(self) -> None:
        """Begin a pass."""
        self.began, self.position, self.batches = torch.get_rng_state(), 0, iter(self.loader)

    def next(self) -> Batch:
        """Return the next batch."""
        found = next(self.batches, None)
        if found is None:
            self.begin()
            found = self._first(self.batches)
        self.position += 1
        images, labels = self._checked(found)
        if (1, *images.shape[1:]) != self.shape:
            raise ValueError(f"images are {tuple(images.shape[1:])} here and {self.shape[1:]} in the first batch")
        images = images.to(self.device)
        return Batch(images, _logits(self.members, images), None if labels is None else labels.to(self.device))

    def state(self) -> tuple[dict[str, Tensor], dict]:
        """Return where it is: tensors, and the rest, JSON-safe."""
        return {"began": self.began}, {"position": self.position}

    def restore(self, tensors: dict[str, Tensor], rest: dict) -> None:
        """Take over what `state` returned: begin the same pass, and skip what was seen of it."""
        now = torch.get_rng_state()
        torch.set_rng_state(tensors["began"])
        self.begin()
        for _ in range(rest["position"]):
            if next(self.batches, None) is None:
                raise ValueError("images: the DataLoader has fewer batches than when the run was interrupted")
        self.position = rest["position"]
        torch.set_rng_state(now)


@torch.no_grad()
def _logits(members: list[nn.Module], images: Tensor) -> Tensor:
    """What each network says, (B, M, K)."""
    return torch.stack([ask(member, images) for member in members], dim=1)


def feed_of(
    model: nn.Module, images: "Tensor | DataLoader", labels: Tensor | None, settings: Settings
) -> TensorFeed | LoaderFeed:
    """Return the batches of images, a tensor or a DataLoader, checked against what the settings need.

    Raises ValueError or TypeError for bad images or labels, labels that are needed and missing, and a target that is
    no class of the model.
    """
    target = getattr(settings, "target", None)
    truth = getattr(settings, "labels", "") == "truth" and settings.uses_labels
    if isinstance(images, DataLoader):
        if labels is not None:
            raise ValueError("labels: a DataLoader brings its own")
        feed = LoaderFeed(model, images, truth)
    else:
        if truth and labels is None:
            raise ValueError("labels='truth' needs the true labels of the images, and none are given")
        feed = TensorFeed(model, images, labels, settings.batch_size)
        feed.labels = labels if truth else None  # others are checked, and play no part
    if target is not None and target >= feed.outputs:
        raise ValueError(f"target must be a class of the model, 0 ... {feed.outputs - 1}, not {target}")
    return feed


def check_ball(ball: NormBall) -> None:
    """Raise ValueError unless it is an l-infinity ball with some room."""
    if ball.p != math.inf or not ball.eps > 0:
        raise ValueError(f"this attack is for l-infinity balls with eps > 0, not for {ball}")


def entries(attack: Callable, kind: type[Settings]) -> tuple[Callable, Callable]:
    """Return the functions `settings` and `run` of an attack's module, see `uaplib.attacks.methods`.

    attack: takes `ball` and `settings` of this kind by name.
    """

    def settings(ball: NormBall, **changes: Any) -> dict[str, Any]:
        """Return all settings."""
        return asdict(kind(**changes))

    def run(model: nn.Module, ball: NormBall, settings: dict, data: Mapping, **options: Any) -> UniversalPerturbation:
        """Craft with all settings."""
        return attack(model, ball=ball, settings=kind(**settings), **data, **options)

    return settings, run
