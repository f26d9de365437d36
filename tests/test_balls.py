import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from uaplib.balls import NormBall, clamp

SHAPE = (3, 2, 4, 4)
balls = st.builds(NormBall, st.sampled_from([2, math.inf]), st.just(0.0) | st.floats(1e-6, 10))
seeds = st.integers(0, 2**32)
scales = st.sampled_from([0.0, 1e-20, 1e-3, 0.1, 1.0, 30.0, 1e6])


def tensor(seed, scale=1.0, shape=SHAPE):
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(balls, seeds, scales)
def test_a_projection_lies_in_the_ball(ball, seed, scale):
    assert ball.contains(ball.project(tensor(seed, scale)), tolerance=1e-12).all()


@given(balls, seeds, scales)
def test_a_float32_projection_lies_in_the_ball_up_to_rounding(ball, seed, scale):
    assert ball.contains(ball.project(tensor(seed, scale).float())).all()


@given(balls, seeds, scales)
def test_projecting_twice_is_projecting_once(ball, seed, scale):
    once = ball.project(tensor(seed, scale))
    torch.testing.assert_close(ball.project(once), once, rtol=1e-14, atol=0)


@given(balls, seeds, scales)
def test_a_point_of_the_ball_stays_where_it_is(ball, seed, scale):
    inside = 0.999 * ball.project(tensor(seed, scale))
    assert torch.equal(ball.project(inside), inside)


@given(balls, seeds, scales)
def test_no_sampled_point_of_the_ball_is_nearer_than_the_projection(ball, seed, scale):
    v = tensor(seed, scale, (1, 1, 3, 3))
    distance = (v - ball.project(v)).norm()
    generator = torch.Generator().manual_seed(seed)
    points = torch.cat([
        ball.sample((200, 1, 3, 3), generator).double(),
        ball.project(ball.project(v) + 0.05 * ball.eps * tensor(seed + 1, shape=(200, 1, 3, 3))),  # near the answer
    ])  # fmt: skip
    points = points[ball.contains(points, tolerance=0)]
    assert (distance <= (points - v).flatten(1).norm(dim=1) + 1e-9 * (1 + v.norm())).all()


@given(balls, seeds, scales)
def test_a_batch_is_projected_as_its_members_are(ball, seed, scale):
    v = tensor(seed, scale)
    singles = torch.stack([ball.project(one) for one in v])
    torch.testing.assert_close(ball.project(v), singles, rtol=1e-14, atol=0)


def test_l2_projection_by_hand():
    v = torch.tensor([3.0, 4.0]).view(1, 1, 1, 2)
    torch.testing.assert_close(NormBall(2, 1).project(v), torch.tensor([0.6, 0.8]).view(1, 1, 1, 2))


def test_linf_projection_by_hand():
    v = torch.tensor([-3.0, 0.5, 4.0]).view(1, 1, 1, 3)
    assert NormBall(math.inf, 1).project(v).flatten().tolist() == [-1, 0.5, 1]


@pytest.mark.parametrize(("p", "expected"), [(2, [5.0, 0.0]), (math.inf, [4.0, 0.0])])
def test_norms_of_a_batch(p, expected):
    assert NormBall(p, 1).norm(torch.tensor([3.0, -4.0, 0, 0]).view(2, 1, 1, 2)).tolist() == expected


def test_a_ball_contains_its_boundary_and_nothing_beyond():
    v = torch.tensor([1.0, 1.01]).view(2, 1, 1, 1)
    assert NormBall(2, 1).contains(v).tolist() == [True, False]


@given(balls, seeds)
@settings(max_examples=30)
def test_samples_lie_in_the_ball_and_boundary_samples_on_it(ball, seed):
    generator = torch.Generator().manual_seed(seed)
    assert ball.contains(ball.sample(SHAPE, generator)).all()
    on_boundary = ball.norm(ball.sample_boundary(SHAPE, generator))
    torch.testing.assert_close(on_boundary, torch.full((3,), ball.eps), rtol=1e-5, atol=1e-9)


def test_l2_samples_are_uniform_in_the_volume():
    points = NormBall(2, 1).sample((4000, 1, 1, 2), torch.Generator().manual_seed(0))
    within_half = (points.flatten(1).norm(dim=1) < 0.5).double().mean()  # a quarter of the disk's area
    assert within_half.item() == pytest.approx(0.25, abs=0.03)


