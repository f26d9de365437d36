"""The perturbations that were released with the papers, as a table; `uaplib.published` reads them.

Layouts are written as in `uaplib.published`. The table is alone here so that `uaplib list` does without PyTorch.
"""

from collections.abc import Mapping
from itertools import product
from types import MappingProxyType
from typing import NamedTuple

LAYOUTS = tuple(map("-".join, product(("HWC", "WHC", "CHW", "CWH"), ("RGB", "BGR"), ("255", "1"))))
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
