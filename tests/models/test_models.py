import json

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from uaplib import metrics, models
from uaplib.models import Normalized, registry

every = pytest.mark.parametrize("name", models.names())


def modules(name, kind):
    return [m for m in registry.build(name).modules() if isinstance(m, kind)]


def test_normalized_normalises_every_channel_by_itself():
    model = Normalized(nn.Identity(), mean=(0.5, 0.25), std=(0.5, 0.25))
    images = torch.tensor([1.0, 0.25]).view(1, 2, 1, 1)
    assert model(images).flatten().tolist() == [1.0, 0.0]


def test_normalized_follows_the_type_and_the_device():
    model = Normalized(nn.Identity(), (0.5,), (0.5,)).double()
    assert model(torch.ones(1, 1, 1, 1, dtype=torch.float64)).dtype == torch.float64
    assert model.to("meta").mean.device.type == "meta"


@pytest.mark.parametrize(("mean", "std"), [((0.5,), (0.5, 0.5)), ((0.5,), (0.0,)), ((0.5,), (-1.0,)), ((), ())])
def test_normalized_refuses_bad_statistics(mean, std):
    with pytest.raises(ValueError, match="mean and std need one number per channel and std > 0"):
        Normalized(nn.Identity(), mean, std)


def test_the_six_networks_of_the_book_come_first():
    assert models.names()[:6] == [
        "caffenet-mini",
        "vgg-f-mini",
        "googlenet-mini",
        "vgg16-mini",
        "vgg19-mini",
        "resnet-mini",
    ]


@pytest.mark.parametrize(
    ("name", "number"),
    [("caffenet-mini", 192842), ("vgg-f-mini", 165626), ("googlenet-mini", 167286), ("vgg16-mini", 356410),
     ("vgg19-mini", 467194), ("resnet-mini", 390858)],
)  # fmt: skip
def test_the_number_of_parameters(name, number):
    assert sum(p.numel() for p in registry.build(name).parameters()) == number


@pytest.mark.parametrize(("name", "convolutions"), [("vgg16-mini", 13), ("vgg19-mini", 16)])
def test_the_vggs_have_their_convolutions(name, convolutions):
    found = modules(name, nn.Conv2d)
    assert len(found) == convolutions
    assert all(c.kernel_size == (3, 3) for c in found)
    assert len(modules(name, nn.Linear)) == 3
    assert len(modules(name, nn.MaxPool2d)) == 5


@every
def test_only_the_residual_network_has_batch_normalisation(name):
    assert bool(modules(name, nn.BatchNorm2d)) == (name == "resnet-mini")


@every
def test_only_caffenet_has_grouped_convolutions(name):
    assert any(c.groups == 2 for c in modules(name, nn.Conv2d)) == (name == "caffenet-mini")


@every
def test_only_the_alexnet_family_has_response_normalisation(name):
    assert bool(modules(name, nn.LocalResponseNorm)) == (name in ("caffenet-mini", "vgg-f-mini"))


@every
def test_an_untrained_network_gives_ten_logits(name):
    assert registry.build(name).eval()(torch.rand(2, 1, 28, 28)).shape == (2, 10)


@every
def test_a_pretrained_network_is_frozen_and_in_evaluation_mode(name):
    model = models.load(name)
    assert not any(m.training for m in model.modules())
    assert not any(p.requires_grad for p in model.parameters())


@every
def test_the_card_tells_the_truth(name, clothes):
    card, model = models.card(name), models.load(name)
    assert card["name"] == name
    assert card["parameters"] == sum(p.numel() for p in model.parameters())
    found = metrics.accuracy(metrics.predict(model, clothes.images), clothes.labels).value
    assert found == pytest.approx(card["test_accuracy"], abs=0.018)  # three standard deviations of 2000 images
    assert card["command"].startswith(f"uaplib train {name} --seed {card['seed']}")


@every
def test_every_network_is_accurate(name):
    assert models.card(name)["test_accuracy"] >= 0.91


def test_the_best_three_are_more_accurate():
    assert sorted(models.card(name)["test_accuracy"] for name in models.names())[-3] >= 0.93


def test_all_weights_together_are_small():
    assert {f.stem for f in registry.WEIGHTS.glob("*.safetensors")} == {*models.trained_here()}
    assert sum(models.weights_file(name).stat().st_size for name in models.names()) <= 8e6


def test_loading_leaves_the_global_generator_alone():
    state = torch.get_rng_state()
    models.load("vgg16-mini")
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("function", [models.load, models.card, models.weights_file, registry.build])
def test_an_unknown_name_gets_suggestions(function):
    with pytest.raises(ValueError, match="name='vgg16-mni' is unknown. Did you mean .*'vgg16-mini'"):
        function("vgg16-mni")


def test_missing_weights_get_the_command_that_makes_them(monkeypatch, tmp_path):
    monkeypatch.setattr(registry, "WEIGHTS", tmp_path)
    with pytest.raises(
        FileNotFoundError, match="vgg16-mini.safetensors is missing. `uaplib train vgg16-mini --out .*` makes it"
    ):
        models.load("vgg16-mini")


def truncated(path):
    path.write_bytes(models.weights_file("vgg16-mini").read_bytes()[:5000])


def pickled(path):
    torch.save(registry.build("vgg16-mini").network.state_dict(), path)


def of_another_network(path):
    save_file(registry.build("vgg19-mini").network.state_dict(), path)


def incomplete(path):
    save_file(dict(list(registry.build("vgg16-mini").network.state_dict().items())[:-1]), path)


@pytest.mark.parametrize("write", [truncated, pickled, of_another_network, incomplete])
def test_damaged_weights_are_refused(monkeypatch, tmp_path, write):
    write(tmp_path / "vgg16-mini.safetensors")
    monkeypatch.setattr(registry, "WEIGHTS", tmp_path)
    with pytest.raises(ValueError, match="vgg16-mini.safetensors does not hold the weights of vgg16-mini"):
        models.load("vgg16-mini")


@every
def test_the_card_is_readable_by_people(name):
    text = models.weights_file(name).with_suffix(".json").read_text(encoding="utf-8")
    assert text.endswith("}\n")
    assert json.loads(text).keys() >= {"command", "data", "epochs", "seconds", "threads", "processor", "torch"}
