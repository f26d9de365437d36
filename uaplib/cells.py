"""The cells of all tables: what one perturbation does to one network, in counts, under a key of all it depends on."""

from collections.abc import Mapping, Sequence
from typing import Any

from uaplib import provenance
from uaplib.balls import NormBall
from uaplib.journal import Journal
from uaplib.perturbation import UniversalPerturbation


def cell_key(
    *,
    delta_sha256: str,
    shape: Sequence[int],
    ball: NormBall,
    weights_sha256: str,
    images_sha256: str,
    truth_sha256: str,
    clip: bool,
    autocast: str | None,
    fit: str | None = None,
) -> str:
    """Return the key of a cell: `uaplib.provenance.key` of all that its counts depend on.

    delta_sha256, images_sha256 and truth_sha256: as `uaplib.provenance.sha256_of` of the tensors, the perturbation as
    it was crafted and with its shape, for it is brought to another size and projected onto its ball again. autocast:
    the name of the type, for instance "torch.bfloat16", None without. fit: how it comes to the victim's size, one of
    `uaplib.perturbation.FITS`; None where it has that size.
    """
    how = {"fit": fit} if fit else {}
    return provenance.key(
        delta_sha256=delta_sha256, shape=list(shape), ball=[str(ball.p), str(ball.eps)],
        weights_sha256=weights_sha256, images_sha256=images_sha256, truth_sha256=truth_sha256,
        clip=clip, autocast=autocast, **how,
    )  # fmt: skip


LABELS = ("source", "victim", "task")  # what a cell is about


def compact(journal: Journal) -> int:
    """Remove the cells about which there is a later word, and return how many have gone."""
    last = {(key, *labels) for labels, (key, _) in journal.last(*LABELS).items()}

    def keep(key: str, cell: dict) -> bool:
        labels = (key, *(cell[name] for name in LABELS))
        said = labels in last
        last.discard(labels)
        return said

    return journal.compact(keep)


def new_cell(name: str, source: UniversalPerturbation, victim: str, task: str, counts: Mapping[str, Any]) -> dict:
    """Return the record of a cell, JSON-safe, as journals keep it.

    name: of the perturbation in tables. source: the perturbation, in the size of the victim's images. task: the
    victim's, a row of `uaplib.metrics.tasks.TASKS`, which reads the counts.
    """
    return {
        "source": name, "crafted_on": source.source, "method": source.method, "seed": source.seed, "victim": victim,
        "task": task, "resized": source.run.get("resized"), "counts": counts,
    }  # fmt: skip
