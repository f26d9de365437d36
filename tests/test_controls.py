"""Controls beside a perturbation: what each keeps of it, and what it changes."""

import pytest
import torch

from uaplib import controls
from uaplib.balls import NormBall, linf
from uaplib.perturbation import UniversalPerturbation


@pytest.fixture
def small():
    """A perturbation of a quarter of its budget in the mean."""
    values = torch.randn(1, 3, 6, 5, generator=torch.Generator().manual_seed(0)) * 2 / 255
    return UniversalPerturbation(values, linf(10), "uap", "net", seed=4, history=[{"pass": 0}], run={"seconds": 3})


def test_noise_has_the_norm_and_one_size(small):
    found = controls.equal_norm_noise(small, seed=1)
    assert found.delta.norm().item() == pytest.approx(small.delta.norm().item())
    assert found.delta.abs().max().item() == pytest.approx(found.delta.abs().min().item())
    assert 20 < (found.delta > 0).sum() < 70
    assert torch.equal(found.delta, controls.equal_norm_noise(small, seed=1).delta)
    assert not torch.equal(found.delta, controls.equal_norm_noise(small, seed=2).delta)


def test_shuffled_pixels_keep_their_colours_and_leave_their_places(small):
    found = controls.shuffled(small, seed=1)
    before, after = (sorted(map(tuple, each.delta[0].flatten(1).T.tolist())) for each in (small, found))
    assert before == after
    assert (found.delta == small.delta).all(1).float().mean() < 0.3
    assert not torch.equal(found.delta, controls.shuffled(small, seed=2).delta)


def test_the_direction_fills_the_budget(small):
    found = controls.rescaled(small)
    assert torch.equal(found.delta, (4 * small.delta).clamp(-10 / 255, 10 / 255))
    assert torch.equal(controls.rescaled(small, 2).delta, (2 * small.delta).clamp(-10 / 255, 10 / 255))
    sign = controls.signs(small)
    assert torch.equal(sign.delta, 10 / 255 * small.delta.sign())
    assert sign.saturation == 1
    flat = UniversalPerturbation(small.delta, NormBall(2, 1.0), "uap")
    assert controls.rescaled(flat, 1000).delta.norm().item() == pytest.approx(1)


@pytest.mark.parametrize("control", [controls.equal_norm_noise, controls.shuffled, controls.rescaled, controls.signs])
def test_a_control_says_what_it_is_and_has_no_history(small, control):
    found = control(small)
    assert found.method.startswith("uap, ")
    assert (found.source, found.ball, found.history, found.run) == ("net", linf(10), [], {})
    assert found.delta.shape == small.delta.shape
    assert found.key != small.key
    assert found.parameters["of"] == small.key


def test_another_seed_or_factor_is_another_control(small):
    for control in (controls.equal_norm_noise, controls.shuffled):
        assert control(small, 1).key == control(small, 1).key != control(small, 2).key
    assert controls.rescaled(small, 2).key != controls.rescaled(small, 2.0000001).key


def test_bad_values_are_named(small):
    with pytest.raises(ValueError, match="factor must be a finite number above 0, not 0"):
        controls.rescaled(small, 0)
    with pytest.raises(ValueError, match="factor must be a finite number above 0, not inf"):
        controls.rescaled(small, float("inf"))
    with pytest.raises(ValueError, match="signs are for perturbations of an l-infinity budget"):
        controls.signs(UniversalPerturbation(small.delta, NormBall(2, 1.0), "uap"))
