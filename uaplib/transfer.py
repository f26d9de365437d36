"""Who fools whom: perturbations against networks, one number for each pair, and what can be said about the numbers."""

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from torch import Tensor, nn
from tqdm import tqdm

from uaplib import metrics, models, plots, provenance
from uaplib.cells import LABELS, cell_key, new_cell
from uaplib.devices import device_of
from uaplib.files import check_writable, note_read, write_text
from uaplib.journal import Journal
from uaplib.metrics import Comparison
from uaplib.metrics.tasks import TASKS
from uaplib.models.registry import SEPARATOR
from uaplib.names import check_name
from uaplib.perturbation import FITS, UniversalPerturbation
from uaplib.releases import RELEASES, crafted_on

Images = tuple[Tensor, Tensor]
CHUNK = 200  # images that are on the device at a time


@dataclass(frozen=True)
class TransferMatrix:
    """One cell for each perturbation and network: a row of the tidy `table`, and which images were fooled.

    table: columns source, crafted_on, method, seed, victim, white_box (whether the victim is, or is among, what the
    source was crafted on), fooling_rate and its 95 % Wilson interval low and high, error (1 - accuracy) and
    clean_error, all in [0, 1], n, and resized (from which size and how, or empty). fooled: booleans (n,) for (source,
    victim). left_out: victims that could not be measured, and why.
    """

    table: pd.DataFrame
    fooled: Mapping[tuple[str, str], np.ndarray]
    left_out: Mapping[str, str] = field(default_factory=dict)

    def pivot(self, measure: str = "fooling_rate") -> pd.DataFrame:
        """Return sources x victims of a column of the table, in per cent, in the order of the table."""
        wide = self.table.pivot(index="source", columns="victim", values=measure)
        return 100 * wide.loc[self.table.source.unique(), self.table.victim.unique()]

    def white_box(self) -> pd.DataFrame:
        """Return sources x victims: whether the source was crafted on the victim."""
        return self.pivot("white_box").astype(bool)

    def to_csv(self, path: str | Path) -> None:
        """Write the tidy table, atomically."""
        write_text(Path(path), self.table.to_csv(index=False))

    def to_latex(self, measure: str = "fooling_rate") -> str:
        """Return sources x victims as a booktabs table, white-box cells bold, as in the papers."""
        bold = self.white_box()
        cells = self.pivot(measure).style.format(precision=2).format_index(escape="latex", axis=0)
        cells = cells.format_index(escape="latex", axis=1)
        cells = cells.apply(lambda _: bold.map({True: "textbf:--rwrap", False: ""}.get), axis=None)
        return cells.hide(names=True, axis=0).hide(names=True, axis=1).to_latex(hrules=True)

    def plot(self, axis: Axes, measure: str = "fooling_rate") -> None:
        """Draw sources x victims as a heat map with the number in every cell, white-box cells framed."""
        values, framed = self.pivot(measure), self.white_box().to_numpy()
        plots.matrix(axis, values.to_numpy(), list(values.index), list(values.columns), highest=100, framed=framed)

    def select(self, keep: pd.Series) -> "TransferMatrix":
        """Return the cells where `keep`, booleans like a column of the table, is true."""
        table = self.table[keep].reset_index(drop=True)
        return TransferMatrix(table, {pair: self.fooled[pair] for pair in zip(table.source, table.victim, strict=True)})

    def joined(self, other: "TransferMatrix") -> "TransferMatrix":
        """Return its cells and those of another; left out is what this one leaves out."""
        table = pd.concat([self.table, other.table], ignore_index=True)
        return TransferMatrix(table, {**self.fooled, **other.fooled}, self.left_out)

    def arranged(self, sources: Sequence[str], victims: Sequence[str]) -> "TransferMatrix":
        """Return the cells of these sources and victims, in this order. Raises KeyError when one is not there."""
        pairs = [(victim, source) for victim in victims for source in sources]
        table = self.table.set_index(["victim", "source"], drop=False).loc[pairs].reset_index(drop=True)
        fooled = {(source, victim): self.fooled[source, victim] for victim, source in pairs}
        return TransferMatrix(table, fooled, self.left_out)

    def summary(self) -> pd.Series:
        """Return white-box and black-box mean (per cent), the best black-box source, and the most robust victim.

        Noise, which was crafted on nothing, enters none of them. The best source has the highest mean over the
        networks that it was not crafted on, the most robust victim the lowest over the sources crafted on others.
        """
        crafted = self.table[self.table.crafted_on != ""]
        black = crafted[~crafted.white_box]
        sources, victims = (black.groupby(by, sort=False).fooling_rate.mean() for by in ("source", "victim"))
        return pd.Series(
            {
                "white-box mean": 100 * crafted[crafted.white_box].fooling_rate.mean(),
                "black-box mean": 100 * black.fooling_rate.mean(),
                "best source": sources.idxmax() if len(sources) else None,
                "most robust victim": victims.idxmin() if len(victims) else None,
            },
            dtype=object,
        )

    def compare(self, first: str, second: str, victim: str) -> Comparison:
        """Return whether two sources differ on a victim. Raises KeyError for a cell that is not there."""
        return metrics.paired(self.fooled[first, victim], self.fooled[second, victim])


