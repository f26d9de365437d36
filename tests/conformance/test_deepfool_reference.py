"""DeepFool against the authors' semantics, written down one image at a time in `reference`."""

import math

import pytest
import torch

from uaplib import models
from uaplib.attacks import deepfool

from . import reference

CONVENTIONS = {
    "python": {"margin": 1e-4, "inside": True},
    "matlab": {"margin": 0.0, "inside": False},
    "universal": {"margin": 0.0, "inside": True},
}
both_norms = pytest.mark.parametrize("p", [2, math.inf])


def assert_equal(found, steps, tolerance):
    assert found.iterations.tolist() == [step.iterations for step in steps]
    assert found.labels.tolist() == [step.label for step in steps]
    assert found.new_labels.tolist() == [step.new_label for step in steps]
    torch.testing.assert_close(found.perturbations, torch.cat([s.perturbation for s in steps]), **tolerance)


@both_norms
@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("overshoot", [0.02, 0.5])
def test_the_small_network(model, blobs, p, convention, overshoot):
    images = blobs[0][:40]
    found = deepfool(model, images, p=p, convention=convention, overshoot=overshoot)
    steps = [reference.deepfool(model, x[None], p=p, overshoot=overshoot, **CONVENTIONS[convention]) for x in images]
    assert_equal(found, steps, {"rtol": 1e-9, "atol": 1e-12})


@both_norms
@pytest.mark.parametrize("convention", CONVENTIONS)
def test_many_iterations_without_overshoot(model, blobs, p, convention):
    images = blobs[0][:20]
    arguments = {"p": p, "overshoot": 0.0005, "max_iterations": 12}
    found = deepfool(model, images, convention=convention, **arguments)
    steps = [reference.deepfool(model, x[None], **arguments, **CONVENTIONS[convention]) for x in images]
    assert found.iterations.max() >= 2
    assert_equal(found, steps, {"rtol": 1e-8, "atol": 1e-12})


@both_norms
def test_few_classes(model, blobs, p):
    images = blobs[0][:20]
    found = deepfool(model, images, p=p, num_classes=3)
    steps = [reference.deepfool(model, x[None], p=p, num_classes=3) for x in images]
    assert_equal(found, steps, {"rtol": 1e-9, "atol": 1e-12})


@both_norms
def test_the_iteration_limit(model, blobs, p):
    images = blobs[0][:20]
    found = deepfool(model, images, p=p, overshoot=0.0, convention="universal", max_iterations=2)
    steps = [reference.deepfool(model, x[None], p=p, overshoot=0.0, margin=0.0, max_iterations=2) for x in images]
    assert_equal(found, steps, {"rtol": 1e-8, "atol": 1e-12})


@both_norms
@pytest.mark.parametrize("name", ["resnet-mini", "vgg16-mini", "caffenet-mini"])
def test_a_pretrained_network_in_double_precision(clothes, name, p):
    mini, images = models.load(name).double(), clothes.images[:6].double()
    found = deepfool(mini, images, p=p)
    steps = [reference.deepfool(mini, x[None], p=p) for x in images]
    assert_equal(found, steps, {"rtol": 1e-6, "atol": 1e-10})
