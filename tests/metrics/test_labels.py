import math

import pytest
import torch

from uaplib import metrics
from uaplib.metrics import Proportion


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


def test_a_depth_of_zero_is_refused(colours):
    colours[1, 0, 0, 0] = 0
    with pytest.raises(ValueError, match="depth, which is positive, and this one goes down to 0"):
        metrics.predict(Channels(1).eval(), colours)


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


class Brightness(torch.nn.Module):
    """Says how bright the first pixel is: 0 below 0.5, 1 up to 0.75, 2 up to 1, and 3 above."""

    def forward(self, x):
        label = torch.bucketize(x[:, 0, 0, 0].contiguous(), torch.tensor([0.5, 0.75, 1.0]))
        return torch.nn.functional.one_hot(label, 4).double()


PIXELS = torch.tensor([0.25, 0.375, 0.625, 0.875, 0.875])


@pytest.mark.parametrize(
    ("clip", "perturbed", "wrong", "dominant"),
    [(True, [1, 1, 2, 2, 2], 4, (2, 3)), (False, [1, 1, 2, 3, 3], 4, (1, 2))],
)
def test_every_count_of_an_evaluation_by_hand(clip, perturbed, wrong, dominant):
    images, truth = PIXELS.view(5, 1, 1, 1).expand(5, 1, 2, 3).contiguous(), torch.tensor([0, 1, 1, 1, 0])
    found = metrics.evaluate(Brightness().eval(), images, truth, torch.full((1, 1, 2, 3), 0.3), clip=clip)
    clean = [0, 0, 1, 2, 2]
    assert found.fooled.tolist() == [before != after for before, after in zip(clean, perturbed, strict=True)]
    assert (found.n, found.clean_wrong, found.wrong) == (5, 3, wrong)
    assert (found.dominant_label, found.dominant) == dominant
    assert found.clip is clip
    assert repr(found).startswith(f"Evaluation(fooling_rate=Proportion(count={3 if clip else 5}, n=5), clean_accuracy=")
    assert found.fooling_rate == Proportion(3 if clip else 5, 5)
    assert (found.clean_accuracy, found.adversarial_accuracy) == (Proportion(2, 5), Proportion(5 - wrong, 5))
    assert found.dominant_share == Proportion(dominant[1], 5)


def test_an_evaluation_lists_its_measures_in_order(model, blobs):
    assert list(metrics.evaluate(model, *blobs, torch.zeros(1, 1, 12, 12)).as_dict()) == [
        "fooling_rate", "clean_accuracy", "adversarial_accuracy", "dominant_label", "dominant_share", "clip",
    ]  # fmt: skip


@pytest.mark.parametrize("batch_size", [1, 50, 120])
def test_evaluate_passes_the_batch_size_on(blobs, batch_size):
    seen = []

    class Spy(torch.nn.Module):
        def forward(self, x):
            seen.append(len(x))
            return x.flatten(1)[:, :5]

    metrics.evaluate(Spy().eval(), *blobs, torch.zeros(1, 1, 12, 12), batch_size=batch_size)
    assert max(seen) == batch_size
    assert sum(seen) == 1 + 2 * 120  # one image tells the number of classes


@pytest.mark.parametrize(
    ("pixels", "batch"), [((64, 64), 500), ((64, 65), 8), ((65, 64), 8), ((4, 1024), 500), ((1024, 5), 8)]
)
def test_up_to_64_x_64_pixels_make_batches_of_500(pixels, batch):
    seen = []

    class Spy(torch.nn.Module):
        def forward(self, x):
            seen.append(len(x))
            return x.flatten(1)[:, :2]

    metrics.predict(Spy().eval(), torch.zeros(501 if batch == 500 else 9, 1, *pixels))
    assert seen == [batch, 1]


@pytest.mark.parametrize(("change", "changes"), [(1.25, True), (1.2499, False), (0.8, True), (0.8001, False)])
def test_a_depth_has_changed_at_a_factor_of_one_and_a_quarter(change, changes):
    clean = torch.full((1, 2, 2), 4.0, dtype=torch.float64)
    assert metrics.fooling_rate(clean, change * clean).count == 4 * changes


def test_the_first_of_equally_frequent_labels_dominates():
    assert metrics.dominant_label(torch.tensor([4, 2, 2, 4])) == (2, Proportion(2, 4))


def test_a_black_image_has_no_robustness():
    with pytest.raises(ValueError, match="image 1 is black"):
        metrics.rho_adv(torch.tensor([1.0, 0.0]).view(2, 1, 1, 1), torch.ones(2, 1, 1, 1))
