"""Weight files of networks as their authors published them: where they are, and that they are what they should be."""

from functools import cache
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from uaplib.files import data_folder, download, sha256


class Original(NamedTuple):
    """A published file: its SHA-256 and its address, which names a commit, so that it stays what it is."""

    sha256: str
    url: str


@cache
def registry() -> dict[str, Original]:
    """Return all files by their places in the folder `networks` of the data folder."""
    text = (resources.files("uaplib") / "tables" / "networks.txt").read_text(encoding="utf-8")
    return {place: Original(digest, url) for place, digest, url in map(str.split, text.splitlines())}


def find(*places: str) -> list[Path]:
    """Return the files at these places, such as "tiny-darknet/tiny.weights"; those that are not there are downloaded.

    Raises FileNotFoundError, naming file, folder and address, when one can be had nowhere, and ValueError when one is
    damaged or another file.
    """
    _fetch([place for place in places if not _path(place).exists()])
    return [_checked(place) for place in places]


def _path(place: str) -> Path:
    return data_folder() / "networks" / place


def _fetch(places: list[str]) -> None:
    for place in tqdm(places, "downloading a network", unit="file", leave=False, disable=not places):
        original, quiet = registry()[place], tqdm(total=0, disable=True)  # one bar is enough for a hundred small files
        download(original.url, f"sha256:{original.sha256}", _path(place), bar=quiet)


def _checked(place: str) -> Path:
    original, path = registry()[place], _path(place)
    if sha256(path) != original.sha256:
        raise ValueError(f"{path} is damaged or another file than {original.url}: delete it, and it is fetched again")
    return path
