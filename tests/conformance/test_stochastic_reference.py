"""The attacks by stochastic gradients against plain loops, in double precision, and where one becomes another."""

import math

import pytest
import torch

from uaplib.attacks import (
    CosineUAPSettings,
    DFUAPSettings,
    DMUAPSettings,
    SGASettings,
    SGDUAPSettings,
    cosine_uap,
    df_uap,
    dm_uap,
    losses,
    sga,
    sgd_uap,
)
from uaplib.balls import NormBall

from . import reference

BALL, SIZE, SEED = NormBall(math.inf, 0.06), 16, 3


def close(found, expected):
    torch.testing.assert_close(found.delta, expected, rtol=0, atol=1e-12)
    assert BALL.norm(found.delta).item() == pytest.approx(BALL.eps)


@pytest.fixture
def images(blobs):
    return blobs[0][:40]


@pytest.fixture
def labels(model, images):
    return model(images).argmax(1)


def batches(images, labels, count, begin=lambda: None):
    """What the seed makes of the images: `begin` draws before; then order after order, the last batch smaller."""
    found, order = [], torch.arange(0)
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        first = begin()
        while len(found) < count:
            order = torch.randperm(len(images)) if len(order) == 0 else order
            found.append((images[order[:SIZE]], labels[order[:SIZE]]))
            order = order[SIZE:]
    return first, found


def uniform():
    return BALL.sample((1, 1, 12, 12)).double()


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("beta", [9.0, 1.0])
def test_sgd_uap(model, images, labels, momentum, beta):
    settings = SGDUAPSettings(batch_size=SIZE, max_gradients=100, beta=beta, step=0.15, momentum=momentum)
    found = sgd_uap(model, images, BALL, settings=settings, seed=SEED)
    _, order = batches(images, labels, 8)  # 16, 16, 8 twice, then 16, 16
    order = order[:8]
    expected = reference.sgd_uap(model, order, eps=BALL.eps, step=0.15 * BALL.eps, beta=beta, momentum=momentum)
    close(found, expected)
    assert found.run["gradients"] == 112
    assert found.run["steps"] == 8


def test_sgd_uap_with_true_labels(model, images, labels):
    truth = (labels + 1) % 5
    settings = SGDUAPSettings(batch_size=SIZE, max_gradients=100, labels="truth")
    found = sgd_uap(model, images, BALL, labels=truth, settings=settings, seed=SEED)
    _, order = batches(images, truth, 8)
    torch.testing.assert_close(
        found.delta, reference.sgd_uap(model, order, eps=BALL.eps, step=0.1 * BALL.eps, beta=9.0), rtol=0, atol=1e-12
    )


