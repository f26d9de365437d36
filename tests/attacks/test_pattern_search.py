"""The best of many patterns, on a network of which the answer is known."""

import math
from itertools import product

import pytest
import torch
from torch import nn

from uaplib import metrics, patterns
from uaplib.attacks import METHODS, PatternSearchSettings, _pattern_search, pattern_search
from uaplib.balls import NormBall, linf

BALL = linf(20)


class Tuned(nn.Module):
    """Answers 1 where an image contains enough of one pattern, and 0 elsewhere."""

    def __init__(self, pattern):
        super().__init__()
        self.register_buffer("pattern", pattern)

    def forward(self, x):
        found = (x * self.pattern).mean((1, 2, 3)) * 255
        return torch.stack([0 * found, found - 5], 1)


@pytest.fixture
def images():
    return 0.5 + 0.01 * torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(0)).clamp(-3, 3)


def test_the_frequency_that_a_network_listens_to_is_found(images):
    loved = _pattern_search._frequencies((3, 32, 32), 60)[20]
    network = Tuned(patterns.fourier((3, 32, 32), *loved)).eval()
    found = pattern_search(network, images, BALL, settings=PatternSearchSettings(trials=60))
    rates = {(entry["rows"], entry["columns"]): entry["rate"] for entry in found.history}
    assert rates == {each: float(each == loved) for each in rates}
    torch.testing.assert_close(found.delta, BALL.eps * patterns.fourier((3, 32, 32), *loved))


def test_the_size_that_a_network_listens_to_is_found(images):
    network = Tuned(patterns.chessboard((3, 32, 32), 4)).eval()
    found = pattern_search(network, images, BALL, settings=PatternSearchSettings(pattern="chessboard", trials=40))
    assert torch.equal(found.delta, BALL.eps * patterns.chessboard((3, 32, 32), 4))
    assert found.run["queries"] == 41 * 6
    assert found.run["gradients"] == 0


@pytest.mark.parametrize("side", [31, 32])
def test_frequencies_cover_the_plane_and_each_wave_is_tried_once(side):
    found = _pattern_search._frequencies((1, side, side), 100)
    assert 80 <= len(found) <= 120
    waves = torch.cat([patterns.fourier((1, side, side), *each) for each in found]).flatten(1)
    alike = (waves @ waves.T) / (waves.norm(dim=1)[:, None] * waves.norm(dim=1))
    assert (alike - torch.eye(len(found))).abs().max() < 1e-3
    highest = side // 2
    assert max(r for r, _ in found) == max(abs(c) for _, c in found) == highest
    assert min(c for _, c in found) < -highest / 2


def test_no_gradient_is_needed(images):
    class Deaf(Tuned):
        def forward(self, x):
            return super().forward(x.detach())

    network = Deaf(patterns.chessboard((3, 32, 32), 4)).eval()
    with torch.inference_mode():
        found = pattern_search(network, images, BALL, settings=PatternSearchSettings(pattern="chessboard", trials=9))
    assert found.run["patterns"] == 9


@pytest.mark.parametrize(
    ("pattern", "shape"),
    [*product(["fourier", "chessboard", "perlin", "circles"], [(1, 3, 3), (1, 7, 9)]), ("gabor", (1, 16, 17))],
)
def test_small_images_have_patterns_too(pattern, shape):
    network = Tuned(torch.ones(shape)).eval()
    settings = PatternSearchSettings(pattern=pattern, trials=4)
    found = pattern_search(network, torch.full((2, *shape), 0.5), BALL, settings=settings)
    assert found.delta.shape == (1, *shape)


def test_large_images_have_high_frequencies():
    network = Tuned(torch.ones(1, 600, 600)).eval()
    found = pattern_search(network, torch.full((1, 1, 600, 600), 0.5), BALL, settings=PatternSearchSettings(trials=4))
    assert max(abs(entry["columns"]) for entry in found.history) == 300


@pytest.mark.parametrize("name", [name for name in METHODS if name.endswith("-search")])
@pytest.mark.parametrize("ball", [linf(20), NormBall(2, 1.0)], ids=str)
def test_the_best_of_those_tried_is_returned_and_can_be_made_again(name, ball, images):
    network = Tuned(torch.randn(3, 32, 32, generator=torch.Generator().manual_seed(1))).eval()
    row = METHODS[name]
    found = row.craft(network, ball, row.settings(ball, trials=12), {"images": images}, seed=4)
    best = max(found.history, key=lambda entry: entry["rate"])
    settings = {k: v for k, v in best.items() if k not in ("tried", "rate", "seed")}
    pattern = METHODS[name.removesuffix("-search")]
    again = pattern.attack.make(ball, (3, 32, 32), pattern.settings(ball, **settings), best["seed"])
    torch.testing.assert_close(found.delta, again.delta)
    clean = metrics.predict(network, images)
    assert metrics.fooling_rate(clean, metrics.predict(network, images, found.delta)).value == best["rate"]


def test_perlin_noise_is_drawn_from_the_papers_ranges():
    with torch.random.fork_rng():
        drawn = [_pattern_search.DRAWN["perlin"](224) for _ in range(200)]
    assert all(
        20 <= each["period"] <= 160 and 4 <= each["sine"] <= 32 and each["octaves"] in (1, 2, 3, 4) for each in drawn
    )
    assert math.isclose(sum(1 / each["period"] for each in drawn) / 200, (1 / 160 + 1 / 20) / 2, rel_tol=0.1)


@pytest.mark.parametrize("settings", [{"trials": 0}, {"pattern": "clouds"}])
def test_bad_settings(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        PatternSearchSettings(**settings)
