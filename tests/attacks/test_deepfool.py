import math

import pytest
import torch
from torch import nn

from uaplib.attacks import deepfool
from uaplib.metrics import norms

both_norms = pytest.mark.parametrize("p", [2, math.inf])


@pytest.fixture(scope="module")
def linear():
    """Three classes with boundaries at known distances from the middle of the image."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)).double().requires_grad_(False)
    model[1].weight.copy_(torch.tensor([[0.0, 0, 0, 0], [3, 4, 0, 0], [1, -1, 1, -1]]))
    model[1].bias.copy_(torch.tensor([0.0, -4.0, -0.6]))  # at 0.5: margins -0.5 and -0.6, so class 0
    return model.eval()


MIDDLE = torch.full((1, 1, 2, 2), 0.5, dtype=torch.float64)


@pytest.mark.parametrize(
    ("p", "step"),
    [
        (2, [0.1 * 3 / 5, 0.1 * 4 / 5, 0, 0]),  # 0.5 / ||(3, 4)||_2 = 0.1 beats 0.6 / 2
        (math.inf, [0.5 / 7, 0.5 / 7, 0, 0]),  # 0.5 / ||(3, 4)||_1 beats 0.6 / 4
    ],
)
def test_on_a_linear_model_one_step_reaches_the_nearest_boundary(linear, p, step):
    result = deepfool(linear, MIDDLE, p=p, convention="universal", overshoot=0.02)
    expected = 1.02 * torch.tensor(step, dtype=torch.float64).view(1, 1, 2, 2)
    torch.testing.assert_close(result.perturbations, expected)
    assert (result.iterations.item(), result.labels.item(), result.new_labels.item()) == (1, 0, 1)


def test_fewer_classes_leave_the_worst_rivals_out(linear):
    result = deepfool(linear, MIDDLE - torch.tensor([0, 0.05, 0, 0.0]).view(1, 1, 2, 2), num_classes=2)
    assert result.new_labels.item() == 2  # the best rival there, though class 1 is nearer
    assert deepfool(linear, MIDDLE - torch.tensor([0, 0.05, 0, 0.0]).view(1, 1, 2, 2)).new_labels.item() == 1


@both_norms
def test_every_image_changes_its_label(model, blobs, p):
    result = deepfool(model, blobs[0], p=p)
    assert result.success.all()
    predicted = model(blobs[0] + result.perturbations).argmax(1)
    assert torch.equal(predicted, result.new_labels)
    assert torch.equal(result.labels, model(blobs[0]).argmax(1))


@both_norms
def test_half_the_step_does_not_cross_the_boundary(model, blobs, p):
    images = blobs[0]
    result = deepfool(model, images, p=p, overshoot=0.02)
    back = model(images + 0.5 * result.perturbations).argmax(1)
    assert (back == result.labels).double().mean() > 0.95


@both_norms
def test_random_directions_of_the_same_length_do_not_fool(model, blobs, p):
    images = blobs[0]
    steps = deepfool(model, images, p=p).perturbations
    shuffled = steps.flatten(1)[:, torch.randperm(144, generator=torch.Generator().manual_seed(0))].view_as(steps)
    changed = model(images + shuffled).argmax(1) != model(images).argmax(1)
    assert changed.double().mean() < 0.6


def test_the_l2_step_is_shorter_in_l2_and_the_linf_step_in_linf(model, blobs):
    two, inf = (deepfool(model, blobs[0], p=p).perturbations for p in (2, math.inf))
    assert norms(two, 2).mean() < norms(inf, 2).mean()
    assert norms(inf, math.inf).mean() < norms(two, math.inf).mean()


def test_the_attack_in_batches_equals_the_attack_one_by_one(model, blobs):
    images = blobs[0][:30]
    whole, parts = deepfool(model, images), deepfool(model, images, batch_size=1)
    torch.testing.assert_close(whole.perturbations, parts.perturbations, rtol=1e-9, atol=1e-12)
    assert torch.equal(whole.iterations, parts.iterations)


def test_images_that_the_model_gets_wrong_are_left_alone(model, blobs):
    images, labels = blobs
    wrong = model(images).argmax(1) != labels
    assert 0 < wrong.sum() < len(labels)
    result = deepfool(model, images, labels)
    assert (result.perturbations[wrong] == 0).all()
    assert (result.iterations[wrong] == 0).all()
    assert (result.iterations[~wrong] > 0).all()
    assert result.success.all()


def test_iterations_are_bounded_and_failure_is_told(model, blobs):
    images = blobs[0]
    result = deepfool(model, images, max_iterations=1, overshoot=0, convention="universal")
    assert (result.iterations == 1).all()
    assert not result.success.all()
    assert torch.equal(result.success, model(images + result.perturbations).argmax(1) != result.labels)


class Wavy(nn.Module):
    """Says class 0 of everything, though its gradient tells which way class 1 should lie."""

    def forward(self, images):
        logit = 2 + torch.sin(3 * images.sum((1, 2, 3)))
        return torch.stack([logit, torch.zeros_like(logit)], 1)


def test_it_gives_up_after_50_iterations():
    found = deepfool(Wavy().eval(), torch.linspace(0, 1, 6).view(6, 1, 1, 1).double())
    assert (found.iterations == 50).all()
    assert not found.success.any()


def test_ten_classes_are_looked_at():
    weights = torch.linspace(1, 0.9, 12).double()
    weights[10] = -5  # the eleventh class is the nearest boundary: it comes fastest, from just behind the tenth
    network = nn.Sequential(nn.Flatten(), nn.Linear(1, 12)).double().eval()
    network[1].weight.data, network[1].bias.data = weights[:, None], torch.linspace(0.01, 0, 12).double()
    image = torch.full((1, 1, 1, 1), 0.0001).double()
    found = [
        deepfool(network, image, **settings).perturbations.item()
        for settings in ({}, {"num_classes": 10}, {"num_classes": 11})
    ]
    assert found[0] == found[1] != found[2]


def test_clipping_keeps_the_range(model, blobs):
    images = (blobs[0] - 0.5) * 1.6 + 0.5
    images = images.clamp(0, 1)
    result = deepfool(model, images, clip=True)
    perturbed = images + result.perturbations
    assert perturbed.min() >= -1e-12
    assert perturbed.max() <= 1 + 1e-12
    assert torch.equal(model(perturbed).argmax(1), result.new_labels)


@pytest.mark.parametrize("side", [1, -1])
def test_what_a_border_stops_the_other_pixel_must_do(side):
    """The margin is 0.15 and the nearer pixel can give 0.05 of it; half of every step is lost at the border."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(2, 2)).double().eval().requires_grad_(False)
    image = torch.tensor([0.5 + 0.45 * side, 0.5], dtype=torch.float64).view(1, 1, 1, 2)
    network[1].weight.copy_(torch.tensor([[0.0, 0.0], [side, side]]))
    network[1].bias.copy_(torch.tensor([0.0, -side * image.sum() - 0.15]))
    found = deepfool(network, image, clip=True)
    near, far = (side * found.perturbations).flatten().tolist()
    assert found.success.all()
    assert near == pytest.approx(0.05, abs=1e-12)
    assert 0.1 < far < 0.102
    assert deepfool(network, image).iterations.item() == 1 < found.iterations.item()


def test_a_model_without_gradients_is_left_after_the_last_iteration():
    constant = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)).double().requires_grad_(False).eval()
    constant[1].weight.zero_()
    result = deepfool(constant, MIDDLE, max_iterations=3)
    assert (result.perturbations == 0).all()
    assert not result.success.any()


def test_a_larger_overshoot_goes_further(model, blobs):
    small, large = (norms(deepfool(model, blobs[0], overshoot=o).perturbations).mean() for o in (0.02, 0.5))
    assert large > 1.2 * small


def test_an_unknown_convention_gets_suggestions(model, blobs):
    with pytest.raises(ValueError, match="convention='pyton' is unknown. Did you mean 'python'"):
        deepfool(model, blobs[0], convention="pyton")


@pytest.mark.parametrize("bad", [{"num_classes": 1}, {"max_iterations": 0}, {"overshoot": -1}, {"overshoot": math.nan}])
def test_bad_numbers_are_named(model, blobs, bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        deepfool(model, blobs[0], **bad)


def test_another_norm_is_refused(model, blobs):
    with pytest.raises(ValueError, match="p must be 2 or infinity"):
        deepfool(model, blobs[0], p=1)
