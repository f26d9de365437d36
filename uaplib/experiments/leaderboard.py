"""The leaderboard: which perturbations fool most, on networks that they have seen and on those that they have not.

A row is a perturbation of the study "families", or a submission: a file of someone else's in the folder `SUBMISSIONS`
of the artifacts. All rows have the same budget, networks and photographs, so that they can be compared image by image.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from uaplib import metrics, models, provenance
from uaplib.attacks import METHODS
from uaplib.attacks.methods import SEES
from uaplib.experiments import images, registry, store
from uaplib.experiments.recipes import Recipe
from uaplib.experiments.studies import (
    IMAGENET_EPS_255,
    SUBMISSIONS,
    TransferStudy,
    pattern_name,
    submission,
    transfer_studies,
)
from uaplib.metrics import Estimate, Proportion
from uaplib.models.registry import SEPARATOR
from uaplib.names import check_name
from uaplib.perturbation import UniversalPerturbation
from uaplib.releases import RELEASES
from uaplib.transfer import TransferMatrix

STUDY = "families"
GROUPS = ("not optimised", "without data", "with data")
PAGE = "leaderboard.md"


@dataclass(frozen=True)
class Entry:
    """One perturbation and what it does.

    name: of its row. method, title: in words, without and with its settings. group: one of `GROUPS`. crafted_on:
    networks, joined by "+". sees: one of `SEES`, or empty where nobody said. gradients: of one image, that crafting
    took, None where that is not on record. made: the command that crafts it, or where it was released. fooled: for each
    victim which photographs, booleans (N,). seen: the victims that it was crafted on.
    """

    name: str
    method: str
    title: str
    group: str
    crafted_on: str
    sees: str
    gradients: int | None
    seed: int | None
    made: str
    fooled: Mapping[str, np.ndarray]
    seen: frozenset[str]

    def rate(self, victim: str) -> Proportion:
        """Return the fooling rate on a victim."""
        return Proportion(int(self.fooled[victim].sum()), len(self.fooled[victim]))

    @cached_property
    def unseen(self) -> list[str]:
        """The victims that it was not crafted on."""
        return [victim for victim in self.fooled if victim not in self.seen]

    def shares(self, victims: Sequence[str]) -> np.ndarray:
        """Return for each photograph the share of these victims, at least one, that are fooled, (N,), in [0, 1]."""
        return np.mean([self.fooled[victim] for victim in victims], axis=0)

    def mean(self, victims: Sequence[str]) -> Estimate:
        """Return the mean fooling rate on these victims, with its 95 % interval by bootstrap over the photographs."""
        shares = self.shares(victims)
        return metrics.bootstrap(lambda index: shares[index].mean(-1), len(shares))

    def behind(self, others: Iterable["Entry"]) -> int:
        """Return how many of the others have a lower mean than this one on the networks that neither has seen."""
        count = 0
        for other in others:
            both = [victim for victim in self.unseen if victim not in other.seen]
            count += sum(self._values[victim] - other._values[victim] for victim in both) > 0
        return count

    @cached_property
    def _values(self) -> dict[str, float]:
        return {victim: self.rate(victim).value for victim in self.fooled}


def entries() -> list[Entry]:
    """Return the rows of the leaderboard, first the one that leaves most others behind.

    Raises FileNotFoundError where the study's cells are missing or out of date. A submission without all its cells is
    left out.
    """
    study = transfer_studies()[STUDY]
    kept = study.kept()
    if kept is None:
        raise FileNotFoundError(
            f"the cells of the leaderboard are not there; measure them: uaplib transfer --study {STUDY}"
        )
    found = [_of_recipe(recipe, kept) for recipe in study.recipes]
    found += [_of_release(name, kept) for name in study.released]
    for name in submissions():
        if (own := _submitted(name).kept()) is not None:
            found.append(_of_submission(name, own))
    return sorted(found, key=lambda entry: entry.behind(found), reverse=True)


def submissions() -> list[str]:
    """Return the names of the submissions that are kept with the book's results, in alphabetical order."""
    here = {path.stem for path in (store.kept_folder() / SUBMISSIONS).glob("*.safetensors")}
    listed = {Path(name).stem for name in registry.entries() if name.startswith(f"{SUBMISSIONS}/")}
    return sorted(here | listed)


