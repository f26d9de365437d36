"""Devices and the precision in which a GPU computes."""

import pytest
import torch
from torch import nn

from uaplib import metrics
from uaplib.devices import whole_precision


def rounded():
    """Whether a GPU would round convolutions to TF32, which is PyTorch's default."""
    return torch.backends.cudnn.allow_tf32


class Asking(nn.Module):
    """A network that notes whether a GPU would round its convolutions."""

    def forward(self, images):
        self.rounds = getattr(torch.backends.cudnn, "conv", None)
        self.rounds = self.rounds.fp32_precision == "tf32" if self.rounds else rounded()
        return images.flatten(1)[:, :3]


def test_a_gpu_predicts_in_whole_precision_and_computes_afterwards_as_before():
    assert rounded()
    model = Asking().eval()
    metrics.predict(model, torch.rand(2, 1, 2, 2))
    assert model.rounds is False
    assert rounded()
    model(torch.rand(2, 1, 2, 2))
    assert model.rounds


def test_the_precision_comes_back_after_an_error():
    with pytest.raises(KeyboardInterrupt), whole_precision():
        raise KeyboardInterrupt
    assert rounded()


def test_who_computes_in_whole_precision_goes_on_so(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    metrics.predict(Asking().eval(), torch.rand(2, 1, 2, 2))
    assert not rounded()
