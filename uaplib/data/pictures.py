"""ImageNet photographs: 1,000 samples, Imagenette, a local ImageNet folder, foolbox's twenty, and who plays which role.

Those of NIPS 2017 are in `uaplib.data.nips2017`. Each function returns a `Pictures`: files and class indices, read only
when they are asked for, through the preprocessing of the model that is to see them (`uaplib.models.preprocessing`).
"""

import hashlib
import importlib.util
import tempfile
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from tqdm import tqdm

from uaplib import data
from uaplib.data import DATA_SETS
from uaplib.files import checkout, data_folder, new_folders, reason
from uaplib.names import check_name

ABOUT = DATA_SETS["imagenet-samples"]
IMAGENETTE_URL = "https://github.com/fastai/imagenette"
PARTS = {"crafting": slice(0, 300), "selection": slice(300, 400), "evaluation": slice(400, 1000)}
TWENTY = "foolbox's twenty pictures"
IMAGENETTE_CLASSES = (0, 217, 482, 491, 497, 566, 569, 571, 574, 701)  # their indices among ImageNet's 1,000


class Images(NamedTuple):
    """Images (N, 3, H, W), float32 in [0, 1], and their ImageNet classes (N,), int64."""

    images: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Pictures:
    """Image files, their ImageNet class indices (0 to 999), and in words where they come from.

    credits: for each file its author and licence, where the data set's files say so; empty otherwise.
    """

    files: Sequence[Path]
    classes: Sequence[int]
    source: str = "pictures"
    credits: Sequence[str] = ()

    def __len__(self) -> int:
        """Return the number of pictures."""
        return len(self.files)

    def __getitem__(self, part: slice) -> "Pictures":
        """Return some of the pictures."""
        return Pictures(self.files[part], self.classes[part], self.source, self.credits[part])

    def sha256(self) -> str:
        """Return the SHA-256 of the files' contents, one after the other, which copies of another size do not have."""
        return hashlib.sha256(b"".join(file.read_bytes() for file in self.files)).hexdigest()

    def load(self, preprocessing: Callable[[Image.Image], Tensor], progress: bool = False) -> Images:
        """Return the images and their classes.

        Raises ValueError that names the file when one cannot be read.
        """
        images = [_read(file, preprocessing) for file in tqdm(self.files, "reading", disable=not progress, leave=False)]
        return Images(torch.stack(images), torch.tensor(self.classes))


def _read(file: Path, preprocessing: Callable[[Image.Image], Tensor]) -> Tensor:
    try:
        with Image.open(file) as picture:
            return preprocessing(picture)
    except (UnidentifiedImageError, OSError) as error:
        raise ValueError(f"{file} is not a readable picture: {error}") from error


def samples(part: str) -> Pictures:
    """Return a part of the 1,000 ImageNet samples (one per class): "crafting", "selection" or "evaluation".

    The parts (300, 100 and 600 pictures) are disjoint; a hash of the file name decides, so they are the same on every
    machine. Raises ValueError for another part, FileNotFoundError when the pictures are not there.
    """
    check_name("part", part, PARTS)
    everything = all_samples()
    files, source = everything.files, everything.source
    shuffled = sorted(range(1000), key=lambda index: hashlib.sha256(files[index].name.encode()).digest())
    chosen = shuffled[PARTS[part]]
    return Pictures([files[index] for index in chosen], chosen, f"{source}, {part} part")


def all_samples() -> Pictures:
    """Return the 1,000 ImageNet samples in the order of their classes; raises as `samples` does."""
    folder = data_folder() / ABOUT.folder
    files = sorted(folder.glob("n*.JPEG"))
    if len(files) != 1000:
        raise FileNotFoundError(
            f"the 1,000 ImageNet samples were not found in {folder} ({len(files)} files there).\n{_remedy(folder)}"
        )
    return Pictures(files, range(1000), "the 1,000 ImageNet samples")


def _remedy(folder: Path) -> str:
    if not checkout():
        return f"Get them from {ABOUT.url} and put its pictures (n*.JPEG) into that folder."
    move = "move that folder away, then: " if folder.exists() else ""  # git clones into no folder that holds something
    return f"Get them by: {move}{ABOUT.how_to_get()}"


def for_role(role: str) -> Pictures:
    """Return the photographs that play a role: "crafting", "selection" or "evaluation", three disjoint sets.

    The images of NIPS 2017 evaluate, 900 of the samples craft, 100 select. Where NIPS 2017's are missing, the last 600
    of the 900 evaluate, with a warning, and 300 craft; where the samples are missing, foolbox's twenty pictures take
    their place (6, 2 and 12), with a warning. The first 300 crafting photographs and the 100 that select are the same
    with and without NIPS 2017's.

    Raises ValueError for another role, FileNotFoundError where there is no picture at all.
    """
    check_name("role", role, PARTS)
    if role == "evaluation":
        return _to_evaluate_on()
    found = _samples_or_twenty(role)
    if role == "crafting" and found.source != TWENTY and _nips_2017_is_here():
        rest = samples("evaluation")  # on which nobody is evaluated then
        files, classes = [*found.files, *rest.files], [*found.classes, *rest.classes]
        return Pictures(files, classes, "900 of the 1,000 ImageNet samples")
    return found


