import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from uaplib import metrics
from uaplib.metrics import Proportion


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
