"""Training a network anew on images that someone perturbs: one loop for all rules."""

import copy
import csv
import io
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import save
from torch import Tensor, nn
from tqdm import tqdm

from uaplib import provenance
from uaplib.attacks.runs import read_checkpoint
from uaplib.checks import check_classifier, check_fields, check_images, check_labels, check_seed, finite
from uaplib.defences._rules import Batch, Rule
from uaplib.defences._seeds import derived_seed
from uaplib.devices import device_of
from uaplib.files import check_writable, save_checkpoint, write_atomically, write_text
from uaplib.models.normalized import Normalized
from uaplib.names import check_name

SCHEDULES = ("constant", "cosine")


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """Settings of `train`: stochastic gradient descent with momentum.

    epochs: passes over the images. batch_size: images of a step. learning_rate, momentum, weight_decay: PyTorch's SGD.
    schedule: "constant", or "cosine": the learning rate falls from epoch to epoch along half a cosine towards 0.
    label_smoothing: of the weights' loss, in [0, 1]. batch_statistics: whether batch normalisation takes the mean and
    the variance of a batch and keeps their running averages, as in training from scratch; otherwise both stay as they
    are, and only its scales and shifts are trained.
    """

    epochs: int = 5
    batch_size: int = 128
    learning_rate: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: str = SCHEDULES[0]
    label_smoothing: float = 0.0
    batch_statistics: bool = False

    def __post_init__(self):
        """Check the numbers."""
        check_fields(self, at_least_1=("epochs", "batch_size"))
        check_name("schedule", self.schedule, SCHEDULES)
        for name in ("learning_rate", "weight_decay"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be at least 0, not {getattr(self, name)}")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum must lie in [0, 1), not {self.momentum}")
        if not 0 <= self.label_smoothing <= 1:
            raise ValueError(f"label_smoothing must lie in [0, 1], not {self.label_smoothing}")

    def rate(self, epoch: int) -> float:
        """Return the learning rate of an epoch, from 0 on."""
        if self.schedule == "constant":
            return self.learning_rate
        return self.learning_rate * (1 + math.cos(math.pi * epoch / self.epochs)) / 2


class Trained(NamedTuple):
    """What `train` returns.

    model: the trained copy, in evaluation mode. history: a JSON-safe dictionary per epoch. memory: what the rule kept,
    tensors by name; of `UniversalTraining`, its perturbation "delta" (1, C, H, W).
    """

    model: nn.Module
    history: list[dict]
    memory: dict[str, Tensor]


def train(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    rule: Rule,
    *,
    settings: TrainingSettings | None = None,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    log: str | Path | None = None,
    measure: Callable[[nn.Module], Mapping[str, float]] | None = None,
    progress: bool = False,
) -> Trained:
    """Train a copy of a classifier on images as a rule perturbs them.

    A step takes a batch, asks the rule what the network is to see in its place, and moves all parameters, frozen ones
    too, down the mean cross-entropy there. Each epoch goes through the images in a new order; the few that fill no
    batch are left out of it.

    The copy is in training mode, for the rule's own passes as well: dropout drops. Batch normalisation alone stays in
    evaluation mode unless `settings.batch_statistics` says otherwise: statistics that follow perturbed images change
    what the network says of clean ones, whatever its weights learn, and would be taken for the defence. `model` itself
    stays as it is, and so do all random generators.

    images: (N, C, H, W) in [0, 1], and labels: int64 (N,), in memory, on any one device. rule: `PoolTraining`,
    `UniversalTraining`, `SharedTraining`, `DemocraticTraining`, or `CleanTraining`. seed: of all that is drawn; every
    epoch has a seed of its own, made of it.

    checkpoint: a file that holds the whole state after the last whole epoch, written atomically. When a run is
    interrupted, the same call goes on from there and gives, on a CPU, the same bits as a run without interruption; a
    run that had ended returns what is in the file. log: a CSV file, rewritten with a row more after each epoch: epoch,
    learning_rate, loss (the mean over its steps), seconds, and what `measure` returns for the network, which it gets in
    evaluation mode without gradients.

    Raises ValueError or TypeError for bad images, labels, or a rule that does not fit them; for a checkpoint that is
    damaged or of another run; FloatingPointError when the loss is infinite or not a number; OSError at once when the
    log cannot be written. Warns when a checkpoint cannot be written.
    """
    settings, seed = settings or TrainingSettings(), check_seed(seed)
    network = copy.deepcopy(model).eval().requires_grad_(True)
    _check(network, images, labels, rule, settings)
    if log is not None:
        check_writable(Path(log))
    with _generators_kept(device_of(network)), torch.enable_grad():
        training = _Training(network, images.detach(), labels, rule, settings, seed)
        keeper = _Checkpoint(training, Path(checkpoint)) if checkpoint else None
        _finish(training, keeper, log, measure, progress)
    return Trained(_as_handed_in(network, model), training.history, training.memory)


