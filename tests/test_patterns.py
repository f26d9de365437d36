"""Patterns by known values, and what their frequencies and statistics must be."""

import math

import pytest
import torch

from uaplib import models, patterns
from uaplib.attacks import METHODS
from uaplib.attacks._patterns import PATTERNS
from uaplib.balls import NormBall, linf
from uaplib.experiments import Recipe

SHAPE = (3, 8, 12)


def rows(pattern, channel=0):
    """The pattern as text, one line a row."""
    return ["".join("+" if value > 0 else "-" for value in row) for row in pattern[0, channel].tolist()]


def test_a_chessboard_by_hand():
    assert rows(patterns.chessboard((1, 4, 6), 2)) == ["++--++", "++--++", "--++--", "--++--"]
    assert rows(patterns.chessboard((1, 2, 3), 1)) == ["+-+", "-+-"]
    assert rows(patterns.chessboard((1, 5, 4), 3)) == ["+++-", "+++-", "+++-", "---+", "---+"]


@pytest.mark.parametrize(
    ("direction", "expected"),
    [("columns", ["++--+", "++--+", "++--+"]), ("rows", ["+++++", "+++++", "-----"]),
     ("diagonals", ["++--+", "+--++", "--++-"])],
)  # fmt: skip
def test_stripes_by_hand(direction, expected):
    assert rows(patterns.stripes((1, 3, 5), 2, direction)) == expected


@pytest.mark.parametrize(("down", "across"), [(0, 3), (2, 0), (1, 5), (4, 6)])
def test_a_wave_has_one_frequency(down, across):
    wave = patterns.fourier(SHAPE, down, across)[0, 1].double()
    spectrum = torch.fft.fft2(wave).abs()
    there = {(down % 8, across % 12), (-down % 8, -across % 12)}
    assert {tuple(place) for place in (spectrum > 1e-4 * spectrum.max()).nonzero().tolist()} == there
    assert wave.abs().max() == 1


def test_blocks_are_constant_squares_of_signs_as_often_plus_as_minus():
    found = patterns.blocks((3, 40, 60), 4, seed=1)
    coarse = found[:, :, ::4, ::4]
    assert torch.equal(coarse.repeat_interleave(4, 2).repeat_interleave(4, 3), found)
    assert abs(coarse.mean().item()) < 4 / math.sqrt(coarse.numel())
    assert torch.equal(found, patterns.blocks((3, 40, 60), 4, seed=1))
    assert not torch.equal(found, patterns.blocks((3, 40, 60), 4, seed=2))
    assert not torch.equal(found[:, 0], found[:, 1])
    grey = patterns.blocks((3, 40, 60), 4, coloured=False, seed=1)
    assert torch.equal(grey[:, 0], grey[:, 1])
    assert torch.equal(grey[:, 0], grey[:, 2])


@pytest.mark.parametrize("name", PATTERNS)
def test_a_pattern_has_its_shape_and_range_and_memory_of_its_own(name):
    shape = (3, 20, 30)
    found = PATTERNS[name](shape)
    assert (found.shape, found.dtype, found.abs().max().item()) == ((1, *shape), torch.float32, 1)
    found[0, 0] = 5
    assert (found[0, 1:].abs() <= 1).all()


@pytest.mark.parametrize(
    ("call", "error", "why"),
    [
        (lambda: patterns.chessboard(SHAPE, 0), ValueError, "size must be at least 1, not 0"),
        (lambda: patterns.blocks(SHAPE, -1), ValueError, "size must be at least 1, not -1"),
        (lambda: patterns.stripes(SHAPE, 2.5), TypeError, "size must be a whole number"),
        (lambda: patterns.stripes(SHAPE, 2, "row"), ValueError, "direction='row' is unknown. Did you mean 'rows'"),
        (lambda: patterns.fourier(SHAPE, 0.5), TypeError, "rows must be a whole number"),
        (lambda: patterns.fourier(SHAPE, 0, 0), ValueError, "must not both be 0"),
        (lambda: patterns.fourier(SHAPE, 0, 7), ValueError, "at most 4 and 6, half as many as pixels, not 0 and 7"),
        (lambda: patterns.fourier(SHAPE, -5, 1), ValueError, "at most 4 and 6"),
        (lambda: patterns.blocks(SHAPE, 2, "no"), TypeError, "coloured must be True or False, not 'no'"),
    ],
)
def test_bad_values_are_named(call, error, why):
    with pytest.raises(error, match=why):
        call()


@pytest.mark.parametrize("name", PATTERNS)
@pytest.mark.parametrize("side", [28, 128, 224])
def test_by_default_a_pattern_is_no_brightening(name, side):
    found = METHODS[name].make(linf(10), (3, side, side)).delta
    assert found.mean().abs() < (0.3 if side == 28 else 0.1) * 10 / 255  # seven stripes are no even number
    assert found.std() > 0.5 * 10 / 255


@pytest.mark.parametrize("name", PATTERNS)
@pytest.mark.parametrize("ball", [linf(24), NormBall(2, 1.5)], ids=str)
def test_a_recipe_makes_the_pattern_at_the_whole_budget(name, ball):
    recipe = Recipe(name, "vgg16-mini", ball, seed=3)
    found = recipe.craft()
    assert ball.norm(found.delta).item() == pytest.approx(ball.eps, rel=1e-6)
    own = PATTERNS[name]((1, 28, 28), **({"seed": 3} if name in ("blocks", "perlin", "gabor") else {}))
    assert torch.allclose(found.delta / found.delta.abs().max(), own)
    assert (found.method, found.source, found.key) == (name, "", recipe.key())
    assert torch.equal(recipe.find().delta, found.delta)


