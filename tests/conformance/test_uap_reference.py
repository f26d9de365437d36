"""UAP against a sequential port of the authors' loop, and the fast path against the slow one."""

import math

import pytest
import torch

from uaplib import models
from uaplib.attacks import _uap, batched_uap, uap
from uaplib.balls import NormBall

from . import reference

BALLS = [NormBall(2, 0.4), NormBall(2, 1.0), NormBall(math.inf, 0.03), NormBall(math.inf, 0.1)]


def told(found):
    """How many steps were kept and the fooling rate, before the first and after every pass."""
    return [(entry["accepted"], entry["crafting_fooling_rate"]) for entry in found.history]


def orders(seed, count, passes):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randperm(count, generator=generator).tolist() for _ in range(passes)]


@pytest.mark.parametrize("ball", BALLS, ids=repr)
@pytest.mark.parametrize("seed", [0, 5])
def test_the_authors_loop(model, blobs, ball, seed):
    images = blobs[0][::3]
    found = uap(model, images, ball, seed=seed, max_passes=3, target_rate=1.0, clip=False)
    delta, passes = reference.uap(model, images, orders(seed, len(images), 3), p=ball.p, eps=ball.eps, target_rate=1.0)
    torch.testing.assert_close(found.delta, delta, rtol=0, atol=1e-5)
    assert told(found) == passes


def test_what_a_run_costs_is_counted(model, blobs, monkeypatch):
    """A gradient of one image for each rival in each of DeepFool's iterations, in whatever way they are made."""
    images, made, make = blobs[0][::3], [], _uap.LinearStep._step

    def counting(self, margins, normals):
        made.append(normals.shape[0] * normals.shape[1])
        return make(self, margins, normals)

    monkeypatch.setattr(_uap.LinearStep, "_step", counting)
    found = uap(model, images, NormBall(2, 1.0), max_passes=2, target_rate=1.0, num_classes=4)
    assert found.run["gradients"] == sum(made) > 100


def test_the_authors_stop_at_the_target_rate(model, blobs):
    images, ball = blobs[0][::3], NormBall(2, 1.0)
    found = uap(model, images, ball, max_passes=4, target_rate=0.5, clip=False)
    delta, passes = reference.uap(model, images, orders(0, 40, 4), p=2, eps=1.0, target_rate=0.5)
    assert len(passes) < 5
    assert told(found) == passes
    torch.testing.assert_close(found.delta, delta, rtol=0, atol=1e-5)


def test_steps_that_the_authors_throw_away(model, blobs):
    images, ball = blobs[0][::3], NormBall(2, 1.0)
    arguments = {"num_classes": 3, "overshoot": 1e-5, "max_iterations": 3}
    found = uap(model, images, ball, max_passes=2, target_rate=1.0, clip=False, **arguments)
    delta, passes = reference.uap(model, images, orders(0, 40, 2), p=2, eps=1.0, target_rate=1.0, **arguments)
    assert 0 < found.history[1]["accepted"] < 35  # some were kept, some not
    assert told(found) == passes
    torch.testing.assert_close(found.delta, delta, rtol=0, atol=1e-5)


# In single precision an image may come to rest on the boundary itself, where rounding decides about its label and
# with it about all later steps: there the two agree for a few images, in double precision for as many as one likes.
@pytest.mark.parametrize("ball", [NormBall(2, 3.0), NormBall(math.inf, 24 / 255)], ids=repr)
@pytest.mark.parametrize(
    ("dtype", "count", "tolerance"), [(torch.float64, 12, 1e-9), (torch.float32, 4, 1e-4)], ids=str
)
def test_a_pretrained_network(clothes, ball, dtype, count, tolerance):
    mini, images = models.load("resnet-mini").to(dtype), clothes.images[:count].to(dtype)
    found = uap(mini, images, ball, max_passes=1, target_rate=1.0, clip=False)
    delta, passes = reference.uap(mini, images, orders(0, count, 1), p=ball.p, eps=ball.eps, target_rate=1.0)
    assert found.history[1]["accepted"] > 0
    torch.testing.assert_close(found.delta, delta, rtol=0, atol=tolerance)
    assert told(found) == passes


@pytest.mark.parametrize("ball", BALLS, ids=repr)
@pytest.mark.parametrize("clip", [True, False])
def test_screening_in_blocks_equals_visiting_one_by_one(model, blobs, ball, clip, monkeypatch):
    images = blobs[0][::2]
    fast = uap(model, images, ball, max_passes=2, target_rate=1.0, clip=clip)
    monkeypatch.setattr(_uap.Run, "longest_screen", 1)
    slow = uap(model, images, ball, max_passes=2, target_rate=1.0, clip=clip)
    assert torch.equal(fast.delta, slow.delta)
    assert fast.history == slow.history


@pytest.mark.parametrize("ball", BALLS, ids=repr)
@pytest.mark.parametrize("clip", [True, False])
def test_batches_of_one_image_are_the_algorithm(model, blobs, ball, clip):
    images, arguments = blobs[0][::2], {"max_passes": 2, "target_rate": 1.0, "clip": clip, "seed": 3}
    one, plain = batched_uap(model, images, ball, batch=1, **arguments), uap(model, images, ball, **arguments)
    assert torch.equal(one.delta, plain.delta)
    assert one.history == plain.history


@pytest.mark.parametrize("ball", BALLS, ids=repr)
@pytest.mark.parametrize("batch", [7, 200])
def test_a_batch_of_the_authors_loop(model, blobs, ball, batch):
    """Forty images are no multiple of seven, and fewer than two hundred."""
    images = blobs[0][::3]
    found = batched_uap(model, images, ball, batch=batch, max_passes=3, target_rate=1.0, clip=False)
    delta, passes = reference.uap(
        model, images, orders(0, len(images), 3), p=ball.p, eps=ball.eps, target_rate=1.0, batch=batch
    )
    torch.testing.assert_close(found.delta, delta, rtol=0, atol=1e-5)
    assert told(found) == passes
