"""Projected gradients with restarts: linear networks, for which the best perturbation is known, and bad input."""

import math

import pytest
import torch
from torch import nn

from uaplib.balls import NormBall
from uaplib.defences import PGDSettings, pgd
from uaplib.metrics import predict

LINF, L2 = NormBall(math.inf, 0.04), NormBall(2, 0.2)


def linear(seed=0):
    """Logits 0 and w x + b for images of 4 x 4, and w and b: label 1 where w x + b > 0."""
    generator = torch.Generator().manual_seed(seed)
    w = torch.randn(16, generator=generator, dtype=torch.float64)
    b = -0.5 * w.sum()
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 2)).double().eval()
    network[1].weight.data, network[1].bias.data = torch.stack([0 * w, w]), torch.stack([0 * b, b])
    return network, w, b


@pytest.fixture
def images():
    """200 images, pixels on both borders of [0, 1] among them."""
    noise = torch.randn(200, 1, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return (0.5 + 0.3 * noise).clamp(0, 1)


@pytest.fixture
def labels():
    return torch.randint(2, (200,), generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("clip", [True, False])
def test_a_linear_network_loses_what_can_be_lost_linf(images, labels, clip):
    """Each pixel moves by eps against the label, or as far as [0, 1] goes: no perturbation does more."""
    network, w, b = linear()
    side = 2 * labels - 1.0
    moved = (images.flatten(1) - LINF.eps * side[:, None] * w.sign()).clamp(*((0, 1) if clip else (-9, 9)))
    expected = side * (moved @ w + b) > 0
    found = pgd(network, images, labels, LINF, settings=PGDSettings(restarts=2, clip=clip))
    assert torch.equal(found.correct, expected)
    assert 20 < expected.sum() < (predict(network, images) == labels).sum()
    assert found.accuracy.count == int(expected.sum())
    assert found.accuracy.n == 200


def test_a_linear_network_loses_what_can_be_lost_l2(images, labels):
    network, w, b = linear()
    side = 2 * labels - 1.0
    expected = side * (images.flatten(1) @ w + b) > L2.eps * w.norm()
    found = pgd(network, images, labels, L2, settings=PGDSettings(restarts=2, steps=40, clip=False))
    assert torch.equal(found.correct, expected)
    assert 5 < expected.sum() < (predict(network, images) == labels).sum()


@pytest.mark.parametrize("ball", [LINF, L2], ids=["linf", "l2"])
def test_perturbations_are_what_the_result_says(ball, images, labels):
    network, *_ = linear()
    before = predict(network, images)
    found = pgd(network, images, labels, ball)
    assert ball.contains(found.perturbations).all()
    seen = images + found.perturbations
    assert seen.min() >= -1e-12
    assert seen.max() <= 1 + 1e-12
    assert torch.equal(predict(network, seen.clamp(0, 1)) == labels, found.correct)
    assert not found.perturbations[before != labels].any()
    assert found.perturbations[before == labels].flatten(1).any(1).all()


def test_the_worst_of_all_restarts_counts(model, blobs):
    images, labels = blobs
    counts = []
    for restarts in (1, 2, 6):
        settings = PGDSettings(steps=1, step=0.3, restarts=restarts)  # so weak that luck decides
        found = pgd(model, images, labels, NormBall(math.inf, 0.15), settings=settings, seed=1)
        counts.append(found.correct)
    assert (counts[1] <= counts[0]).all()
    assert (counts[2] <= counts[1]).all()
    assert counts[2].sum() < counts[0].sum()


def test_an_empty_ball_leaves_the_clean_accuracy(model, blobs):
    images, labels = blobs
    for p in (2, math.inf):
        found = pgd(model, images, labels, NormBall(p, 0.0))
        assert torch.equal(found.correct, predict(model, images) == labels)
        assert not found.perturbations.any()


def test_larger_balls_leave_less(model, blobs):
    images, labels = blobs
    left = [pgd(model, images, labels, NormBall(math.inf, eps)).accuracy.value for eps in (0.001, 0.01, 0.3)]
    assert left[0] > left[1] > left[2] == 0


def test_the_seed_decides_and_nothing_else_is_touched(model, blobs):
    images, labels = blobs[0][:30], blobs[1][:30]
    model.requires_grad_(False)
    state, before = torch.get_rng_state(), {name: value.clone() for name, value in model.state_dict().items()}
    settings = PGDSettings(steps=2, restarts=1)
    with torch.no_grad():
        first = pgd(model, images, labels, LINF, settings=settings, seed=1, batch_size=7)
    again = pgd(model, images, labels, LINF, settings=settings, seed=1, batch_size=7, progress=True)
    other = pgd(model, images, labels, LINF, settings=settings, seed=2, batch_size=7)
    assert torch.equal(first.perturbations, again.perturbations)
    assert not torch.equal(first.perturbations, other.perturbations)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None and not p.requires_grad for p in model.parameters())


def test_bad_input(model, blobs):
    images, labels = blobs
    with pytest.raises(ValueError, match="labels must lie in 0 ... 4"):
        pgd(model, images, labels + 1, LINF)
    with pytest.raises(ValueError, match="one int64 class per image"):
        pgd(model, images, labels[:3], LINF)
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
        pgd(model, 255 * images, labels, LINF)
    with pytest.raises(ValueError, match="the model cannot take images"):
        pgd(model, images[..., :8], labels, LINF)
    with pytest.raises(ValueError, match="training mode"):
        pgd(model.train(), images, labels, LINF)
    with pytest.raises(ValueError, match="seed must lie in"):
        pgd(model.eval(), images, labels, LINF, seed=-1)


@pytest.mark.parametrize("changes", [{"steps": 0}, {"restarts": 0}, {"step": 0.0}, {"step": math.nan}])
def test_bad_settings(changes):
    with pytest.raises(ValueError, match=next(iter(changes))):
        PGDSettings(**changes)
