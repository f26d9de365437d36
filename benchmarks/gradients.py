"""What a gradient of an image costs an attack, beside the bare passes: forward and backward, nothing in between.

Times runs of the attacks by stochastic gradients and as many passes over batches of the same size, in turns, in one
process. Writes `gradients.json` beside this file.
"""

import json
import statistics
import sys
import time
from pathlib import Path

import torch
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parents[1]))

from uaplib import models
from uaplib.attacks import METHODS
from uaplib.balls import linf
from uaplib.devices import device_name
from uaplib.provenance import versions

NETWORKS = {"resnet-mini": (24, 6000), "mobilenet-v1-0.25": (10, 1500)}  # budget in 255ths, gradients
ATTACKS = {"sgd-uap": 32, "sga": 10, "df-uap": 32, "cosine-uap": 32, "dm-uap": 20}  # images of a batch
TURNS = 5


def bare(model, images, batch, gradients) -> float:
    """Seconds of so many gradients of clipped sums, with nothing in between."""
    v, begin = torch.zeros_like(images[:1], requires_grad=True), time.perf_counter()
    for _ in range(gradients // batch):
        logits = model((images[:batch] + v).clamp(0, 1))
        torch.autograd.grad(F.cross_entropy(logits, logits.argmax(1)), v)
    return time.perf_counter() - begin


def attack(method, model, images, ball, gradients) -> float:
    """Seconds of a run, as its record has them, per gradient that it has spent, times `gradients`."""
    row = METHODS[method]
    found = row.craft(model, ball, row.settings(ball, max_gradients=gradients), {"images": images})
    return found.run["seconds"] / found.run["gradients"] * gradients


def main() -> None:
    """Time all and write the table."""
    torch.set_num_threads(1)
    table = {}
    for name, (eps_255, gradients) in NETWORKS.items():
        model = models.load(name)
        images = torch.rand(200, *models.find(name).shape)
        for method, batch in ATTACKS.items():
            pairs = [
                (attack(method, model, images, linf(eps_255), gradients), bare(model, images, batch, gradients))
                for _ in range(TURNS)
            ]
            seconds, passes = (statistics.median(each) for each in zip(*pairs, strict=True))
            ratio = statistics.median(a / b for a, b in pairs)
            table[f"{method} on {name}"] = {"seconds": seconds, "bare": passes, "ratio": ratio}
            print(f"{method:12s} on {name:20s} {seconds:6.2f} s, bare passes {passes:6.2f} s, ratio {ratio:.2f}")
    about = {"device": device_name(), "versions": versions(), "turns": TURNS, "results": table}
    Path(__file__).with_suffix(".json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
