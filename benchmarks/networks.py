"""Top-1 of the networks that are read from their authors' files, on the 1,000 ImageNet samples and those of NIPS 2017.

    python benchmarks/networks.py --out uaplib/tables/network-accuracy.csv

For each network and set two rows: all 1,000 pictures, and every twentieth, which a test measures again.
"""

import argparse
import sys
from pathlib import Path

import pandas as pd

sys.path.insert(0, str(Path(__file__).parents[1]))

from uaplib import metrics, models
from uaplib.data import pictures
from uaplib.models.spec import ORIGINALS

SETS = {"imagenet-samples": pictures.all_samples, "nips2017": pictures.nips2017}
STEP = 20


def rows(name: str, of: str) -> list[dict]:
    """Measure one network on one set, 100 pictures at a time: together they need gigabytes."""
    model, preprocessing, found = models.load(name), models.preprocessing(name), SETS[of]()
    right = []
    for start in range(0, len(found), 100):
        images, labels = found[start : start + 100].load(preprocessing)
        right += (metrics.predict(model, images, batch_size=10) == labels).tolist()
    return [
        {"network": name, "set": of, "n": len(part), "top1": round(100 * sum(part) / len(part), 1)}
        for part in (right, right[::STEP])
    ]


def main() -> None:
    """Measure every network on both sets and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    table = pd.DataFrame()
    for name in ORIGINALS:
        for of in SETS:
            table = pd.concat([table, pd.DataFrame(rows(name, of))])
            table.to_csv(arguments.out, index=False)
            print(table.tail(2).to_string(header=False, index=False), flush=True)


if __name__ == "__main__":
    main()
