import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from uaplib.metrics import Estimate, Proportion, bootstrap, json_safe, share


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
    found = json_safe(fields)
    assert found["rate"] == {"value": 0, "interval": [0, pytest.approx(0.2775, abs=5e-5)], "n": 10}
    assert found["iou"] == {"value": 0.5, "interval": [0.25, 0.75], "n": 4}
    assert (found["classes"], found["clip"]) == ([0.5, None], True)
    assert json.loads(json.dumps(found)) == found


def test_dictionaries_in_fields_become_json_safe_too():
    assert json_safe({"clean": {"rmse": Estimate(1.5, (1.0, 2.0), 3)}}) == {
        "clean": {"rmse": {"value": 1.5, "interval": [1.0, 2.0], "n": 3}}
    }


def test_a_share_counts_every_element():
    assert share(torch.tensor([[True, False, False], [True, False, False]])) == Proportion(2, 6)


def test_blocks_of_a_film_widen_the_interval_and_blocks_of_one_image_are_the_bootstrap():
    """Twenty scenes of ten equal frames. A block that begins at a random frame is of k and 10 - k frames of two scenes.

    So the variance of its mean is that of a scene times the mean of (k² + (10 - k)²) / 100, 0.67: 6.7 times that of ten
    frames drawn singly.
    """
    scenes = np.random.default_rng(1).normal(size=20).repeat(10)

    def mean(index):
        return scenes[index].mean(-1)

    single, blocks = bootstrap(mean, 200), bootstrap(mean, 200, block=10)
    assert bootstrap(mean, 200, block=1) == single
    assert (blocks.value, blocks.n) == (single.value, 200)
    widths = [high - low for low, high in (single.interval, blocks.interval)]
    assert widths[1] / widths[0] == pytest.approx(math.sqrt(6.7), rel=0.15)
    assert bootstrap(mean, 200, block=10) == blocks


def test_blocks_are_of_consecutive_images_and_go_round():
    seen = []

    def spy(index):
        seen.append(index)
        return index.mean(-1)

    bootstrap(spy, 7, resamples=60, block=3)
    drawn = np.concatenate(seen[1:])
    assert drawn.shape == (60, 7)
    assert np.array_equal((drawn[:, 1:3] - drawn[:, :1]) % 7, np.tile([1, 2], (60, 1)))
    assert np.array_equal((drawn[:, 4:6] - drawn[:, 3:4]) % 7, np.tile([1, 2], (60, 1)))
    assert set(drawn.flat) == set(range(7))
    assert bootstrap(lambda index: index.mean(-1), 7, block=7).interval == (3, 3)


@pytest.mark.parametrize("block", [0, -1, 8])
def test_a_block_is_between_one_image_and_all(block):
    with pytest.raises(ValueError, match=f"block must be between 1 and the number of images, 7, not {block}"):
        bootstrap(lambda index: index.mean(-1), 7, block=block)