def best(rows: Iterable[Entry], group: str, victim: str, black_box: bool = True) -> Entry | None:
    """Return the row of a group that fools most of a victim; None where there is none.

    black_box: of those that have not seen it, instead of those that have.
    """
    fits = [row for row in rows if row.group == group and (victim in row.seen) != black_box]
    return max(fits, key=lambda row: row.rate(victim).value, default=None)


def table(rows: Sequence[Entry]) -> pd.DataFrame:
    """Return the rows as a table: who each leaves behind, means, then every network's rate, in per cent."""
    found = []
    for row in rows:
        unseen = row.mean(row.unseen)
        found.append(
            {
                "perturbation": row.title, "crafted on": row.crafted_on, "sees": row.sees, "gradients": row.gradients,
                "seed": row.seed, "leaves behind": row.behind(rows), "unseen": 100 * unseen.value,
                "low": 100 * unseen.interval[0], "high": 100 * unseen.interval[1], "networks": len(row.unseen),
                "all": 100 * row.shares(list(row.fooled)).mean(),
                **{victim: 100 * row.rate(victim).value for victim in row.fooled},
            }
        )  # fmt: skip
    return pd.DataFrame(found).astype({"gradients": "Int64", "seed": "Int64"})


def submit(file: Path, name: str, sees: str = "", device: str | torch.device = "cpu") -> Entry:
    """Check a perturbation, keep it among the submissions, measure it on every network, and return its row.

    file: as `UniversalPerturbation.save` writes it. name: small letters, digits and hyphens. sees: what crafting saw of
    the data, one of `SEES`. What was measured before is not measured again.

    Raises ValueError for another budget or number of channels, a perturbation that does not say on which network it was
    crafted or has seen all, that is on the board already, a bad or taken name, and other photographs than the book's;
    FileNotFoundError where a network or the photographs are missing.
    """
    found = UniversalPerturbation.load(file)
    _check(found, name, sees)
    place = store.kept_folder() / files(name)[0]
    place.parent.mkdir(parents=True, exist_ok=True)
    replace(found, run={**found.run, "sees": sees}).save(place)
    measured = _submitted(name).measure(device, store.kept_folder())
    if measured.left_out:
        missing, why = next(iter(measured.left_out.items()))
        raise FileNotFoundError(f"{missing} could not be measured, so {name} has no row yet: {why}")
    return _of_submission(name, measured)


def files(name: str) -> list[str]:
    """Return the places, in a folder of artifacts, of what is kept of a submission."""
    return [f"{SUBMISSIONS}/{name}.safetensors", _submitted(name).cells]


def page(rows: Sequence[Entry]) -> str:
    """Return the book's page as Markdown."""
    victims = list(rows[0].fooled)
    about = f"{len(rows)} perturbations, {len(victims)} networks, {len(rows[0].fooled[victims[0]]):,} photographs"
    parts = [_HEAD.format(about=about, eps=IMAGENET_EPS_255, study=STUDY)]
    parts += [_BLACK_BOX, _best_table(rows, victims, True), _WHITE_BOX, _best_table(rows, victims, False)]
    parts += [_ALL, _markdown(_all_rows(rows)), _MADE, _markdown([_made(row) for row in rows])]
    return "\n".join([*parts, _SUBMIT.format(eps=IMAGENET_EPS_255)])


def _of_recipe(recipe: Recipe, matrix: TransferMatrix) -> Entry:
    row, run = recipe.row, (recipe.find_record() or {}).get("run", {})
    if not row.optimised:
        title, about = pattern_name(recipe), {"group": GROUPS[0], "crafted_on": "", "seed": None}
    else:
        title = ", ".join([row.short, *(f"{setting}={value}" for setting, value in recipe.settings.items())])
        about = {"group": _group(recipe.sees), "crafted_on": recipe.model, "seed": recipe.seed}
    return _entry(
        recipe.name, matrix, method=row.short, title=title, sees=recipe.sees, gradients=_gradients(recipe, run),
        made=recipe.command, **about,
    )  # fmt: skip


