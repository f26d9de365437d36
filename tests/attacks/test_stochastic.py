"""Attacks by stochastic gradients: tensors and DataLoaders, targets, histories, and bad input."""

import copy
import dataclasses
import math

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from uaplib import models
from uaplib.attacks import (
    CosineUAPSettings,
    DFUAPSettings,
    DMUAPSettings,
    SGASettings,
    SGDUAPSettings,
    cosine_uap,
    df_uap,
    dm_uap,
    sga,
    sgd_uap,
    sv_uap,
)
from uaplib.balls import NormBall

BALL = NormBall(math.inf, 0.06)
ATTACKS = {
    "sgd-uap": (sgd_uap, SGDUAPSettings, {}),
    "sga": (sga, SGASettings, {"inner_batch_size": 4}),
    "df-uap": (df_uap, DFUAPSettings, {}),
    "cosine-uap": (cosine_uap, CosineUAPSettings, {}),
    "dm-uap": (dm_uap, DMUAPSettings, {"weight_steps": 2, "image_steps": 2}),
}
every = pytest.mark.parametrize("name", ATTACKS)


def craft(name, model, images, ball=BALL, settings=None, **options):
    attack, kind, own = ATTACKS[name]
    chosen = kind(**({"batch_size": 8, "max_gradients": 300} | own | (settings or {})))
    return attack(model, images, ball, settings=chosen, **options)


@pytest.fixture
def images(blobs):
    return blobs[0][:20].clone()


class Stop(KeyboardInterrupt):
    pass


@every
def test_a_loader_gives_what_a_tensor_gives(name, model, images):
    """With one batch that is all of the images nothing is left to chance but the order, which the mean forgets."""
    whole = {"batch_size": len(images)}
    if name == "sga":
        whole |= {"inner_batch_size": len(images), "rounds": 1}
    expected = craft(name, model, images, settings=whole)
    found = craft(name, model, DataLoader(TensorDataset(images), batch_size=len(images)), settings=whole)
    torch.testing.assert_close(found.delta, expected.delta, rtol=0, atol=1e-9)
    assert found.parameters["images"] == len(images)
    assert found.parameters["images_sha256"] == ""


@every
@pytest.mark.parametrize("call", [2, 5])
def test_with_a_shuffling_loader_it_goes_on_bit_for_bit(name, model, images, tmp_path, monkeypatch, call):
    loader = DataLoader(TensorDataset(images), batch_size=8, shuffle=True)
    settings = {"max_gradients": 300 if name != "dm-uap" else 1000}
    expected = craft(name, model, loader, settings=settings, seed=2)
    again = craft(name, model, loader, settings=settings, seed=2)
    assert torch.equal(again.delta, expected.delta)
    calls, forward = [], model.forward

    def failing(x):
        calls.append(x)
        if len(calls) == 6 * call:
            raise Stop
        return forward(x)

    monkeypatch.setattr(model, "forward", failing)
    with pytest.raises(KeyboardInterrupt):
        craft(name, model, loader, settings=settings, seed=2, checkpoint=tmp_path / "c")
    monkeypatch.setattr(model, "forward", forward)
    assert (tmp_path / "c").is_file()
    resumed = craft(name, model, loader, settings=settings, seed=2, checkpoint=tmp_path / "c")
    assert torch.equal(resumed.delta, expected.delta)
    assert resumed.history == expected.history


def test_labels_of_a_loader_are_used_where_they_are_asked_for(model, images):
    truth = (model(images).argmax(1) + 1) % 5
    pairs, whole = DataLoader(TensorDataset(images, truth), batch_size=20), {"batch_size": 20}
    usual = craft("sgd-uap", model, images, settings=whole).delta
    torch.testing.assert_close(craft("sgd-uap", model, pairs, settings=whole).delta, usual, rtol=0, atol=1e-9)
    found = craft("sgd-uap", model, pairs, settings=whole | {"labels": "truth"}).delta
    expected = craft("sgd-uap", model, images, settings=whole | {"labels": "truth"}, labels=truth).delta
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)
    assert not torch.equal(found, usual)


