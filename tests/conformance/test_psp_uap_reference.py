"""Pseudo-semantic priors: the loss against the formula of the paper, and the parts of the authors' program."""

import itertools
import math

import pytest
import torch
from torch import nn

from uaplib import metrics
from uaplib.attacks import PSPUAPSettings, _psp_uap, activations, psp_uap, runs
from uaplib.balls import linf
from uaplib.models import Normalized

BALL = linf(20)


@pytest.fixture
def network():
    with torch.random.fork_rng():
        torch.manual_seed(1)
        layers = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Conv2d(4, 6, 3), nn.Flatten(),
            nn.Linear(6 * 36, 5),
        )  # fmt: skip
    return Normalized(layers, [0.4], [0.2], 12).double().eval()


def started(network, monkeypatch, **settings):
    """A run that has begun and taken no step."""
    found = []
    monkeypatch.setattr(runs, "craft", lambda run, *rest: found.append(run))
    psp_uap(network, BALL, settings=PSPUAPSettings(**settings))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        found[0].begin()
    return found[0]


def written_out(run, network, p, q, layers, temperature=3.0, weighted=True):
    """-sum_l log(sum_i ||a_l(q_i)||^2 / (2 T^2 KL_i) + 1e-9), crop by crop."""
    chosen, total = [], 0.0
    for layer in layers:
        chosen.append([network.network[: layer + 1]((x[None] - 0.4) / 0.2).square().sum() for x in q])
    softmax = [(network(x) / temperature).softmax(1) for x in (p, q)]
    divergence = (softmax[0] * (softmax[0].log() - softmax[1].log())).sum(1)
    weights = 1 / (temperature**2 * divergence) if weighted else torch.ones(len(p))
    for energies in chosen:
        total = total - torch.log((torch.stack(energies) * weights.detach()).sum() / 2 + 1e-9)
    return total


def same_crops(run, pictures):
    """What the run makes of the pictures: crops without and with the perturbation, drawn from a fixed seed."""
    torch.manual_seed(7)
    under = (run.v.detach() + pictures - run.centre).repeat(run.settings.crops, 1, 1, 1)
    p = torch.stack([_psp_uap._random_crop(each) for each in under])
    pairs = [_psp_uap._transformed(each, each + run.v[0]) for each in p]
    return [torch.stack(each) + run.centre for each in zip(*pairs, strict=True)]


@pytest.mark.parametrize(("share", "layers"), [(1.0, [0, 2, 4]), (0.7, [0, 2]), (0.1, [0])])
def test_the_loss_is_the_papers(network, monkeypatch, share, layers):
    run = started(network, monkeypatch, share=share, crops=4)
    pictures = torch.rand(2, 1, 12, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    with torch.random.fork_rng():
        p, q = same_crops(run, pictures)
        torch.manual_seed(7)
        found = run.loss(pictures)
    expected = written_out(run, network, p, q, layers)
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    (gradient,) = torch.autograd.grad(found, run.v, retain_graph=True)
    (wanted,) = torch.autograd.grad(expected, run.v)
    torch.testing.assert_close(gradient, wanted, rtol=1e-6, atol=1e-9)


def test_a_pixel_at_the_border_of_the_budget_has_its_gradient(network, monkeypatch):
    """The authors clamp after the step: what is saturated can turn round."""
    run, pictures = started(network, monkeypatch, crops=3), torch.rand(1, 1, 12, 12).double()
    with torch.no_grad():
        run.v.copy_(BALL.eps * run.v.sign())
    (gradient,) = torch.autograd.grad(run.loss(pictures), run.v)
    assert (gradient != 0).double().mean() > 0.95


def test_the_clock_of_the_authors_counts_from_the_last_measurement():
    settings = {"halve_every": None, "check_every": 400, "check_after": 200, "patience": 99, "max_iterations": 2000}

    def measured(events):
        clock, shares, found = _psp_uap._Clock(PSPUAPSettings(**settings)), [0.9], []
        for k in range(1, 1300):  # the share of saturated pixels stands still at an event
            shares.append(shares[-1] if k in events else 1.8 - shares[-1] + 1e-3 * (k % 2))
            found += [k] if clock.tick(shares[-1])[0] else []
        return found

    assert measured(()) == [401, 802, 1203]
    assert measured(range(61, 1300, 60)) == [241, 481, 721, 961, 1201]


def test_weights_times_a_constant_shift_the_loss_and_leave_its_gradient(network, monkeypatch):
    pictures = torch.rand(1, 1, 12, 12, generator=torch.Generator().manual_seed(0)).double()
    run, found = started(network, monkeypatch, crops=3, share=1.0), []
    for factor in (1.0, 8.0):
        monkeypatch.setattr(_psp_uap, "_weights", lambda p, q, t, factor=factor: factor * p.softmax(1)[:, 0])
        with torch.random.fork_rng():
            torch.manual_seed(7)
            loss = run.loss(pictures)
        found.append((loss.item(), torch.autograd.grad(loss, run.v)[0]))
    assert found[0][0] - found[1][0] == pytest.approx(3 * math.log(8), rel=1e-6)
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-6, atol=1e-9)  # of entries about 0.1


