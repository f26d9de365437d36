"""Patterns by known values, and what their frequencies and statistics must be."""

import math

import pytest
import torch

from uaplib import models, patterns
from uaplib.attacks import METHODS
from uaplib.balls import NormBall, linf
from uaplib.experiments import Recipe

SHAPE = (3, 8, 12)
ALL = {each.__name__: each for each in (patterns.chessboard, patterns.stripes, patterns.fourier, patterns.blocks)}


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


@pytest.mark.parametrize("name", ALL)
def test_a_pattern_has_its_shape_and_range_and_memory_of_its_own(name):
    shape = (3, 20, 30)
    found = ALL[name](shape)
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


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("side", [28, 128, 224])
def test_by_default_a_pattern_is_no_brightening(name, side):
    found = METHODS[name].make(linf(10), (3, side, side)).delta
    assert found.mean().abs() < (0.3 if side == 28 else 0.1) * 10 / 255  # seven stripes are no even number
    assert found.std() > 0.5 * 10 / 255


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("ball", [linf(24), NormBall(2, 1.5)], ids=str)
def test_a_recipe_makes_the_pattern_at_the_whole_budget(name, ball):
    recipe = Recipe(name, "vgg16-mini", ball, seed=3)
    found = recipe.craft()
    assert ball.norm(found.delta).item() == pytest.approx(ball.eps, rel=1e-6)
    own = ALL[name]((1, 28, 28), **({"seed": 3} if name == "blocks" else {}))
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
    assert {name for name, row in METHODS.items() if row.module == "_patterns"} == set(ALL)
    assert {name for name, row in METHODS.items() if not row.optimised} == {"noise", *ALL}