def test_a_pattern_is_found_without_the_network(monkeypatch):
    recipe = Recipe("chessboard", "vgg16-mini", linf(24))
    crafted = recipe.craft().delta
    monkeypatch.setattr(models, "load", lambda *_: pytest.fail("the network was loaded"))
    assert torch.equal(recipe.find().delta, crafted)


def test_a_recipes_settings_are_those_of_the_pattern():
    recipe = Recipe("chessboard", "vgg16-mini", linf(24), settings={"size": 4})
    assert recipe.name == "chessboard-vgg16-mini-linf24-size=4-s0"
    assert recipe.command == "uaplib craft chessboard --model vgg16-mini --eps-255 24 --set size=4 --seed 0"
    assert torch.equal(recipe.craft().delta, 24 / 255 * patterns.chessboard((1, 28, 28), 4))
    assert Recipe("chessboard", "vgg16-mini", linf(24), settings={"size": 2}) == Recipe(
        "chessboard", "vgg16-mini", linf(24)
    )
    with pytest.raises(ValueError, match="chessboard: setting='sise' is unknown. Did you mean 'size'"):
        Recipe("chessboard", "vgg16-mini", linf(24), settings={"sise": 4})
    with pytest.raises(ValueError, match="size must be at least 1"):
        Recipe("chessboard", "vgg16-mini", linf(24), settings={"size": 0})


def test_every_pattern_is_a_method_that_nobody_optimised():
    assert {name for name, row in METHODS.items() if row.module == "_patterns"} == set(PATTERNS)
    assert {name for name, row in METHODS.items() if not row.optimised} == {"noise", *PATTERNS}


def test_circles_by_hand():
    assert rows(patterns.circles((1, 3, 6), 3, 3.0)) == ["------", "-+--+-", "------"]


def test_rings_repeat_with_their_tiles_and_their_period():
    found = patterns.circles((1, 60, 60), 20, 5.0)[0, 0]
    assert torch.equal(found[:20, :20], found[20:40, 40:60])
    middle = patterns.circles((1, 201, 201), 201, 10.0)[0, 0, 100]
    assert torch.equal(middle[100:191], middle[110:201])
    assert torch.equal(middle, middle.flip(0))


def test_perlin_noise_is_zero_on_its_lattice_and_smooth_between():
    noise = patterns._lattice_noise((64, 64), 8.0, torch.Generator().manual_seed(0))
    assert noise[::8, ::8].abs().max() == 0
    assert noise.abs().max() > 0.3
    steps = [noise.diff(dim=dimension).abs().max().item() for dimension in (0, 1)]
    assert max(steps) < 0.4  # a lattice of 8 pixels, slopes of length one
    assert not torch.equal(noise, patterns._lattice_noise((64, 64), 8.0, torch.Generator().manual_seed(1)))


def test_more_octaves_and_faster_sines_make_finer_patterns():
    def changes(**settings):
        return (patterns.perlin((1, 128, 128), 40.0, **settings)[0, 0].diff(dim=1) != 0).float().mean().item()

    assert changes(octaves=1, sine=4.0) < changes(octaves=1, sine=16.0)
    assert changes(octaves=1, sine=8.0) < changes(octaves=4, sine=8.0)


@pytest.mark.parametrize(("angle", "along"), [(0.0, 0), (math.pi / 2, 1)])
def test_gabor_noise_has_its_wavelength_and_its_direction(angle, along):
    noise = patterns.gabor((1, 128, 128), 8.0, 12.0, angle, 1)[0, 0].double()
    power = torch.fft.fft2(noise).abs().square()
    power[0, 0] = 0
    peak = divmod(int(power[:64, :64].argmax()), 64)
    assert 13 <= peak[along] <= 19  # 128 / 8 = 16 waves
    assert peak[1 - along] <= 4


def test_gabor_noise_in_many_directions_has_none():
    power = torch.fft.fft2(patterns.gabor((1, 128, 128), 8.0, 6.0, 0.0, 8)[0, 0].double()).abs().square()
    radius = torch.hypot(*torch.meshgrid(*[torch.fft.fftfreq(128) * 128] * 2, indexing="ij"))
    ring = power[(radius > 12) & (radius < 20)].sum()
    assert ring / power[radius > 0].sum() > 0.4
    upper, left = power[:, :32].sum(), power[:32].sum()
    assert 0.6 < (upper / left).item() < 1.6


@pytest.mark.parametrize(
    ("pattern", "settings"),
    [("circles", {"tile": 0}), ("circles", {"period": 0.0}), ("perlin", {"octaves": 0}), ("perlin", {"period": -1.0}),
     ("perlin", {"sine": 0.0}), ("gabor", {"sides": 0}), ("gabor", {"sigma": 0.0}), ("gabor", {"wavelength": 0.0}),
     ("gabor", {"density": 2.0})],
)  # fmt: skip
def test_bad_parameters_are_named(pattern, settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        PATTERNS[pattern](SHAPE, **settings)
