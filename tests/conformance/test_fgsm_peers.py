import foolbox
import pytest
import torch
import torchattacks

from uaplib import models
from uaplib.attacks import fgsm

EPS = 16 / 255


@pytest.fixture(params=["resnet-mini", "vgg16-mini"])
def mini(request):
    return models.load(request.param)


def test_fgsm_equals_torchattacks(mini, clothes):
    images, labels = clothes.images[:64], clothes.labels[:64]
    theirs = torchattacks.FGSM(mini, eps=EPS)(images, labels)
    torch.testing.assert_close(fgsm(mini, images, EPS, labels), theirs, rtol=0, atol=1e-6)


def test_a_targeted_fgsm_equals_torchattacks(mini, clothes):
    images, labels = clothes.images[:64], clothes.labels[:64]
    attack = torchattacks.FGSM(mini, eps=EPS)
    attack.set_mode_targeted_by_label(quiet=True)
    theirs = attack(images, (labels + 1) % 10)
    torch.testing.assert_close(fgsm(mini, images, EPS, (labels + 1) % 10, targeted=True), theirs, rtol=0, atol=1e-6)


def test_fgsm_equals_foolbox(mini, clothes):
    images, labels = clothes.images[:64], clothes.labels[:64]
    theirs = foolbox.PyTorchModel(mini, bounds=(0, 1), device="cpu")
    _, adversarial, _ = foolbox.attacks.LinfFastGradientAttack()(theirs, images, labels, epsilons=EPS)
    torch.testing.assert_close(fgsm(mini, images, EPS, labels), adversarial, rtol=0, atol=1e-6)
