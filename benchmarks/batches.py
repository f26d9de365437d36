"""What batches cost the universal attack: steps, seconds and rates on a real network, by images at a time.

    OMP_NUM_THREADS=1 python benchmarks/batches.py

The same photographs in the same order, the same number of passes; rates are of NIPS 2017's photographs. Writes
`batches.json` beside this file.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from uaplib import models
from uaplib.attacks import batched_uap
from uaplib.balls import linf
from uaplib.devices import device_name
from uaplib.experiments import images_for
from uaplib.provenance import versions

NETWORK, BATCHES = "mobilenet-v1-0.25", (1, 2, 4, 8, 16)


def measure(batch: int, images: int, passes: int) -> dict:
    """Craft with so many images at a time, and return what became of it, pass by pass."""
    model, ball = models.load(NETWORK), linf(10)
    seen, unseen = images_for(NETWORK, "crafting", images)[0], images_for(NETWORK, "evaluation")[0]
    begin = time.perf_counter()
    options = {"batch": batch, "max_passes": passes, "target_rate": 1.0, "source": NETWORK}
    found = batched_uap(model, seen, ball, held_out=unseen, progress=True, **options)
    seconds = time.perf_counter() - begin
    largest = ball.eps * found.delta.numel() ** 0.5
    return {
        "seconds": round(seconds, 1),
        "steps": sum(entry["accepted"] for entry in found.history),
        "held_out_rate": [round(entry["held_out_fooling_rate"], 3) for entry in found.history],
        "crafting_rate": [round(entry["crafting_fooling_rate"], 3) for entry in found.history],
        "norm_share": [round(entry["l2_norm"] / largest, 3) for entry in found.history],
    }


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=900)
    parser.add_argument("--passes", type=int, default=5)
    chosen = parser.parse_args()
    found = {"machine": device_name(), "versions": versions(), "threads": torch.get_num_threads(), **vars(chosen)}
    for batch in BATCHES:
        found[f"batch {batch}"] = measure(batch, chosen.images, chosen.passes)
        print(batch, json.dumps(found[f"batch {batch}"]), flush=True)
    Path(__file__).with_suffix(".json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
