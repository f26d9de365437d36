import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from uaplib import metrics
from uaplib.metrics import Estimate, Proportion, bootstrap


@pytest.mark.parametrize(
    ("count", "n", "low", "high"),
    [
        (0, 10, 0.0, 0.2775), (5, 10, 0.2366, 0.7634), (10, 10, 0.7225, 1.0), (81, 263, 0.2553, 0.3662),
        (632, 1000, 0.6017, 0.6613), (1, 1, 0.2065, 1.0),
    ],
)  # fmt: skip
def test_the_wilson_interval_against_values_by_hand(count, n, low, high):
    assert Proportion(count, n).interval == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 10**6).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_wilson_interval_is_its_formula(pair):
    count, n = pair
    p, z = count / n, 1.959963984540054
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low, high = Proportion(count, n).interval
    assert (low, high) == pytest.approx((centre - half, centre + half), abs=1e-12)
    assert 0 <= low <= p <= high <= 1


@pytest.mark.parametrize(("count", "n"), [(1, 0), (0, 0), (-1, 5), (6, 5)])
def test_counts_that_are_no_share_are_refused(count, n):
    with pytest.raises(ValueError, match=f"not {count} of {n}"):
        Proportion(count, n)


def test_a_proportion_prints_percentage_interval_and_n():
    assert str(Proportion(632, 1000)) == "63.2 % [60.2, 66.1], n=1000"


def test_the_fooling_rate_counts_changes_whatever_the_truth():
    assert metrics.fooling_rate(torch.tensor([0, 1, 2, 3]), torch.tensor([0, 2, 1, 3])) == Proportion(2, 4)


def test_accuracy_counts_agreement():
    assert metrics.accuracy(torch.tensor([0, 1, 2]), torch.tensor([0, 1, 1])) == Proportion(2, 3)


@pytest.mark.parametrize("rate", [metrics.fooling_rate, metrics.accuracy])
def test_labels_of_different_numbers_of_images_are_refused(rate):
    with pytest.raises(ValueError, match=r"\(4,\).*\(1,\)"):
        rate(torch.tensor([0, 1, 2, 3]), torch.tensor([0]))


def test_the_dominant_label():
    assert metrics.dominant_label(torch.tensor([3, 1, 3, 0])) == (3, Proportion(2, 4))


def test_predictions_are_the_models_in_any_batch_size(model, blobs):
    expected = model(blobs[0]).argmax(1)
    for batch_size in (1, 50, 1000):
        assert torch.equal(metrics.predict(model, blobs[0], batch_size=batch_size), expected)


def test_predictions_carry_no_graph(model, blobs):
    assert not metrics.predict(model, blobs[0].clone().requires_grad_()).requires_grad


@pytest.mark.parametrize("clip", [True, False])
def test_one_perturbation_is_added_to_all_and_clipped_on_demand(blobs, clip):
    class Sum(torch.nn.Module):
        def forward(self, x):
            return torch.stack([1.5 + 0 * x.sum((1, 2, 3)), x.amax((1, 2, 3))], 1)

    delta = torch.ones(1, 1, 12, 12, dtype=torch.float64)
    found = metrics.predict(Sum().eval(), torch.full((3, 1, 12, 12), 0.7, dtype=torch.float64), delta, clip=clip)
    assert found.tolist() == ([0, 0, 0] if clip else [1, 1, 1])


def test_one_perturbation_per_image_meets_its_image_across_batches(model, blobs):
    images = blobs[0]
    deltas = images.flip(0) - images
    found = metrics.predict(model, images, deltas, batch_size=7)
    assert torch.equal(found, model(images).argmax(1).flip(0))


def test_a_float32_perturbation_fits_float64_images(model, blobs):
    delta = torch.zeros(1, 1, 12, 12)
    assert torch.equal(metrics.predict(model, blobs[0], delta), metrics.predict(model, blobs[0]))