def test_equal_weights_and_positive_activations(network, monkeypatch):
    pictures = torch.rand(1, 1, 12, 12).double()
    run = started(network, monkeypatch, crops=3, share=1.0, reweighted=False)
    with torch.random.fork_rng():
        p, q = same_crops(run, pictures)
        torch.manual_seed(7)
        assert run.loss(pictures).item() == pytest.approx(
            written_out(run, network, p, q, [0, 2, 4], weighted=False).item(), rel=1e-6
        )
        rectified = started(network, monkeypatch, crops=3, share=0.4, reweighted=False, rectified=True)
        torch.manual_seed(7)
        loss = rectified.loss(pictures)
    first = network.network[0]((q - 0.4) / 0.2).clamp_min(0).square().sum()
    assert loss.item() == pytest.approx(-math.log(first.item() / 2 + 1e-9), rel=1e-6)


def test_the_authors_fault_is_what_the_network_sees_without_its_normalisation(network, monkeypatch):
    seen = []
    network.network[0].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    pictures = torch.rand(1, 1, 12, 12).double()
    for kind, centre in (("gauss", 0.5), ("jigsaw", 0.0)):
        run = started(network, monkeypatch, crops=2, transformed=False, unnormalised=True, pictures=kind)
        seen.clear()
        with torch.random.fork_rng():
            torch.manual_seed(7)
            run.loss(pictures)
            torch.manual_seed(7)
            under = (run.v.detach() + pictures - centre).repeat(2, 1, 1, 1)
            p = torch.stack([_psp_uap._random_crop(each) for each in under])
        torch.testing.assert_close(seen[0], p + run.v)
        torch.testing.assert_close(seen[1], p)


def test_a_crop_has_its_area_and_its_ratio():
    rows, columns = torch.meshgrid(torch.arange(224.0), torch.arange(224.0), indexing="ij")
    picture = torch.stack([rows, columns])
    areas, ratios = [], []
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for _ in range(200):
            crop = _psp_uap._random_crop(picture)
            tall = (crop[0].max() - crop[0].min()).item() + 1
            wide = (crop[1].max() - crop[1].min()).item() + 1
            areas.append(tall * wide / 224**2)
            ratios.append(wide / tall)
    assert 0.05 < min(areas) < 0.15
    assert 0.9 < max(areas) <= 1
    assert 0.7 < min(ratios) < 0.8
    assert 1.25 < max(ratios) < 1.4


def test_a_rotation_leaves_no_hole():
    picture = torch.rand(1, 40, 40, generator=torch.Generator().manual_seed(0)) + 0.5
    turned = _psp_uap._rotated(picture, 6.0)
    assert torch.equal(turned[0, 0, 0], picture[0, 0, 0])  # nothing was turned into the corner
    assert not torch.equal(turned, picture)
    assert torch.equal(_psp_uap._rotated(picture, 0.0), picture)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        angles = torch.tensor([_psp_uap._truncated_normal(6.0) for _ in range(500)])
    assert angles.abs().max() <= 6
    assert angles.std().item() == pytest.approx(3.24, abs=0.3)  # of a normal number cut at one standard deviation


def test_places_are_exchanged_and_nothing_is_lost():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        orders = [_psp_uap._exchange((9, 12)) for _ in range(40)]
    assert all(torch.equal(rows.sort().values, torch.arange(9)) for rows, _ in orders)
    assert all(torch.equal(columns.sort().values, torch.arange(12)) for _, columns in orders)
    kept = sum(torch.equal(columns, torch.arange(12)) for _, columns in orders)
    assert 5 < kept < 35


