"""The released perturbations on a network that one of the papers used, read from its authors' own files.

    python benchmarks/reproduction.py --out uaplib/tables/reproduction.csv

Fooling rates on the Caffe GoogLeNet: of what was crafted on a GoogLeNet (the port's on torchvision's, all others on
this one), clipped and not clipped as the papers do; of some of these in the readings of their files that are wrong; of
UAPs and what else is not of GD-UAP, crafted on other networks; of noise. Photographs are the 1,000 of NIPS 2017; as
these are square, cropping the centre and the authors' squashing come to the same, so for some both are measured on the
1,000 ImageNet samples, too. Perturbations of 227 pixels are tiled, which here cuts three off. A row whose perturbation,
photographs and weights are the same as before is not measured again.
"""

import argparse
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torchvision.transforms import v2
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.networks import SETS
from uaplib import metrics, models, perturbation, provenance, published
from uaplib.files import write_text
from uaplib.models.spec import NETWORKS
from uaplib.perturbation import UniversalPerturbation
from uaplib.published import RELEASES

NETWORK, AS_IN_THE_PAPERS = "googlenet-caffe", "GoogLeNet"
KEY = ["perturbation", "layout", "set", "resize", "clip"]
DIGESTS = ["delta_sha256", "pictures_sha256", "weights_sha256"]
COLUMNS = [*KEY, "n", "fooling_rate", "low", "high", *DIGESTS]
SOME = ("uap-GoogLeNet", "uap-GoogLeNet-sfr-1", "fff-GoogLeNet", "gd-uap-data-GoogLeNet-authors")  # one of each origin


def wanted() -> Iterator[dict]:
    """The rows, what matters most first."""
    own = [name for name, release in RELEASES.items() if release.network == AS_IN_THE_PAPERS]
    plain = {"set": "nips2017", "resize": "crop"}
    for clip in (True, False):
        yield from ({"perturbation": name, "layout": layout(name), **plain, "clip": clip} for name in ["noise", *own])
    for name in SOME:
        axes, colours, unit = layout(name).split("-")
        turned = {"HWC": "WHC", "CHW": "CWH", "CWH": "CHW"}[axes]
        for wrong in (
            f"{axes}-{colours[::-1]}-{unit}",
            f"{turned}-{colours}-{unit}",
            f"{turned}-{colours[::-1]}-{unit}",
        ):
            yield {"perturbation": name, "layout": wrong, **plain, "clip": True}
    for name in SOME:
        for resize in ("crop", "squash"):
            yield {
                "perturbation": name,
                "layout": layout(name),
                "set": "imagenet-samples",
                "resize": resize,
                "clip": True,
            }
    for name, release in RELEASES.items():
        if name not in own and release.origin in ("lts4", "fff", "sfr"):
            yield {"perturbation": name, "layout": layout(name), **plain, "clip": True}


def layout(name: str) -> str:
    return RELEASES[name].layout if name in RELEASES else ""


def perturbation_of(row: dict) -> UniversalPerturbation:
    """The perturbation of a row, read as the row says."""
    name = row["perturbation"]
    if name not in RELEASES:
        return perturbation.noise(published.ball_of("uap-GoogLeNet"), (3, 224, 224))
    found = published.load(name)
    if row["layout"] == layout(name):
        return found
    release = RELEASES[name]
    return published.read(published.file_of(name), row["layout"], eps_255=release.budget_255, scale=release.scale)


@cache
def photographs(of: str, resize: str) -> tuple[torch.Tensor, torch.Tensor, str]:
    """The photographs as the network sees them, what it says of them, and their digest."""
    preprocessing = models.preprocessing(NETWORK)
    if resize == "squash":
        network = NETWORKS[NETWORK]
        preprocessing = v2.Compose([v2.Resize((network.resize,) * 2), preprocessing])
    images, _ = SETS[of]().load(preprocessing, progress=True)
    return images, metrics.predict(model(), images, progress=True), provenance.sha256_of(images)


@cache
def model():
    return models.load(NETWORK)


def measured(row: dict, known: pd.DataFrame) -> dict | None:
    """The row with its numbers; None where they are known."""
    found = perturbation_of(row)
    images, clean, pictures_sha256 = photographs(row["set"], row["resize"])
    every = (provenance.sha256_of(found.delta), pictures_sha256, provenance.weights_sha256(model()))
    digests = {name: digest[:16] for name, digest in zip(DIGESTS, every, strict=True)}
    same = known[(known[KEY] == pd.Series(row)[KEY]).all(axis=1)]
    if len(same) and same.iloc[-1][DIGESTS].to_dict() == digests:
        return None
    said = metrics.predict(model(), images, found.fitted(images).delta, clip=row["clip"])
    rate = metrics.fooling_rate(clean, said)
    low, high = np.round(100 * np.array(rate.interval), 1)
    about = {"n": rate.n, "fooling_rate": round(100 * rate.value, 1), "low": low, "high": high}
    return row | about | digests


def main() -> None:
    """Measure what is missing and write the table after each row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    table = pd.read_csv(out, keep_default_na=False) if out.exists() else pd.DataFrame(columns=COLUMNS)
    rows = list(wanted())
    order = {tuple(row[name] for name in KEY): number for number, row in enumerate(rows)}
    for row in tqdm(rows):
        if found := measured(row, table):
            table = pd.concat([table, pd.DataFrame([found])[COLUMNS]]).drop_duplicates(KEY, keep="last")
            places = [order.get(key, len(order)) for key in table[KEY].itertuples(index=False, name=None)]
            table = table.iloc[np.argsort(places, kind="stable")].reset_index(drop=True)
            write_text(out, table.to_csv(index=False))


if __name__ == "__main__":
    main()
