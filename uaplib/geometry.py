"""Why one direction is enough: normals of the decision boundary, what they have in common, and how it is curved.

Fawzi, Moosavi-Dezfooli and Frossard look at a network's boundary around many images at once (`boundary_normals`). If
the normals lie near a subspace of few dimensions (`spectrum`), a vector of it leads towards the boundary for many
images, even one that is drawn at random (`random_in_span`).
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from scipy.linalg import subspace_angles
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor, nn

from uaplib.attacks import deepfool
from uaplib.attacks._deepfool import margins_and_normals
from uaplib.balls import NormBall
from uaplib.checks import check_classifier, check_images, check_labels, check_tensor, real, whole
from uaplib.metrics import norms


class BoundaryNormals(NamedTuple):
    """The way to the decision boundary from images.

    directions: (M, C, H, W), of length 1. distances: (M,), the lengths of DeepFool's perturbations. labels, rivals:
    int64 (M,), the label on either side. found: booleans (N,), for which of the images there is a direction.
    """

    directions: Tensor
    distances: Tensor
    labels: Tensor
    rivals: Tensor
    found: Tensor

    @property
    def steps(self) -> Tensor:
        """DeepFool's perturbations, (M, C, H, W)."""
        return self.directions * self.distances.view(-1, 1, 1, 1)


def boundary_normals(
    model: nn.Module,
    images: Tensor,
    *,
    num_classes: int = 10,
    batch_size: int | None = None,
    progress: bool = False,
) -> BoundaryNormals:
    """Return unit normals of the decision boundary near images: their l2 DeepFool perturbations, scaled to length 1.

    The shortest way out of the region of a label meets its border at a right angle; DeepFool's is a sum of steps
    that comes near it, and is taken for the normal (Moosavi-Dezfooli et al., 2017, section 4). Images for which
    DeepFool finds none are left out, with a warning.

    images: (N, C, H, W) in [0, 1]. num_classes, batch_size, progress: as in `uaplib.attacks.deepfool`, which raises the
    errors. Raises ValueError when there is no direction at all.
    """
    crossed = deepfool(model, images, num_classes=num_classes, batch_size=batch_size, progress=progress)
    lengths = norms(crossed.perturbations)
    found = crossed.success & (lengths > 0)
    if not found.any():
        raise ValueError(f"DeepFool finds a way across the boundary from none of {len(images)} images")
    if not found.all():
        warnings.warn(
            f"{int((~found).sum())} of {len(images)} images are left out: DeepFool finds no way across the boundary",
            stacklevel=2,
        )
    distances = lengths[found]
    directions = crossed.perturbations[found] / distances.view(-1, 1, 1, 1)
    return BoundaryNormals(directions, distances, crossed.labels[found], crossed.new_labels[found], found)


@dataclass(frozen=True, eq=False)
class Spectrum:
    """What vectors have in common.

    values: (K,), not ascending: singular values, or eigenvalues. directions: (K, C, H, W), orthonormal, those that
    belong to them.
    """

    values: Tensor
    directions: Tensor

    @property
    def effective_dimension(self) -> float:
        """The participation ratio (sum s^2)^2 / sum s^4 of the squared values, K where K are equal."""
        powers = self.values.double() ** 2
        return (powers.sum() ** 2 / (powers**2).sum()).item()

    def first(self, dimensions: int) -> Tensor:
        """Return the first so many directions. Raises ValueError where there are fewer."""
        dimensions = whole(dimensions=dimensions)["dimensions"]
        if not 1 <= dimensions <= len(self.values):
            raise ValueError(f"dimensions must lie in 1 ... {len(self.values)}, not {dimensions}")
        return self.directions[:dimensions]


def spectrum(vectors: Tensor) -> Spectrum:
    """Return the singular values of vectors (N, C, H, W) as rows of a matrix, and the directions in pixel space.

    The mean is not taken off. There are at most N directions, those whose singular value is more than a rounding
    error (numpy's rule for a matrix's rank); no more than a few times the memory of the vectors is needed. Raises
    ValueError for fewer than two vectors, and for one of length zero.
    """
    check_tensor("vectors", vectors)
    if len(vectors) < 2:
        raise ValueError("a spectrum needs at least two vectors, not one")
    if not (norms(vectors) > 0).all():
        raise ValueError(f"vector {int(norms(vectors).argmin())} is zero, and has no direction")
    _, values, directions = torch.linalg.svd(vectors.flatten(1), full_matrices=False)
    real_ones = values > max(vectors.flatten(1).shape) * torch.finfo(values.dtype).eps * values[0]
    return Spectrum(values[real_ones], directions[real_ones].view(-1, *vectors.shape[1:]))