def save_weights(model: nn.Module, path: str | Path) -> None:
    """Write a network's weights as safetensors, atomically.

    Of a `Normalized` model these are the weights inside, so that `uaplib.models.load(name, weights=path)` reads them.
    The same weights give the same bytes. Raises OSError when the file cannot be written.
    """
    inside = model.network if isinstance(model, Normalized) else model
    tensors = {name: value for name, value in inside.state_dict().items() if isinstance(value, Tensor)}
    content = save(_copied(tensors))
    write_atomically(Path(path), lambda temporary: temporary.write_bytes(content))


def _check(network: nn.Module, images: Tensor, labels: Tensor, rule: Rule, settings: TrainingSettings) -> None:
    check_images(images)
    if not any(True for _ in network.parameters()):
        raise ValueError("the model has no parameters: there is nothing to train")
    if not isinstance(rule, Rule):
        raise TypeError(f"rule must be a rule of uaplib.defences, such as UniversalTraining, not {rule!r}")
    some = images[:1].detach().to(device_of(network))
    check_labels(labels, images, check_classifier(network, some))
    if settings.batch_size > len(images):
        raise ValueError(f"batch_size={settings.batch_size} is more than the {len(images)} images")
    rule.check(network, some, settings.batch_size)


def _as_handed_in(network: nn.Module, model: nn.Module) -> nn.Module:
    """The network in evaluation mode, with the gradients that the model requires."""
    for own, origin in zip(network.parameters(), model.parameters(), strict=True):
        own.grad = None
        own.requires_grad_(origin.requires_grad)
    return network.eval()


def _copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors on the CPU, each in memory of its own, as safetensors wants them."""
    return {name: value.detach().cpu().clone(memory_format=torch.contiguous_format) for name, value in tensors.items()}


@contextmanager
def _generators_kept(device: torch.device) -> Iterator[None]:
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        yield


def _seed(seed: int, device: torch.device) -> None:
    """Seed what draws: the CPU, and the GPU for dropout."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)


class _Training:
    """A network on its way: its weights, the optimiser's momentum, the rule's memory, and what has been so far."""

    def __init__(
        self, network: nn.Module, images: Tensor, labels: Tensor, rule: Rule, settings: TrainingSettings, seed: int
    ):
        self.network, self.images, self.labels = network, images, labels
        self.rule, self.settings, self.seed, self.device = rule, settings, seed, device_of(network)
        self.optimiser = torch.optim.SGD(
            network.parameters(), settings.learning_rate, settings.momentum, weight_decay=settings.weight_decay
        )
        self.memory = rule.begin(images[:1].to(self.device))
        self.history: list[dict] = []

    @property
    def steps(self) -> int:
        """How many there are in an epoch."""
        return len(self.images) // self.settings.batch_size

    def epoch(self, advance: Callable[[], object]) -> None:
        """Go through the images once; `advance` is called after each step."""
        number, started, total = len(self.history), time.perf_counter(), 0.0
        _seed(derived_seed(self.seed, number), self.device)
        self.enter_training_mode()
        for group in self.optimiser.param_groups:
            group["lr"] = self.settings.rate(number)
        order = torch.randperm(len(self.images)).split(self.settings.batch_size)
        for indices in order[: self.steps]:
            total += self.step(indices.to(self.images.device))
            advance()
        seconds = round(time.perf_counter() - started, 1)
        row = {"epoch": number + 1, "learning_rate": self.settings.rate(number), "loss": total / self.steps}
        self.history.append(row | {"seconds": seconds})

    def enter_training_mode(self) -> None:
        self.network.train()
        for module in self.network.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.train(self.settings.batch_statistics)

    def step(self, indices: Tensor) -> float:
        """Move the weights, then what the rule keeps; return the loss."""
        images, labels = (each[indices].to(self.device) for each in (self.images, self.labels))
        batch = Batch(self.network, images, labels, self.settings.label_smoothing)
        parts = self.rule.parts(batch, self.memory)
        loss = sum(weight * batch.loss(seen) for weight, seen in parts if weight)
        if not torch.isfinite(loss):
            raise FloatingPointError(
                f"the loss is {loss.item()} in epoch {len(self.history) + 1}; a smaller learning_rate than "
                f"{self.settings.learning_rate:g} may help"
            )
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        self.rule.after(batch, self.memory)
        return loss.item()

    def measured(self, measure: Callable[[nn.Module], Mapping[str, float]]) -> None:
        """Add what is measured on the network to the row of the epoch."""
        self.network.eval()
        with torch.no_grad():
            self.history[-1] |= finite(**measure(self.network))

    def state(self) -> dict[str, dict[str, Tensor]]:
        """All that changes beside the history: tensors by kind and name."""
        parameters = dict(self.network.named_parameters())
        momenta = {name: self.optimiser.state[each].get("momentum_buffer") for name, each in parameters.items()}
        return {
            "weights": parameters | dict(self.network.named_buffers()),
            "momentum": {name: buffer for name, buffer in momenta.items() if buffer is not None},
            "memory": self.memory,
        }

    @torch.no_grad()
    def restore(self, state: dict[str, dict[str, Tensor]]) -> None:
        """Take over what `state` returned; the tensors may lie on the CPU."""
        parameters = dict(self.network.named_parameters())
        for name, own in (parameters | dict(self.network.named_buffers())).items():
            own.copy_(state["weights"][name])
        for name, buffer in state["momentum"].items():
            own = torch.empty_like(parameters[name])  # the layout in memory may decide about the last bit of a sum
            self.optimiser.state[parameters[name]]["momentum_buffer"] = own.copy_(buffer)
        self.memory = {name: value.to(self.device) for name, value in state["memory"].items()}


