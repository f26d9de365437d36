"""The 1,000 development images of NIPS 2017's competition on attacks (Kurakin et al., 2018), 299 x 299 pixels.

A public standard of transfer attacks, on which no network of this library was trained. Upstream they are PNG; copies as
JPEG are read, too. The table beside them says of each what it shows, who took it and under which licence.
"""

import csv
import re
from collections.abc import Callable
from pathlib import Path

from PIL import Image
from torch import Tensor

from uaplib.data import DATA_SETS
from uaplib.data.pictures import Images, Pictures
from uaplib.files import checkout, data_folder

ABOUT = DATA_SETS["nips2017"]
COUNT = 1000
_OCTAL = re.compile(r"(?:\\[0-7]{3})+")
_ENDINGS = (".png", ".jpg", ".jpeg")


def folder() -> Path:
    """Return the folder where `dev_dataset.csv` and the folder `images` are looked for."""
    return data_folder() / ABOUT.folder


def pictures() -> Pictures:
    """Return the images in the order of `dev_dataset.csv`, with their classes and their authors.

    Raises FileNotFoundError where one of them is not there.
    """
    found = {file.stem: file for file in (folder() / "images").glob("*.*") if file.suffix.lower() in _ENDINGS}
    rows = [row for row in _table() if row["ImageId"] in found]
    if len(rows) != COUNT:
        raise FileNotFoundError(
            f"NIPS 2017's 1,000 images and dev_dataset.csv were not found in {folder()} ({len(rows)} images there).\n"
            f"{_remedy()}"
        )
    files, classes = [found[row["ImageId"]] for row in rows], [int(row["TrueLabel"]) - 1 for row in rows]
    return Pictures(files, classes, "the 1,000 images of NIPS 2017", [_credit(row) for row in rows])


def _table() -> list[dict[str, str]]:
    file = folder() / "dev_dataset.csv"
    return list(csv.DictReader(file.read_text(encoding="utf-8").splitlines())) if file.is_file() else []


def _credit(row: dict[str, str]) -> str:
    """Who took a picture, and under which licence; not every copy of the table says so."""
    said = [row[name] for name in ("Author", "License", "OriginalLandingURL") if row.get(name)]
    return ", ".join(_OCTAL.sub(lambda bytes_: _text(bytes_[0]), words) for words in said)


def _text(octal: str) -> str:
    """The text whose UTF-8 bytes are written as in "\\303\\244", which is how the table has what is not ASCII."""
    return bytes(int(number, 8) for number in octal.split("\\")[1:]).decode("utf-8", errors="replace")


def _remedy() -> str:
    if checkout():
        return f"Get them by: {ABOUT.how_to_get()}"
    return f"Get them from {ABOUT.url}: put what is in its folder `dataset` into that folder."


def load_role(role: str, count: int | None, preprocessing: Callable[[Image.Image], Tensor]) -> Images:
    """Return the images, or the first `count`; they have one role, "evaluation". See `uaplib.data.load`."""
    return pictures()[:count].load(preprocessing)


def most(role: str) -> int:
    """Return how many images there are."""
    return len(pictures())


def describe(role: str) -> str:
    """Return in words where the images come from."""
    return pictures().source
