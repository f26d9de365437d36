"""Measures of depth against torchmetrics and against a loop over pixels in plain Python."""

import math

import pytest
import torch
from torchmetrics import regression

from uaplib.metrics import depth


@pytest.fixture(params=range(5))
def maps(request):
    """Predicted and true depths (4, 9, 13); every fifth pixel has no depth."""
    generator = torch.Generator().manual_seed(request.param)
    truth = torch.rand(4, 9, 13, generator=generator, dtype=torch.float64) * 30 + 0.5
    noise = torch.randn(truth.shape, generator=generator, dtype=torch.float64)
    missing = torch.rand(truth.shape, generator=generator) < 0.2
    return truth * (0.1 * (1 + request.param) * noise).exp(), truth.where(~missing, 0.0)


def by_pixel(predicted, truth):
    """Every measure of one image, one pixel after the other."""
    pairs = [(p, t) for p, t in zip(predicted.flatten().tolist(), truth.flatten().tolist(), strict=True) if t]
    mean = lambda values: math.fsum(values) / len(pairs)  # noqa: E731
    return {
        "abs_rel": mean(abs(p - t) / t for p, t in pairs),
        "sq_rel": mean((p - t) ** 2 / t for p, t in pairs),
        "rmse": math.sqrt(mean((p - t) ** 2 for p, t in pairs)),
        "rmse_log": math.sqrt(mean((math.log(p) - math.log(t)) ** 2 for p, t in pairs)),
        **{f"delta_{k}": mean(t / 1.25**k < p < t * 1.25**k for p, t in pairs) for k in (1, 2, 3)},
    }


def test_every_measure_equals_a_loop_over_pixels(maps):
    found = depth.errors(*maps)
    for number, (predicted, truth) in enumerate(zip(*maps, strict=True)):
        image = {name: values[number].item() for name, values in found.items()}
        assert image == pytest.approx(by_pixel(predicted, truth), rel=1e-12)


@pytest.mark.parametrize(
    ("name", "peer"),
    [
        ("abs_rel", regression.MeanAbsolutePercentageError()),
        ("rmse", regression.MeanSquaredError(squared=False)),
    ],
)
def test_torchmetrics_agrees_image_by_image(maps, name, peer):
    theirs = []
    for predicted, truth in zip(*maps, strict=True):
        peer.reset()
        peer.update(predicted[truth > 0], truth[truth > 0])
        theirs.append(peer.compute().item())
    assert depth.errors(*maps)[name].tolist() == pytest.approx(theirs, rel=1e-6)


def test_the_logarithms_error_is_torchmetrics_error_of_logarithms(maps):
    peer = regression.MeanSquaredError(squared=False)
    predicted, truth = (image[0][maps[1][0] > 0].log() for image in maps)
    assert depth.errors(*maps)["rmse_log"][0].item() == pytest.approx(peer(predicted, truth).item(), rel=1e-6)
