"""Several networks as one."""

import math

import pytest
import torch

from uaplib import features, metrics, models, provenance
from uaplib.attacks import PSPUAPSettings, SGDUAPSettings, gd_uap, psp_uap, runs, sgd_uap
from uaplib.attacks.activations import Settings
from uaplib.balls import linf
from uaplib.experiments import recipes
from uaplib.models import ensemble

NAME = "vgg-f-mini+resnet-mini"


@pytest.fixture(scope="module")
def both():
    return [models.load(each) for each in NAME.split("+")]


@pytest.fixture
def images():
    return torch.rand(10, 1, 28, 28, generator=torch.Generator().manual_seed(0))


def test_its_logits_are_the_mean_of_its_members(both, images):
    found, expected = models.load(NAME)(images), (both[0](images) + both[1](images)) / 2
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_its_row_is_like_those_of_its_members():
    row = models.find(NAME)
    assert (row.shape, row.data_set, row.task) == ([1, 28, 28], "fashion-mnist", "label")
    assert models.says(NAME) == "label"
    assert row.training is None
    assert models.structure(NAME).state_dict().keys() == models.load(NAME).state_dict().keys()


def test_its_digest_is_made_of_its_members(both):
    digests = [provenance.weights_sha256(each) for each in both]
    assert provenance.weights_sha256(models.load(NAME)) == provenance.together(digests)
    assert provenance.together(digests) != provenance.together(digests[::-1])
    assert recipes.weights_sha256(NAME) == provenance.together(digests)


def test_its_digest_is_known_without_its_networks(monkeypatch):
    """So results of networks whose files have to be downloaded are found without the files."""
    names = ("mobilenet-v1", "googlenet-caffe")
    expected = provenance.together([models.find(each).weights_sha256 for each in names])
    monkeypatch.setattr(models, "load", lambda name: pytest.fail(f"{name} was loaded"))
    assert recipes.weights_sha256.__wrapped__("+".join(names)) == expected


def test_means_of_different_normalisations_are_undone():
    row = models.find("mobilenet-v1+googlenet-caffe")
    members = [models.find(each) for each in ("mobilenet-v1", "googlenet-caffe")]
    assert list(row.mean) == pytest.approx([(a + b) / 2 for a, b in zip(*(each.mean for each in members), strict=True)])
    inside = ensemble.Ensemble([torch.nn.Flatten(), torch.nn.Flatten()], row.mean, row.std)
    x = torch.rand(2, 3, 4, 4)
    model = models.Normalized(inside, row.mean, row.std)
    torch.testing.assert_close(model(x), x.flatten(1), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "why"),
    [("resnet-mini+resnet-mini", "twice"), ("efficientnet-lite0+efficientnet-lite1", "one kind and one size"),
     ("resnet-mini+unet-scenes", "one kind and one size"), ("resnet-mini+resnet-mimi", "unknown"),
     ("resnet-mini+", "unknown")],
)  # fmt: skip
def test_bad_names(name, why):
    with pytest.raises(ValueError, match=why):
        models.find(name)


def test_the_loss_of_an_ensemble_is_the_mean_of_its_networks(both, images):
    """One step is by hand: the sign of the sum of the gradients, each with its own network's predictions."""
    settings, ball = SGDUAPSettings(batch_size=10, max_gradients=1, beta=3.0), linf(20)
    found = sgd_uap(models.load(NAME), images, ball, settings=settings)
    total = 0
    for network in both:
        v = torch.zeros_like(images[:1], requires_grad=True)
        logits = network((images + v).clamp(0, 1))
        loss = torch.nn.functional.cross_entropy(logits, logits.argmax(1), reduction="none").clamp(max=3.0).mean()
        total = total + torch.autograd.grad(loss, v)[0]
    torch.testing.assert_close(found.delta, 0.1 * ball.eps * total.sign())
    assert found.run["gradients"] == 20


def test_what_is_crafted_on_it_fools_both(both, images):
    found = sgd_uap(models.load(NAME), images, linf(60), settings=SGDUAPSettings(max_gradients=2000))
    for network in both:
        clean, perturbed = (metrics.predict(network, images, delta) for delta in (None, found.delta))
        assert metrics.fooling_rate(clean, perturbed).value > 0.5
    assert 0 < found.history[-1]["rate"] <= 1
    assert math.isfinite(found.history[-1]["loss"])


def test_pseudo_semantic_priors_add_up_the_losses_of_its_networks(both, monkeypatch):
    settings, ball, pictures = PSPUAPSettings(crops=3), linf(20), torch.rand(1, 1, 28, 28)

    def loss_on(network):
        found = []
        monkeypatch.setattr(runs, "craft", lambda run, *rest: found.append(run))
        psp_uap(network, ball, settings=settings)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            found[0].begin()
            torch.manual_seed(1)
            return found[0].loss(pictures).item()

    first, second = (loss_on(network) for network in both)
    assert loss_on(models.load(NAME)) == pytest.approx(first + second, rel=1e-4)


def test_its_layers_are_those_of_all_members():
    model = models.load(NAME)
    chosen = features.choose(model, model.mean_image(), "convolutions")
    assert {layer.name.split(".")[2] for layer in chosen} == {"0", "1"}
    two = models.load("resnet-mini+googlenet-mini")
    blocks = [layer.name for layer in features.choose(two, two.mean_image(), "blocks")]
    members = [models.load(each) for each in ("resnet-mini", "googlenet-mini")]
    assert blocks == [
        f"network.members.{k}.{layer.name}"
        for k, member in enumerate(members)
        for layer in features.choose(member, member.mean_image(), "blocks")
    ]
    short = Settings(0.1, 1, 4, 2, 0, 5, 2)
    found = gd_uap(model, linf(24), settings=short)
    assert found.delta.abs().max() > 0
    assert found.run["gradients"] == 2 * 4
