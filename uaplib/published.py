"""Perturbations that were released with the papers, and the papers' tables as data.

Every release has its own layout: the order of the axes, the order of the colours, and the unit. A layout is written
here as for instance "WHC-BGR-255": columns, rows, channels; blue first; the budget 10 is 10/255 of the book's unit.
"""

import pickle
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy.io import loadmat
from scipy.io.matlab import MatReadError

from uaplib.balls import NormBall
from uaplib.files import data_folder, download, sha256
from uaplib.names import check_name
from uaplib.perturbation import UniversalPerturbation

LAYOUTS = ("WHC-RGB-255", "HWC-RGB-255", "HWC-BGR-255", "CHW-RGB-1")
EPS_255 = 10  # the budget of all of them
_GITHUB = "https://raw.githubusercontent.com/"


class Release(NamedTuple):
    """One released file: what it is, where it comes from, and what must be found in it.

    saturation: the share of values at +-10/255. l2_255: the l2 norm in 255ths, whose largest possible value at 224
    pixels is 3880.
    """

    method: str
    network: str
    layout: str
    file: str  # inside the folder "published-perturbations" of the data folder
    url: str
    sha256: str
    saturation: float
    l2_255: float


def _lts4(network: str, digest: str, saturation: float, l2_255: float) -> Release:
    file = f"universal-lts4/{network}.mat"
    url = f"{_GITHUB}LTS4/universal/master/precomputed/{network}.mat"
    return Release("uap", network, "WHC-RGB-255", file, url, digest, saturation, l2_255)


def _fff(network: str, digest: str, saturation: float, l2_255: float) -> Release:
    name = f"perturbation_{network.lower().replace('-', '')}_mean.npy"
    url = f"{_GITHUB}val-iisc/fast-feature-fool/master/perturbations/{name}"
    return Release("fff", network, "HWC-BGR-255", f"fast-feature-fool/{name}", url, digest, saturation, l2_255)


def _port(network: str, name: str, digest: str, saturation: float, l2_255: float) -> Release:
    url = f"{_GITHUB}psandovalsegura/pytorch-gd-uap/master/perturbations/{name}"
    return Release("gd-uap-none", network, "CHW-RGB-1", f"pytorch-gd-uap/{name}", url, digest, saturation, l2_255)