@pytest.mark.parametrize("name", ["sgd-uap", "sga", "df-uap"])
def test_a_target_is_reached(name, model, images):
    found = craft(name, model, images, NormBall(math.inf, 0.3), {"target": 1, "max_gradients": 4000})
    labels = model((images + found.delta).clamp(0, 1)).argmax(1)
    assert (labels == 1).float().mean() > 0.9
    assert found.history[-1]["target_rate"] > 0.9
    assert "target_rate" not in craft(name, model, images).history[-1]


def test_some_classes_are_fooled_and_the_others_kept(model, blobs):
    images, (ball, clean) = blobs[0], (NormBall(math.inf, 0.2), model(blobs[0]).argmax(1))
    settings = {"sources": [0, 1], "max_gradients": 12_000, "batch_size": 32}
    for target in (None, 2):
        found = craft("df-uap", model, images, ball, settings | {"target": target})
        labels = model((images + found.delta).clamp(0, 1)).argmax(1)
        chosen = clean < 2
        assert (labels != clean)[chosen].float().mean() > 0.8
        assert (labels != clean)[~chosen].float().mean() < 0.2
        if target:
            assert (labels[chosen] == target).float().mean() > 0.8


@pytest.mark.parametrize("name", ["sgd-uap", "sga"])
def test_momentum_and_what_was_not_told_yet_are_resumed(name, model, images, tmp_path, monkeypatch):
    settings = {"momentum": 0.9, "max_gradients": 60_000, "batch_size": 4}  # an entry after many steps
    settings |= {"inner_batch_size": 2, "rounds": 1} if name == "sga" else {}
    short = settings | {"max_gradients": 6000}
    expected = craft(name, model, images, settings=short, seed=1)
    step, calls = type(model).forward, []

    def failing(self, x):
        calls.append(x)
        if len(calls) == 500:
            raise Stop
        return step(self, x)

    with monkeypatch.context() as patch:
        patch.setattr(type(model), "forward", failing)
        with pytest.raises(KeyboardInterrupt):
            craft(name, model, images, settings=short, seed=1, checkpoint=tmp_path / "c")
    resumed = craft(name, model, images, settings=short, seed=1, checkpoint=tmp_path / "c")
    assert torch.equal(resumed.delta, expected.delta)
    assert resumed.history == expected.history
    without = craft(name, model, images, settings=short | {"momentum": 0.0}, seed=1)
    assert not torch.equal(without.delta, expected.delta)


def test_images_that_the_network_gets_wrong_do_not_count_where_some_classes_are_attacked(model, images):
    truth = model(images).argmax(1)
    truth[::2] = (truth[::2] + 1) % 5
    settings = {"sources": [0, 1, 2], "labels": "truth", "batch_size": 20}
    found = craft("df-uap", model, images, settings=settings, labels=truth)
    right = images[1::2]
    expected = craft(
        "df-uap", model, right, settings=settings | {"batch_size": 10, "max_gradients": 150}, labels=truth[1::2]
    )
    assert found.run["steps"] == expected.run["steps"]
    torch.testing.assert_close(found.delta, expected.delta, rtol=0, atol=1e-9)


def test_with_a_target_labels_are_not_asked_for(model, images):
    settings = {"target": 1, "labels": "truth"}
    expected = craft("sgd-uap", model, images, settings={"target": 1})
    assert torch.equal(craft("sgd-uap", model, images, settings=settings).delta, expected.delta)
    with pytest.raises(ValueError, match="needs the true labels"):
        craft("df-uap", model, images, settings=settings | {"sources": [0]})


