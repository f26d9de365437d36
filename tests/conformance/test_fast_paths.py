"""A copy of the image for every class against a backward pass for every class; batches against single images."""

import math

import pytest
import torch

from uaplib import models
from uaplib.attacks import _deepfool as module
from uaplib.attacks import deepfool

both_norms = pytest.mark.parametrize("p", [2, math.inf])


def assert_equal(a, b, **tolerance):
    torch.testing.assert_close(a.perturbations, b.perturbations, **tolerance)
    assert torch.equal(a.iterations, b.iterations)
    assert torch.equal(a.new_labels, b.new_labels)


@both_norms
@pytest.mark.parametrize("convention", module.CONVENTIONS)
def test_copies_equal_the_loop(model, blobs, p, convention, monkeypatch):
    results = []
    for limit in (0, 1000):
        monkeypatch.setattr(module, "_REPEATED_IMAGES", limit)
        results.append(deepfool(model, blobs[0][:20], p=p, convention=convention))
    assert_equal(*results, rtol=1e-9, atol=1e-12)


@both_norms
@pytest.mark.parametrize("name", models.names())
def test_copies_equal_the_loop_in_every_mini(clothes, name, p, monkeypatch):
    mini, images, results = models.load(name).double(), clothes.images[:3].double(), []
    for limit in (0, 1000):
        monkeypatch.setattr(module, "_REPEATED_IMAGES", limit)
        results.append(deepfool(mini, images, p=p))
    assert_equal(*results, rtol=1e-7, atol=1e-10)


@both_norms
@pytest.mark.parametrize("size", [1, 7, 9])
def test_the_size_of_batches_does_not_matter(model, blobs, p, size):
    images = blobs[0][:20]
    assert_equal(deepfool(model, images, p=p), deepfool(model, images, p=p, batch_size=size), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("values", "largest"), [(144, 4), (143, 1)])
def test_images_of_many_values_are_not_copied(model, blobs, monkeypatch, values, largest):
    sizes = []
    model.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
    expected = deepfool(model, blobs[0][:1])
    sizes.clear()
    monkeypatch.setattr(module, "_REPEATED_VALUES", values)  # an image has 12 x 12
    found = deepfool(model, blobs[0][:1])
    assert max(sizes) == largest
    assert_equal(found, expected, rtol=1e-9, atol=1e-12)