class Victim:
    """One network, the images that it is shown, and what it says of them unperturbed.

    model: in evaluation mode, on the device that computes. images: (N, C, H, W) in [0, 1], and truth, as the task says,
    may stay on the CPU. task: a name in `uaplib.metrics.tasks.TASKS`. clip and batch_size: as in `metrics.predict`.
    fit: how a perturbation of another size comes to that of the images, one of `uaplib.perturbation.FITS`.
    Raises ValueError or TypeError when these do not fit together.
    """

    def __init__(
        self,
        model: nn.Module,
        images: Tensor,
        truth: Tensor,
        clip: bool = True,
        batch_size: int | None = None,
        task: str = "label",
        fit: str = FITS[0],
    ):
        self.model, self.images, self.truth, self.clip, self.batch_size = model, images, truth.cpu(), clip, batch_size
        self.task, self.fit = TASKS[check_name("task", task, TASKS)], check_name("fit", fit, FITS)
        self.device = device_of(model)
        self.num_classes = self.task.check(model, images, truth)
        autocast = torch.is_autocast_enabled(self.device.type)
        self.identity = {
            "weights_sha256": provenance.weights_sha256(model),
            "images_sha256": provenance.sha256_of(images),
            "truth_sha256": provenance.sha256_of(truth),
            "clip": clip,
            "autocast": str(torch.get_autocast_dtype(self.device.type)) if autocast else None,
        }

    def key(self, source: UniversalPerturbation) -> str:
        """Return the `cell_key` of a source on this victim."""
        delta, ball = source.delta, source.ball
        fit = None if delta.shape[1:] == self.images.shape[1:] else self.fit
        digest = provenance.sha256_of(delta)
        return cell_key(delta_sha256=digest, shape=delta.shape, ball=ball, fit=fit, **self.identity)

    def fitted(self, source: UniversalPerturbation) -> UniversalPerturbation:
        """Return the source in the size of the images."""
        return source.fitted(self.images, self.fit)

    def measure(self, source: UniversalPerturbation) -> dict:
        """Return the counts of one source, which is fitted to the size of the images: `TASKS[task].read` reads them."""
        perturbed = self.predict(self.fitted(source).delta)
        return self.task.compare(self.clean, perturbed, self.truth, self.num_classes, self.clip).counts()

    @cached_property
    def clean(self) -> Tensor:
        """What the network says of the images unperturbed, on the CPU."""
        return self.predict(None)

    def predict(self, delta: Tensor | None) -> Tensor:
        """Return what the network says of all images, on the CPU; only `CHUNK` of them are on the device at a time."""
        said = [
            metrics.predict(self.model, chunk.to(self.device), delta, clip=self.clip, batch_size=self.batch_size).cpu()
            for chunk in self.images.split(CHUNK)
        ]
        return torch.cat(said)