def random_in_span(directions: Tensor, count: int = 1, seed: int = 0) -> Tensor:
    """Return random vectors (count, C, H, W) of length 1, uniform on the sphere of the span of orthonormal directions.

    directions: (K, C, H, W), for instance of `Spectrum.first`. Raises ValueError where they are not orthonormal.
    """
    flat = _orthonormal("directions", directions)
    ball, generator = NormBall(2, 1), torch.Generator().manual_seed(seed)
    weights = ball.sample_boundary((whole(count=count)["count"], 1, 1, len(flat)), generator).to(flat)
    return (weights.view(-1, len(flat)) @ flat).view(-1, *directions.shape[1:])


def captured(vectors: Tensor, directions: Tensor) -> Tensor:
    """Return the cosines (N,) between vectors (N, C, H, W) and the span of orthonormal directions (K, C, H, W).

    That is the length of a vector's projection by its own: 1 within the span, 0 at a right angle to it; for a random
    vector of d dimensions about the square root of K / d.
    """
    check_tensor("vectors", vectors)
    flat = _orthonormal("directions", directions)
    if vectors.shape[1:] != directions.shape[1:]:
        raise ValueError(f"vectors of shape {tuple(vectors.shape)} do not fit directions {tuple(directions.shape)}")
    lengths = norms(vectors)
    if not (lengths > 0).all():
        raise ValueError(f"vector {int(lengths.argmin())} is zero, and has no direction")
    return torch.linalg.vector_norm(vectors.flatten(1).to(flat) @ flat.T, dim=1) / lengths.to(flat)


def principal_angles(directions: Tensor, others: Tensor) -> Tensor:
    """Return the angles between two spans, ascending, in radians: as many as the smaller one has dimensions.

    Both orthonormal, (K, C, H, W) and (L, C, H, W). The first angle is the smallest between a vector of one and a
    vector of the other (`scipy.linalg.subspace_angles`).
    """
    first, second = (_orthonormal(n, d) for n, d in (("directions", directions), ("others", others)))
    if directions.shape[1:] != others.shape[1:]:
        raise ValueError(f"directions of shape {tuple(directions.shape)} do not fit others {tuple(others.shape)}")
    angles = subspace_angles(first.double().T.cpu().numpy(), second.double().T.cpu().numpy())
    return torch.from_numpy(angles[::-1].copy())


def _orthonormal(argument: str, directions: Tensor) -> Tensor:
    """The directions as rows, checked."""
    check_tensor(argument, directions)
    flat = directions.flatten(1)
    error = (flat @ flat.T - torch.eye(len(flat)).to(flat)).abs().max()
    if error > 1e-3:
        raise ValueError(f"{argument} must be orthonormal: their inner products are off by {error:.2g}")
    return flat


def boundary_curvature(
    model: nn.Module,
    points: Tensor,
    labels: Tensor,
    rivals: Tensor,
    directions: Tensor,
    *,
    step: float | None = None,
    batch_size: int = 250,
) -> Tensor:
    """Return how the decision boundary at N points curves along K directions, (N, K), in 1 / length.

    With F = f_rival - f_label, which is zero on the boundary and positive beyond it, that is u^T H u by the length
    of F's gradient, H its Hessian. Where it is positive, and u at a right angle to the gradient, a step along u
    leads across the boundary from a point on it, forwards and backwards. Networks of ReLUs are linear by parts; the
    second derivative is a central difference of gradients over `step` on either side, `default_step` when absent,
    so that it means: over this distance.

    points: (N, C, H, W), on the boundary or near it; those moved may leave [0, 1]. labels, rivals: int64 (N,), as
    `boundary_normals` has them. directions: (K, C, H, W) of length 1. Raises ValueError or TypeError for arguments that
    do not fit, and for a point where the gradient is zero.
    """
    classes = _checked(model, points, labels, rivals)
    step = _checked_step(step, points)
    check_tensor("directions", directions)
    if directions.shape[1:] != points.shape[1:] or ((norms(directions) - 1).abs() > 1e-3).any():
        raise ValueError(f"directions must be of length 1 and of the points' shape, not {tuple(directions.shape)}")
    found = []
    for start in range(0, len(points), batch_size):
        some = slice(start, start + batch_size)
        lengths = norms(_gradients(model, points[some], classes[some]))
        if not (lengths > 0).all():
            raise ValueError(f"the gradient at point {start + int(lengths.argmin())} is zero: there is no boundary")
        rows = [
            (_bend(model, points[some], classes[some], u, step) * u).flatten(1).sum(1) / lengths
            for u in directions.to(points)
        ]
        found.append(torch.stack(rows, dim=1))
    return torch.cat(found)