_RELEASES = (
    _lts4("CaffeNet", "b0cdd882eeea412d7b4ccf3f36a139bfe292bed801acc7d2230ef7adfb4b58ac", 0.0777, 3341.6),
    _lts4("VGG-F", "8636e6dca462e28580480bbc184c07b2eb5e35a523752e1236992550f03110f9", 0.0654, 3541.4),
    _lts4("GoogLeNet", "1fb751674af0ddccfae2e837935ef62bd07c0db8f2038a369cdb4cde7431106b", 0.0247, 2993.2),
    _lts4("VGG-16", "16bb5943531db733e9ce8ead32be6cfd2d3897ced788621431a5a403cdee90d5", 0.0762, 3144.4),
    _lts4("VGG-19", "38b3dad1ff3daf60e82623322cda4ce2731dc6778bbb4ac5ca672623e18e974a", 0.1274, 3156.8),
    _lts4("ResNet-152", "f70bdf43b2a464894344696dc4473b8ee07623a5356b5b16d54c7d099bcd35d4", 0.0463, 3013.4),
    Release(
        "uap", "Inception", "HWC-RGB-255", "universal-lts4/universal.npy",
        f"{_GITHUB}LTS4/universal/master/python/data/universal.npy",
        "a674113f8d79ab034e006c487893526b81f5580f828d1f521f8d954d067dc861", 0.0218, 2711.7,
    ),
    _fff("CaffeNet", "946eab448f5d37e391a7b4db9658c53c6d6d1820214983bf76718408b5f684d5", 0.8752, 3764.0),
    _fff("VGG-F", "054815aced05fe948838e9134099904a66ded6f5eb8f117b4ed5c5cb59e8dd3d", 0.8411, 3660.7),
    _fff("GoogLeNet", "1473c927ef6549ac83184f414adb013a2fb7326f9708d53a170341d5db783ad0", 0.8764, 3714.2),
    _fff("VGG-16", "d68d77a31d0c4938bc65a8c257eb8b3e373a10ec9bc45efefdc7bdeebc4de387", 0.8195, 3636.2),
    _fff("VGG-19", "23df6abc8a325c16693f30f0567e68e1695c87d0c72c30dce1dae6ad6fbfd0b6", 0.7601, 3546.5),
    _port("GoogLeNet", "463456_googlenet_no_data_iter=3501_val=voc2012_fr=678.npy",
          "e6de1889b58fe1b681fb61a534323b00a19531ffaea7fcc66945877169aaaaff", 0.7506, 3576.4),
    _port("VGG-16", "463159_vgg16_no_data_iter=2023_val=voc2012_fr=963.npy",
          "4dc5dca5a535b3b962fc04379fc3e203dcd7e14322a66021e6348782481cae4f", 0.8391, 3667.9),
    _port("VGG-19", "vgg19_no_data_iter=2572_val=voc2012_fr=941.npy",
          "ab4cd28b230073a2bb7cb352cb99a2204f04640012666c26620286c03a0fc8e5", 0.8060, 3620.7),
    _port("ResNet-50", "463458_resnet50_no_data_iter=2924_val=voc2012_fr=688.npy",
          "8dfa0791c0c599e4a2bf44ce6097037e09ab668cf0130407f24f5b4e306f2f89", 0.7030, 3511.5),
    _port("ResNet-152", "463459_resnet152_no_data_iter=3443_val=voc2012_fr=626.npy",
          "e9b536af902c39ec46ae97f60b2ec260c69412986268f76feab6b8df29deca7a", 0.6685, 3462.8),
)  # fmt: skip
RELEASES: Mapping[str, Release] = MappingProxyType({f"{r.method}-{r.network}": r for r in _RELEASES})
TABLES = ("uap-transfer", "gd-uap-range-prior-transfer", "gd-uap-priors", "later-methods")


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
    """Return the perturbation in a .npy file, or in the variable `r` of a .mat file, as the book's own are.

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
    try:
        values = loadmat(path)["r"] if path.suffix == ".mat" else np.load(path, allow_pickle=False)
    except (ValueError, OSError, KeyError, EOFError, TypeError, MatReadError, pickle.UnpicklingError) as error:
        raise ValueError(f"{path} cannot be read as a perturbation: {error}") from error
    if not (isinstance(values, np.ndarray) and np.issubdtype(values.dtype, np.floating)):
        raise ValueError(f"{path} does not hold one array of floating-point numbers")
    return values


def _check_facts(found: UniversalPerturbation, release: Release, path: Path) -> None:
    saturated, l2_255 = found.saturation, 255 * found.delta.norm().item()
    if abs(saturated - release.saturation) > 1e-3 or abs(l2_255 - release.l2_255) > 1:
        raise ValueError(
            f"{path}: {saturated:.1%} of the values are saturated and the l2 norm is {l2_255:.0f}/255, "
            f"but {release.saturation:.1%} and {release.l2_255:.0f}/255 were released"
        )


def table(name: str) -> pd.DataFrame:
    """Return a table of the papers, in per cent of ImageNet's 50,000 validation images, at 10/255.

    "uap-transfer" (Moosavi-Dezfooli et al., 2017, table 2) and "gd-uap-range-prior-transfer" (Mopuri et al., project
    page): rows are crafted on, columns are fooled. "gd-uap-priors": networks and priors. "later-methods": what came
    afterwards, each on its own network. Raises ValueError for another name.
    """
    file = resources.files("uaplib") / "tables" / f"{check_name('name', name, TABLES)}.csv"
    with file.open(encoding="utf-8") as stream:
        return pd.read_csv(stream, index_col=0)
