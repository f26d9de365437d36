"""Top-1 of the networks that are read from their authors' files, on the 1,000 ImageNet samples and those of NIPS 2017.

    python benchmarks/networks.py --files published --out uaplib/tables/network-accuracy.csv

For each network and set two rows: all 1,000 pictures, and every twentieth, which a test measures again. Of both sets
there are smaller copies: the samples with a short side of 300 pixels, NIPS 2017's images as JPEG. Accuracy is another
then, so the table says which files were read, with the first digits of their SHA-256.
"""

import argparse
import sys
from pathlib import Path

import pandas as pd

sys.path.insert(0, str(Path(__file__).parents[1]))

from uaplib import metrics, models
from uaplib.data import nips2017, pictures
from uaplib.models.spec import ORIGINALS

SETS = {"imagenet-samples": pictures.all_samples, "nips2017": nips2017.pictures}
STEP = 20
KEY = ["network", "set", "files", "n"]
COLUMNS = ["network", "set", "files", "sha256", "n", "top1"]


def measure(name: str, of: str, files: str) -> pd.DataFrame:
    """Return the two rows of a network and a set; pictures are read in parts: all of them would need gigabytes."""
    model, preprocessing, found = models.load(name), models.preprocessing(name), SETS[of]()
    right = []
    for start in range(0, len(found), 100):
        images, labels = found[start : start + 100].load(preprocessing)
        right += (metrics.predict(model, images, batch_size=10) == labels).tolist()
    parts = (found, right), (found[::STEP], right[::STEP])
    rows = [
        (name, of, files, seen.sha256()[:16], len(seen), round(100 * sum(hits) / len(seen), 1)) for seen, hits in parts
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def main() -> None:
    """Measure every network on both sets and write the table after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", choices=("published", "copies"), required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    table = pd.read_csv(arguments.out) if arguments.out.exists() else pd.DataFrame(columns=COLUMNS)
    for name in ORIGINALS:
        for of in SETS:
            table = pd.concat([table, measure(name, of, arguments.files)]).drop_duplicates(KEY, keep="last")
            table.sort_values(KEY, key=in_order).to_csv(arguments.out, index=False)
            print(table.tail(2).to_string(header=False, index=False), flush=True)


def in_order(column: pd.Series) -> pd.Series:
    """Networks in the order of the library's list, the rest in the order of the alphabet."""
    return column.map({name: number for number, name in enumerate(ORIGINALS)}) if column.name == "network" else column


if __name__ == "__main__":
    main()
