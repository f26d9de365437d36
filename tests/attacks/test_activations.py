"""The loss on activations, the clock of the papers, and the settings."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from uaplib import attacks
from uaplib.attacks import METHODS, gd_uap
from uaplib.attacks import _fast_feature_fool as fff
from uaplib.attacks import _gd_uap as gd
from uaplib.attacks.activations import Clock, Settings, activation_loss, energy, mean_activation, scaled
from uaplib.balls import NormBall, linf
from uaplib.features import Layer
from uaplib.models import Normalized

ACTIVATIONS = torch.tensor([[1.0, -2.0], [3.0, 0.0]])
FREE = {"learning_rate": 0.01, "batch_size": 1, "max_iterations": 100, "check_every": 10, "check_after": 0,
        "patience": 3}  # fmt: skip


def identity(weight=1.0):
    """A network of one 1 x 1 convolution that multiplies by `weight`."""
    network = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.Flatten())
    nn.init.constant_(network[0].weight, weight)
    return network.eval()


def run(settings, saturations):
    """The iterations in which the clock says "measure" and "halve"."""
    clock = Clock(settings)
    found = [clock.tick(saturation) for saturation in saturations]
    return tuple([i for i, said in enumerate(found, 1) if said[which]] for which in (0, 1))


def moving(count):
    """Shares of saturated pixels above one half that never stand still."""
    return [0.6 + 0.1 * (i % 2) for i in range(count)]


def still_at(*iterations, count, level=0.8):
    """As `moving`, but in each of these iterations the share is that of the iteration before."""
    shares = moving(count)
    for iteration in iterations:
        shares[iteration - 2 : iteration] = level, level
    return shares


def test_the_mean_activation_is_the_mean_of_the_absolute_values():
    assert mean_activation(ACTIVATIONS).item() == pytest.approx(6 / 4)


def test_the_energy_is_half_the_squared_norm():
    assert energy(ACTIVATIONS).item() == pytest.approx(14 / 2)


def test_a_layer_of_many_numbers_does_not_overflow_in_half_precision():
    ones = torch.ones(70_000, dtype=torch.float16)
    assert (mean_activation(ones).item(), energy(ones).item()) == (1, 35_000)


@pytest.mark.parametrize("shape", [(4,), (2, 2), (1, 2, 2), (2, 1, 1, 2)])
def test_the_shape_of_an_activation_plays_no_part(shape):
    for statistic in (mean_activation, energy):
        assert statistic(ACTIVATIONS.view(shape)).item() == pytest.approx(statistic(ACTIVATIONS).item())


def test_the_loss_takes_one_norm_over_the_whole_batch():
    images = torch.tensor([0.5, 1.0, 0.25]).view(3, 1, 1, 1)
    found = activation_loss(identity(2.0), images, [Layer("0")], energy)
    assert found.item() == pytest.approx(-math.log((1 + 4 + 0.25) / 2))
    assert found.item() != pytest.approx(-math.log(1 / 2) - math.log(4 / 2) - math.log(0.25 / 2))
    means = activation_loss(identity(2.0), images, [Layer("0")], mean_activation)
    assert means.item() == pytest.approx(-math.log(3.5 / 3))


def test_the_loss_adds_the_logarithms_of_the_layers():
    network = nn.Sequential(*[identity(weight)[0] for weight in (2.0, 3.0)])
    found = activation_loss(network, torch.ones(1, 1, 1, 1), [Layer("0"), Layer("1")], energy)
    assert found.item() == pytest.approx(-math.log(4 / 2) - math.log(36 / 2))


@pytest.mark.parametrize("statistic", [energy, mean_activation])
def test_the_gradient_is_that_of_finite_differences(model, blobs, statistic):
    images, layers = blobs[0][:2, :, :6, :6].clone().requires_grad_(), [Layer("network.1"), Layer("network.3")]
    body = Normalized(nn.Sequential(*list(model.network)[:4]), [0.5], [0.25]).double()
    assert torch.autograd.gradcheck(lambda x: activation_loss(body, x, layers, statistic), images)


@pytest.mark.parametrize("statistic", [energy, mean_activation])
@pytest.mark.parametrize("weight", [0.0, math.nan, math.inf])
def test_layers_that_are_dead_or_not_finite_are_named(statistic, weight):
    network = nn.Sequential(identity()[0], nn.Sequential(identity(weight)[0]))
    layers = [Layer("0"), Layer("1.0")]
    with pytest.raises(FloatingPointError, match=r"\['1.0'\] are all zero or not finite"):
        activation_loss(network, torch.ones(1, 1, 2, 2), layers, statistic)


class Kink(nn.Module):
    """The identity, with a gradient that is not a number."""

    def forward(self, x):
        return x + (0 * x).sqrt()


@pytest.mark.parametrize("name", ["gd_uap", "fast_feature_fool"])
def test_a_gradient_that_is_no_number_ends_a_run(name):
    attack, settings = getattr(attacks, name), Settings(**FREE)
    selection = torch.full((2, 1, 4, 4), 0.5)
    model = Normalized(nn.Sequential(Kink(), *identity()), [0.5], [0.25], 4).eval()
    with pytest.raises(FloatingPointError, match="gradient is not finite in iteration 1$"):
        attack(model, NormBall(math.inf, 0.1), selection=selection, settings=settings)


def test_a_network_with_a_dead_layer_ends_the_run_with_its_name():
    network = nn.Sequential(*identity(), nn.Unflatten(1, (1, 4, 4)), identity(0.0)[0], nn.Flatten())
    with pytest.raises(FloatingPointError, match=r"\['network.3'\]"):
        gd_uap(Normalized(network, [0.5], [0.25], 4).eval(), NormBall(math.inf, 0.1), settings=Settings(**FREE))


@pytest.mark.parametrize(("lead", "blind"), [(1e-4, True), (0.4, False)])
@pytest.mark.parametrize("name", ["gd_uap", "fast_feature_fool"])
def test_a_warning_says_when_every_iterate_fools_all_selection_images(name, lead, blind, recwarn):
    attack, settings = getattr(attacks, name), Settings(**FREE | {"max_iterations": 20})
    selection = torch.full((2, 1, 4, 4), 0.5)
    selection[:, :, 3, 3] += lead  # the class that is ahead, by less or by more than the budget can make up for
    found = attack(
        Normalized(nn.Sequential(*identity()), [0.5], [0.25], 4).eval(), NormBall(math.inf, 0.1),
        selection=selection, settings=settings, seed=1,
    )  # fmt: skip
    rates = [entry["rate"] for entry in found.history if "rate" in entry]
    assert rates == [float(blind)] * len(rates)
    said = [str(warning.message) for warning in recwarn]
    assert [f"{found.method}: each of the {len(rates)} iterates" in text for text in said] == [True] * blind


def test_the_paper_settings_of_gd_uap():
    paper = gd.PAPER
    assert (paper.learning_rate * 255, paper.max_iterations, paper.patience) == (pytest.approx(0.1), 40_000, 10)
    assert (paper.check_every, paper.check_after, paper.halve_every) == (400, 200, None)
    assert (paper.saturation, paper.still) == (0.5, 1e-5)
    assert (paper.clip, paper.project) == (False, False)


def test_the_paper_settings_of_fast_feature_fool():
    paper = fff.PAPER
    assert (paper.learning_rate * 255, paper.batch_size, paper.patience) == (pytest.approx(0.1), 1, 5)
    assert (paper.clip, paper.project) == (False, False)


def test_fast_feature_fool_halves_every_300_iterations_and_measures_200_later():
    for shares in (moving(1000), [0.9] * 1000, [0.0] * 1000):
        assert run(fff.PAPER, shares) == ([200, 500, 800], [300, 600, 900])


def test_a_clock_that_does_both_at_once():
    assert run(Settings(**FREE, halve_every=5), [0.0] * 20) == ([10, 20], [5, 10, 15, 20])


@pytest.mark.parametrize(
    ("before", "now", "halves"),
    [(0.6, 0.6, True), (0.6, 0.6 + 9e-6, True), (0.6, 0.6 - 9e-6, True), (0.6, 0.6 + 1.1e-5, False),
     (0.6, 0.6 - 1.1e-5, False), (0.5, 0.5, False), (0.4, 0.4, False), (0.500001, 0.500001, True), (0.2, 0.9, False)],
)  # fmt: skip
def test_gd_uap_halves_where_more_than_half_the_pixels_are_saturated_and_stay_so(before, now, halves):
    assert run(gd.PAPER, [before, now])[1] == ([2] if halves else [])


def test_without_events_gd_uap_measures_every_400_iterations():
    assert run(gd.PAPER, moving(1300)) == ([400, 800, 1200], [])


@pytest.mark.parametrize(
    ("events", "measured"),
    [
        ([201], [201, 601, 1001]),  # more than 200 iterations had passed
        ([200], [600, 1000]),  # they had not; but the clock starts anew
        ([100, 301], [301, 701]),  # 201 after the last halving
        ([100, 300], [700, 1100]),  # 200 after it
        ([150, 300, 450], [850]),  # and so on
        ([500], [400, 900]),  # 100 after a measurement: halved but not measured, and 400 more to wait
        ([601], [400, 601, 1001]),  # 201 after a measurement
        ([400], [400, 800]),  # both at once
    ],
)
def test_gd_uap_measures_at_an_event_only_if_the_last_measurement_or_halving_was_long_ago(events, measured):
    found, halved = run(gd.PAPER, still_at(*events, count=1100))
    assert halved == events
    assert found == measured


def test_the_first_iteration_cannot_stand_still():
    assert run(Settings(**FREE), [1.0, 1.0]) == ([2], [2])


def test_a_share_that_changes_by_just_the_limit_moves():
    assert run(Settings(**FREE, still=0.25), [0.5, 0.75, 0.875]) == ([3], [3])


def test_patience_counts_failures_in_a_row():
    clock = Clock(Settings(**FREE))
    script = [(0.0, True), (0.1, True), (0.1, False), (0.05, False), (0.2, True), (0.2, False), (0.1, False)]
    for rate, better in script:
        assert clock.improved(rate) == better
        assert not clock.finished()
    assert not clock.improved(0.19)
    assert clock.finished()
    assert clock.best == 0.2


def test_the_iterations_end_a_run():
    clock = Clock(Settings(**FREE))
    for _ in range(99):
        clock.tick(0.0)
        assert not clock.finished()
    clock.tick(0.0)
    assert clock.finished()


@pytest.mark.parametrize(
    ("name", "value"),
    [("batch_size", 0), ("batch_size", 1.5), ("max_iterations", 0), ("max_iterations", 1e3), ("check_every", 0),
     ("check_every", -1), ("patience", 0), ("halve_every", 0), ("halve_every", 2.0), ("learning_rate", 0),
     ("learning_rate", -0.1), ("learning_rate", math.nan), ("check_after", -1)],
)  # fmt: skip
def test_bad_settings_are_named(name, value):
    with pytest.raises((ValueError, TypeError), match=name):
        Settings(**(FREE | {name: value}))


@pytest.mark.parametrize(("eps_255", "factor"), [(10, 1), (5, 0.5), (30, 3), (0, 1)])
def test_steps_grow_and_shrink_with_the_budget(eps_255, factor):
    settings, found = Settings(**FREE), scaled(Settings(**FREE), linf(eps_255))
    assert found.learning_rate == pytest.approx(0.01 * factor)
    assert replace(found, learning_rate=0.01) == settings


@pytest.mark.parametrize("name", ["fff", "gd-uap-none", "gd-uap-range", "gd-uap-data"])
def test_who_gives_no_settings_gets_those_of_the_table(name, model, blobs):
    model.size, ball, row = 12, linf(20), METHODS[name]
    data = {"images": blobs[0][:8]} if row.sees == "images" else {}
    options = {"prior": name.removeprefix("gd-uap-")} if name != "fff" else {}
    found = (gd_uap if options else attacks.fast_feature_fool)(model, ball, **options, **data)
    expected = row.settings(ball)
    expected.pop("layers")
    assert expected.items() <= found.parameters.items()
    default = fff.DEFAULT if name == "fff" else gd.DEFAULTS[options["prior"]]
    assert found.parameters["learning_rate"] == pytest.approx(2 * default.learning_rate)


@pytest.mark.parametrize("layers", [(), [], "network.0", [3], 3, [["network.0"]]], ids=repr)
def test_layers_that_are_no_names_are_refused(layers):
    with pytest.raises(ValueError, match="layers must be one of"):
        METHODS["fff"].settings(linf(10), layers=layers)


@pytest.mark.parametrize("layers", [["network.0"], ("network.0", "network.1")])
def test_layers_are_a_list_on_record(layers):
    assert METHODS["fff"].settings(linf(10), layers=layers)["layers"] == list(layers)


def test_the_settings_that_come_with_the_attacks_are_valid():
    assert set(gd.DEFAULTS) == set(gd.PRIORS)
    for settings in (gd.PAPER, fff.PAPER, fff.DEFAULT, *gd.DEFAULTS.values()):
        assert settings.max_iterations >= settings.check_every