def _gradients(recipe: Recipe, run: Mapping[str, Any]) -> int | None:
    """What crafting took; records from before it was counted have iterations, of so many pictures each."""
    if not recipe.row.optimised:
        return 0
    if "gradients" in run or "iterations" not in run:
        return run.get("gradients")
    return run["iterations"] * recipe.all_settings["batch_size"]


def _of_release(name: str, matrix: TransferMatrix) -> Entry:
    release = RELEASES[name]
    row = METHODS[release.method]
    return _entry(
        f"published:{name}", matrix, method=row.short, title=f"{row.short}, released", group=_group(row.sees),
        crafted_on=release.network, sees=row.sees, gradients=None, seed=None, made=release.url,
    )  # fmt: skip


def _of_submission(name: str, matrix: TransferMatrix) -> Entry:
    found = submission(name)
    sees = found.run.get("sees", "")
    return _entry(
        f"submitted:{name}", matrix, method=found.method, title=name, group=_group(sees), crafted_on=found.source,
        sees=sees, gradients=found.run.get("gradients"), seed=found.seed, made="",
    )  # fmt: skip


def _group(sees: str) -> str:
    return GROUPS[1] if sees == "nothing" else GROUPS[2]


def _entry(name: str, matrix: TransferMatrix, **about: Any) -> Entry:
    cells = matrix.table[matrix.table.source == name]
    fooled = {victim: matrix.fooled[name, victim] for victim in cells.victim}
    return Entry(name, fooled=fooled, seen=frozenset(cells.victim[cells.white_box]), **about)


def _submitted(name: str) -> TransferStudy:
    return TransferStudy([], transfer_studies()[STUDY].victims, submitted=[name])


def _check(found: UniversalPerturbation, name: str, sees: str) -> None:
    """Raise ValueError where a perturbation cannot have a row of this name."""
    study = transfer_studies()[STUDY]
    budget, channels = study.recipes[0].ball, models.find(study.victims[0]).shape[0]
    if not (name.isascii() and name.replace("-", "").isalnum() and name == name.lower()):
        raise ValueError(f"name={name!r} must be of small letters, digits and hyphens")
    if sees:
        check_name("sees", sees, SEES)
    if found.ball != budget:
        raise ValueError(f"the budget is {found.ball}, and the leaderboard's is {budget}")
    if found.delta.shape[1] != channels:
        raise ValueError(f"it has {found.delta.shape[1]} channels, and the leaderboard's images have {channels}")
    if not found.source:
        raise ValueError("it does not say on which network it was crafted; `uaplib import` takes --source NAME")
    if set(study.victims) <= set(found.source.split(SEPARATOR)):
        raise ValueError("it was crafted on every network of the leaderboard, which leaves none that it has not seen")
    _check_new(found, name)
    for victim in study.victims:
        if images.at_hand(victim, "evaluation") != images.of_the_book(victim, "evaluation"):
            raise ValueError(
                "the photographs here are not those of the leaderboard: NIPS 2017's, decoded as the book did"
            )


def _check_new(found: UniversalPerturbation, name: str) -> None:
    """Raise ValueError where the same perturbation has another name, or the name is another perturbation's."""
    digest, study = provenance.sha256_of(found.delta), transfer_studies()[STUDY]
    for other in submissions():
        kept = submission(other)
        same = provenance.sha256_of(kept.delta) == digest
        if other == name and not (same and kept.source == found.source):
            raise ValueError(f"{name} is another perturbation, or one of another network; choose another name")
        if other != name and same:
            raise ValueError(f"it is the same perturbation as {other}")
    known = {(recipe.find_record() or {}).get("delta_sha256"): recipe.name for recipe in study.recipes}
    known |= {RELEASES[name].delta_sha256: name for name in study.released}
    if digest in known:
        raise ValueError(f"it is on the leaderboard already: {known[digest]}")


