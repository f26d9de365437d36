"""Top-1 of the networks that are read from their authors' files, on the 1,000 ImageNet samples and those of NIPS 2017.

    python benchmarks/networks.py --out uaplib/tables/network-accuracy.csv

For each network and set two rows: all 1,000 pictures, and every twentieth, which a test measures again. Rows that the
table has of pictures in files of another kind stay: the images of NIPS 2017 were published as PNG, and smaller copies
are JPEG.
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
KEY = ["network", "set", "files", "n"]


def measure(name: str, of: str) -> pd.DataFrame:
    """Return the two rows of a network and a set; pictures are read in parts: all of them would need gigabytes."""
    model, preprocessing, found = models.load(name), models.preprocessing(name), SETS[of]()
    right = []
    for start in range(0, len(found), 100):
        images, labels = found[start : start + 100].load(preprocessing)
        right += (metrics.predict(model, images, batch_size=10) == labels).tolist()
    kind = found.files[0].suffix[1:].lower()
    rows = [(name, of, kind, len(part), round(100 * sum(part) / len(part), 1)) for part in (right, right[::STEP])]
    return pd.DataFrame(rows, columns=[*KEY, "top1"])


def main() -> None:
    """Measure every network on both sets and write the table after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    table = pd.read_csv(arguments.out) if arguments.out.exists() else pd.DataFrame(columns=[*KEY, "top1"])
    for name in ORIGINALS:
        for of in SETS:
            table = pd.concat([table, measure(name, of)]).drop_duplicates(KEY, keep="last")
            table.sort_values(KEY, key=in_order).to_csv(arguments.out, index=False)
            print(table.tail(2).to_string(header=False, index=False), flush=True)


def in_order(column: pd.Series) -> pd.Series:
    """Networks in the order of the library's list, the rest in the order of the alphabet."""
    return column.map({name: number for number, name in enumerate(ORIGINALS)}) if column.name == "network" else column


if __name__ == "__main__":
    main()
