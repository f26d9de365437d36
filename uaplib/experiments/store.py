"""Where results are kept: the artifacts of the checkout, those in the data folder, and the book's, fetched.

A result's place is its path below an artifacts folder, such as "resnet-mini/NAME.safetensors". An installed library
fetches what `uaplib.experiments.registry` lists, from the book's repository at the release of the library. The variable
`UAPLIB_ARTIFACTS` names another source: an address, or a folder, which is read in its place. A checkout fetches
nothing unless it is set. What comes from either has the SHA-256 of the registry, or is not used.
"""

import os
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from tqdm import tqdm

from uaplib import __version__
from uaplib.experiments import registry
from uaplib.files import UNREACHABLE, checkout, data_folder, download, note_read, reason, sha256

_ROOT = checkout()
ARTIFACTS = _ROOT / "artifacts" if _ROOT else None  # the book's own; an installed package has none
URL = f"https://raw.githubusercontent.com/universal-perturbations/uap-book/v{__version__}/artifacts/"
TIMEOUT = 15  # seconds without an answer
PATIENCE = 1  # seconds before a bar is shown: most files are there sooner, and a chapter's output stays as it is
_BAR = {"unit": "B", "unit_scale": True, "leave": False}

_failures: dict[tuple[str, str], str] = {}  # by source and name, why it could not be had: nothing is asked for twice
_unreachable: dict[str, str] = {}  # by source, why it does not answer: then nothing more is asked of it


def own_folder() -> Path:
    """Return the folder beside the data where readers keep what they craft."""
    return data_folder() / "artifacts"


def kept_folder() -> Path:
    """Return the folder for the book's results: the checkout's artifacts; without a checkout, `own_folder`."""
    return ARTIFACTS or own_folder()


def book_folder() -> Path:
    """Return the folder beside the data for what is fetched of the book, one for each release."""
    return data_folder() / "book" / __version__


def source() -> str:
    """Return the address or the folder that the book's results come from; empty where none are fetched.

    Raises ValueError when `UAPLIB_ARTIFACTS` is an address of another kind than http and https.
    """
    chosen = os.environ.get("UAPLIB_ARTIFACTS") or ("" if ARTIFACTS else URL)
    if "://" in chosen and not _is_address(chosen):
        raise ValueError(f"UAPLIB_ARTIFACTS must be a folder or an address with http or https, not {chosen!r}")
    return chosen


def places(name: str) -> Iterator[Path]:
    """Yield where the file of this name may lie, in the order in which it is looked for; at last it is fetched."""
    for folder in (ARTIFACTS, own_folder()):
        if folder:
            yield note_read(folder / name)
    if path := fetched(name):
        yield note_read(path)


def find(name: str) -> Path | None:
    """Return the first file of this name that is there, or None."""
    return next((place for place in places(name) if place.is_file()), None)


def here(name: str) -> Path | None:
    """Return the book's own file of this name if no network is needed for it, or None."""
    if ARTIFACTS and (ARTIFACTS / name).is_file():
        return ARTIFACTS / name
    return _kept(name)


def fetched(name: str, progress: bool = True) -> Path | None:
    """Return the book's own file of this name, not that of a checkout, fetched where it was not yet.

    None when the registry does not list it, when nothing is fetched, and when it cannot be had: see `failure`.
    """
    origin = source()
    if not origin or name not in registry.entries():
        return None
    if not _kept(name) and (origin, name) not in _failures and (why := _fetch(origin, name, progress)):
        _failures[origin, name] = why
    return _kept(name)


def failure(name: str) -> str | None:
    """Return in a few words why the book's file of this name could not be had, if it was asked for in vain."""
    return _failures.get((source(), name))


def fetch_all(names: Sequence[str]) -> list[str]:
    """Fetch the book's files of these names where no copy is here, and return those that cannot be had."""
    wanted = {name: registry.entries()[name].size for name in names if not here(name)}
    missing = []
    with tqdm(total=sum(wanted.values()), disable=not wanted, **_BAR) as bar:
        for name, size in wanted.items():
            if not fetched(name, progress=False):
                missing.append(name)
            bar.update(size)
    return missing


class _Bar(tqdm):
    """A bar that is not drawn before its delay is over."""

    def reset(self, total: float | None = None) -> None:
        """Begin anew, as pooch does at the end, without drawing."""
        self.n = 0


def _is_address(text: str) -> bool:
    return text.startswith(("http://", "https://"))


def _kept(name: str) -> Path | None:
    """A whole copy that was fetched before, or that lies in the folder which is the source."""
    origin = source()
    entry = registry.entries().get(name)
    if not origin or not entry:
        return None
    folders = [book_folder()] if _is_address(origin) else [book_folder(), Path(origin).expanduser()]
    return next((folder / name for folder in folders if _is_whole(folder / name, entry)), None)


def _is_whole(path: Path, entry: registry.Entry) -> bool:
    if not path.is_file():
        return False
    state = path.stat()
    return state.st_size == entry.size and _sha256(path, state.st_mtime_ns) == entry.sha256


@cache
def _sha256(path: Path, changed: int) -> str:
    """The digest of a file that was changed last at this time: tables are looked up again and again."""
    return sha256(path)


def _fetch(origin: str, name: str, progress: bool) -> str:
    """Fetch a file into the folder of the book; return in a few words why that failed, or nothing."""
    if not _is_address(origin):
        return "wrong checksum" if (Path(origin).expanduser() / name).is_file() else f"not in {origin}"
    if origin in _unreachable:
        return _unreachable[origin]
    entry, url = registry.entries()[name], f"{origin.rstrip('/')}/{name}"
    try:
        with _Bar(desc=Path(name).name, total=entry.size, delay=PATIENCE, disable=not progress, **_BAR) as bar:
            download(url, f"sha256:{entry.sha256}", book_folder() / name, bar=bar, timeout=TIMEOUT)
    except FileNotFoundError as error:
        why = reason(error.__context__)
        if why in UNREACHABLE:
            _unreachable[origin] = why
        return why
    return ""
