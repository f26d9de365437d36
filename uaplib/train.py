"""Training the project's own networks, bit-identically on the same machine from a seed."""

import json
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision import tv_tensors
from torchvision.transforms import v2
from tqdm import tqdm

from uaplib.data import camvid, fashion_mnist, scenes
from uaplib.files import check_writable, write_atomically, write_text
from uaplib.metrics import depth, predict, segmentation
from uaplib.models import registry
from uaplib.models.spec import Schedule

WEIGHT_DECAY, LABEL_SMOOTHING = 5e-3, 0.05


class Data(NamedTuple):
    """Images (N, C, H, W) in [0, 1] and what a network is to say of them: labels (N,), or a map (N, H, W)."""

    images: Tensor
    targets: Tensor


class Lesson(NamedTuple):
    """What a network learns, from which data, and how well it did on the test split: a JSON-safe entry of its card."""

    about: str
    train: Data
    test: Data
    augment: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
    loss: Callable[[Tensor, Tensor], Tensor]
    grade: Callable[[nn.Module, Data], dict]


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


def _mirror_and_shift(images: Tensor, labels: Tensor, shift: int = 1) -> tuple[Tensor, Tensor]:
    """Mirror every second image on average, and shift each by up to `shift` pixels."""
    count, size = len(images), images.shape[-1]
    mirrored = torch.where(torch.rand(count, 1, 1, 1) < 0.5, images.flip(-1), images)
    windows = F.pad(mirrored, [shift] * 4).unfold(2, size, 1).unfold(3, size, 1)
    rows, columns = torch.randint(2 * shift + 1, (2, count))
    return windows[torch.arange(count), :, rows, columns], labels


def _jointly(*transforms: v2.Transform) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Apply torchvision's random transforms to each image and its map (labels or depth) together."""
    transform = v2.Compose(transforms)

    def augment(images: Tensor, maps: Tensor) -> tuple[Tensor, Tensor]:
        pairs = [transform(tv_tensors.Image(i), tv_tensors.Mask(m)) for i, m in zip(images, maps, strict=True)]
        images, maps = (torch.stack([part.as_subclass(Tensor) for part in parts]) for parts in zip(*pairs, strict=True))
        return images, maps

    return augment


def _clothes() -> Lesson:
    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(logits, labels, label_smoothing=LABEL_SMOOTHING)

    about = "Fashion-MNIST, 60,000 training images, mirrored and shifted by up to a pixel"
    train_set, test_set = (Data(*fashion_mnist.load(split)) for split in fashion_mnist.SPLITS)
    return Lesson(about, train_set, test_set, _mirror_and_shift, loss, _accuracy)


def _street_scenes() -> Lesson:
    train_set = Data(*camvid.load("train", size=(360, 480)))
    zoom = v2.RandomResizedCrop(camvid.SIZE, scale=(0.3, 1.0), ratio=(1.2, 1.5), antialias=True)
    augment = _jointly(zoom, v2.RandomHorizontalFlip(), v2.ColorJitter(0.3, 0.3, 0.3))
    about = "CamVid, 367 training images, zoomed, mirrored and recoloured"
    loss = _rare_classes_count_more(train_set.targets, len(camvid.CLASSES))
    return Lesson(about, train_set, Data(*camvid.load("test")), augment, loss, _mean_iou)


def _classes_of_scenes() -> Lesson:
    train_set, test_set = (Data(*scenes.load(split, progress=True)[:2]) for split in ("train", "test"))
    loss = _rare_classes_count_more(train_set.targets, len(scenes.CLASSES))
    return Lesson(*_of_scenes(train_set), test_set, _RECOLOUR, loss, _mean_iou)


def _depth_of_scenes() -> Lesson:
    def loss(predicted: Tensor, truth: Tensor) -> Tensor:
        """The mean absolute error of the logarithm, where there is a depth."""
        known = truth > 0
        return (predicted[:, 0][known].log() - truth[known].log()).abs().mean()

    loaded = (scenes.load(split, progress=True) for split in ("train", "test"))
    train_set, test_set = (Data(found.images, found.depth) for found in loaded)
    return Lesson(*_of_scenes(train_set), test_set, _RECOLOUR, loss, _within)


def _of_scenes(train_set: Data) -> tuple[str, Data]:
    return f"rendered scenes, {len(train_set.images):,} for training, mirrored and recoloured", train_set


_RECOLOUR = _jointly(v2.RandomHorizontalFlip(), v2.ColorJitter(0.3, 0.3, 0.3))  # a zoom would change depth


_LESSONS = {
    ("fashion-mnist", "label"): _clothes,
    ("camvid", "classes"): _street_scenes,
    ("scenes", "classes"): _classes_of_scenes,
    ("scenes", "depth"): _depth_of_scenes,
}


def _lesson(name: str) -> Lesson:
    """What the network's row says that it learns."""
    network = registry.find(name)
    subject = (network.data_set, network.task)
    if subject not in _LESSONS:
        raise ValueError(f"name={name!r} is to learn {subject}; there are lessons for {', '.join(map(str, _LESSONS))}")
    return _LESSONS[subject]()


