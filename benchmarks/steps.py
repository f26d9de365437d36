"""Accepted steps per second of the universal attack on large networks, and what one step is made of.

Compares, on one image, the margins' gradients by one pass over copies of the image with one backward pass a rival, both
behind the forward pass that checks the label, and counts the steps of one pass of `uap` and its seconds with either,
clean predictions and the rates at the end among them. On GoogLeNet the latter again with PyTorch's response
normalisation in the place of the library's. Writes `steps.json` beside this file.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1]))

from uaplib import data, models
from uaplib.attacks import _deepfool, uap
from uaplib.balls import linf
from uaplib.devices import device_name
from uaplib.provenance import versions

NETWORKS = ("mobilenet-v1-0.25", "efficientnet-lite0", "googlenet-caffe")
WAYS = {"copies": 10**9, "backward passes": 0}  # more values of an image than so many are not copied


@contextmanager
def way(name: str) -> Iterator[None]:
    """Make the margins' gradients in one of the `WAYS`, whatever the size of the image."""
    before = _deepfool._REPEATED_VALUES
    _deepfool._REPEATED_VALUES = WAYS[name]
    try:
        yield
    finally:
        _deepfool._REPEATED_VALUES = before


def median(function, turns: int = 7) -> float:
    """Seconds of a call, the median of some turns after a warm-up."""
    function()
    found = []
    for _ in range(turns):
        begin = time.perf_counter()
        function()
        found.append(time.perf_counter() - begin)
    return statistics.median(found)


def gradients(model, image, classes) -> None:
    """Make the margins' gradients as a step of the attack does."""
    point, logits = _deepfool._pass(model, image)
    _deepfool.margins_and_normals(model, point, classes, logits)


def crafted(model, images) -> dict:
    """Steps per second of one pass over the images."""
    uap(model, images[:2], linf(10), max_passes=1, target_rate=1.0)  # a warm-up
    begin = time.perf_counter()
    found = uap(model, images, linf(10), max_passes=1, target_rate=1.0)
    seconds = time.perf_counter() - begin
    return {"steps": found.history[-1]["accepted"], "steps_per_second": found.history[-1]["accepted"] / seconds}


def measure(name: str, count: int) -> dict:
    """Both ways on one network."""
    model = models.load(name)
    images = data.load("imagenet-samples", "crafting", count, models.preprocessing(name)).images
    classes = model(images[:1]).topk(10).indices

    def measured(name_of_way: str) -> dict:
        with way(name_of_way):
            seconds = median(lambda: gradients(model, images[:1], classes))
            return {"gradients_seconds": seconds} | crafted(model, images)

    found = {name_of_way: measured(name_of_way) for name_of_way in WAYS}
    if name == "googlenet-caffe":
        model.network.norm = nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=1.0).eval()
        found["backward passes, PyTorch's response normalisation"] = measured("backward passes")
    return found


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=60)
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    found = {"machine": device_name(), "versions": versions(), "threads": chosen.threads, "images": chosen.images}
    for name in NETWORKS:
        found[name] = measure(name, chosen.images)
        print(name, json.dumps(found[name], indent=1))
    (Path(__file__).with_suffix(".json")).write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
