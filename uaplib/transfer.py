"""Who fools whom: perturbations against networks, one number for each pair, and what can be said about the numbers."""

import base64
import hashlib
import json
import os
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from scipy import stats
from torch import Tensor, nn
from tqdm import tqdm

from uaplib import metrics, models, plots, provenance
from uaplib.checks import check_images, check_labels, check_model, classes
from uaplib.files import check_writable, note_read, write_text
from uaplib.metrics import Estimate, Proportion
from uaplib.perturbation import UniversalPerturbation

Images = tuple[Tensor, Tensor]
_LINE = b'{"key": "'  # how the line of a cell begins
CHUNK = 200  # images that are on the device at a time


class Comparison(NamedTuple):
    """Two sources on the same images of one network.

    difference: of the fooling rates, the first less the second, with a 95 % interval by bootstrap over the images.
    only_first, only_second: images that one fools and the other does not. p_value: McNemar's exact test, two-sided.
    """

    difference: Estimate
    only_first: int
    only_second: int
    p_value: float


@dataclass(frozen=True)
class TransferMatrix:
    """One cell for each perturbation and network: a row of the tidy `table`, and which images were fooled.

    table: columns source, crafted_on, method, seed, victim, white_box (whether the victim is what the source was
    crafted on), fooling_rate and its 95 % Wilson interval low and high, error (1 - accuracy) and clean_error, all in
    [0, 1], n, and resized (from which size, or empty). fooled: booleans (n,) for (source, victim). left_out: victims
    that could not be measured, and why.
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
        a, b = (self.fooled[source, victim] for source in (first, second))
        only_first, only_second = int((a & ~b).sum()), int((~a & b).sum())
        discordant = only_first + only_second
        p_value = stats.binomtest(only_first, discordant).pvalue if discordant else 1.0
        per_image = a.astype(float) - b
        difference = metrics.bootstrap(lambda index: per_image[index].mean(-1), len(per_image))
        return Comparison(difference, only_first, only_second, float(p_value))


def transfer_matrix(
    sources: Mapping[str, UniversalPerturbation],
    victims: str | Iterable[str] | Mapping[str, nn.Module],
    images: Images | Callable[[str], Images],
    *,
    clip: bool = True,
    device: str | torch.device | None = None,
    batch_size: int | None = None,
    cells: str | Path | None = None,
    progress: bool = False,
) -> TransferMatrix:
    """Measure every perturbation on every network, on the same images.

    sources: by their names in the table. A perturbation of another size is resized to the victim's images, projected
    onto its ball again, and the table says so. victims: names of registered classifiers, loaded one after the other,
    or your own networks by name. images: images (N, C, H, W) in [0, 1] and labels (N,), or a function from a victim's
    name to them, for victims of other sizes (`recipes.evaluation_set` is one). clip: as in `metrics.predict`. device:
    where to compute; by default the CPU for registered victims, and where they are for your own. cells: a
    file to which every finished cell is added; a cell that is there is not computed again, as long as perturbation,
    weights, images, labels, clip and autocast are the same. Run inside `torch.autocast` for lower precision.

    A victim that cannot be measured, for want of its weights or its images or because a perturbation does not fit, is
    left out with a warning, as long as there is another.

    Raises ValueError for no source or no victim, an unknown victim, a perturbation out of its budget or not finite, or
    one of another number of channels than a victim's images, TypeError for a source that is no UniversalPerturbation.
    """
    victims = [victims] if isinstance(victims, str) else victims
    victims = victims if isinstance(victims, Mapping) else dict.fromkeys(victims)
    if not sources or not victims:
        raise ValueError("a transfer matrix needs at least one source and one victim")
    for name, source in sources.items():
        if not isinstance(source, UniversalPerturbation):
            raise TypeError(f"source {name!r} is a {type(source).__name__}, not a UniversalPerturbation")
        replace(source)  # checks it again: a tensor can be changed after it was checked
    for name, network in victims.items():
        if network is None:
            models.check_model_name(name, "victims")
    journal, found, left_out = _Journal(cells), [], {}
    with tqdm(total=len(sources) * len(victims), desc="transfer", unit="cell", disable=not progress) as bar:
        for name, network in victims.items():
            try:
                test = images(name) if callable(images) else images
                if network is None:
                    network = models.load(name, device or "cpu")
                victim = _Victim(network if device is None else network.to(device), *test, clip, batch_size)
                found += _column(name, victim, sources, journal, bar)
            except (ImportError, OSError, TypeError, ValueError) as error:
                if len(victims) == 1:
                    raise
                left_out[name] = error
    if len(left_out) == len(victims):
        raise next(iter(left_out.values()))
    for name, error in left_out.items():
        warnings.warn(f"{name} is left out: {error}", stacklevel=2)
    return _matrix(found, left_out)


def _column(
    name: str, victim: "_Victim", sources: Mapping[str, UniversalPerturbation], journal: "_Journal", bar: tqdm
) -> list[dict]:
    """The cells of all sources on one victim."""
    cells = []
    for source_name, source in sources.items():
        bar.set_postfix_str(f"{source_name} on {name}")
        names = {
            "source": source_name, "crafted_on": source.source, "method": source.method, "seed": source.seed,
            "victim": name,
        }  # fmt: skip
        cells.append(journal.cell(victim.key(source), names, partial(victim.measure, source)) | names)
        bar.update()
    return cells


def load(cells: str | Path) -> TransferMatrix:
    """Return the matrix of all cells in a file that `transfer_matrix` wrote, the last word where a pair is there twice.

    Raises FileNotFoundError when there is no such file.
    """
    if not note_read(Path(cells)).is_file():
        raise FileNotFoundError(f"there are no cells of a transfer matrix at {cells}")
    records = _Journal(cells).records.values()
    return _matrix(list({(r["source"], r["victim"]): r for r in records}.values()))


class _Victim:
    """One network, the images that it is shown, and what it says of them unperturbed."""

    def __init__(self, model, images, labels, clip, batch_size):
        self.model, self.images, self.labels, self.clip, self.batch_size = model, images, labels.cpu(), clip, batch_size
        self.device = next((tensor.device for tensor in model.state_dict().values()), torch.device("cpu"))
        check_images(images)
        check_labels(labels, images, classes(check_model(self.model, images[:1].to(self.device))))
        self.identity = [
            provenance.weights_sha256(self.model), provenance.sha256_of(images), provenance.sha256_of(labels), clip,
            str(torch.get_autocast_dtype(self.device.type)) if torch.is_autocast_enabled(self.device.type) else None,
        ]  # fmt: skip

    def key(self, source: UniversalPerturbation) -> str:
        """A digest of all that a cell depends on."""
        ball = [source.ball.p, source.ball.eps]
        parts = [provenance.sha256_of(source.delta), list(source.delta.shape), ball, *self.identity]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]

    def measure(self, source: UniversalPerturbation) -> dict:
        """The cell of one source, JSON-safe."""
        fitted = source.fitted(self.images)
        said = self.predict(fitted.delta)
        return {
            "n": len(said),
            "wrong": int((said != self.labels).sum()),
            "clean_wrong": int((self.clean != self.labels).sum()),
            "resized": fitted.run.get("resized"),
            "fooled": base64.b64encode(np.packbits((said != self.clean).numpy())).decode(),
        }

    @cached_property
    def clean(self) -> Tensor:
        return self.predict(None)

    def predict(self, delta: Tensor | None) -> Tensor:
        """Labels of all images; only `CHUNK` of them are on the device at a time."""
        said = [
            metrics.predict(self.model, chunk.to(self.device), delta, clip=self.clip, batch_size=self.batch_size).cpu()
            for chunk in self.images.split(CHUNK)
        ]
        return torch.cat(said)


class _Journal:
    """Finished cells by their keys: one JSON line each, in memory and, where there is one, in a file."""

    def __init__(self, path: str | Path | None):
        self.path, self.records, self.last_word = Path(path) if path else None, {}, {}
        if self.path:
            check_writable(self.path)
        if self.path and self.path.exists():
            self.read()

    def read(self) -> None:
        """Read the file; what a kill has left of a last line is cut off."""
        content = self.path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if content.strip() and not content.lstrip().startswith(b"{"):
            raise ValueError(f"{self.path} holds something else than cells of a transfer matrix; name another file")
        rest = content[len(whole) :]
        if not rest.startswith(_LINE) and not _LINE.startswith(rest):
            raise ValueError(f"{self.path} does not end as a file of cells does; name another file")
        for number, line in enumerate(whole.splitlines(), 1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
                self.add(record.pop("key"), record)
            except (ValueError, KeyError, AttributeError, TypeError) as error:
                raise ValueError(f"{self.path}, line {number}, is no cell of a transfer matrix: {error}") from error
        if len(whole) < len(content):  # only now: another kind of file is left as it is
            os.truncate(self.path, len(whole))

    def cell(self, key: str, names: dict, compute: Callable[[], dict]) -> dict:
        """Return the cell of this key, with what it was called; compute it when it is not there, and keep it.

        It is kept again where another cell has had the last word about the two.
        """
        known = self.records.get(key)
        if known is None or self.last_word.get((names["source"], names["victim"])) != key:
            self.add(key, {**names, **(known or compute()), **names})
            self.append(key)
        return self.records[key]

    def add(self, key: str, record: dict) -> None:
        self.records.pop(key, None)  # what is said last comes last
        self.records[key] = record
        self.last_word[record["source"], record["victim"]] = key

    def append(self, key: str) -> None:
        """Write a line; where that fails, warn and leave the file as it was, for the table is worth more."""
        if not self.path:
            return
        size = self.path.stat().st_size if self.path.exists() else 0
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "ab") as file:
                file.write(json.dumps({"key": key} | self.records[key]).encode() + b"\n")
        except OSError as error:
            if self.path.exists():
                os.truncate(self.path, size)
            warnings.warn(f"cells are not kept in {self.path}: {error.strerror or error}", stacklevel=2)


def _matrix(records: list[dict], left_out: Mapping[str, Exception] = MappingProxyType({})) -> TransferMatrix:
    rows, fooled = [], {}
    for record in records:
        n = record["n"]
        mask = np.unpackbits(np.frombuffer(base64.b64decode(record["fooled"]), np.uint8), count=n).astype(bool)
        rate = Proportion(int(mask.sum()), n)
        low, high = rate.interval
        resized = record["resized"]
        rows.append(
            {name: record[name] for name in ("source", "crafted_on", "method", "seed", "victim")}
            | {
                "white_box": record["crafted_on"] == record["victim"],
                "fooling_rate": rate.value,
                "low": low,
                "high": high,
                "error": record["wrong"] / n,
                "clean_error": record["clean_wrong"] / n,
                "n": n,
                "resized": "x".join(map(str, resized["from"])) if resized else "",
            }
        )
        fooled[record["source"], record["victim"]] = mask
    return TransferMatrix(pd.DataFrame(rows), fooled, {name: str(error) for name, error in left_out.items()})
