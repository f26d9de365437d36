"""CamVid (Brostow, Fauqueur and Cipolla, 2009): 701 street scenes with a class for every pixel, in eleven classes.

The files are those of SegNet's authors (Badrinarayanan, Kendall and Cipolla, 2017): 367 images for training, 101 for
validation and 233 for testing, of 480 x 360 pixels.
"""

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.nn import functional as F

from uaplib.checks import check_images
from uaplib.data import DATA_SETS, SPLIT_OF
from uaplib.files import checkout, data_folder
from uaplib.names import check_name

CLASSES = (
    "sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist",
)  # fmt: skip
VOID = len(CLASSES)  # the label of pixels without a class, which no measure counts
OBJECTS = ("pole", "sign", "fence", "car", "pedestrian", "bicyclist")  # the rest is background
COLOURS = (
    (70, 130, 180), (128, 64, 64), (190, 153, 153), (128, 64, 128), (244, 35, 232), (107, 142, 35), (220, 220, 0),
    (153, 102, 60), (0, 0, 142), (220, 20, 60), (119, 11, 32), (0, 0, 0),
)  # fmt: skip
SPLITS = {"train": 367, "val": 101, "test": 233}
ABOUT = DATA_SETS["camvid"]
SIZE = ABOUT.size  # height and width at which the book's networks see the scenes

# SHA-256 of all label maps of a split, in the order of their names: their sizes and pixels, whatever the compression.
_LABELS_SHA256 = {
    "train": "4846940d8802cfa2d32f7684bc63d2b514158faf3c34ddb0da5d469fe817cbf4",
    "val": "758d85b116131739bb399d80241bfc42e0703c43049b94eee7428a01bfc47f0c",
    "test": "e6dc2dd8a8b91ad27b05a56ac749288fc0df410e2bfbfab9c0558d4cde5c308f",
}


class Scenes(NamedTuple):
    """Images (N, 3, H, W), float32 in [0, 1], and the class of every pixel (N, H, W), int64; `VOID` has none."""

    images: Tensor
    labels: Tensor


def folder() -> Path:
    """Return the folder where the six folders `train`, `trainannot`, ... are looked for."""
    return data_folder() / ABOUT.folder


def available() -> bool:
    """Return whether the data set is there: every picture of every split, and its label map."""
    return all(_is_whole(split, *_listed(split)) for split in SPLITS)


def load(split: str, first: int | None = None, size: tuple[int, int] = SIZE) -> Scenes:
    """Load the "train", "val" or "test" split, or its `first` scenes, at `size` (height, width).

    Images are resized bilinearly with antialiasing, label maps to the nearest pixel. Raises ValueError for another
    split or a file that is damaged or of the wrong kind, FileNotFoundError when the data set is not there.
    """
    check_name("split", split, SPLITS)
    files, maps = _files(split)
    _check_labels(split, maps)
    pairs = list(zip(files, maps, strict=True))[:first]
    images = torch.cat([read_image(file, size) for file, _ in pairs])
    return Scenes(images, torch.cat([read_labels(file, size) for _, file in pairs]))


def load_role(role: str, count: int | None = None) -> Scenes:
    """Return the scenes of the split that plays a role, or the first `count`; see `uaplib.data.load`."""
    return load(SPLIT_OF[role], count)


def most(role: str) -> int:
    """Return how many scenes play a role."""
    return SPLITS[SPLIT_OF[role]]


def describe(role: str) -> str:
    """Return in words where the scenes of a role come from."""
    return f"camvid, {SPLIT_OF[role]} split"


def _files(split: str) -> tuple[list[Path], list[Path]]:
    """The images and the label maps of a split, in the same order."""
    images, maps = _listed(split)
    if not _is_whole(split, images, maps):
        raise FileNotFoundError(
            f"CamVid's {SPLITS[split]} scenes for {split} were not found in {folder()} ({len(images)} images and "
            f"{len(maps)} label maps there).\n{_remedy()}"
        )
    return images, maps


def _listed(split: str) -> tuple[list[Path], list[Path]]:
    images = sorted(f for f in (folder() / split).glob("*") if f.suffix in (".png", ".jpg"))
    return images, sorted((folder() / f"{split}annot").glob("*.png"))


def _is_whole(split: str, images: Sequence[Path], maps: Sequence[Path]) -> bool:
    return len(images) == SPLITS[split] and [f.stem for f in images] == [f.stem for f in maps]


def _remedy() -> str:
    if checkout():
        return f"Get them by: {ABOUT.how_to_get()}"
    return f"Get them from {ABOUT.url}: put what is in its folder CamVid into {folder()}."


def _check_labels(split: str, maps: Sequence[Path]) -> None:
    digest = hashlib.sha256()
    for file in maps:
        labels = _read(file, "L")
        digest.update(str(labels.shape).encode() + labels.tobytes())
    if digest.hexdigest() != _LABELS_SHA256[split]:
        raise ValueError(
            f"the label maps in {maps[0].parent} are not CamVid's: their SHA-256 differs. "
            f"Get them anew from {ABOUT.url}"
        )


def read_image(file: str | Path, size: tuple[int, int] | None = None) -> Tensor:
    """Return a picture file as float32 (1, 3, H, W) in [0, 1], resized to `size` (height, width) if given.

    Grey pictures get three equal channels. Raises ValueError for a file that is no picture, is cut short, has more
    than 8 bits a channel, or is partly transparent: what lies behind would be a guess.
    """
    pixels = _read(Path(file), "RGB")
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
    if size is not None:
        image = F.interpolate(image, size, mode="bilinear", antialias=True).clamp(0, 1)
    check_images(image, str(file))
    return image


def read_labels(file: str | Path, size: tuple[int, int] | None = None) -> Tensor:
    """Return a label map file as int64 (1, H, W), resized to the nearest pixel if `size` (height, width) is given.

    Raises ValueError for a file that is no picture, has several channels or labels that are no class and not void.
    """
    labels = torch.from_numpy(_read(Path(file), "L"))[None]
    if labels.max() > VOID:
        raise ValueError(f"{file} has the label {labels.max()}; the classes are 0 ... {VOID - 1}, and {VOID} is void")
    if size is not None:
        labels = F.interpolate(labels[None].float(), size, mode="nearest-exact")[0]
    return labels.long()


def _read(file: Path, mode: str) -> np.ndarray:
    """The pixels of a picture file, uint8: (H, W, 3) for mode "RGB" and (H, W) for "L"."""
    try:
        with Image.open(io.BytesIO(file.read_bytes())) as picture:
            picture.load()
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"{file} is not a readable picture: {error}") from error
    if mode == "L" and picture.mode not in ("L", "P"):
        raise ValueError(f"{file} is no label map: it has mode {picture.mode!r}, where one channel of 8 bits is needed")
    if mode == "RGB" and picture.mode[0] in "IF":  # Pillow would clip them to white
        raise ValueError(f"{file} has mode {picture.mode!r}; a picture needs channels of 8 bits")
    if mode == "RGB" and picture.has_transparency_data and picture.convert("RGBA").getextrema()[3][0] < 255:
        raise ValueError(f"{file} is partly transparent; flatten it onto a background first")
    return np.array(picture if mode == "L" else picture.convert("RGB"))


def object_share(labels: Tensor) -> Tensor:
    """Return the share of each scene's pixels (N, H, W) that show objects, not background, of shape (N,)."""
    return torch.isin(labels, torch.tensor([CLASSES.index(name) for name in OBJECTS])).float().mean((1, 2))