def test_two_loaders_are_told_apart(model, images):
    found = [
        craft("sgd-uap", model, DataLoader(TensorDataset(some), batch_size=size, shuffle=True))
        for some, size in ((images, 4), (images, 5), (1 - images, 4), (images, 4))
    ]
    assert len({each.key for each in found}) == 3
    assert found[0].key == found[3].key
    assert found[1].parameters["batch_size"] == 5


def test_single_networks_are_asked_for(blobs):
    ensemble = models.load("vgg-f-mini+resnet-mini")
    some = torch.rand(4, 1, 28, 28)
    for attack in (lambda: dm_uap(ensemble, some, BALL), lambda: sv_uap(ensemble, some, BALL)):
        with pytest.raises(ValueError, match="is for one network"):
            attack()


def test_a_network_without_a_gradient_is_told_of(images):
    class Constant(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1).double())

        def forward(self, x):
            return torch.stack([0 * x.sum((1, 2, 3)) * self.weight, torch.ones(len(x)).double()], 1)

    for name in ("sgd-uap", "dm-uap"):
        with pytest.warns(UserWarning, match="exactly zero"):
            craft(name, Constant().eval(), images, settings={"max_gradients": 60})


@every
def test_the_history_says_what_was_spent_and_what_came_of_it(name, model, images):
    found = craft(name, model, images, settings={"max_gradients": 2000})
    spent = [entry["gradients"] for entry in found.history]
    assert spent == sorted(set(spent))
    assert spent[-1] == found.run["gradients"] >= 2000
    assert len(found.history) <= 101
    assert all(0 <= entry["rate"] <= 1 and 0 <= entry["saturation"] <= 1 for entry in found.history)
    assert found.history[-1]["l2_norm"] == pytest.approx(found.delta.norm().item())


@every
@pytest.mark.parametrize("call", range(4, 11))
def test_the_network_is_left_alone_even_in_the_middle_of_a_step(name, model, images, monkeypatch, call):
    before, calls, forward = copy.deepcopy(model.state_dict()), [], model.forward

    def failing(x):
        calls.append(model.training)
        if len(calls) == call:
            raise Stop
        return forward(x)

    monkeypatch.setattr(model, "forward", failing)
    with pytest.raises(KeyboardInterrupt):
        craft(name, model, images)
    assert any(calls) == (name == "dm-uap" and call >= 6)  # its weights move in training mode
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not any(module.training for module in model.modules())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


def test_batch_normalisation_forgets_what_it_saw_while_weights_moved(images):
    layers = [torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Flatten(), torch.nn.Linear(400, 5)]
    network = torch.nn.Sequential(*layers).double().eval()
    before = copy.deepcopy(network.state_dict())
    results = [
        craft("dm-uap", network, images, settings={"training_mode": mode, "max_gradients": 400}).delta
        for mode in (True, False)
    ]
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert not torch.equal(*results)


def test_black_pixels_can_become_lighter(model, images):
    """At the border of [0, 1] the gradient passes: else what is black in all images would stay as it is."""
    images[:, :, :3] = 0
    images[:, :, -3:] = 1
    found = craft("sgd-uap", model, images)
    assert (found.delta[:, :, :3] > 0).any()
    assert (found.delta[:, :, -3:] < 0).any()


class Dictionaries(TensorDataset):
    def __getitem__(self, index):
        return {"image": self.tensors[0][index]}


@every
def test_bad_images_and_loaders(name, model, images):
    with pytest.raises(TypeError, match="DataLoader returns a dict"):
        craft(name, model, DataLoader(Dictionaries(images), batch_size=4))
    with pytest.raises(ValueError, match="DataLoader is empty"):
        craft(name, model, DataLoader(TensorDataset(images[:0]), batch_size=4))
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
        craft(name, model, DataLoader(TensorDataset(255 * images), batch_size=4))
    with pytest.raises(ValueError, match="cannot take images"):
        craft(name, model, images[..., :8])
    with pytest.raises(ValueError, match=r"l-infinity balls"):
        craft(name, model, images, NormBall(2, 1.0))
    with pytest.raises(ValueError, match="eps > 0"):
        craft(name, model, images, NormBall(math.inf, 0.0))


