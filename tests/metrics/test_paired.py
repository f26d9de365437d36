"""Two shares of the same images."""

from math import comb

import numpy as np
import pytest
import torch

from uaplib.metrics import bootstrap, difference, paired

A = torch.tensor([1, 1, 1, 1, 0, 0, 1, 0], dtype=torch.bool)
B = torch.tensor([0, 1, 0, 0, 0, 0, 1, 1], dtype=torch.bool)


def test_the_difference_and_mcnemars_test():
    found = paired(A, B)
    assert (found.only_first, found.only_second) == (3, 1)
    assert found.difference.value == pytest.approx(2 / 8)
    assert found.difference.n == 8
    assert found.p_value == pytest.approx(2 * (1 + 4) / 2**4)  # 3 of 4, two-sided
    assert paired(B, A).difference.value == -found.difference.value
    assert paired(A.numpy(), B.numpy()) == found


def test_the_p_value_is_the_two_tails_of_a_fair_coin():
    rng = np.random.default_rng(0)
    first, second = rng.random(500) < 0.4, rng.random(500) < 0.33
    found = paired(first, second)
    tosses, most = found.only_first + found.only_second, max(found.only_first, found.only_second)
    tail = sum(comb(tosses, heads) for heads in range(most, tosses + 1)) / 2**tosses
    assert found.p_value == pytest.approx(2 * tail, rel=1e-9)


def test_the_interval_is_of_the_images_not_of_the_two_shares_apart():
    """Two perturbations that fool the same images but one differ by little, however wide either interval is."""
    first = torch.arange(400) < 200
    second = first.clone()
    second[0] = False
    low, high = difference(first, second).interval
    assert -1e-9 < low <= 1 / 400 <= high < 3 / 100
    assert difference(first, second) == bootstrap(lambda i: (first.double() - second.double()).numpy()[i].mean(-1), 400)


def test_equal_shares_differ_by_nothing():
    found = paired(A, A)
    assert (found.difference.value, found.difference.interval, found.p_value) == (0, (0, 0), 1)


def test_draws_are_averaged_before_images_are_compared():
    draws = torch.tensor([[1, 0, 0], [1, 1, 0]], dtype=torch.bool)
    assert difference(draws.float().mean(0), torch.tensor([0.0, 0.0, 0.5])).value == pytest.approx((1 + 0.5 - 0.5) / 3)


def test_a_comparison_says_all_of_it():
    assert str(paired(A, B)).startswith("+25.0 points [")
    assert str(paired(A, B)).endswith("], 3 : 1 images, p = 0.6")


@pytest.mark.parametrize(
    ("first", "second"), [(A, B[:-1]), (A[None], B[None]), (A[:0], B[:0]), (A[:1], torch.tensor(True))]
)
def test_other_images_are_refused(first, second):
    for compare in (difference, paired):
        with pytest.raises(ValueError, match="the same images"):
            compare(first, second)


def test_shares_are_of_what_counts_or_does_not():
    with pytest.raises(ValueError, match="booleans, not float32 and bool"):
        paired(A.float(), B)


def test_frames_of_a_film_are_drawn_in_blocks():
    first = np.repeat([True, False, True, True], 5)
    second = np.zeros(20, bool)
    found = difference(first, second, block=5)
    assert found == bootstrap(lambda index: first[index].mean(-1), 20, block=5)
    assert np.diff(found.interval) > np.diff(difference(first, second).interval)