_HEAD = """# Leaderboard

Who fools most, without having seen the network? {about}, one budget,
$\\ell_\\infty\\le{eps}/255$, and the same images for all. {{ref}}`sec-families` says how the cells are measured, and
what they mean. Rows in italics were not optimised.

This page is written by `uaplib book leaderboard` from the cells that the book keeps, and nobody edits it. `uaplib
leaderboard` prints the whole table with every network; `uaplib transfer --study {study}` measures what is missing.
"""
_BLACK_BOX = """## Networks that a perturbation has not seen

For each network the best of those that were not crafted on it, in per cent with 95 % intervals (Wilson's). Who was
crafted on a sister, a network of the same design in another size, counts as not having seen it. Each is the best of
many on the photographs that it is measured on, which favours it.
"""
_WHITE_BOX = """## Networks that a perturbation was crafted on
"""
_ALL = """## All rows

Means over different networks cannot be compared: whoever was crafted on a network that is easily fooled is measured on
the others. So each two rows are compared on the networks that neither has seen, and the rows are ordered by how many
others each *leaves behind*. *Unseen* is the mean over the networks that a row was not crafted on, with its 95 %
interval by bootstrap over the photographs. Gradients are those of one image; "–" means that they are not on record.
One seed each, where there are seeds; {ref}`chap-modern` has three on one small network, in the white box.

*Sees* is about crafting. That the first row should be this method with these networks and 200 iterations was chosen by
fooling rates on a hundred other photographs, on five of the eight networks that it has not seen: {ref}`sec-families`.
PSP-UAP on GoogLeNet has two rows and is one perturbation: the longer run kept the same iterate.
"""
_MADE = """## How each is made

The command that crafts it, or the file that its authors released.
"""
_SUBMIT = """## Your row

A perturbation of $\\ell_\\infty\\le{eps}/255$, in a file of `uaplib craft` or `uaplib import`, and a name:

```bash
uaplib leaderboard --submit mine.safetensors --name my-method --sees nothing
```

This checks the budget and that it is new, measures it on every network, which takes some minutes, and says how many
others it leaves behind. Nothing is uploaded. To have it on this page, do so in a checkout of the book, then `uaplib
book leaderboard` and `uaplib book registry`, and open a pull request with what has changed. Say in the request on which
images it was crafted, how its iterate was chosen, and at what cost: what has seen the photographs that it is measured
on has no row here.
"""


def _best_table(rows: Sequence[Entry], victims: Sequence[str], black_box: bool) -> str:
    lines = []
    for victim in victims:
        found = {group: best(rows, group, victim, black_box) for group in GROUPS[not black_box :]}
        if any(found.values()):
            lines.append({"network": victim, **{group: _cell(row, victim) for group, row in found.items()}})
    return _markdown(lines)


def _cell(row: Entry | None, victim: str) -> str:
    if row is None:
        return "–"
    low, high = (100 * end for end in row.rate(victim).interval)
    where = f", {row.crafted_on}" if row.crafted_on else ""
    return f"**{100 * row.rate(victim).value:.1f}** [{low:.1f}, {high:.1f}]<br>{row.title}{where}"


def _all_rows(rows: Sequence[Entry]) -> list[dict[str, str]]:
    found = []
    for row, line in zip(rows, table(rows).to_dict("records"), strict=True):
        mark = "*" if row.group == GROUPS[0] else ""
        found.append(
            {
                "perturbation": f"{mark}{row.title}{mark}", "crafted on": row.crafted_on or "–",
                "sees": row.sees or "–", "gradients": "–" if row.gradients is None else f"{row.gradients:,}",
                "leaves behind": str(line["leaves behind"]),
                "unseen, %": f"{line['unseen']:.1f} [{line['low']:.1f}, {line['high']:.1f}]",
                "of networks": str(line["networks"]), "all, %": f"{line['all']:.1f}",
            }
        )  # fmt: skip
    return found


def _made(row: Entry) -> dict[str, str]:
    how = f"[file]({row.made})" if row.made.startswith("http") else f"`{row.made}`" if row.made else "–"
    return {"perturbation": row.title, "crafted on": row.crafted_on or "–", "how": how}


def _markdown(lines: Sequence[Mapping[str, str]]) -> str:
    """A table of Markdown, its columns those of the first line; nothing where there is none."""
    if not lines:
        return ""
    rows = [list(lines[0]), ["---"] * len(lines[0]), *(line.values() for line in lines)]
    return "".join("| " + " | ".join(row) + " |\n" for row in rows)
