"""Singular vectors of a layer's Jacobian against the Jacobian written out."""

import math

import pytest
import torch
from torch import nn
from torch.func import jacrev, vmap

from uaplib import features, models
from uaplib.attacks import SVUAPSettings, sv_uap
from uaplib.balls import NormBall

LAYER = "network.2"


@pytest.fixture(scope="module")
def jacobian(trained, blobs):
    """The layer's outputs of six images, all entries below each other, by the pixels."""

    def output(image):
        return trained.network[:3]((image[None] - 0.5) / 0.25).flatten()

    return vmap(jacrev(output))(blobs[0][:6]).reshape(-1, 144)


def craft(model, images, ball, iterations, q, **options):
    settings = SVUAPSettings(layer=LAYER, q=q, max_iterations=iterations, batch_size=4)
    return sv_uap(model, images, ball, settings=settings, **options)


def test_two_norms_give_the_first_right_singular_vector(model, blobs, jacobian):
    found = craft(model, blobs[0][:6], NormBall(2, 0.5), 400, 2.0)
    _, values, vectors = torch.linalg.svd(jacobian)
    assert abs((found.delta.flatten() / 0.5) @ vectors[0]).item() == pytest.approx(1, abs=1e-6)
    assert found.history[-1]["stretch"] == pytest.approx(values[0].item(), rel=1e-6)


@pytest.mark.parametrize("q", [1.5, 3.0, 10.0])
def test_the_power_method_written_out(model, blobs, jacobian, q):
    found = craft(model, blobs[0][:6], NormBall(math.inf, 0.04), 7, q, seed=5)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        v = torch.rand(144).sub(0.5).sign().double()
    stretches = []
    for _ in range(len(found.history)):
        moved = jacobian @ v
        stretches.append(torch.linalg.vector_norm(moved, q).item())
        v = (jacobian.T @ (moved.sign() * moved.abs() ** (q - 1))).sign()
    assert torch.equal(found.delta.flatten(), 0.04 * v)
    assert [entry["stretch"] for entry in found.history] == pytest.approx(stretches, rel=1e-9)
    assert stretches == sorted(stretches)


@pytest.mark.parametrize("q", [1.0, 2.0, 10.0])
def test_in_the_maximum_norm_it_ends_at_a_fixed_point(model, blobs, jacobian, q):
    found = craft(model, blobs[0][:6], NormBall(math.inf, 1.0), 100, q)
    assert len(found.history) < 100
    assert found.history[-1]["moved"] == 0
    v = found.delta.flatten()
    moved = jacobian @ v
    assert torch.equal((jacobian.T @ (moved.sign() * moved.abs() ** (q - 1))).sign(), v)


def test_batches_and_large_numbers_change_nothing(model, blobs):
    """Powers of ten overflow single precision from an output of 7,000 on; batches have scales of their own."""
    model.network[0].weight.data *= 1e5
    ball, settings = NormBall(math.inf, 0.04), {"layer": "network.0", "max_iterations": 5}
    small = [
        sv_uap(model.float(), blobs[0][:6].float(), ball, settings=SVUAPSettings(**settings, batch_size=size))
        for size in (1, 4, 6)
    ]
    assert all(torch.equal(each.delta, small[0].delta) for each in small)
    whole = sv_uap(model.double(), blobs[0][:6], ball, settings=SVUAPSettings(**settings))
    assert torch.equal(small[0].delta.double().sign(), whole.delta.sign())
    assert small[0].history[-1]["stretch"] == pytest.approx(whole.history[-1]["stretch"], rel=1e-4)


def test_the_layer_of_the_default_is_the_first_block(blobs):
    network = models.load("resnet-mini")
    images = torch.rand(4, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    first = features.choose(network, images, features.default_kind(network))[0]
    named, usual = (
        sv_uap(network, images, NormBall(math.inf, 0.1), settings=SVUAPSettings(layer=layer))
        for layer in (first.name, None)
    )
    assert torch.equal(named.delta, usual.delta)


def test_layers_behind_the_one_play_no_part(blobs):
    """The network is run as far as the layer: what comes behind may fail."""

    class Broken(nn.Module):
        def forward(self, x):
            raise RuntimeError("never reached")

    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, 3), nn.Flatten(), nn.Linear(128, 3)).double().eval()
    expected = features.activation(network, blobs[0][:2], features.Layer("0"))
    network[1] = Broken()
    assert torch.equal(features.activation(network, blobs[0][:2], features.Layer("0")), expected)
    assert not network[0]._forward_hooks


def test_a_layer_that_does_not_fire_is_named(blobs):
    network = nn.Sequential(nn.Flatten(), nn.Linear(144, 2)).double().eval()
    with pytest.raises(ValueError, match=r"call=1.* did not fire"):
        features.activation(network, blobs[0][:2], features.Layer("1", 1))


@pytest.mark.parametrize("settings", [{"q": 0.5}, {"q": math.inf}, {"max_iterations": 0}])
def test_bad_settings(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        SVUAPSettings(**settings)


def test_a_layer_is_a_name(model, blobs):
    with pytest.raises(TypeError, match="layer must be a module's name"):
        SVUAPSettings(layer=3)
    with pytest.raises(ValueError, match="no layer 'network.9'"):
        sv_uap(model, blobs[0][:2], NormBall(2, 1), settings=SVUAPSettings(layer="network.9"))
