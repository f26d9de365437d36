"""Transfer matrices: the time of one cell over the bare forward passes of the network, and images per second.

    python benchmarks/transfer.py --out benchmarks/transfer.json

Bare: logits of the perturbed, clipped images in batches of the same size, nothing else. Both are timed in turns, and
medians are compared. A cell's clean predictions are shared by its column and timed by neither.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from uaplib import models
from uaplib.devices import device_name
from uaplib.experiments import Recipe, images_for, linf
from uaplib.provenance import versions
from uaplib.transfer import Victim

CASES = {"efficientnet-lite0": (10, 96, 8), "resnet-mini": (24, 2000, 500)}  # budget, images, batch size


def seconds(run: Callable[[], object]) -> float:
    """Return the wall time of one call."""
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def compare(name: str, turns: int) -> dict:
    """Time cells and bare passes of one network in turns."""
    eps_255, count, batch_size = CASES[name]
    model, (images, labels) = models.load(name), images_for(name, "evaluation", count)
    source = Recipe("gd-uap-range", name, linf(eps_255)).load_or_craft()
    victim = Victim(model, images, labels, True, batch_size)
    victim.clean  # noqa: B018, a cached property

    @torch.no_grad()
    def bare() -> None:
        for batch in images.split(batch_size):
            model((batch + source.delta).clamp(0, 1))

    bare()  # warm up
    times = [(seconds(lambda: victim.measure(source)), seconds(bare)) for _ in range(turns)]
    cell, floor = (statistics.median(column) for column in zip(*times, strict=True))
    return {
        "images": count, "batch_size": batch_size, "cell_seconds": round(cell, 3), "bare_seconds": round(floor, 3),
        "ratio": round(cell / floor, 3), "images_per_second": round(count / cell, 1),
    }  # fmt: skip


def main() -> None:
    """Measure, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("transfer.json"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    found = {
        "machine": device_name(torch.device("cpu")), "versions": versions(),
        "networks": {name: compare(name, options.turns) for name in CASES},
    }  # fmt: skip
    print(json.dumps(found, indent=2))
    options.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