def _rare_classes_count_more(labels: Tensor, num_classes: int) -> Callable[[Tensor, Tensor], Tensor]:
    """Cross-entropy over pixels with ENet's weights (Paszke et al., 2016); void pixels are left out."""
    counts = labels[labels < num_classes].bincount(minlength=num_classes)
    weights = 1 / torch.log(1.1 + counts / counts.sum())
    return lambda logits, truth: F.cross_entropy(logits, truth, weights, ignore_index=num_classes)


@torch.no_grad()
def _accuracy(model: nn.Module, data: Data) -> dict:
    correct = [(model(x).argmax(1) == y).sum() for x, y in zip(*(t.split(500) for t in data), strict=True)]
    accuracy = (sum(correct) / len(data.targets)).item()
    return {"test_accuracy": round(accuracy, 4), "test_images": len(data.targets)}


def _mean_iou(model: nn.Module, data: Data) -> dict:
    num_classes = model.network.head.out_channels
    found = segmentation.confusion(predict(model, data.images), data.targets, num_classes).sum(0)
    return {
        "test_mean_iou": round(segmentation.mean_iou(found).item(), 4),
        "test_pixel_accuracy": round(segmentation.pixel_accuracy(found).item(), 4),
        "test_images": len(data.targets),
    }


def _within(model: nn.Module, data: Data) -> dict:
    found = depth.errors(predict(model, data.images), data.targets)
    means = {f"test_{name}": round(values.mean().item(), 4) for name, values in found.items()}
    return {**means, "test_images": len(data.targets)}


def train(
    name: str,
    folder: str | Path,
    seed: int = 0,
    epochs: int | None = None,
    threads: int = 1,
    progress: bool = True,
) -> dict:
    """Train a network of the project, write its weights and model card into a folder, and return the card.

    `uaplib.models.load(name, weights=folder / "NAME.safetensors")` loads them.

    AdamW with a one-cycle learning rate. The mini networks learn Fashion-MNIST, the networks for dense tasks
    CamVid's classes or the rendered scenes' classes or depth; their weights are kept in half precision, and the card
    tells what these do. The same seed and number of threads on the same machine give the same bits: the threads
    change the order of sums. Raises ValueError for an unknown name or a network that there is no lesson for,
    FileNotFoundError when the data is not there, and OSError at once when the folder cannot be written.
    """
    registry.check_trained(name)
    if epochs is not None and epochs < 1:
        raise ValueError(f"epochs must be at least 1, not {epochs}")
    path = Path(folder) / f"{name}.safetensors"
    check_writable(path, size=2**24)
    lesson = _lesson(name)
    network = registry.find(name)
    schedule = network.training._replace(**({"epochs": epochs} if epochs else {}))
    kept = torch.float32 if network.task == "label" else torch.float16
    started = time.perf_counter()
    with _deterministic(seed, threads):
        model = registry.build(name)
        _initialise(model)
        if hasattr(model.network, "encoder"):
            model.network.encoder.load_imagenet_weights()
        model.to(memory_format=torch.channels_last)
        _fit(model, lesson, schedule, progress)
        model.to(kept).float()  # the weights are stored so, and measured so
        grade = lesson.grade(model.eval(), lesson.test)
    weights = {
        key: value.contiguous().to(kept if value.is_floating_point() else value.dtype)
        for key, value in model.network.state_dict().items()
    }
    write_atomically(path, lambda temporary: temporary.write_bytes(save(weights)))
    card = {
        "name": name,
        "command": f"uaplib train {name} --seed {seed} --epochs {schedule.epochs} --threads {threads}",
        "data": lesson.about,
        "parameters": sum(p.numel() for p in model.parameters()),
        "seed": seed,
        "epochs": schedule.epochs,
        **grade,
        "seconds": round(time.perf_counter() - started),
        "threads": threads,
        "processor": f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}",
        "torch": torch.__version__,
    }
    write_text(path.with_suffix(".json"), json.dumps(card, indent=2) + "\n")
    return card


def _fit(model: nn.Module, lesson: Lesson, schedule: Schedule, progress: bool) -> None:
    data, size = lesson.train, schedule.batch_size
    steps = schedule.epochs * (len(data.targets) // size)
    optimiser = torch.optim.AdamW(model.parameters(), weight_decay=WEIGHT_DECAY)
    one_cycle = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, schedule.peak_learning_rate, total_steps=steps, pct_start=0.2
    )
    with tqdm(total=steps, desc="training", unit="step", disable=not progress) as bar:
        model.train()
        for _ in range(schedule.epochs):
            for batch in torch.randperm(len(data.targets)).split(size)[: len(data.targets) // size]:
                images, targets = lesson.augment(data.images[batch], data.targets[batch])
                loss = lesson.loss(model(images.contiguous(memory_format=torch.channels_last)), targets)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                one_cycle.step()
                bar.update()
                bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
