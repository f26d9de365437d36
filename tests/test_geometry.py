import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from uaplib import geometry
from uaplib.attacks import deepfool
from uaplib.metrics import norms


def orthonormal(rows, shape, seed=0):
    """Random orthonormal directions, double."""
    generator = torch.Generator().manual_seed(seed)
    square = torch.randn(math.prod(shape), rows, generator=generator, dtype=torch.float64)
    return torch.linalg.qr(square).Q.T.reshape(rows, *shape)


SHAPE = (2, 3, 4)
BASIS = orthonormal(8, SHAPE)


def test_normals_are_deepfools_directions(model, blobs):
    found = geometry.boundary_normals(model, blobs[0])
    crossed = deepfool(model, blobs[0])
    torch.testing.assert_close(norms(found.directions), torch.ones(len(blobs[0]), dtype=torch.float64))
    torch.testing.assert_close(found.steps, crossed.perturbations)
    assert found.found.all()
    assert torch.equal(found.labels, crossed.labels)
    assert torch.equal(found.rivals, crossed.new_labels)


def test_normals_of_a_linear_network_are_its_weights():
    weights = orthonormal(2, (1, 2, 2))
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).double().requires_grad_(False).eval()
    model[1].weight.copy_(weights.flatten(1))
    images = torch.rand(20, 1, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = geometry.boundary_normals(model, images)
    across = (weights[1] - weights[0]) / math.sqrt(2)
    side = torch.where(found.labels == 0, 1.0, -1.0).double().view(-1, 1, 1, 1)
    torch.testing.assert_close(found.directions, side * across)


def test_images_without_a_way_are_left_out_and_counted():
    class Half(nn.Module):
        """Left of the middle a linear network, elsewhere sure of one class."""

        def forward(self, x):
            margin = x.flatten(1).sum(1) - 1
            flat = torch.stack([margin * 0 + 2, margin * 0 + 1], dim=1)
            return torch.where((x[:, 0, 0, 0] < 0.5)[:, None], torch.stack([-margin, margin], dim=1), flat)

    images = torch.full((3, 1, 2, 2), 0.2)
    images[1] = 0.9
    with pytest.warns(UserWarning, match="1 of 3 images are left out"):
        found = geometry.boundary_normals(Half().eval(), images)
    assert found.found.tolist() == [True, False, True]
    assert len(found.directions) == len(found.distances) == len(found.labels) == len(found.rivals) == 2
    with (
        pytest.warns(UserWarning, match="gradient is exactly zero"),
        pytest.raises(ValueError, match="none of 1 image"),
    ):
        geometry.boundary_normals(Half().eval(), images[1:2])


@pytest.mark.parametrize("count", [8, 24, 40])  # fewer vectors than dimensions, as many, more
def test_singular_values_are_numpys(count):
    vectors = torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = geometry.spectrum(vectors)
    _, values, directions = np.linalg.svd(vectors.flatten(1).numpy(), full_matrices=False)
    np.testing.assert_allclose(found.values, values)
    cosines = (found.directions.flatten(1).numpy() * directions).sum(1)
    np.testing.assert_allclose(np.abs(cosines), 1)  # a direction has no sign


def test_a_known_spectrum_is_found_again():
    values = torch.tensor([5.0, 2, 1, 0.1], dtype=torch.float64)
    left = orthonormal(4, (10,), seed=1).T
    made = (left * values) @ BASIS[:4].flatten(1)
    found = geometry.spectrum(made.view(10, *SHAPE))
    torch.testing.assert_close(found.values, values)  # the six that are zero have no direction
    torch.testing.assert_close(geometry.captured(BASIS[:4], found.directions), torch.ones(4, dtype=torch.float64))


def test_the_effective_dimension_counts_equal_values():
    for count in (1, 3, 8):
        assert geometry.Spectrum(torch.full((count,), 0.3), BASIS[:count]).effective_dimension == pytest.approx(count)
    assert geometry.Spectrum(torch.tensor([1.0, 1e-9]), BASIS[:2]).effective_dimension == pytest.approx(1)


def test_no_more_memory_is_asked_for_than_a_few_times_the_vectors():
    """A matrix of pixels by pixels would take 10 GB."""
    vectors = torch.randn(3, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    assert geometry.spectrum(vectors).directions.shape == (3, 3, 128, 128)


def test_random_vectors_of_a_span_are_uniform_on_its_sphere():
    drawn = geometry.random_in_span(BASIS[:3], 4000, seed=3)
    torch.testing.assert_close(norms(drawn), torch.ones(4000, dtype=torch.float64))
    torch.testing.assert_close(geometry.captured(drawn, BASIS[:3]), torch.ones(4000, dtype=torch.float64))
    axis = geometry.random_in_span(BASIS[:3], seed=9)  # any axis: on a sphere of three dimensions its share is uniform
    heights = (drawn.flatten(1) @ axis.flatten()).numpy()
    assert stats.kstest(heights, stats.uniform(-1, 2).cdf).pvalue > 0.01
    pole = drawn.flatten(1) @ BASIS[:3].flatten(1).T
    assert stats.kstest(torch.atan2(pole[:, 1], pole[:, 0]).numpy(), stats.uniform(-np.pi, 2 * np.pi).cdf).pvalue > 0.01


def test_random_vectors_have_a_seed_and_leave_the_global_one_alone():
    state = torch.get_rng_state()
    first, again, other = (geometry.random_in_span(BASIS, 2, seed) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)
    assert torch.equal(state, torch.get_rng_state())


def test_captured_is_the_cosine_with_the_span():
    inside, outside = BASIS[0], BASIS[5]
    vectors = torch.stack([7 * inside, outside, 3 * inside - 4 * outside])
    expected = torch.tensor([1, 0, 0.6], dtype=torch.float64)
    torch.testing.assert_close(geometry.captured(vectors, BASIS[:2]), expected)


def test_a_random_vector_is_captured_by_the_root_of_the_share_of_dimensions():
    vectors = torch.randn(2000, *SHAPE, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    assert (geometry.captured(vectors, BASIS[:6]) ** 2).mean().item() == pytest.approx(6 / 24, abs=0.01)


def test_principal_angles_are_those_by_which_a_plane_was_turned():
    turned = torch.stack(
        [
            math.cos(0.3) * BASIS[0] + math.sin(0.3) * BASIS[4],
            math.cos(1.2) * BASIS[1] + math.sin(1.2) * BASIS[5],
            BASIS[2],
        ]
    )
    mixed = orthonormal(3, (3,), seed=4) @ turned.flatten(1)  # another basis of the same span
    angles = geometry.principal_angles(BASIS[:3], mixed.view(3, *SHAPE))
    torch.testing.assert_close(angles, torch.tensor([0, 0.3, 1.2], dtype=torch.float64), atol=1e-7, rtol=0)
    assert len(geometry.principal_angles(BASIS[:2], mixed.view(3, *SHAPE))) == 2


class Bowl(nn.Module):
    """Two classes; the margin of the second is a quadratic form about the middle, and a slope along the last pixel."""

    def __init__(self, bends, slope=1.0):
        super().__init__()
        self.bends, self.slope = torch.as_tensor(bends, dtype=torch.float64), slope

    def forward(self, x):
        flat = x.flatten(1).double() - 0.5
        margin = 0.5 * (self.bends * flat**2).sum(1) + self.slope * flat[:, -1]
        return torch.stack([-margin / 2, margin / 2], dim=1)


UNITS = torch.eye(4, dtype=torch.float64).view(4, 1, 2, 2)
MIDDLE = torch.full((3, 1, 2, 2), 0.5, dtype=torch.float64)
SIDES = torch.zeros(3, dtype=torch.int64), torch.ones(3, dtype=torch.int64)


def test_the_curvature_of_a_quadratic_boundary_is_its_own():
    bowl = Bowl([3, -2, 0.5, 0], slope=2).eval()
    found = geometry.boundary_curvature(bowl, MIDDLE, *SIDES, UNITS, batch_size=2)
    torch.testing.assert_close(found, torch.tensor([[1.5, -1, 0.25, 0]], dtype=torch.float64).expand(3, 4))
    back = geometry.boundary_curvature(bowl, MIDDLE, *reversed(SIDES), UNITS, step=0.01)
    torch.testing.assert_close(back, -found)  # seen from the other side


def test_a_step_along_a_positive_curvature_crosses_the_boundary():
    bowl = Bowl([3, -2, 0.5, 0]).eval()
    said = [bowl(MIDDLE[:1] + sign * 0.2 * UNITS[:2]).argmax(1).tolist() for sign in (1, -1)]
    assert said == [[1, 0], [1, 0]]


def test_shared_curvature_is_the_largest_and_the_smallest_eigenvalues_of_the_mean():
    turn = orthonormal(4, (4,), seed=2)

    class Turned(nn.Module):
        def forward(self, x):
            return Bowl([3, -2, 0.5, 0])(0.5 + ((x.flatten(1) - 0.5) @ turn.T).view(-1, 1, 2, 2))

    found = geometry.shared_curvature(Turned().eval(), MIDDLE, *SIDES, 2, tolerance=1e-9)
    torch.testing.assert_close(found.values, torch.tensor([3.0, -2], dtype=torch.float64))
    torch.testing.assert_close(
        (found.directions.flatten(1) * turn[:2]).sum(1).abs(), torch.ones(2, dtype=torch.float64)
    )


def test_curvature_agrees_with_the_hessian_of_a_smooth_network(model, blobs):
    found = geometry.boundary_normals(model, blobs[0][:3])
    points = blobs[0][:3] + found.steps
    directions = geometry.random_in_span(geometry.spectrum(found.directions).directions, 2)
    measured = geometry.boundary_curvature(model, points, found.labels, found.rivals, directions, step=1e-4)
    for k in range(3):

        def margin(x, k=k):
            logits = model(x[None])[0]
            return logits[found.rivals[k]] - logits[found.labels[k]]

        hessian = torch.autograd.functional.hessian(margin, points[k]).view(144, 144)
        slope = torch.autograd.functional.jacobian(margin, points[k]).norm()
        exact = torch.stack([u.flatten() @ hessian @ u.flatten() / slope for u in directions])
        torch.testing.assert_close(measured[k], exact, rtol=1e-4, atol=1e-8)


def test_the_default_step_is_that_of_the_paper():
    assert geometry.default_step((1, 16, 16)) == pytest.approx(10 * 16 / 512)


def test_bad_input_is_refused(model, blobs):
    bowl = Bowl([1, 1, 1, 0]).eval()
    with pytest.raises(ValueError, match="at least two vectors"):
        geometry.spectrum(BASIS[:1])
    with pytest.raises(ValueError, match="vector 1 is zero"):
        geometry.spectrum(torch.stack([BASIS[0], 0 * BASIS[0]]))
    with pytest.raises(ValueError, match=r"dimensions must lie in 1 \.\.\. 8, not 9"):
        geometry.spectrum(BASIS).first(9)
    with pytest.raises(TypeError, match="dimensions must be a whole number"):
        geometry.spectrum(BASIS).first(2.5)
    for function in (geometry.random_in_span, lambda d: geometry.captured(BASIS, d)):
        with pytest.raises(ValueError, match="directions must be orthonormal"):
            function(2 * BASIS)
    with pytest.raises(ValueError, match="others must be orthonormal"):
        geometry.principal_angles(BASIS, 2 * BASIS)
    with pytest.raises(ValueError, match="do not fit"):
        geometry.principal_angles(BASIS, BASIS.view(8, 1, 4, 6))
    with pytest.raises(ValueError, match="do not fit"):
        geometry.captured(BASIS.view(8, 1, 4, 6), BASIS)
    with pytest.raises(ValueError, match="vector 0 is zero"):
        geometry.captured(0 * BASIS[:1], BASIS)
    with pytest.raises(ValueError, match="rivals must be other classes"):
        geometry.boundary_curvature(bowl, MIDDLE, SIDES[0], SIDES[0], UNITS)
    with pytest.raises(ValueError, match=r"rivals must lie in 0 \.\.\. 1"):
        geometry.boundary_curvature(bowl, MIDDLE, SIDES[0], SIDES[1] + 1, UNITS)
    with pytest.raises(ValueError, match="directions must be of length 1"):
        geometry.boundary_curvature(bowl, MIDDLE, *SIDES, 2 * UNITS)
    with pytest.raises(ValueError, match="step must be a finite number above 0"):
        geometry.boundary_curvature(bowl, MIDDLE, *SIDES, UNITS, step=0)
    with pytest.raises(ValueError, match="the gradient at point 0 is zero"):
        geometry.boundary_curvature(Bowl([1, 1, 1, 0], slope=0).eval(), MIDDLE, *SIDES, UNITS)
    with pytest.raises(ValueError, match=r"count must lie in 2 \.\.\. 3"):
        geometry.shared_curvature(bowl, MIDDLE, *SIDES, 4)
