"""DeepFool and UAP timed side by side with peer libraries, in one process, in turns.

    python benchmarks/speed.py --runs 5 --out benchmarks/results.json

The network is a small one with batch normalisation, trained here for two passes over Fashion-MNIST. Besides the wall
time, the floor is reported: the bare cost of the forward and backward passes that an attack makes, found by recording
their batch sizes and repeating them with nothing in between.
"""

import argparse
import json
import math
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.conformance import conftest, reference  # noqa: F401  (conftest stands in for visdom)
from uaplib import attacks, metrics, models
from uaplib.attacks import _deepfool as deepfool_module
from uaplib.balls import NormBall
from uaplib.data import fashion_mnist
from uaplib.devices import device_name
from uaplib.models import Normalized
from uaplib.provenance import versions

UAP_BALL, UAP_IMAGES, UAP_PASSES = NormBall(math.inf, 0.1), 100, 3


def small_network() -> nn.Module:
    """Train a small batch-norm network for two passes."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(64, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(),
        nn.Flatten(), nn.Linear(64 * 49, 128), nn.ReLU(), nn.Linear(128, 10),
    )  # fmt: skip
    like = models.find("resnet-mini")
    model = Normalized(network, like.mean, like.std)
    images, labels = fashion_mnist.load("train")
    optimiser = torch.optim.Adam(model.parameters(), 1e-3)
    for _ in range(2):
        for batch in torch.randperm(len(labels)).split(128):
            optimiser.zero_grad()
            F.cross_entropy(model(images[batch]), labels[batch]).backward()
            optimiser.step()
    return model.eval().requires_grad_(False).to(memory_format=torch.channels_last)


def deepfool_contestants(model: nn.Module, images: Tensor, labels: Tensor) -> dict[str, Callable[[], Tensor]]:
    """Return, by name, functions that run DeepFool (l2, 10 classes, overshoot 0.02, 50 steps) and give images."""
    contestants = {"uaplib": lambda: images + attacks.deepfool(model, images, labels, clip=True).perturbations}
    from adv_lib.attacks import df
    from foolbox import PyTorchModel
    from foolbox.attacks import L2DeepFoolAttack
    from torchattacks import DeepFool

    contestants["adv-lib"] = lambda: df(model, images, labels, steps=50, overshoot=0.02, norm=2)
    wrapped = PyTorchModel(model, bounds=(0, 1), device="cpu")
    attack = L2DeepFoolAttack(steps=50, candidates=10, overshoot=0.02)
    contestants["foolbox"] = lambda: attack(wrapped, images, labels, epsilons=None)[0]
    contestants["torchattacks"] = lambda: DeepFool(model, steps=50, overshoot=0.02)(images, labels)
    if art := _art_classifier(model):
        from art.attacks.evasion import DeepFool as ArtDeepFool

        art_attack = ArtDeepFool(art, max_iter=50, epsilon=0.02, nb_grads=10, batch_size=len(images), verbose=False)
        contestants["ART"] = lambda: torch.from_numpy(art_attack.generate(images.numpy(), labels.numpy()))
    return contestants


def uap_contestants(model: nn.Module, images: Tensor) -> dict[str, Callable[[], tuple[Tensor, list[float]]]]:
    """Return, by name, functions that craft a UAP without clipping and give it with its rates, pass by pass."""
    generator = torch.Generator().manual_seed(0)
    orders = [torch.randperm(len(images), generator=generator).tolist() for _ in range(UAP_PASSES)]

    def ours():
        found = attacks.uap(model, images, UAP_BALL, target_rate=1.0, max_passes=UAP_PASSES, clip=False)
        return found.delta, [entry["crafting_fooling_rate"] for entry in found.history]

    def port():
        return reference.uap(model, images, orders, p=math.inf, eps=UAP_BALL.eps, target_rate=1.0)

    contestants = {"uaplib": ours, "port of the authors' loop": port}
    if art := _art_classifier(model):
        from art.attacks.evasion import UniversalPerturbation

        def arts():
            parameters = {"max_iter": 10, "epsilon": 0.02, "nb_grads": 10, "verbose": False}
            attack = UniversalPerturbation(
                art, "deepfool", parameters, delta=0.0, max_iter=UAP_PASSES, eps=UAP_BALL.eps, norm=math.inf,
                verbose=False,
            )  # fmt: skip
            attack.generate(images.numpy())
            return torch.from_numpy(attack.noise), [attack.fooling_rate]

        contestants["ART"] = arts
    return contestants


def _art_classifier(model: nn.Module):
    try:
        from art.attacks import evasion  # noqa: F401 (whatever is missing is to be missed here)
        from art.estimators.classification import PyTorchClassifier
    except ImportError as error:
        print(f"ART is left out: {error}")
        return None
    return PyTorchClassifier(
        model, nn.CrossEntropyLoss(), (1, 28, 28), 10, clip_values=(0, 1), device_type="cpu"
    )  # fmt: skip


def floor(run: Callable[[], object], model: nn.Module, images: Tensor) -> float:
    """Return the seconds that the network's passes alone take, in the batches that `run` makes them in."""
    events: list[tuple[int, int]] = []  # batch size, and number of rivals (0: a forward pass without gradients)
    margins = deepfool_module.margins_and_normals

    def note(module, inputs, output):
        events.append((len(output), 0))

    def recording(model, point, classes, logits=None):
        passes = len(events)
        found = margins(model, point, classes, logits)
        del events[passes:]  # a pass made in there belongs to the gradients
        if logits is not None and len(point) > deepfool_module._REPEATED_IMAGES:
            events.pop()  # and so does the one that checked the labels
        events.append((len(point), classes.shape[1] - 1))
        return found

    hook = model.register_forward_hook(note)
    deepfool_module.margins_and_normals = recording
    try:
        run()
    finally:
        hook.remove()
        deepfool_module.margins_and_normals = margins
    images = images.repeat(-(-max(size for size, _ in events) // len(images)), 1, 1, 1)
    classes = torch.arange(10).repeat(len(images), 1)
    started = time.perf_counter()
    for size, rivals in events:
        if rivals:
            margins(model, images[:size], classes[:size, : rivals + 1])
        else:
            with torch.no_grad():
                model(images[:size])
    return time.perf_counter() - started


def in_turns(contestants: dict[str, Callable], runs: int) -> tuple[dict[str, list[float]], dict]:
    """Run all contestants `runs` times, A B C A B C ..., after one warm-up; return seconds and last results."""
    seconds, results = {name: [] for name in contestants}, {}
    for turn in range(runs + 1):
        for name, run in contestants.items():
            started = time.perf_counter()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                results[name] = run()
            if turn:
                seconds[name].append(time.perf_counter() - started)
            print(f"turn {turn}: {name} {time.perf_counter() - started:.2f} s", flush=True)
    return seconds, results


def main() -> None:
    """Measure, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("results.json"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = small_network()
    test = fashion_mnist.load("test", 130)
    right = metrics.predict(model, test.images) == test.labels
    images, labels = test.images[right][:119], test.labels[right][:119]
    crafting = fashion_mnist.load("train", UAP_IMAGES).images

    report = {"machine": device_name(), "versions": versions(), "runs": options.runs, "deepfool": {}, "uap": {}}
    contestants = deepfool_contestants(model, images, labels)
    seconds, results = in_turns(contestants, options.runs)
    for name, adversarial in results.items():
        fooled = metrics.predict(model, adversarial.clamp(0, 1)) != labels
        report["deepfool"][name] = {
            "seconds": statistics.median(seconds[name]),
            "fooled": metrics.share(fooled).value,
            "median_norm": metrics.norms(adversarial - images)[fooled].median().item(),
        }
    report["deepfool"]["uaplib"]["floor_seconds"] = floor(contestants["uaplib"], model, images)

    contestants = uap_contestants(model, crafting)
    seconds, results = in_turns(contestants, options.runs)
    for name, (delta, rates) in results.items():
        report["uap"][name] = {
            "seconds": statistics.median(seconds[name]),
            "passes": UAP_PASSES,
            "final_rate": rates[-1],
            "largest_difference_from_port": (delta - results["port of the authors' loop"][0]).abs().max().item(),
        }
    report["uap"]["uaplib"]["floor_seconds"] = floor(contestants["uaplib"], model, crafting)
    options.out.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
