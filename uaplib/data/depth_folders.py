"""Local folders of NYU-v2 (Silberman et al., 2012) or KITTI (Geiger et al., 2013): pictures with measured depth.

Neither may be handed on, so nothing is downloaded here. A folder holds pairs of files of the same name:
`rgb/NAME.jpg` or `.png`, and `depth/NAME.png`, 16 bits, 0 where nothing was measured. NYU-v2 is commonly kept in
millimetres (1,000 to a metre), KITTI in 256ths of a metre, as its own development kit writes it.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.nn import functional as F

from uaplib.data.camvid import read_image
from uaplib.names import check_name

UNITS_PER_METRE = {"nyu": 1000, "kitti": 256}


class Photographs(NamedTuple):
    """Images (N, 3, H, W), float32 in [0, 1], and depth (N, H, W), float32 in metres, 0 where there is none."""

    images: Tensor
    depth: Tensor


def load(folder: str | Path, kind: str, size: tuple[int, int], first: int | None = None) -> Photographs:
    """Load the pairs of a folder, or the `first`, at `size` (height, width); kind: "nyu" or "kitti".

    Images are resized bilinearly with antialiasing, depth to the nearest pixel, so that no depth is invented between
    measured points. Raises ValueError for another kind, or a file that is damaged or not of the right sort,
    FileNotFoundError when there are no pairs or one has no partner.
    """
    check_name("kind", kind, UNITS_PER_METRE)
    pictures = {f.stem: f for f in sorted((Path(folder) / "rgb").glob("*")) if f.suffix in (".jpg", ".png")}
    maps = {f.stem: f for f in sorted((Path(folder) / "depth").glob("*.png"))}
    if not pictures or pictures.keys() != maps.keys():
        lonely = sorted(pictures.keys() ^ maps.keys())[:3]
        raise FileNotFoundError(
            f"{folder} must hold pairs rgb/NAME.jpg (or .png) and depth/NAME.png; found {len(pictures)} pictures and "
            f"{len(maps)} depth maps" + (f", without partner for instance {lonely}" if lonely else "")
        )
    names = list(pictures)[:first]
    images = torch.cat([read_image(pictures[name], size) for name in names])
    return Photographs(images, torch.cat([_read_depth(maps[name], kind, size) for name in names]))


def _read_depth(file: Path, kind: str, size: tuple[int, int]) -> Tensor:
    try:
        with Image.open(file) as picture:
            picture.load()
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise ValueError(f"{file} is not a readable picture: {error}") from error
    if not picture.mode.startswith("I"):
        raise ValueError(f"{file} has mode {picture.mode!r}; depth needs one channel of 16 bits")
    metres = torch.from_numpy(np.array(picture, np.float32) / UNITS_PER_METRE[kind])[None, None]
    return F.interpolate(metres, size, mode="nearest-exact")[:, 0]