def test_batches_of_other_sizes_are_refused(images):
    network = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(4), torch.nn.Flatten(), torch.nn.Linear(16, 3)).double()
    loader = [images[:4], images[4:8, :, :10]]

    class Loader(DataLoader):
        def __iter__(self):
            return iter(loader)

    with pytest.raises(ValueError, match=r"images are \(1, 10, 12\) here and \(1, 12, 12\) in the first batch"):
        craft("sgd-uap", network.eval(), Loader(TensorDataset(images)))


@pytest.mark.parametrize("name", ["sgd-uap", "sga", "df-uap"])
def test_bad_labels_and_targets(name, model, images):
    with pytest.raises(ValueError, match=r"target must be a class of the model, 0 ... 4, not 5"):
        craft(name, model, images, settings={"target": 5})
    with pytest.raises(ValueError, match="target must be a class, from 0 on"):
        craft(name, model, images, settings={"target": -1})
    with pytest.raises(TypeError, match="target must be a whole number"):
        craft(name, model, images, settings={"target": 1.5})
    with pytest.raises(ValueError, match="needs the true labels"):
        craft(name, model, images, settings={"labels": "truth"})
    with pytest.raises(ValueError, match="needs a DataLoader that returns pairs"):
        craft(name, model, DataLoader(TensorDataset(images)), settings={"labels": "truth"})
    with pytest.raises(ValueError, match=r"labels must lie in 0 ... 4"):
        craft(name, model, images, settings={"labels": "truth"}, labels=torch.full((20,), 7))
    with pytest.raises(ValueError, match="labels: a DataLoader brings its own"):
        craft(name, model, DataLoader(TensorDataset(images)), labels=torch.zeros(20, dtype=torch.int64))
    with pytest.raises(ValueError, match="labels='predictoins' is unknown"):
        craft(name, model, images, settings={"labels": "predictoins"})


@pytest.mark.parametrize("sources", [[], [7], [-1], "01", [1.0]])
def test_bad_sources(model, images, sources):
    with pytest.raises(ValueError, match="sources must be"):
        craft("df-uap", model, images, settings={"sources": sources})


def test_a_target_among_the_sources(model, images):
    with pytest.raises(ValueError, match="target=1 is among the sources"):
        craft("df-uap", model, images, settings={"sources": [0, 1], "target": 1})


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (SGDUAPSettings, {"beta": 0.0}), (SGDUAPSettings, {"floor": -1.0}), (SGDUAPSettings, {"momentum": 1.0}),
        (SGDUAPSettings, {"step": 0.0}), (SGDUAPSettings, {"batch_size": 0}), (SGDUAPSettings, {"start": "here"}),
        (SGASettings, {"inner_batch_size": 60}), (SGASettings, {"rounds": 0}), (DFUAPSettings, {"kappa": -1.0}),
        (DMUAPSettings, {"beta": -1.0}), (DMUAPSettings, {"weight_radius": -1.0}), (DMUAPSettings, {"stages": 0}),
    ],
)  # fmt: skip
def test_bad_settings(kind, settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        kind(**settings)


@pytest.mark.parametrize("kind", [kind for _, kind, _ in ATTACKS.values()])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_settings_are_finite(kind, bad):
    floats = [each.name for each in dataclasses.fields(kind) if each.type is float]
    assert "step" in floats
    for name in floats:
        with pytest.raises(ValueError, match=f"{name} must be a finite number"):
            kind(**{name: bad})


@pytest.mark.parametrize("name", ["sgd-uap", "sga"])
def test_a_beta_below_every_loss_is_a_gradient_of_zero_and_a_warning(name, model, images):
    with pytest.warns(UserWarning, match="gradient is exactly zero"):
        found = craft(name, model, images, settings={"beta": 1e-9, "max_gradients": 40})
    assert not found.delta.any()
