"""Which images a network sees in which role, and the digests by which a result says what it was made on.

Roles are those of `uaplib.data.load`; which data set a network meets stands in its row of the networks' table.
"""

import json
from collections.abc import Callable
from functools import cache, lru_cache

from torch import Tensor

from uaplib import data, models, provenance
from uaplib.experiments import store
from uaplib.files import write_text

FILE = "images.json"  # in the book's artifacts: digests of the images that they were made on
Record = Callable[[str, str, int | None], dict]


def images_for(model: str, role: str, count: int | None = None) -> tuple[Tensor, Tensor]:
    """Return the first `count` images (N, C, H, W) in [0, 1] of a role, and what the network should say of them.

    That is labels, int64, (N,) or (N, H, W), or depth, float32, (N, H, W), as far as it is known: of photographs, the
    label of the whole. `count`: at most what there is; all by default. Raises ValueError for a count below 1, an
    unknown role, and where nobody has labelled what has to be evaluated.
    """
    network = models.find(model)
    known = data.DATA_SETS[network.data_set].tasks
    if role == "evaluation" and network.task not in known:
        raise ValueError(
            f"{model} says something about pixels, and no pictures with such labels are at hand; "
            "give yours to uaplib.metrics.segmentation.evaluate or uaplib.metrics.depth.evaluate"
        )
    return _load(model, role, None if count is None else min(count, data.most(network.data_set, role)))


@lru_cache(6)  # a thousand photographs take half a gigabyte, and a matrix has many networks
def _load(model: str, role: str, count: int | None) -> tuple[Tensor, Tensor]:
    network = models.find(model)
    preprocessing = models.preprocessing(model) if network.resize else None
    found = data.load(network.data_set, role, count, preprocessing)
    return found.images, found.depth if network.task == "depth" and "depth" in found._fields else found.labels


def images_from(model: str, role: str) -> str:
    """Return in words where the images of a role come from."""
    return data.describe(models.find(model).data_set, role)


@cache
def at_hand(model: str, role: str, count: int | None = None) -> dict:
    """Return number and digest of the images of a role, and of what is known of them, as they are here."""
    images, truth = images_for(model, role, count)
    return provenance.images_record(images) | {"truth_sha256": provenance.sha256_of(truth)}


def of_the_book(model: str, role: str, count: int | None = None) -> dict:
    """Return `at_hand` for the images that the book's own artifacts were made on.

    So these are found where the images are not, and where they are encoded otherwise. Raises KeyError where the book
    knows no such images.
    """
    file = store.find(FILE)
    known = json.loads(file.read_text(encoding="utf-8")) if file else {}
    return known[_seen_by(model)][_part(role, count)]


def keep(parts: set[tuple[str, str, int | None]]) -> None:
    """Write `at_hand` of these (model, role, count) into the book's artifacts."""
    found: dict[str, dict] = {}
    for model, role, count in parts:
        found.setdefault(_seen_by(model), {})[_part(role, count)] = at_hand(model, role, count)
    write_text(store.kept_folder() / FILE, json.dumps(found, indent=2, sort_keys=True) + "\n")


def _part(role: str, count: int | None) -> str:
    return role if count is None else f"{role}-{count}"


def _seen_by(model: str) -> str:
    """The images that a network sees, in the size in which it sees them, and what it is to say of them."""
    network = models.find(model)
    return f"{network.data_set}, {model if network.resize else network.task}"