def shared_curvature(
    model: nn.Module,
    points: Tensor,
    labels: Tensor,
    rivals: Tensor,
    count: int = 10,
    *,
    step: float | None = None,
    seed: int = 0,
    tolerance: float = 1e-3,
    batch_size: int = 250,
) -> Spectrum:
    """Return the directions along which the boundary curves most on average over points, and their mean curvatures.

    These are the eigenvectors of the mean over the points of H by the length of the gradient (see
    `boundary_curvature`, also for the arguments) with the largest and the smallest eigenvalues, half of `count`
    each (of an odd count one more of the largest), in descending order: those that curve towards the rival first.
    Lanczos' method (`scipy.sparse.linalg.eigsh`) asks for products with the matrix alone, each of which is a
    central difference of gradients; the matrix is never formed. Over a finite step that is nearly, not exactly, a
    symmetric matrix, so other points are to confirm what is found.
    """
    classes = _checked(model, points, labels, rivals)
    step, shape = _checked_step(step, points), points.shape[1:]
    count = whole(count=count)["count"]
    if not 2 <= count < shape.numel():
        raise ValueError(f"count must lie in 2 ... {shape.numel() - 1}, not {count}")
    chunks = [slice(start, start + batch_size) for start in range(0, len(points), batch_size)]
    lengths = torch.cat([norms(_gradients(model, points[some], classes[some])) for some in chunks])
    if not (lengths > 0).all():
        raise ValueError(f"the gradient at point {int(lengths.argmin())} is zero: there is no boundary")

    def multiply(vector):
        u = torch.from_numpy(vector).to(points).view(shape)
        bends = (
            (_bend(model, points[some], classes[some], u, step) / lengths[some].view(-1, 1, 1, 1)).sum(0)
            for some in chunks
        )
        return (sum(bends) / len(points)).flatten().double().cpu().numpy()

    start = NormBall(2, 1).sample_boundary((shape.numel(),), torch.Generator().manual_seed(seed))
    operator = LinearOperator((shape.numel(),) * 2, matvec=multiply, dtype="float64")
    values, vectors = eigsh(operator, k=count, which="BE", v0=start.double().numpy(), tol=tolerance)
    order = values.argsort()[::-1].copy()
    directions = torch.from_numpy(vectors.T[order].copy()).to(points).view(-1, *shape)
    return Spectrum(torch.from_numpy(values[order].copy()), directions)


def default_step(shape: Sequence[int]) -> float:
    """Return the distance over which Jetley et al. (2018) measure curvature in images of d values: 10 sqrt(d) / 512."""
    return 10 * math.sqrt(math.prod(shape)) / 512


def _checked(model: nn.Module, points: Tensor, labels: Tensor, rivals: Tensor) -> Tensor:
    """The labels and the rivals, (N, 2)."""
    check_tensor("points", points)
    check_images(points[:1].clamp(0, 1))
    outputs = check_classifier(model, points.clamp(0, 1))
    check_labels(labels, points, outputs)
    check_labels(rivals, points, outputs, "rivals")
    if (labels == rivals).any():
        raise ValueError("rivals must be other classes than labels")
    return torch.stack([labels, rivals], dim=1)


def _checked_step(step: float | None, points: Tensor) -> float:
    step = default_step(points.shape[1:]) if step is None else real(step=step)["step"]
    if not 0 < step < math.inf:
        raise ValueError(f"step must be a finite number above 0, not {step}")
    return step


def _gradients(model: nn.Module, points: Tensor, classes: Tensor) -> Tensor:
    """The gradient of f_rival - f_label at every point, (N, C, H, W)."""
    return margins_and_normals(model, points, classes)[1][:, 0]


def _bend(model: nn.Module, points: Tensor, classes: Tensor, direction: Tensor, step: float) -> Tensor:
    """The Hessian of f_rival - f_label at every point times a direction (C, H, W), by a central difference."""
    ahead, behind = (_gradients(model, points + sign * step * direction, classes) for sign in (1, -1))
    return (ahead - behind) / (2 * step)