def draws(images, count, inner, rounds):
    """The order of the outer batches and of the inner steps, as they are drawn one after the other."""
    outer, found, order = [], [], torch.arange(0)
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        for _ in range(count):
            order = torch.randperm(len(images)) if len(order) == 0 else order
            some, order = order[:SIZE], order[SIZE:]
            outer.append(some)
            found.append([torch.randperm(len(some))[:inner] for _ in range(rounds * len(some) // inner)])
    return outer, found


def test_sga(model, images, labels):
    settings = SGASettings(batch_size=SIZE, inner_batch_size=4, rounds=3, max_gradients=500)
    found = sga(model, images, BALL, settings=settings, seed=SEED)
    outer, inner = draws(images, found.run["steps"], 4, 3)
    assert [len(each) for each in inner[:3]] == [12, 12, 6]
    order = [(images[some], labels[some]) for some in outer]
    close(found, reference.sga(model, order, inner, eps=BALL.eps, step=0.1 * BALL.eps, beta=9.0))
    assert found.run["gradients"] == sum(4 * len(each) for each in inner)


def test_sga_with_one_inner_step_is_sgd_uap(model, images):
    shared = {"batch_size": len(images), "max_gradients": 400, "beta": 2.0}
    one = sga(model, images, BALL, settings=SGASettings(**shared, inner_batch_size=len(images), rounds=1))
    other = sgd_uap(model, images, BALL, settings=SGDUAPSettings(**shared))
    torch.testing.assert_close(one.delta, other.delta, rtol=0, atol=1e-12)


def test_an_outer_step_of_sga_on_a_linear_model_by_hand(blobs):
    """Two classes, logits -s and s with s = w x: the gradient of the loss has the sign of w, or of -w, everywhere."""
    w = torch.randn(144, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    linear = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(144, 2, bias=False)).double().eval()
    linear[1].weight.data = torch.stack([-w, w])
    images = blobs[0]
    positive = images[(linear(images).argmax(1) == 1)]
    assert len(positive) > 1
    settings = SGASettings(batch_size=len(positive), inner_batch_size=1, rounds=2, max_gradients=1)
    found = sga(linear, positive, BALL, settings=settings)
    torch.testing.assert_close(found.delta.flatten(), -0.1 * BALL.eps * w.sign(), rtol=0, atol=1e-15)
    assert found.run["gradients"] == 2 * len(positive)  # all of the inner steps are paid for, and thrown away


@pytest.mark.parametrize("target", [None, 2])
def test_df_uap(model, images, labels, target):
    settings = DFUAPSettings(batch_size=SIZE, max_gradients=120, kappa=3.0, target=target)
    found = df_uap(model, images, BALL, settings=settings, seed=SEED)
    _, order = batches(images, labels, found.run["steps"])
    rate = 0.1275 * BALL.eps
    close(found, reference.df_uap(model, order, eps=BALL.eps, rate=rate, kappa=3.0, target=target))


def test_cosine_uap(model, images, labels):
    found = cosine_uap(model, images, BALL, settings=CosineUAPSettings(batch_size=SIZE, max_gradients=120), seed=SEED)
    start, order = batches(images, labels, found.run["steps"], uniform)
    close(found, reference.cosine_uap(model, start, order, eps=BALL.eps, rate=0.1275 * BALL.eps))


DM = {"step": 0.5, "weight_steps": 3, "image_steps": 2, "stages": 4, "weight_radius": 0.4, "image_radius": 0.5 / 12}


def test_dm_uap(model, images, labels):
    settings = DMUAPSettings(batch_size=SIZE, max_gradients=400, beta=4.0, **DM)
    found = dm_uap(model, images, BALL, settings=settings, seed=SEED)
    start, order = batches(images, labels, found.run["steps"], uniform)
    spent = [6 * sum(len(x) for x, _ in order[:k]) for k in range(len(order))]
    shares = [(1 + 4 * each // 400) / 4 for each in spent]
    assert {0.25, 1.0} <= set(shares)
    expected = reference.dm_uap(
        model, start, order, [(0.4 * share, 0.5 * share) for share in shares], eps=BALL.eps, rate=0.5 * BALL.eps,
        decay=0.01, beta=4.0, weight_steps=3, image_steps=2, smoothing=0.2,
    )  # fmt: skip
    torch.testing.assert_close(found.delta, expected, rtol=0, atol=1e-7)


def test_dm_uap_without_radii_is_adamw_on_the_clipped_cross_entropy(model, images, labels):
    settings = DMUAPSettings(batch_size=SIZE, max_gradients=120, step=0.3, weight_radius=0, image_radius=0)
    found = dm_uap(model, images, BALL, settings=settings, seed=SEED)
    start, order = batches(images, labels, found.run["steps"], uniform)
    assert found.run["gradients"] == sum(len(x) for x, _ in order)

    def gradients_at(v, batch):
        loss = lambda logits: -reference._clipped_cross_entropy(logits, batch[1], 9.0)  # noqa: E731
        return reference._gradient(loss, model, batch[0], v, clip=False)

    expected = reference.adam(start, gradients_at, order, eps=BALL.eps, rate=0.3 * BALL.eps, decay=0.01)
    torch.testing.assert_close(found.delta, expected, rtol=0, atol=1e-9)


def test_the_cap_of_the_untargeted_loss_would_kill_a_targeted_attack():
    """A cap below an image's cross-entropy takes its gradient; the loss that is used has one, and a floor ends it."""
    logits = torch.tensor([[12.0, 0.0], [0.0, 1.0]], requires_grad=True)
    target = torch.tensor([1, 1])
    (capped,) = torch.autograd.grad(-losses.clipped_cross_entropy(logits, target, 9.0).sum(), logits)
    (used,) = torch.autograd.grad(losses.cross_entropy_to(logits, target, 0.5).sum(), logits)
    assert capped[0].abs().sum() == 0 < used[0].abs().sum()
    assert used[1].abs().sum() == 0


@pytest.mark.parametrize(
    ("loss", "label", "fixed", "expected"),
    [(losses.margin, 0, False, [1, -1, 0]), (losses.margin, 0, True, [1, 0, 0]),
     (losses.margin_to, 1, False, [1, -1, 0]), (losses.margin_to, 1, True, [0, -1, 0])],
)  # fmt: skip
def test_which_rival_is_a_constant(loss, label, fixed, expected):
    logits = torch.tensor([[2.0, 1.0, 0.0]], requires_grad=True)
    (found,) = torch.autograd.grad(loss(logits, torch.tensor([label]), 9.0, fixed).sum(), logits)
    assert found.tolist() == [expected]


def test_a_margin_that_is_wide_enough_has_no_gradient():
    logits = torch.tensor([[0.0, 5.0], [0.0, 1.0]], requires_grad=True)
    (found,) = torch.autograd.grad(losses.margin(logits, torch.tensor([0, 0]), 3.0).sum(), logits)
    assert found[0].abs().sum() == 0 < found[1].abs().sum()
