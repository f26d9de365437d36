import json
import math

import numpy as np
import pytest
import torch
from torch import nn

from uaplib import metrics, models
from uaplib.metrics import depth

NAN = math.nan


def maps(*rows):
    """One image of one row for each list of depths."""
    return torch.tensor(rows)[:, None]


class RedDepth(nn.Module):
    """Says a depth of ten metres times the red of the pixel."""

    def forward(self, x):
        return 10 * x[:, :1]


@pytest.fixture
def model():
    return models.Normalized(RedDepth(), [0.0] * 3, [1.0] * 3).eval()


def images(*reds):
    red = torch.tensor(reds)
    return torch.stack([red, torch.zeros_like(red), torch.ones_like(red)], 1)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("abs_rel", (0.5 + 0.25) / 2),  # |3 - 2| / 2 and |3 - 4| / 4
        ("sq_rel", (0.5 + 0.25) / 2),  # 1 / 2 and 1 / 4
        ("rmse", 1.0),
        ("rmse_log", math.sqrt((math.log(1.5) ** 2 + math.log(0.75) ** 2) / 2)),
        ("delta_1", 0.0),  # the factors are 1.5 and 1.333; the bounds 1.25, 1.5625 and 1.953125
        ("delta_2", 1.0),
        ("delta_3", 1.0),
    ],
)
def test_every_measure_of_two_pixels_by_hand(name, value):
    found = depth.errors(maps([3.0, 3.0]), maps([2.0, 4.0]))
    assert found[name].shape == (1,)
    assert found[name].item() == pytest.approx(value)


def test_every_measure_of_three_pixels_by_hand():
    found = depth.errors(maps([1.0, 9.0, 30.0]), maps([2.0, 10.0, 15.0]))
    assert found["abs_rel"].item() == pytest.approx((1 / 2 + 1 / 10 + 1) / 3)
    assert found["sq_rel"].item() == pytest.approx((1 / 2 + 1 / 10 + 225 / 15) / 3)
    assert found["rmse"].item() == pytest.approx(math.sqrt((1 + 1 + 225) / 3))
    logs = math.log(2) ** 2, math.log(0.9) ** 2, math.log(2) ** 2
    assert found["rmse_log"].item() == pytest.approx(math.sqrt(sum(logs) / 3))
    assert [found[name].item() for name in depth.WITHIN] == pytest.approx([1 / 3] * 3)


def test_the_measures_are_those_that_the_module_names():
    assert tuple(depth.errors(maps([1.0]), maps([1.0]))) == depth.ERRORS + depth.WITHIN


def test_a_perfect_prediction_has_no_error():
    found = depth.errors(maps([1.0, 7.0, 3.0]), maps([1.0, 7.0, 0.0]))
    assert [found[name].item() for name in depth.ERRORS] == [0, 0, 0, 0]
    assert [found[name].item() for name in depth.WITHIN] == [1, 1, 1]


@pytest.mark.parametrize(("k", "bound"), [(1, 1.25), (2, 1.5625), (3, 1.953125)])
def test_the_bound_itself_is_not_within(k, bound):
    predicted, truth = [bound, 1.0, bound - 1e-5, 1.0], [1.0, bound, 1.0, bound - 1e-5]
    found = [depth.errors(maps([p]), maps([t]))[f"delta_{k}"].item() for p, t in zip(predicted, truth, strict=True)]
    assert found == [0, 0, 1, 1]


def test_pixels_without_truth_do_not_count_whatever_is_predicted():
    bare = depth.errors(maps([3.0, 3.0]), maps([2.0, 4.0]))
    for guess in (1e6, 0.0, -5.0, NAN, math.inf):
        masked = depth.errors(maps([3.0, guess, 3.0]), maps([2.0, 0.0, 4.0]))
        assert {name: value.item() for name, value in masked.items()} == {k: v.item() for k, v in bare.items()}


def test_every_image_is_measured_by_itself():
    found = depth.errors(maps([3.0, 1.0], [8.0, 8.0], [5.0, 5.0]), maps([2.0, 0.0], [4.0, 8.0], [0.0, 0.0]))
    assert found["abs_rel"].tolist() == pytest.approx([0.5, 0.5, NAN], nan_ok=True)
    assert found["rmse"].tolist() == pytest.approx([1, math.sqrt(8), NAN], nan_ok=True)
    assert found["delta_1"].tolist() == pytest.approx([0, 0.5, NAN], nan_ok=True)


def test_small_differences_of_large_depths_are_not_rounded_away():
    predicted, truth = maps([10000.0, 10000.0]), maps([10001.0, 10001.0])
    assert depth.errors(predicted, truth)["rmse_log"].item() == pytest.approx(math.log(10001 / 10000), rel=1e-9)


def test_a_truth_in_double_precision_is_not_rounded():
    exact = maps([10000.0, 10000.0]).double() + 1e-6
    assert depth.errors(exact, exact)["rmse"].item() == 0


@pytest.mark.parametrize(("predicted", "truth"), [((1, 2, 3), (1, 3, 2)), ((2, 2, 3), (1, 2, 3)), ((2, 3), (2, 3)),
                                                  ((1, 1, 2, 3), (1, 1, 2, 3))])  # fmt: skip
def test_shapes_that_differ_or_are_no_maps_are_refused(predicted, truth):
    with pytest.raises(ValueError, match=r"depths must both be \(N, H, W\)"):
        depth.errors(torch.ones(predicted), torch.ones(truth))