def _to_evaluate_on() -> Pictures:
    try:
        return data.nips2017.pictures()
    except FileNotFoundError as missing:
        found = _samples_or_twenty("evaluation")
        if found.source != TWENTY:
            warnings.warn(f"evaluated on {found.source}: {' '.join(str(missing).split())}", stacklevel=3)
        return found


def _nips_2017_is_here() -> bool:
    with suppress(FileNotFoundError):
        data.nips2017.pictures()
        return True
    return False


def _samples_or_twenty(part: str) -> Pictures:
    """Return `samples(part)`; where they are not there, warn, and return some of foolbox's pictures (6, 2 and 12)."""
    try:
        return samples(part)
    except FileNotFoundError as missing:
        try:
            twenty = foolbox_pictures()
        except FileNotFoundError:
            raise missing from None
        few = twenty[{"crafting": slice(0, 6), "selection": slice(6, 8), "evaluation": slice(8, 20)}[part]]
        warnings.warn(
            f"for {part} there are only {len(few)} of foolbox's pictures: {' '.join(str(missing).split())}",
            stacklevel=3,
        )
        return few


def load_role(role: str, count: int | None, preprocessing: Callable[[Image.Image], Tensor]) -> Images:
    """Return the pictures that play a role, or the first `count`; see `uaplib.data.load` and `for_role`."""
    return for_role(role)[:count].load(preprocessing)


def most(role: str) -> int:
    """Return how many pictures play a role."""
    return len(_quietly(role))


def describe(role: str) -> str:
    """Return in words where the pictures of a role come from."""
    return _quietly(role).source


def _quietly(role: str) -> Pictures:
    """What would be loaded; who loads it is warned."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return for_role(role)


def foolbox_pictures(data_set: str = "imagenet") -> Pictures:
    """Return the 20 pictures of a data set inside the package foolbox, which is found but not imported.

    data_set: as foolbox's files call it, "imagenet" or "fashionMNIST". Raises FileNotFoundError when there are none.
    """
    package = importlib.util.find_spec("foolbox")
    files = sorted((Path(package.origin).parent / "data").glob(f"{data_set}_*")) if package else []
    if not files:
        raise FileNotFoundError("the package foolbox, which carries 20 ImageNet pictures, is not installed")
    return Pictures(files, [int(file.stem.split("_")[-1]) for file in files], TWENTY)


def imagenette(split: str = "val", download: bool = False) -> Pictures:
    """Return Imagenette (Howard, 2019), ten classes of ImageNet at 320 pixels: split "train" or "val".

    torchvision reads it, and fetches it (340 MB, checked) with `download`. Raises FileNotFoundError when it is not in
    the data folder, and cannot be downloaded.
    """
    from torchvision import datasets  # slow to import

    place = data_folder() / "imagenette2-320"
    try:
        if download and not place.exists():
            _fetch_imagenette(place)
        folder = datasets.Imagenette(data_folder(), split=split, size="320px")
    except (OSError, RuntimeError) as error:
        why, remedy = "", "download=True fetches it (340 MB)"
        if download:
            why = f", and could not be downloaded: {reason(error)}"
            remedy = f"Try again, or unpack imagenette2-320.tgz there, from {IMAGENETTE_URL}"
        raise FileNotFoundError(f"Imagenette was not found in {place}{why}.\n{remedy}.") from error
    files, indices = zip(*folder._samples, strict=True)
    return Pictures([Path(file) for file in files], [IMAGENETTE_CLASSES[index] for index in indices], "Imagenette")


def _fetch_imagenette(place: Path) -> None:
    """Download and unpack it elsewhere first: half of it in its place would pass for the whole."""
    from torchvision import datasets

    with new_folders(place.parent), tempfile.TemporaryDirectory(prefix=".imagenette-", dir=place.parent) as temporary:
        datasets.Imagenette(temporary, split="val", size="320px", download=True)
        (Path(temporary) / place.name).rename(place)


def image_folder(folder: str | Path) -> Pictures:
    """Return the pictures of a local ImageNet folder: a thousand subfolders, in the order of their names.

    Raises FileNotFoundError for a folder without pictures, ValueError unless it holds 1,000 classes.
    """
    from torchvision import datasets

    found = datasets.ImageFolder(folder)
    if len(found.classes) != 1000:
        raise ValueError(f"{folder} must hold one subfolder for each of the 1,000 classes, not {len(found.classes)}")
    files, indices = zip(*found.samples, strict=True)
    return Pictures([Path(file) for file in files], list(indices), str(folder))
