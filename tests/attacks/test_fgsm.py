import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from uaplib.attacks import fgsm, iterated_fgsm


@pytest.fixture(scope="module")
def linear():
    """Two classes, logits (0, w·x) with w = (1, -2, 0, 3): the gradient is known by hand."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False)).requires_grad_(False)
    model[1].weight.copy_(torch.tensor([[0.0, 0, 0, 0], [1, -2, 0, 3]]))
    return model.eval()


X = torch.tensor([0.5, 0.5, 0.5, 0.95]).view(1, 1, 2, 2)


def test_one_step_along_the_sign_by_hand(linear):
    adversarial = fgsm(linear, X, 0.1, torch.tensor([1]))  # away from class 1: against w
    torch.testing.assert_close(adversarial.flatten(), torch.tensor([0.4, 0.6, 0.5, 0.85]))


def test_a_targeted_step_goes_the_other_way_and_is_clipped(linear):
    adversarial = fgsm(linear, X, 0.1, torch.tensor([1]), targeted=True)
    torch.testing.assert_close(adversarial.flatten(), torch.tensor([0.6, 0.4, 0.5, 1.0]))


def test_without_clipping_the_whole_step_is_taken(linear):
    adversarial = fgsm(linear, X, 0.1, torch.tensor([1]), targeted=True, clip=False)
    torch.testing.assert_close(adversarial.flatten(), torch.tensor([0.6, 0.4, 0.5, 1.05]))


def test_several_steps_are_clipped_unless_told_otherwise(model, blobs):
    images, labels = (blobs[0] > 0.5).double(), blobs[1]
    default, free = (iterated_fgsm(model, images, 0.1, labels, step=0.05, steps=2, **o) for o in ({}, {"clip": False}))
    assert 0 <= default.min() <= default.max() <= 1
    assert free.min() < 0
    assert free.max() > 1


def test_the_models_own_predictions_are_the_default_labels(model, blobs):
    images, _ = blobs
    assert torch.equal(fgsm(model, images, 0.1), fgsm(model, images, 0.1, model(images).argmax(1)))


def test_the_loss_rises_and_a_targeted_step_lowers_the_targets(model, blobs):
    images, labels = blobs
    target = (labels + 1) % 5

    def loss(x, y):
        return nn.functional.cross_entropy(model(x), y).item()

    assert loss(fgsm(model, images, 0.02, labels), labels) > loss(images, labels)
    assert loss(fgsm(model, images, 0.02, target, targeted=True), target) < loss(images, target)


@given(eps=st.floats(0, 1), steps=st.integers(1, 4), ratio=st.floats(0.1, 3), clip=st.booleans())
def test_the_budget_and_the_range_are_kept(trained, blobs, eps, steps, ratio, clip):
    images = blobs[0][:4]
    adversarial = iterated_fgsm(trained, images, eps, step=ratio * eps, steps=steps, clip=clip)
    assert (adversarial - images).abs().max() <= eps + 1e-12
    if clip:
        assert adversarial.min() >= 0
        assert adversarial.max() <= 1


def test_a_batch_is_attacked_as_its_members_are(model, blobs):
    images, labels = blobs[0][:5], blobs[1][:5]
    singles = [fgsm(model, x[None], 0.1, y[None]) for x, y in zip(images, labels, strict=True)]
    torch.testing.assert_close(fgsm(model, images, 0.1, labels), torch.cat(singles), rtol=0, atol=1e-12)


def test_more_small_steps_find_a_higher_loss_than_one_large(model, blobs):
    images, labels = blobs
    one = fgsm(model, images, 0.1, labels)
    ten = iterated_fgsm(model, images, 0.1, labels, step=0.02, steps=10)
    loss = nn.functional.cross_entropy
    assert loss(model(ten), labels) > loss(model(one), labels)


def test_the_iterated_attack_holds_on_to_the_first_prediction(model, blobs):
    images = blobs[0]
    kept = iterated_fgsm(model, images, 0.1, model(images).argmax(1), step=0.05, steps=5)
    assert torch.equal(iterated_fgsm(model, images, 0.1, step=0.05, steps=5), kept)


@pytest.mark.parametrize("eps", [-0.1, math.nan, math.inf])
def test_a_bad_budget(model, blobs, eps):
    with pytest.raises(ValueError, match="eps must be a finite number"):
        fgsm(model, blobs[0], eps)


def test_a_targeted_attack_needs_labels(model, blobs):
    with pytest.raises(ValueError, match="a targeted attack needs labels"):
        fgsm(model, blobs[0], 0.1, targeted=True)


@pytest.mark.parametrize(("step", "steps"), [(math.nan, 1), (-0.1, 1), (0.1, 0), (0.1, -1)])
def test_bad_steps(model, blobs, step, steps):
    with pytest.raises(ValueError, match="step"):
        iterated_fgsm(model, blobs[0], 0.1, step=step, steps=steps)
