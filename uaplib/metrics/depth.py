"""Measures of monocular depth (Eigen, Puhrsch and Fergus, 2014), and how far a perturbation moves a prediction.

Depths are positive, in metres; where the ground truth has none, it is zero, and the pixel is not counted. Every
measure is taken image by image and then averaged over images, as the authors of GD-UAP do.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from uaplib.metrics.counts import Counts
from uaplib.metrics.intervals import Estimate, bootstrap
from uaplib.metrics.labels import first_answer, predict_both

ERRORS = ("abs_rel", "sq_rel", "rmse", "rmse_log")  # the lower the better
WITHIN = ("delta_1", "delta_2", "delta_3")  # shares of pixels, the higher the better
MEASURED = ERRORS + WITHIN


def errors(predicted: Tensor, truth: Tensor) -> dict[str, Tensor]:
    """Return the measures of each image, each of shape (N,), of depths (N, H, W); pixels with truth 0 do not count.

    abs_rel: mean of abs(p - t) / t. sq_rel: mean of (p - t)^2 / t, in metres. rmse: root of the mean of (p - t)^2, in
    metres. rmse_log: the same of log p - log t. delta_k: share of pixels with max(p / t, t / p) < 1.25^k. An image
    without any depth gets NaN. Raises ValueError for shapes that differ, a prediction that is not positive and
    finite, or a negative truth.
    """
    _check_maps(predicted.shape, truth)
    known = truth > 0
    if not (torch.isfinite(predicted[known]).all() and (predicted[known] > 0).all()):
        raise ValueError("predicted depths must be positive and finite")
    t, p = truth.double().where(known, 1.0), predicted.double().where(known, 1.0)  # where unknown, no error

    def mean(values: Tensor) -> Tensor:
        return values.where(known, 0.0).sum((1, 2)) / known.sum((1, 2))

    ratio = torch.maximum(p / t, t / p)
    found = {
        "abs_rel": mean((p - t).abs() / t),
        "sq_rel": mean((p - t).square() / t),
        "rmse": mean((p - t).square()).sqrt(),
        "rmse_log": mean((p / t).log().square()).sqrt(),
    }
    return found | {f"delta_{k}": mean((ratio < 1.25**k).double()) for k in (1, 2, 3)}


def _check_maps(predicted: Sequence[int], truth: Tensor) -> None:
    """Raise unless truth has the shape of the predictions, (N, H, W), and only depths or zeros."""
    if tuple(predicted) != tuple(truth.shape) or truth.ndim != 3:
        raise ValueError(f"depths must both be (N, H, W), not {tuple(predicted)} and {tuple(truth.shape)}")
    if not (torch.isfinite(truth).all() and (truth >= 0).all()):
        raise ValueError("truth must be finite and not negative; zero says that there is no depth")


@dataclass(frozen=True, eq=False, repr=False)
class DepthEvaluation(Counts):
    """What a perturbation does to a network that estimates depth, image by image, float64.

    before, after: the measures of `errors` against ground truth, (N, 7), in the order of `MEASURED`, without and with
    the perturbation. moved: (N,), the share of pixels whose depth becomes larger or smaller by a factor of 1.25 or
    more, where the ground truth has a depth. An image without any depth has NaN in all of them. `clip` says how image
    and perturbation were added.
    """

    MEASURES = ("clean", "perturbed", "gfr", "clip")
    before: Tensor
    after: Tensor
    moved: Tensor
    clip: bool

    @cached_property
    def clean(self) -> dict[str, Estimate]:
        """The measures of the clean depths against ground truth, by name."""
        return _estimates(self.before)

    @cached_property
    def perturbed(self) -> dict[str, Estimate]:
        """The measures of the perturbed depths against ground truth, by name."""
        return _estimates(self.after)

    @cached_property
    def gfr(self) -> Estimate:
        """The generalised fooling rate of delta_1, the mean of `moved`."""
        return _estimate(self.moved)


def check(model: nn.Module, images: Tensor, truth: Tensor) -> None:
    """Raise ValueError or TypeError unless truth holds depths (N, H, W), and at least one, for a depth network."""
    if not (truth > 0).any():
        raise ValueError("no pixel of truth has a depth: all of them are zero")
    said = first_answer(model, images)
    if said.ndim != 4 or said.shape[1] != 1:
        raise ValueError(f"the model must say depth, in a map (N, 1, H, W), not {tuple(said.shape)}")
    _check_maps((len(images), *said.shape[2:]), truth)


def compare(clean: Tensor, perturbed: Tensor, truth: Tensor, *, clip: bool) -> DepthEvaluation:
    """Return the evaluation of depths (N, H, W) without and with a perturbation."""
    clean, perturbed, truth = (each.cpu() for each in (clean, perturbed, truth))  # where there is double precision
    before, after = (torch.stack([*errors(each, truth).values()], 1) for each in (clean, perturbed))
    moved = 1 - errors(perturbed, clean.where(truth > 0, 0.0))["delta_1"]
    return DepthEvaluation(before, after, moved, clip)


def evaluate(
    model: nn.Module,
    images: Tensor,
    truth: Tensor,
    delta: Tensor,
    *,
    clip: bool = True,
    batch_size: int | None = None,
    progress: bool = False,
) -> DepthEvaluation:
    """Compare a network's depths with and without `delta`.

    images: (N, C, H, W) in [0, 1]. truth: depths (N, H, W), 0 where there is none. The rest as in
    `uaplib.metrics.predict`. Intervals are over images, of which those without any depth are left out. Raises
    ValueError when none has any.
    """
    check(model, images, truth)
    said = predict_both(model, images, delta, clip=clip, batch_size=batch_size, progress=progress)
    return compare(*said, truth, clip=clip)


def _estimates(measured: Tensor) -> dict[str, Estimate]:
    return {name: _estimate(values) for name, values in zip(MEASURED, measured.T, strict=True)}


def _estimate(values: Tensor) -> Estimate:
    """The mean over images with its bootstrap; images without any depth are left out."""
    kept = values[~values.isnan()].numpy()
    return bootstrap(lambda index: kept[index].mean(-1), len(kept))
