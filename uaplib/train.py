"""Training the mini networks on Fashion-MNIST, bit-identically on the same machine from a seed."""

import json
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from uaplib.data import fashion_mnist
from uaplib.files import write_atomically, write_text
from uaplib.models import registry
from uaplib.names import check_name

BATCH, WEIGHT_DECAY, LABEL_SMOOTHING = 128, 5e-3, 0.05


class Schedule(NamedTuple):
    """How long a network trains, and the learning rate at the top of its one cycle."""

    epochs: int
    peak_learning_rate: float


SCHEDULES = {  # batch normalisation bears larger steps
    "caffenet-mini": Schedule(30, 2e-3),
    "vgg-f-mini": Schedule(30, 2e-3),
    "googlenet-mini": Schedule(16, 1e-3),
    "vgg16-mini": Schedule(20, 2e-3),
    "vgg19-mini": Schedule(24, 2e-3),
    "resnet-mini": Schedule(12, 3e-3),
}


@contextmanager
def _deterministic(seed: int, number_of_threads: int) -> Iterator[None]:
    """Seed the global generator and fix the number of threads, and restore both."""
    threads = torch.get_num_threads()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        torch.set_num_threads(number_of_threads)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


def _initialise(network: nn.Module) -> None:
    """He initialisation: deep networks without batch normalisation do not train from PyTorch's default."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def _augment(images: Tensor, shift: int = 1) -> Tensor:
    """Mirror every second image on average, and shift each by up to `shift` pixels."""
    count, size = len(images), images.shape[-1]
    mirrored = torch.where(torch.rand(count, 1, 1, 1) < 0.5, images.flip(-1), images)
    windows = F.pad(mirrored, [shift] * 4).unfold(2, size, 1).unfold(3, size, 1)
    rows, columns = torch.randint(2 * shift + 1, (2, count))
    return windows[torch.arange(count), :, rows, columns]


@torch.no_grad()
def _accuracy(model: nn.Module, data: fashion_mnist.Images) -> float:
    model.eval()
    correct = [(model(x).argmax(1) == y).sum() for x, y in zip(*(t.split(500) for t in data), strict=True)]
    return (sum(correct) / len(data.labels)).item()


def train(name: str, seed: int = 0, epochs: int | None = None, threads: int = 1, progress: bool = True) -> dict:
    """Train a mini network, write its weights and model card into the package, and return the card.

    AdamW with a one-cycle learning rate, mirrored and shifted images. The same seed and number of threads on the same
    machine give the same bits: the threads change the order of sums. Raises ValueError for an unknown name.
    """
    check_name("name", name, SCHEDULES)
    schedule = SCHEDULES[name]._replace(**({"epochs": epochs} if epochs else {}))
    train_set, test_set = fashion_mnist.load("train"), fashion_mnist.load("test")
    started = time.perf_counter()
    with _deterministic(seed, threads):
        model = registry.build(name)
        _initialise(model)
        model.to(memory_format=torch.channels_last)
        _fit(model, train_set, schedule, progress)
        accuracy = _accuracy(model, test_set)
    path = registry.weights_file(name)
    weights = {key: value.contiguous() for key, value in model.network.state_dict().items()}
    write_atomically(path, lambda temporary: temporary.write_bytes(save(weights)))
    card = {
        "name": name,
        "command": f"uaplib train {name} --seed {seed} --epochs {schedule.epochs} --threads {threads}",
        "data": "Fashion-MNIST, 60,000 training images, mirrored and shifted by up to a pixel",
        "parameters": sum(p.numel() for p in model.parameters()),
        "seed": seed,
        "epochs": schedule.epochs,
        "test_accuracy": round(accuracy, 4),
        "test_images": len(test_set.labels),
        "seconds": round(time.perf_counter() - started),
        "threads": threads,
        "processor": f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}",
        "torch": torch.__version__,
    }
    write_text(path.with_suffix(".json"), json.dumps(card, indent=2) + "\n")
    return card


def _fit(model: nn.Module, data: fashion_mnist.Images, schedule: Schedule, progress: bool) -> None:
    steps = schedule.epochs * (len(data.labels) // BATCH)
    optimiser = torch.optim.AdamW(model.parameters(), weight_decay=WEIGHT_DECAY)
    one_cycle = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, schedule.peak_learning_rate, total_steps=steps, pct_start=0.2
    )
    with tqdm(total=steps, desc="training", unit="step", disable=not progress) as bar:
        model.train()
        for _ in range(schedule.epochs):
            for batch in torch.randperm(len(data.labels)).split(BATCH)[: len(data.labels) // BATCH]:
                images = _augment(data.images[batch]).contiguous(memory_format=torch.channels_last)
                loss = F.cross_entropy(model(images), data.labels[batch], label_smoothing=LABEL_SMOOTHING)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                one_cycle.step()
                bar.update()
                bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