def test_the_three_transforms_are_the_same_for_both():
    p = torch.rand(1, 20, 20, generator=torch.Generator().manual_seed(0)) - 0.5
    with torch.random.fork_rng():
        torch.manual_seed(0)
        pairs = [_psp_uap._transformed(p, p.clone()) for _ in range(60)]
    assert all(torch.equal(*pair) for pair in pairs)
    stronger = [one for one, _ in pairs if torch.allclose(one / one[0, 3, 3] * p[0, 3, 3], p, atol=1e-5)]
    strengths = [(one[0, 3, 3] / p[0, 3, 3]).item() for one in stronger]
    assert 10 < sum(each != 1 for each in strengths) < 30
    assert 0.8 <= min(strengths) <= max(strengths) <= 4


def test_the_schedule_is_the_authors():
    frequencies = {1: 1, 199: 1, 200: 2, 999: 5, 1000: 5, 1199: 5, 1200: 6, 1600: 7, 3999: 12, 4000: 13}
    assert {each: _psp_uap._frequency(each) for each in frequencies} == frequencies


@pytest.mark.parametrize(
    ("kind", "counts"), [("jigsaw", {1: 1, 1599: 1, 1600: 2, 3200: 4}), ("gauss", {1: 1, 1600: 2, 2400: 4, 3200: 8})]
)
def test_there_are_more_and_more_pictures(network, kind, counts):
    draw = _psp_uap._draw(network, PSPUAPSettings(pictures=kind))
    with torch.random.fork_rng():
        pictures = {iteration: draw(iteration) for iteration in counts}
    assert {iteration: len(each) for iteration, each in pictures.items()} == counts
    assert all(each.shape[1:] == (1, 12, 12) and each.min() >= 0 and each.max() <= 1 for each in pictures.values())


def test_gauss_noise_has_the_contrast_that_it_is_told():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        noise = _psp_uap.gauss((3, 100, 100), 20)
    assert (255 * noise.std((1, 2))).tolist() == pytest.approx([40, 30, 20], rel=0.03)
    assert noise.mean().item() == pytest.approx(0.5, abs=0.01)


def test_a_jigsaw_is_rectangles_smoothed_by_a_median():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        picture = _psp_uap.jigsaw((3, 60, 60), 2)
    assert picture.shape == (3, 60, 60)
    assert len(picture[0].unique()) <= 15  # five by three rectangles; a median invents no value
    speck = torch.zeros(1, 20, 20)
    speck[0, 10, 10] = 1
    assert _psp_uap._median(speck).max() == 0
    step = (torch.arange(20) >= 10).float().expand(1, 20, 20)
    assert torch.equal(_psp_uap._median(step), step)


def test_patience_and_the_iterate_that_is_returned(network, monkeypatch):
    clocks = {}
    for cumulative in (False, True):
        clocks[cumulative] = clock = _psp_uap._Clock(PSPUAPSettings(cumulative_patience=cumulative, patience=3))
        for rate in (0.2, 0.1, 0.3, 0.2, 0.4, 0.1):
            clock.improved(rate)
    assert (clocks[False].failures, clocks[True].failures) == (1, 3)
    assert (clocks[False].finished(), clocks[True].finished()) == (False, True)
    short = {"max_iterations": 9, "check_every": 3, "halve_every": 3, "crops": 2}
    told = itertools.cycle([20, 30, 10])
    monkeypatch.setattr(activations, "fooling_rate", lambda *_: metrics.Proportion(next(told), 100))
    best, last = (
        psp_uap(network, BALL, settings=PSPUAPSettings(**short, last_iterate=last), seed=1) for last in (False, True)
    )
    rates = [entry["rate"] for entry in best.history if "rate" in entry]
    assert [entry.get("rate") for entry in best.history] == [entry.get("rate") for entry in last.history]
    assert rates.index(max(rates)) < len(rates) - 1
    assert not torch.equal(best.delta, last.delta)


@pytest.mark.parametrize(
    "settings", [{"share": 0.0}, {"share": 1.5}, {"temperature": 0.0}, {"pace": 0.0}, {"pictures": "clouds"}]
)
def test_bad_settings(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        PSPUAPSettings(**settings)
