"""Where results are kept: the artifacts of the checkout, then those in the data folder.

A result's place is its path below an artifacts folder, such as "resnet-mini/NAME.safetensors".
"""

from collections.abc import Iterator
from pathlib import Path

from uaplib.files import checkout, data_folder, note_read

_ROOT = checkout()
ARTIFACTS = _ROOT / "artifacts" if _ROOT else None  # the book's own; an installed package has none


def own_folder() -> Path:
    """Return the folder beside the data where readers keep what they craft."""
    return data_folder() / "artifacts"


def kept_folder() -> Path:
    """Return the folder for the book's results: the checkout's artifacts; without a checkout, `own_folder`."""
    return ARTIFACTS or own_folder()


def places(name: str) -> Iterator[Path]:
    """Yield where the file of this name may lie, in the order in which it is looked for."""
    for folder in (ARTIFACTS, own_folder()):
        if folder:
            yield note_read(folder / name)


def find(name: str) -> Path | None:
    """Return the first file of this name that is there, or None."""
    return next((place for place in places(name) if place.is_file()), None)