def transfer_matrix(
    sources: Mapping[str, UniversalPerturbation],
    victims: str | Iterable[str] | Mapping[str, nn.Module],
    images: Images | Callable[[str], Images],
    *,
    clip: bool = True,
    device: str | torch.device | None = None,
    batch_size: int | None = None,
    fit: str = FITS[0],
    cells: str | Path | None = None,
    progress: bool = False,
) -> TransferMatrix:
    """Measure every perturbation on every network, on the same images.

    sources: by their names in the table. A perturbation of another size is brought to that of the victim's images by
    `fit` ("tiled" or "resized"), projected onto its ball again, and the table says so. victims: names of registered
    classifiers, loaded one after the other, or your own networks by name. images: images (N, C, H, W) in [0, 1] and
    labels (N,), or a function from a victim's name to them, for victims of other sizes. clip: as in `metrics.predict`.
    device: where to compute; by default the CPU for registered victims, and where they are for your own. cells: a
    journal (`uaplib.journal.Journal`) to which every finished cell (`uaplib.cells`) is added; a cell that is there is
    not computed again, as long as perturbation, victim's name, weights, images, labels, clip, fit and autocast are the
    same. Run inside `torch.autocast` for lower precision.

    A victim that cannot be measured, for want of its weights or its images or because a perturbation does not fit, is
    left out with a warning, as long as there is another.

    Raises ValueError for no source or no victim, an unknown victim or `fit`, a perturbation out of its budget or not
    finite, or one of another number of channels than a victim's images, TypeError for a source that is no
    UniversalPerturbation.
    """
    victims = [victims] if isinstance(victims, str) else victims
    victims = victims if isinstance(victims, Mapping) else dict.fromkeys(victims)
    if not sources or not victims:
        raise ValueError("a transfer matrix needs at least one source and one victim")
    check_name("fit", fit, FITS)
    for name, source in sources.items():
        if not isinstance(source, UniversalPerturbation):
            raise TypeError(f"source {name!r} is a {type(source).__name__}, not a UniversalPerturbation")
        replace(source)  # checks it again: a tensor can be changed after it was checked
    for name, network in victims.items():
        if network is None:
            models.check_model_name(name, "victims")
    if cells:
        check_writable(Path(cells))
    journal, found, left_out = Journal(cells), [], {}
    journal.last(*LABELS)  # refuses a file of other records before anything is measured
    with tqdm(total=len(sources) * len(victims), desc="transfer", unit="cell", disable=not progress) as bar:
        for name, network in victims.items():
            try:
                test = images(name) if callable(images) else images
                if network is None:
                    network = models.load(name, device or "cpu")
                victim = Victim(network if device is None else network.to(device), *test, clip, batch_size, fit=fit)
                found += _column(name, victim, sources, journal, bar)
            except (ImportError, OSError, TypeError, ValueError) as error:
                left_out[name] = error
    if len(left_out) == len(victims):
        raise next(iter(left_out.values()))
    for name, error in left_out.items():
        warnings.warn(f"{name} is left out: {error}", stacklevel=2)
    return _matrix(found, left_out)


def _column(
    name: str, victim: Victim, sources: Mapping[str, UniversalPerturbation], journal: Journal, bar: tqdm
) -> list[dict]:
    """The cells of all sources on one victim."""
    column, last = [], journal.last(*LABELS)
    for source_name, source in sources.items():
        bar.set_postfix_str(f"{source_name} on {name}")
        key, fitted = victim.key(source), victim.fitted(source)
        last_key, known = last.get((source_name, name, "label"), (None, None))
        if last_key != key:
            known = journal.get(key)  # by another name of the source, perhaps
        same = known and known["victim"] == name  # another network may do other things with the same weights
        counts = known["counts"] if same else victim.measure(fitted)
        cell = new_cell(source_name, fitted, name, "label", counts)
        if last_key != key:
            journal.add(key, cell)
        column.append(cell)
        bar.update()
    return column


def load(cells: str | Path) -> TransferMatrix:
    """Return the matrix of all classifiers' cells in a file, the last word where a pair is there twice.

    Raises FileNotFoundError when there is no such file, ValueError when it holds something else.
    """
    if not note_read(Path(cells)).is_file():
        raise FileNotFoundError(f"there are no cells of a transfer matrix at {cells}")
    found = Journal(cells).last(*LABELS).values()
    return _matrix([cell for _, cell in found if cell["task"] == "label"])


def _change(change: Mapping | None) -> str:
    """From which size a perturbation came to the victim's, and how; empty where it had that size."""
    return "x".join(map(str, change["from"])) + f", {change['mode']}" if change else ""


def _networks(cell: Mapping) -> list[str]:
    """The networks that a cell's perturbation was crafted on, by their names here where they are at hand."""
    kind, _, name = cell["source"].rpartition(":")
    if kind == "published" and name in RELEASES:
        return [crafted_on(name)]
    return cell["crafted_on"].split(SEPARATOR)


def _matrix(cells: list[dict], left_out: Mapping[str, Exception] = MappingProxyType({})) -> TransferMatrix:
    rows, fooled = [], {}
    for cell in cells:
        found = TASKS[cell["task"]].read(cell["counts"])
        low, high = found.fooling_rate.interval
        rows.append(
            {name: cell[name] for name in ("source", "crafted_on", "method", "seed", "victim")}
            | {
                "white_box": cell["victim"] in _networks(cell),
                "fooling_rate": found.fooling_rate.value,
                "low": low,
                "high": high,
                "error": found.wrong / found.n,
                "clean_error": found.clean_wrong / found.n,
                "n": found.n,
                "resized": _change(cell["resized"]),
            }
        )
        fooled[cell["source"], cell["victim"]] = found.fooled.numpy()
    return TransferMatrix(pd.DataFrame(rows), fooled, {name: str(error) for name, error in left_out.items()})
