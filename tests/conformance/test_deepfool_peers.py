"""DeepFool against other libraries, where all of them mean the same: images that the model gets right, all classes,
no overshoot (adv-lib applies it to every step, foolbox to their sum) and no clipping. All three add 1e-4 to the
length of every step."""

import math

import foolbox
import pytest
from adv_lib.attacks import df

from uaplib import models
from uaplib.attacks import deepfool
from uaplib.metrics import norms

both_norms = pytest.mark.parametrize("p", [2, math.inf])
STEPS = 50


@pytest.fixture(params=["small", "resnet-mini"])
def task(request, model, blobs):
    """A model, and images that it gets right."""
    if request.param == "small":
        images, labels = blobs
    else:
        clothes = request.getfixturevalue("clothes")
        model = models.load(request.param)
        images, labels = 0.2 + 0.6 * clothes.images[:60], clothes.labels[:60]  # away from 0 and 1, where adv-lib clips
    right = model(images).argmax(1) == labels
    return model.requires_grad_(False), images[right], labels[right]


def relative_difference(ours, theirs, p):
    return ((norms(ours, p) - norms(theirs, p)).abs() / norms(theirs, p)).median().item()


@both_norms
def test_as_long_as_foolboxs(task, p):
    model, images, labels = task
    attacks = foolbox.attacks
    attack = (attacks.L2DeepFoolAttack if p == 2 else attacks.LinfDeepFoolAttack)(
        steps=STEPS, candidates=10, overshoot=0, loss="logits"
    )
    wide = foolbox.PyTorchModel(model, bounds=(-100, 100), device="cpu")
    _, (theirs,), (success,) = attack(wide, images, labels, epsilons=[None])
    ours = deepfool(model, images, labels, p=p, overshoot=0, max_iterations=STEPS)
    assert ours.success.all()
    assert success.all()
    assert relative_difference(ours.perturbations, theirs - images, p) < 1e-3
    assert (ours.new_labels == model(theirs).argmax(1)).double().mean() > 0.98


@both_norms
def test_as_long_as_adv_libs(task, p):
    model, images, labels = task
    theirs = df(model, images, labels, steps=STEPS + 1, overshoot=0, norm=p)
    assert theirs.min() > 0
    assert theirs.max() < 1  # so its clipping did nothing
    ours = deepfool(model, images, labels, p=p, overshoot=0, max_iterations=STEPS)
    assert ours.success.all()
    assert relative_difference(ours.perturbations, theirs - images, p) < 1e-3
    assert (ours.new_labels == model(theirs).argmax(1)).double().mean() > 0.98
