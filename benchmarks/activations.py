"""GD-UAP: the time of one iteration over the bare forward and backward pass of the network.

    python benchmarks/activations.py --out benchmarks/activations.json

Bare: EfficientNet-Lite0's logits, summed, and the gradient with respect to the images. Both are timed in turns, and
medians are compared. Memory is the process's largest resident set after many iterations over that after few.
"""

import argparse
import json
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))

from uaplib import features, models
from uaplib.attacks.activations import Settings, Task, _Run, energy
from uaplib.balls import linf
from uaplib.devices import device_name
from uaplib.models import Normalized
from uaplib.provenance import versions


def bare(model: Normalized, pictures: Tensor) -> None:
    """One forward and one backward pass to the images."""
    point = pictures.clone().requires_grad_()
    torch.autograd.grad(model(point).sum(), point)


def iteration(model: Normalized, pictures: Tensor) -> Callable[[], object]:
    """Return a function that makes one iteration of GD-UAP on these pictures."""
    never = 10**9
    settings = Settings(4 / 255, len(pictures), never, check_every=never, check_after=0, patience=never, halve_every=25)
    layers = features.choose(model, pictures[:1], "blocks")
    task = Task(model, linf(10), layers, energy, lambda count: pictures, pictures, "gd-uap", "", 0, {})
    run = _Run(task, settings)
    run.begin()
    return run.step


def seconds(run: Callable[[], object]) -> float:
    """Return the wall time of one call."""
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def main() -> None:
    """Measure, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=40)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("activations.json"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = models.load("efficientnet-lite0")
    report = {"machine": device_name(), "versions": versions(), "turns": options.turns, "batches": {}}
    for size in (1, 8):
        pictures = torch.rand(size, 3, model.size, model.size)
        ours = iteration(model, pictures)
        times = [(seconds(ours), seconds(lambda: bare(model, pictures))) for _ in range(options.turns)][3:]  # noqa: B023
        whole, floor = (statistics.median(column) for column in zip(*times, strict=True))
        report["batches"][size] = {"iteration_s": whole, "bare_s": floor, "ratio": whole / floor}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(options.turns):
        ours()
    report["memory_growth"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / before
    options.out.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