def test_linf_boundary_samples_are_random_signs():
    signs = NormBall(math.inf, 1).sample_boundary((1, 1, 100, 100), torch.Generator().manual_seed(0))
    assert set(signs.unique().tolist()) == {-1.0, 1.0}
    assert abs(signs.mean().item()) < 0.05


@pytest.mark.parametrize("method", ["sample", "sample_boundary"])
@pytest.mark.parametrize("p", [2, math.inf])
def test_a_generator_makes_samples_repeatable_and_spares_the_global_one(p, method):
    state = torch.get_rng_state()
    first, second = (getattr(NormBall(p, 1), method)(SHAPE, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("p", [1, 0, -2, 3, math.nan, "1"])
def test_another_p_is_refused(p):
    with pytest.raises(ValueError, match="p must be 2 or infinity"):
        NormBall(p, 1)


@pytest.mark.parametrize("eps", [-0.1, math.inf, math.nan])
def test_a_budget_that_is_no_length_is_refused(eps):
    with pytest.raises(ValueError, match="eps must be a finite number of at least 0"):
        NormBall(2, eps)


def test_p_may_be_text():
    assert NormBall("inf", 0.1) == NormBall(math.inf, 0.1)


@pytest.mark.parametrize(
    ("ball", "text"), [(NormBall(math.inf, 10 / 255), "l∞ ≤ 10/255"), (NormBall(2, 1.5), "l2 ≤ 1.5")]
)
def test_a_ball_prints_as_the_book_writes_it(ball, text):
    assert str(ball) == text


BORDERS = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)


@BORDERS
@pytest.mark.parametrize("eps", [10 / 255, 24 / 255, 0.1, 0.125])
def test_the_gradient_of_a_projection_is_one_inside_and_zero_from_the_border_on(dtype, eps):
    border = torch.tensor(eps, dtype=dtype)
    inner, outer = (torch.nextafter(border, border.new_tensor(to)) for to in (0.0, 1.0))
    v = torch.stack([inner, -inner, border * 0, border, -border, outer, -outer, border * 9]).requires_grad_()
    projected = NormBall(math.inf, eps).project(v)
    (gradient,) = torch.autograd.grad(projected, v, torch.full_like(v, 3))
    assert gradient.tolist() == [3, 3, 3, 0, 0, 0, 0, 0]
    assert projected.tolist() == [inner, -inner, 0, border, -border, border, -border, border]


@BORDERS
def test_a_saturated_pixel_stays_stuck_in_a_projection_of_a_projection(dtype):
    ball = NormBall(math.inf, 10 / 255)
    v = ball.project(tensor(1).to(dtype)).requires_grad_()
    (gradient,) = torch.autograd.grad(ball.project(v).sum(), v)
    saturated = v.abs() >= torch.tensor(10 / 255, dtype=dtype)
    assert saturated.any()
    assert torch.equal(gradient == 0, saturated)


@BORDERS
@pytest.mark.parametrize(("low", "high"), [(0, 1), (-0.5, 0.25)])
def test_a_clamp_passes_no_gradient_at_its_borders(dtype, low, high):
    x = torch.tensor([low - 1, low, (low + high) / 2, high, high + 1], dtype=dtype, requires_grad=True)
    clamped = clamp(x, low, high)
    assert clamped.tolist() == [low, low, (low + high) / 2, high, high]
    assert torch.autograd.grad(clamped.sum(), x)[0].tolist() == [0, 0, 1, 0, 0]


@BORDERS
def test_the_gradient_of_an_l2_projection_on_the_sphere_is_that_of_the_inside(dtype):
    ball = NormBall(2, 5.0)
    for scale, expected in ((0.5, 1.0), (1.0, 1.0)):
        v = (scale * torch.tensor([3.0, 4.0], dtype=dtype)).requires_grad_()
        (gradient,) = torch.autograd.grad(ball.project(v) @ v.new_tensor([3.0, 4.0]), v)
        assert gradient.tolist() == [3 * expected, 4 * expected]
    v = torch.tensor([6.0, 8.0], dtype=dtype, requires_grad=True)
    (gradient,) = torch.autograd.grad(ball.project(v) @ v.new_tensor([3.0, 4.0]), v)
    assert gradient.abs().max() < 1e-6  # outside, along the radius nothing changes
    zero = torch.zeros(2, dtype=dtype, requires_grad=True)
    assert torch.autograd.grad(ball.project(zero).sum(), zero)[0].tolist() == [1, 1]