def _finish(
    training: _Training,
    checkpoint: "_Checkpoint | None",
    log: str | Path | None,
    measure: Callable[[nn.Module], Mapping[str, float]] | None,
    progress: bool,
) -> None:
    """Go through the epochs that are left, and keep each."""
    if checkpoint and checkpoint.path.exists():
        checkpoint.read()
        _write_log(training, log)
    total, steps, done = training.settings.epochs, training.steps, len(training.history)
    name = type(training.rule).__name__
    with tqdm(total=total * steps, initial=done * steps, desc=name, unit="step", disable=not progress) as bar:
        while len(training.history) < total:
            training.epoch(bar.update)
            if measure:
                training.measured(measure)
            if checkpoint:
                checkpoint.write()
            _write_log(training, log)
            bar.set_postfix(training.history[-1], refresh=False)


def _write_log(training: _Training, log: str | Path | None) -> None:
    """Write the rows of the history under the names of all their columns."""
    if log is None:
        return
    text, columns = io.StringIO(), dict.fromkeys(name for row in training.history for name in row)
    writer = csv.DictWriter(text, list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows(training.history)
    write_text(Path(log), text.getvalue())


class _Checkpoint:
    """The file that keeps a training after its last whole epoch. Its key tells it from those of other trainings."""

    def __init__(self, training: _Training, path: Path):
        self.training, self.path = training, path
        self.key = provenance.key(
            rule=training.rule.record(),
            settings=asdict(training.settings),
            seed=training.seed,
            weights_sha256=provenance.weights_sha256(training.network),
            images_sha256=provenance.sha256_of(training.images),
            labels_sha256=provenance.sha256_of(training.labels),
        )

    def write(self) -> None:
        state = self.training.state()
        tensors = {f"{kind}/{name}": value for kind, found in state.items() for name, value in found.items()}
        text = json.dumps({"key": self.key, "history": self.training.history})
        content = save(_copied(tensors), {"state": text})
        save_checkpoint(self.path, lambda path: write_atomically(path, lambda file: file.write_bytes(content)))

    def read(self) -> None:
        tensors, about = read_checkpoint(self.path)
        if about.get("key") != self.key:
            raise ValueError(f"{self.path} belongs to a run with other arguments; delete it or name another file")
        state: dict[str, dict[str, Tensor]] = {"weights": {}, "momentum": {}, "memory": {}}
        for each, value in tensors.items():
            kind, _, name = each.partition("/")
            state[kind][name] = value
        self.training.restore(state)
        self.training.history = about["history"]
