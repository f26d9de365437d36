"""The book's artifacts by name: size, SHA-256, how long they took to craft, and which chapters read them.

The table lies beside this module, in the wheel too, so that an installed library knows what it may fetch.
`uaplib book registry` writes it anew.
"""

import csv
import io
import json
from collections.abc import Collection, Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from uaplib.files import sha256, write_text

FILE = Path(__file__).with_suffix(".csv")


class Entry(NamedTuple):
    """One artifact.

    size: in bytes. sha256: in hexadecimal. seconds: that crafting took, None for what is not crafted. chapters: the
    numbers of those that read it, in order.
    """

    size: int
    sha256: str
    seconds: float | None
    chapters: tuple[int, ...]


@cache
def entries() -> Mapping[str, Entry]:
    """Return the book's artifacts by name, for instance "resnet-mini/NAME.safetensors"."""
    with FILE.open(encoding="utf-8", newline="") as stream:
        return MappingProxyType({row["name"]: _entry(row) for row in csv.DictReader(stream)})


def _entry(row: Mapping[str, str]) -> Entry:
    seconds = float(row["seconds"]) if row["seconds"] else None
    return Entry(int(row["size"]), row["sha256"], seconds, tuple(map(int, row["chapters"].split())))


def chapters() -> list[int]:
    """Return the numbers of the chapters that read artifacts, in order."""
    return sorted({number for entry in entries().values() for number in entry.chapters})


def make(folder: Path, read: Mapping[int, Collection[str] | None]) -> dict[str, Entry]:
    """Return an entry for every file in a folder of artifacts, but for checkpoints, sorted by name.

    read: the names that each chapter read, by its number; None where that is not known, and where the registry's word
    of before stays.
    """
    names = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {
        name: Entry(path.stat().st_size, sha256(path), _seconds(path), _readers(name, read))
        for name, path in sorted(names.items())
        if path.suffix != ".part"
    }


def _seconds(path: Path) -> float | None:
    """How long the perturbation in a file, or on record there, took to craft; None where nothing was crafted."""
    if path.suffix == ".safetensors":
        from uaplib.perturbation import UniversalPerturbation  # whoever only reads the registry does without PyTorch

        return UniversalPerturbation.load(path).run.get("seconds")
    if path.suffix == ".json":
        return json.loads(path.read_text(encoding="utf-8")).get("run", {}).get("seconds")
    return None


def _readers(name: str, read: Mapping[int, Collection[str] | None]) -> tuple[int, ...]:
    before = entries()[name].chapters if name in entries() else ()
    return tuple(sorted(n for n, names in read.items() if name in (names or ()) or (names is None and n in before)))


def write(found: Mapping[str, Entry]) -> None:
    """Replace the registry by these entries."""
    stream = io.StringIO()
    table = csv.writer(stream, lineterminator="\n")
    table.writerow(["name", *Entry._fields])
    for name, entry in found.items():
        table.writerow([name, *entry[:-1], " ".join(map(str, entry.chapters))])
    write_text(FILE, stream.getvalue())
