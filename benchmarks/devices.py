"""The book's perturbations on a GPU: crafted there beside the kept ones, which a CPU crafted, and measured there.

    python benchmarks/devices.py --device cuda --out benchmarks/devices.json

Crafted: of each recipe, the rate and the time of the kept perturbation and of the one crafted on the device, both
measured on the CPU. Measured: how many predictions on the device are not those of the CPU, of the images as they are
and under the network's first kept perturbation, in the precision that PyTorch computes in by default, in whole single
precision, and under autocast; and the seconds of each.
"""

import argparse
import json
import time
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from uaplib import metrics, models
from uaplib.balls import linf
from uaplib.devices import device_name, pick_device, whole_precision
from uaplib.experiments import images_for
from uaplib.experiments.recipes import Recipe
from uaplib.experiments.studies import IMAGENET_EPS_255, IMAGENET_MODELS, PRIORS, mini_study, uap_study
from uaplib.provenance import versions


def recipes() -> list[Recipe]:
    """Return what is crafted again: every method on the minis, and on the first ImageNet network what needs minutes."""
    minis = [recipe for recipe in mini_study() if recipe.method != "noise"]
    lite = [Recipe(method, IMAGENET_MODELS[0], linf(IMAGENET_EPS_255)) for method in ("fff", *PRIORS)]
    return [uap_study()["budgets"][5], *minis, *lite]


def craft(recipe: Recipe, device: torch.device) -> dict:
    """Return how the recipe crafted on the device compares with the kept artifact."""
    kept, crafted = recipe.find(), recipe.craft(device=device)
    rates = [recipe.measure(each).fooling_rate for each in (kept, crafted)]
    return {
        "recipe": recipe.name,
        "kept on": kept.run["device"], "kept rate": rates[0].value, "kept s": kept.run["seconds"],
        "rate": rates[1].value, "n": rates[1].n, "s": crafted.run["seconds"],
        "same key": kept.key == crafted.key,
    }  # fmt: skip


@torch.no_grad()
def say(model: nn.Module, images: Tensor, delta: Tensor | None) -> Tensor:
    """Return the predicted labels, on the CPU; unlike `metrics.predict`, in the precision that is set."""
    perturbed = images if delta is None else (images + delta.to(images)).clamp(0, 1)
    return torch.cat([model(chunk).argmax(1) for chunk in perturbed.split(200)]).cpu()


def measure(recipe: Recipe, device: torch.device) -> list[dict]:
    """Return how predictions on the device differ from the CPU's, one entry for each precision."""
    images, _ = images_for(recipe.model, "evaluation")
    deltas = [None, recipe.find().delta]
    expected = [metrics.predict(models.load(recipe.model), images, delta) for delta in deltas]
    model, moved = models.load(recipe.model, device), images.to(device)
    precisions = {
        "default": nullcontext(),
        "float32": whole_precision(),
        "bfloat16": torch.autocast(device.type, torch.bfloat16),
        "float16": torch.autocast(device.type, torch.float16),
    }
    rows = []
    for precision, inside in precisions.items():
        with inside:
            say(model, moved, None)  # the first call chooses algorithms
            started = time.perf_counter()
            found = [say(model, moved, delta) for delta in deltas]
            seconds = time.perf_counter() - started
        others = [int((a != b).sum()) for a, b in zip(found, expected, strict=True)]
        rates = [metrics.fooling_rate(*said).value for said in (expected, found)]
        rows.append({
            "recipe": recipe.name, "precision": precision, "n": len(images), "others": others, "rates": rates,
            "s": round(seconds, 3),
        })  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", default="", help="recipes whose names contain this")
    arguments = parser.parse_args()
    device = pick_device(arguments.device)
    found = {"device": device_name(device), "versions": versions(), "crafted": [], "measured": []}
    chosen = [recipe for recipe in recipes() if arguments.only in recipe.name]
    first = {recipe.model: recipe for recipe in reversed(chosen)}
    for recipe in tqdm(first.values(), desc="measuring"):
        found["measured"] += measure(recipe, device)
        arguments.out.write_text(json.dumps(found, indent=1) + "\n")
    for recipe in tqdm(chosen, desc="crafting"):
        found["crafted"].append(craft(recipe, device))
        arguments.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