@pytest.mark.parametrize("value", [0.0, -1.0, NAN, math.inf])
def test_a_prediction_that_is_not_positive_and_finite_is_refused(value):
    with pytest.raises(ValueError, match="predicted depths must be positive and finite"):
        depth.errors(maps([1.0, value]), maps([1.0, 1.0]))


@pytest.mark.parametrize("value", [-1e-6, NAN, math.inf])
def test_a_truth_that_is_negative_or_not_finite_is_refused(value):
    with pytest.raises(ValueError, match="truth must be finite and not negative; zero says that there is no depth"):
        depth.errors(maps([1.0, 1.0]), maps([1.0, value]))


@pytest.fixture
def scenes():
    """Two images of 2 x 3 pixels, their depths, which one pixel lacks, and a perturbation of three columns."""
    reds = [[0.4, 0.4, 0.4], [0.8, 0.8, 0.8]], [[0.4, 0.4, 0.4], [0.4, 0.4, 0.4]]
    truth = torch.tensor([[[4.0, 4, 4], [8, 8, 0]], [[5, 5, 5], [5, 5, 5]]])
    delta = torch.zeros(1, 3, 2, 3)
    delta[0, 0, :, 0], delta[0, 0, :, 2] = 0.2, -0.2
    return images(*reds), truth, delta  # the depths become 6 4 2 / 10 8 6 and twice 6 4 2


def test_evaluate_by_hand(model, scenes):
    found = depth.evaluate(model, *scenes)
    assert found.clean["abs_rel"].value == pytest.approx((0 + 1 / 5) / 2)
    assert found.clean["rmse"].value == pytest.approx((0 + 1) / 2)
    assert found.clean["delta_1"].value == pytest.approx(1 / 2)  # 5 / 4 is not within
    first = (2 / 4 + 0 + 2 / 4 + 2 / 8 + 0) / 5
    second = (1 / 5 + 1 / 5 + 3 / 5) / 3
    assert found.perturbed["abs_rel"].value == pytest.approx((first + second) / 2)
    assert found.perturbed["rmse"].value == pytest.approx((math.sqrt(12 / 5) + math.sqrt(11 / 3)) / 2)
    assert found.perturbed["delta_1"].value == pytest.approx((2 / 5 + 1 / 3) / 2)  # 6 / 5 is within, 5 / 4 is not
    assert found.gfr.value == pytest.approx((3 / 5 + 4 / 6) / 2)
    assert found.gfr.n == found.clean["rmse"].n == found.perturbed["delta_3"].n == 2
    assert found.clean.keys() == found.perturbed.keys() == {*depth.ERRORS, *depth.WITHIN}
    assert found.clip is True


def test_intervals_are_over_images(model, scenes):
    found = depth.evaluate(model, *scenes)
    assert found.gfr.interval == pytest.approx((3 / 5, 4 / 6))  # only the one image, or only the other
    assert found.clean["delta_1"].interval == (0, 1)


def test_an_image_without_any_depth_is_left_out(model, scenes):
    few, truth, delta = scenes
    more = torch.cat([few[:1], torch.full((1, 3, 2, 3), 0.5), few[1:]])
    padded = torch.cat([truth[:1], torch.zeros(1, 2, 3), truth[1:]])
    assert depth.evaluate(model, more, padded, delta).as_dict() == depth.evaluate(model, few, truth, delta).as_dict()


def test_a_perturbation_of_zero_changes_nothing(model, scenes):
    few, truth, delta = scenes
    found = depth.evaluate(model, few, truth, 0 * delta)
    assert (found.gfr.value, found.gfr.interval) == (0, (0, 0))
    assert found.perturbed == found.clean


@pytest.mark.parametrize(("clip", "depth_after"), [(True, 10), (False, 14)])
def test_the_sum_is_clipped_on_demand(model, clip, depth_after):
    bright, delta = torch.full((1, 3, 2, 3), 0.9), torch.full((1, 3, 2, 3), 0.5)
    found = depth.evaluate(model, bright, torch.full((1, 2, 3), 9.0), delta, clip=clip)
    assert found.perturbed["rmse"].value == pytest.approx(depth_after - 9, abs=1e-5)
    assert found.gfr.value == (0 if clip else 1)
    assert found.clip is clip


def test_an_evaluation_becomes_json_safe_values(model, scenes):
    found = depth.evaluate(model, *scenes, clip=False).as_dict()
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["clean"]["delta_1"] == {"value": 0.5, "interval": [0, 1], "n": 2}
    assert found["gfr"]["value"] == pytest.approx(19 / 30)
    assert found["clip"] is False


@pytest.mark.parametrize("shape", [(1, 2, 3), (3, 2, 3), (2, 3, 2), (2, 1, 2, 3)])
def test_evaluate_refuses_a_truth_of_another_shape(model, scenes, shape):
    few, _, delta = scenes
    with pytest.raises(ValueError, match=r"depths must both be \(N, H, W\)"):
        depth.evaluate(model, few, torch.ones(shape), delta)


def test_evaluate_refuses_a_network_whose_depth_is_not_positive(model, scenes):
    few, truth, delta = scenes
    with pytest.raises(ValueError, match="a map of one channel is read as depth, which is positive"):
        depth.evaluate(model, few, truth, -4 * delta.abs())


def test_the_gfr_is_the_fooling_rate_where_every_pixel_has_a_depth(model, scenes):
    few, truth, delta = scenes
    clean, perturbed = metrics.predict(model, few), metrics.predict(model, few, delta)
    found = depth.evaluate(model, few, truth.clamp_min(1), delta).gfr.value
    assert found == pytest.approx(metrics.fooling_rate(clean, perturbed).value)
    assert found == pytest.approx(np.mean([4 / 6, 4 / 6]))
