"""Perturbations that were released with the papers, and the papers' tables as data.

Every release has its own layout: the order of the axes, the order of the colours, and the unit. A layout is written
here as for instance "WHC-BGR-255": columns, rows, channels; blue first; the budget 10 is 10/255 of the book's unit.
"""

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from uaplib.balls import NormBall
from uaplib.files import data_folder, download, sha256
from uaplib.names import check_name
from uaplib.perturbation import FOREIGN, UniversalPerturbation
from uaplib.releases import LAYOUTS, RELEASES, Release

if TYPE_CHECKING:
    import pandas as pd

EPS_255 = 10  # the budget of all of them
TABLES = (
    "uap-transfer", "gd-uap-range-prior-transfer", "gd-uap-priors", "gd-uap-segmentation", "gd-uap-depth",
    "later-methods",
)  # fmt: skip


def load(name: str) -> UniversalPerturbation:
    """Return a released perturbation by its name in `RELEASES`, for instance "uap-CaffeNet", from the data folder.

    Where it is not there, it is downloaded. The file's SHA-256 is checked, then what was read from it: its range, its
    saturation and its l2 norm. Raises ValueError for an unknown name (nearest names given) or a file that is not what
    it says, FileNotFoundError when it can be had nowhere.
    """
    release = RELEASES[check_name("name", name, RELEASES)]
    path = _find(name)
    if sha256(path) != release.sha256:
        raise ValueError(f"{path} is damaged or another file: it does not have the SHA-256 of {name}")
    found = read(path, release.layout, method=release.method, source=release.network)
    _check_facts(found, release, path)
    return found


def file_of(name: str) -> Path:
    """Return where in the data folder the released perturbation `name` is looked for, and put by `load`."""
    return data_folder() / "published-perturbations" / RELEASES[name].file


def _find(name: str) -> Path:
    path, release = file_of(name), RELEASES[name]
    return path if path.exists() else download(release.url, f"sha256:{release.sha256}", path)


def read(
    path: str | Path, layout: str, *, eps_255: float = EPS_255, method: str = "published", source: str = ""
) -> UniversalPerturbation:
    """Return the perturbation in a file of someone else's, as the book's own are.

    .npy; .mat, the variable `r` or the only one; .pt and .pth, one tensor, alone or in a dictionary; .h5, one data
    set, where h5py is installed. Nothing is unpickled but tensors.

    layout: one of `LAYOUTS`; a first axis of length one is dropped. Raises FileNotFoundError when there is no such
    file, ValueError when it cannot be read, has another shape than the layout says, is not finite, exceeds the budget
    or does not use half of it (both are signs of another unit).
    """
    axes, colours, unit = check_name("layout", layout, LAYOUTS).split("-")
    values = _array(Path(path))
    values = values[0] if values.ndim == 4 and len(values) == 1 else values
    if values.ndim != 3 or values.shape[axes.index("C")] != 3:
        raise ValueError(f"{path} has shape {values.shape}, which is not three channels in the layout {layout}")
    values = values.transpose([axes.index(axis) for axis in "CHW"])
    values = np.ascontiguousarray(values if colours == "RGB" else values[::-1], np.float32)
    largest = 255 / int(unit) * float(np.abs(values).max())
    if not 0.5 * eps_255 <= largest <= 1.00001 * eps_255:  # false for NaN, too
        raise ValueError(
            f"{path} holds values up to {largest:g}/255 in the layout {layout}, and the budget is {eps_255:g}/255: "
            "another unit, another budget, or not a perturbation"
        )
    return UniversalPerturbation(
        torch.from_numpy(values)[None] / int(unit), NormBall(np.inf, eps_255 / 255), method, source
    )


def _array(path: Path) -> np.ndarray:
    if not path.is_file():
        raise FileNotFoundError(f"there is no perturbation at {path}")
    kind = check_name("ending", path.suffix.lower(), _READERS)
    try:
        values = _READERS[kind](path)
    except (ImportError, FileNotFoundError):
        raise
    except Exception as error:  # each library has errors of its own
        raise ValueError(f"{path} cannot be read as a perturbation in a file of {FOREIGN[kind]}") from error
    if not (isinstance(values, np.ndarray) and np.issubdtype(values.dtype, np.floating)):
        raise ValueError(f"{path} does not hold one array of floating-point numbers")
    return values


def _numpy(path: Path) -> np.ndarray:
    return np.load(path, allow_pickle=False)


def _matlab(path: Path) -> np.ndarray:
    from scipy.io import loadmat  # slow to import, as pandas below

    variables = {name: value for name, value in loadmat(path).items() if not name.startswith("__")}
    return variables["r"] if "r" in variables else _only(variables)


def _torch(path: Path) -> np.ndarray:
    content = torch.load(path, map_location="cpu", weights_only=True)
    return (_only(content) if isinstance(content, Mapping) else content).detach().numpy()


def _hdf5(path: Path) -> np.ndarray:
    try:
        import h5py
    except ImportError as error:
        raise ImportError(f"{path} is a file of HDF5, and h5py is not installed: pip install h5py") from error
    with h5py.File(path) as file:
        return _only(file)[()]


def _only(values: Mapping[str, Any]) -> Any:
    (value,) = values.values()
    return value


_READERS = {".npy": _numpy, ".mat": _matlab, ".pt": _torch, ".pth": _torch, ".h5": _hdf5, ".hdf5": _hdf5}


def _check_facts(found: UniversalPerturbation, release: Release, path: Path) -> None:
    saturated, l2_255 = found.saturation, 255 * found.delta.norm().item()
    if abs(saturated - release.saturation) > 1e-3 or abs(l2_255 - release.l2_255) > 1:
        raise ValueError(
            f"{path}: {saturated:.1%} of the values are saturated and the l2 norm is {l2_255:.0f}/255, "
            f"but {release.saturation:.1%} and {release.l2_255:.0f}/255 were released"
        )


def table(name: str) -> "pd.DataFrame":
    """Return a table of the papers, all of perturbations of 10/255, by its name in `TABLES`.

    Fooling rates, in per cent of ImageNet's 50,000 validation images. "uap-transfer" (Moosavi-Dezfooli et al., 2017,
    table 2) and "gd-uap-range-prior-transfer" (Mopuri et al., project page): rows are crafted on, columns are fooled.
    "gd-uap-priors": networks and priors. "later-methods": what came afterwards, each on its own network.

    Other tasks (Mopuri et al., 2018). "gd-uap-segmentation": mean IoU in per cent on PASCAL VOC. "gd-uap-depth": the
    measures of `uaplib.depth` on KITTI, errors and shares of pixels, not in per cent.

    Raises ValueError for another name.
    """
    import pandas as pd

    file = resources.files("uaplib") / "tables" / f"{check_name('name', name, TABLES)}.csv"
    with file.open(encoding="utf-8") as stream:
        return pd.read_csv(stream, index_col=0)
