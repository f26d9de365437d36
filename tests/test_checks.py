import math

import pytest
import torch
from torch import nn

from tests.pretend import PretendDevice, place_model
from uaplib import metrics
from uaplib.attacks import deepfool, fgsm, iterated_fgsm, uap
from uaplib.balls import NormBall
from uaplib.checks import check_images, check_labels

ENTRANCES = {
    "fgsm": lambda model, images, labels: fgsm(model, images, 0.1, labels),
    "iterated_fgsm": lambda model, images, labels: iterated_fgsm(model, images, 0.1, labels, step=0.05, steps=2),
    "deepfool": lambda model, images, labels: deepfool(model, images, labels, max_iterations=2),
    "uap": lambda model, images, labels: uap(model, images, NormBall(2, 0.1), labels=labels, max_passes=1),
    "evaluate": lambda model, images, labels: metrics.evaluate(model, images, labels, torch.zeros(1, 1, 12, 12)),
}
everywhere = pytest.mark.parametrize("attack", ENTRANCES.values(), ids=ENTRANCES)


@pytest.fixture
def images(blobs):
    return blobs[0][:6].clone()


@pytest.fixture
def labels(blobs):
    return blobs[1][:6].clone()


def put(images, value):
    images[0, 0, 0, 0] = value
    return images


BAD_IMAGES = {
    "8-bit values": (lambda x: 255 * x, ValueError, r"images must lie in \[0, 1\].*Divide 8-bit values by 255"),
    "normalised": (lambda x: (x - 0.5) / 0.25, ValueError, r"images must lie in \[0, 1\].*inside the model"),
    "a little below": (lambda x: put(x, -1e-3), ValueError, r"images must lie in \[0, 1\], not \[-0.001"),
    "a little above": (lambda x: put(x, 1.001), ValueError, r"images must lie in \[0, 1\].*1.001\]"),
    "integers": (lambda x: (255 * x).byte(), TypeError, "images must be floating point.*torch.uint8"),
    "an array": (lambda x: x.numpy(), TypeError, "images must be a torch tensor, not ndarray"),
    "one image": (lambda x: x[0], ValueError, r"images must have four dimensions.*\(1, 12, 12\)"),
    "five dimensions": (lambda x: x[None], ValueError, "images must have four dimensions"),
    "three channels": (lambda x: x.expand(-1, 3, -1, -1), ValueError, r"cannot take images of shape \(1, 3, 12, 12\)"),
    "NaN": (lambda x: put(x, math.nan), ValueError, "images contains NaN"),
    "infinity": (lambda x: put(x, math.inf), ValueError, "images contains NaN or infinity"),
    "empty": (lambda x: x[:0], ValueError, "images is empty"),
}


@everywhere
@pytest.mark.parametrize("case", BAD_IMAGES)
def test_bad_images(attack, case, model, images, labels):
    change, error, message = BAD_IMAGES[case]
    with pytest.raises(error, match=message):
        attack(model, change(images), labels)


@everywhere
def test_a_model_on_another_device(attack, model, images, labels):
    with PretendDevice(), pytest.raises(ValueError, match="images are on cpu, the model on cuda:7; move one of them"):
        attack(place_model(model), images, labels)


@everywhere
def test_a_model_in_training_mode(attack, model, images, labels):
    with pytest.raises(ValueError, match=r"model is in training mode.*model.eval\(\)"):
        attack(model.train(), images, labels)


@everywhere
def test_a_single_layer_in_training_mode(attack, model, images, labels):
    model.network.append(nn.Dropout()).eval()
    model.network[-1].train()
    with pytest.raises(ValueError, match="model is in training mode"):
        attack(model, images, labels)


BAD_LABELS = {
    "too large": (lambda y: y + 5, ValueError, "labels must lie in 0 ... 4, found 5 ... 9"),
    "negative": (lambda y: y - 1, ValueError, "labels must lie in 0 ... 4, found -1"),
    "too few": (lambda y: y[:3], ValueError, r"labels must hold one int64 class per image, shape \(6,\)"),
    "one-hot": (lambda y: nn.functional.one_hot(y, 5), ValueError, "labels must hold one int64 class per image"),
    "floats": (lambda y: y.double(), ValueError, "labels must hold one int64 class per image.*torch.float64"),
    "32-bit": (lambda y: y.int(), ValueError, "labels must hold one int64 class per image.*torch.int32"),
    "booleans": (lambda y: y.bool(), ValueError, "labels must hold one int64 class per image.*torch.bool"),
    "a list": (lambda y: y.tolist(), TypeError, "labels must be a torch tensor, not list"),
    "elsewhere": (lambda y: y.to("meta"), ValueError, "images are on cpu, labels on meta"),
}


@everywhere
@pytest.mark.parametrize("case", BAD_LABELS)
def test_bad_labels(attack, case, model, images, labels):
    change, error, message = BAD_LABELS[case]
    with pytest.raises(error, match=message):
        attack(model, images, change(labels))


def test_the_argument_is_named():
    with pytest.raises(ValueError, match="^mean_image must lie"):
        check_images(torch.full((1, 1, 1, 1), 2.0), "mean_image")


def test_a_rounding_error_beyond_the_range_passes():
    check_images(torch.tensor([-1e-6, 1 + 1e-6]).view(1, 1, 1, 2))


def test_the_last_class_is_allowed(images):
    check_labels(torch.full((6,), 4), images, num_classes=5)
