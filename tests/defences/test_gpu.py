"""On a real GPU: defences give what they give on the CPU, in double precision but for the last digits."""

import copy
import math

import pytest
import torch
from torch import nn

from uaplib.balls import NormBall
from uaplib.defences import JPEG, MedianFilter, PGDSettings, RandomResizePad, TrainingSettings, pgd, train

from .test_training import RULES

SETTINGS = TrainingSettings(epochs=2, batch_size=8, learning_rate=0.05)
CLOSE = 1e-6


@pytest.fixture(scope="module")
def gpu():
    if not torch.cuda.is_available():
        pytest.skip("there is no GPU that computes in double precision")
    return torch.device("cuda")


@pytest.fixture
def images():
    return torch.rand(24, 1, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.fixture
def network():
    with torch.random.fork_rng():
        torch.manual_seed(3)
        layers = [nn.Conv2d(1, 4, 3, padding=1), nn.Softplus(), nn.Flatten(), nn.Linear(256, 3)]
    return nn.Sequential(*layers).double().eval()


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_training(rule, gpu, network, images, tmp_path):
    labels, state = torch.arange(24) % 3, torch.cuda.get_rng_state()
    expected = train(network, images, labels, rule, settings=SETTINGS).model
    moved = copy.deepcopy(network).to(gpu)
    found = [
        train(moved, images.to(where), labels.to(where), rule, settings=SETTINGS, checkpoint=tmp_path / "c").model
        for where in ("cpu", gpu)  # the second one is read from the file
    ]
    for trained in found:
        assert trained[0].weight.device.type == "cuda"
        for one, other in zip(trained.parameters(), expected.parameters(), strict=True):
            torch.testing.assert_close(one.cpu(), other, rtol=0, atol=CLOSE)
    assert torch.equal(torch.cuda.get_rng_state(), state)


def test_projected_gradients(gpu, network, images):
    labels, ball = network(images).argmax(1), NormBall(math.inf, 0.05)
    expected = pgd(network, images, labels, ball, settings=PGDSettings(steps=3, restarts=1))
    found = pgd(copy.deepcopy(network).to(gpu), images, labels, ball, settings=PGDSettings(steps=3, restarts=1))
    assert torch.equal(found.correct, expected.correct)
    torch.testing.assert_close(found.perturbations, expected.perturbations, rtol=0, atol=CLOSE)


@pytest.mark.parametrize("build", [JPEG, MedianFilter, RandomResizePad])
def test_transformations(build, gpu, images):
    torch.testing.assert_close(build()(images.to(gpu)).cpu(), build()(images), rtol=0, atol=1e-12)
