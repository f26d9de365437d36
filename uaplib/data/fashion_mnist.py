"""Fashion-MNIST (Xiao, Rasul and Vollgraf, 2017): 60,000 training and 10,000 test images of clothes, 28 x 28, grey."""

import gzip
import hashlib
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from uaplib.data import DATA_SETS, pictures
from uaplib.files import checkout, data_folder, download

CLASSES = (
    "T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
ABOUT = DATA_SETS["fashion-mnist"]
URL = ABOUT.url

SYSTEM_FOLDER = Path(ABOUT.system)


class _File(NamedTuple):
    name: str
    download_md5: str  # of the compressed file, as its authors publish it
    content_sha256: str  # of what is inside: Debian compresses the same content another way


_FILES = {
    ("train", "images"): _File(
        "train-images-idx3-ubyte.gz",
        "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    ),
    ("train", "labels"): _File(
        "train-labels-idx1-ubyte.gz",
        "25c81989df183df01b3e8a0aad5dffbe",
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    ),
    ("test", "images"): _File(
        "t10k-images-idx3-ubyte.gz",
        "bef4ecab320f06d8554ea6380940ec79",
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    ),
    ("test", "labels"): _File(
        "t10k-labels-idx1-ubyte.gz",
        "bb300cfdad3c16e7a12a480ee83cd310",
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
}
SPLITS = ("train", "test")
_ROLES = {"crafting": ("train", 0, 55_000), "selection": ("train", 55_000, 60_000), "evaluation": ("test", 0, 10_000)}


class Images(NamedTuple):
    """Images (N, 1, 28, 28), float32 in [0, 1], and their labels (N,), int64."""

    images: Tensor
    labels: Tensor


def folder() -> Path:
    """Return the folder inside the data folder where the four files are kept."""
    return data_folder() / ABOUT.folder


def _find(file: _File) -> Path:
    """Return a copy of the file: from the data folder, Debian's package, or the public download."""
    cached, system = folder() / file.name, SYSTEM_FOLDER / file.name
    for candidate in (cached, system):
        if candidate.exists():
            return candidate
    return download(URL + file.name, f"md5:{file.download_md5}", cached, _remedy())


def _remedy() -> str:
    others = "install Debian's package dataset-fashion-mnist"
    if checkout():
        return f"Run `make data`, which asks Debian's archive too; or put the four files there, or {others}."
    return f"Get the four files from {URL} and put them into {folder()}, or {others}."


def _content(file: _File) -> bytes:
    """Return the verified content of the file."""
    path = _find(file)
    try:
        content = gzip.decompress(path.read_bytes())
    except (EOFError, OSError, gzip.zlib.error):
        content = b""
    if hashlib.sha256(content).hexdigest() != file.content_sha256:
        raise ValueError(f"{path} is damaged: its content does not have the right SHA-256. Delete it and try again.")
    return content


def load(split: str, first: int | None = None) -> Images:
    """Load the "train" or "test" split, or its `first` images.

    Raises ValueError for another split or a damaged file, FileNotFoundError when no source has the files.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {SPLITS}, not {split!r}")
    pixels = np.frombuffer(_content(_FILES[split, "images"]), np.uint8, offset=16).reshape(-1, 1, 28, 28)[:first]
    labels = np.frombuffer(_content(_FILES[split, "labels"]), np.uint8, offset=8)[:first]
    return Images(torch.from_numpy(pixels.astype(np.float32) / 255), torch.from_numpy(labels.astype(np.int64)))


def load_or_twenty(first: int) -> Images:
    """Return the `first` test images; where the files are not there, warn, and return at most twenty of them.

    The package foolbox carries the first twenty, the same pixels. Raises FileNotFoundError where it is missing, too.
    """
    try:
        return load("test", first)
    except FileNotFoundError as missing:
        try:
            twenty = pictures.foolbox_pictures("fashionMNIST")
        except FileNotFoundError:
            raise missing from None
        warnings.warn(
            f"there are only the first {len(twenty)} test images, which foolbox carries: "
            f"{' '.join(str(missing).split())}",
            stacklevel=2,
        )
        return Images(*twenty[:first].load(_pixels))


def _pixels(picture: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(picture, np.float32)[None] / 255)


def load_role(role: str, count: int | None = None) -> Images:
    """Return the images of a role, or the first `count`; see `uaplib.data.load`.

    One crafts on the first 55,000 training images, selects with the last 5,000 and evaluates on the test images.
    """
    split, start, stop = _ROLES[role]
    images, labels = load(split, stop if count is None else start + count)
    return Images(images[start:], labels[start:])


def most(role: str) -> int:
    """Return how many images play a role."""
    _, start, stop = _ROLES[role]
    return stop - start


def describe(role: str) -> str:
    """Return in words where the images of a role come from."""
    split, start, _ = _ROLES[role]
    return f"Fashion-MNIST, {split} split" + (f", from image {start:,} on" if start else "")