@pytest.mark.parametrize(
    ("delta", "error", "message"),
    [
        (torch.zeros(1, 12, 12), ValueError, "delta must have four dimensions"),
        (torch.zeros(1, 1, 9, 9), ValueError, r"delta of shape \(1, 1, 9, 9\) does not fit images of shape"),
        (torch.zeros(7, 1, 12, 12), ValueError, "does not fit images of shape"),
        (torch.full((1, 1, 12, 12), math.nan), ValueError, "delta contains NaN"),
        (torch.zeros(1, 1, 12, 12, dtype=torch.uint8), TypeError, "delta must be floating point"),
        (0.1, TypeError, "delta must be a torch tensor, not float"),
    ],
)
def test_bad_perturbations_are_refused(model, blobs, delta, error, message):
    with pytest.raises(error, match=message):
        metrics.predict(model, blobs[0], delta)


def test_evaluate_tells_all_by_hand(model, blobs):
    images, labels = blobs
    delta = 0.2 * torch.randn(1, 1, 12, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    result = metrics.evaluate(model, images, labels, delta)
    clean, perturbed = model(images).argmax(1), model((images + delta).clamp(0, 1)).argmax(1)
    assert result.fooling_rate.count == (clean != perturbed).sum() > 0
    assert result.clean_accuracy.count == (clean == labels).sum()
    assert result.adversarial_accuracy.count == (perturbed == labels).sum()
    assert result.dominant_share.count == (perturbed == result.dominant_label).sum()
    assert result.clip is True


def test_an_evaluation_becomes_json_safe_values(model, blobs):
    result = metrics.evaluate(model, *blobs, torch.zeros(1, 1, 12, 12), clip=False).as_dict()
    assert result["fooling_rate"] == {"value": 0.0, "interval": [0.0, pytest.approx(0.031, abs=1e-3)], "n": 120}
    assert result["clip"] is False
    assert isinstance(result["dominant_label"], int)


def test_norms_by_hand():
    v = torch.tensor([3.0, -4.0, 0, 0]).view(2, 1, 1, 2)
    assert metrics.norms(v).tolist() == [5, 0]
    assert metrics.norms(v, math.inf).tolist() == [4, 0]


def test_rho_adv_is_the_mean_of_the_ratios():
    images = torch.tensor([3.0, 4.0, 0, 1]).view(2, 1, 1, 2)
    perturbations = torch.tensor([0.0, 1.0, 0.3, 0.4]).view(2, 1, 1, 2)
    assert metrics.rho_adv(images, perturbations) == pytest.approx((1 / 5 + 0.5 / 1) / 2)


class Channels(torch.nn.Module):
    """Returns the first channels of the images as a map."""

    def __init__(self, count):
        super().__init__()
        self.count = count

    def forward(self, x):
        return x[:, : self.count]


@pytest.fixture
def colours():
    """Three images of 2 x 3 pixels, float32; channel 2 is black."""
    images = torch.rand(3, 3, 2, 3, generator=torch.Generator().manual_seed(0))
    images[:, 2] = 0
    return images


@pytest.mark.parametrize("batch_size", [None, 1, 2])
def test_a_segmenter_gives_one_label_per_pixel(colours, batch_size):
    found = metrics.predict(Channels(3).eval(), colours, batch_size=batch_size)
    assert found.shape == (3, 2, 3)
    assert found.dtype == torch.int64
    assert torch.equal(found, (colours[:, 1] > colours[:, 0]).long())


@pytest.mark.parametrize("batch_size", [None, 1, 2])
def test_a_map_of_one_channel_is_returned_as_it_is(colours, batch_size):
    found = metrics.predict(Channels(1).eval(), colours, batch_size=batch_size)
    assert torch.equal(found, colours[:, 0])


@pytest.mark.parametrize("clip", [True, False])
def test_maps_see_the_perturbation(colours, clip):
    delta = torch.full((1, 3, 2, 3), 0.5)
    found = metrics.predict(Channels(1).eval(), colours, delta, clip=clip)
    expected = colours[:, 0] + 0.5
    assert torch.equal(found, expected.clamp_max(1) if clip else expected)
    assert (expected > 1).any()


def test_of_a_segmenter_the_fooling_rate_counts_pixels():
    clean = torch.tensor([[[0, 1, 2], [0, 1, 2]], [[0, 0, 0], [0, 0, 0]]])
    perturbed = torch.tensor([[[0, 1, 1], [1, 1, 2]], [[0, 0, 0], [0, 0, 5]]])
    assert metrics.fooling_rate(clean, perturbed) == Proportion(3, 12)
    assert metrics.accuracy(perturbed, clean) == Proportion(9, 12)


def mean_of(values):
    """The statistic that bootstrap takes, for the mean over images."""
    values = np.asarray(values, dtype=float)
    return lambda index: values[index].mean(-1)


def test_an_estimate_prints_value_interval_and_n():
    assert str(Estimate(0.63249, (0.60171, 0.6613), 233)) == "0.632 [0.602, 0.661], n=233"


def test_the_bootstraps_value_is_the_statistic_of_all_images():
    found = bootstrap(mean_of([1, 2, 6]), 3)
    assert (found.value, found.n) == (3, 3)
    assert found.interval == (1, 6)  # one of 27 resamples is all ones, one all sixes: more than 2.5 % each
    assert all(isinstance(number, float) for number in (found.value, *found.interval))


def test_the_interval_contains_the_value_and_lies_among_the_values():
    values = np.random.default_rng(5).exponential(size=60)
    found = bootstrap(mean_of(values), 60)
    assert values.min() < found.interval[0] < found.value < found.interval[1] < values.max()


def test_the_same_resamples_in_every_call():
    values = np.random.default_rng(6).random(40)
    first = bootstrap(mean_of(values), 40)
    assert bootstrap(mean_of(values), 40) == first
    shifted = bootstrap(mean_of(values + 1), 40)
    assert np.subtract(shifted.interval, first.interval) == pytest.approx([1, 1])


def test_with_one_image_or_images_that_agree_the_interval_is_the_value():
    assert bootstrap(mean_of([0.25]), 1) == Estimate(0.25, (0.25, 0.25), 1)
    assert bootstrap(mean_of([0.25] * 7), 7) == Estimate(0.25, (0.25, 0.25), 7)


def test_the_interval_of_a_mean_of_many_images_is_the_normal_one():
    values = np.random.default_rng(7).normal(3, 2, size=400)
    half = 1.959964 * values.std() / 20
    found = bootstrap(mean_of(values), 400, resamples=4000)
    assert found.interval == pytest.approx((values.mean() - half, values.mean() + half), abs=0.08 * half)


def test_a_statistic_that_is_no_mean_is_bootstrapped_too():
    values = np.random.default_rng(8).random((30, 2))
    found = bootstrap(lambda index: values[index, 0].sum(-1) / values[index].sum((-2, -1)), 30)
    expected = [values[d, 0].sum() / values[d].sum() for d in np.random.default_rng(9).integers(30, size=(4000, 30))]
    assert found.value == pytest.approx(values[:, 0].sum() / values.sum())
    assert found.interval == pytest.approx(np.percentile(expected, [2.5, 97.5]), abs=0.02)


def test_fields_become_json_safe():
    fields = {"rate": Proportion(0, 10), "iou": Estimate(0.5, (0.25, 0.75), 4), "classes": [0.5, None], "clip": True}
    found = metrics.json_safe(fields)
    assert found["rate"] == {"value": 0, "interval": [0, pytest.approx(0.2775, abs=5e-5)], "n": 10}
    assert found["iou"] == {"value": 0.5, "interval": [0.25, 0.75], "n": 4}
    assert (found["classes"], found["clip"]) == ([0.5, None], True)
    assert json.loads(json.dumps(found)) == found
