"""Measures of monocular depth (Eigen, Puhrsch and Fergus, 2014), and how far a perturbation moves a prediction.

Depths are positive, in metres; where the ground truth has none, it is zero, and the pixel is not counted. Every
measure is taken image by image and then averaged over images, as the authors of GD-UAP do.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from uaplib.metrics import Estimate, bootstrap, json_safe, predict

ERRORS = ("abs_rel", "sq_rel", "rmse", "rmse_log")  # the lower the better
WITHIN = ("delta_1", "delta_2", "delta_3")  # shares of pixels, the higher the better


def errors(predicted: Tensor, truth: Tensor) -> dict[str, Tensor]:
    """Return the measures of each image, each of shape (N,), of depths (N, H, W); pixels with truth 0 do not count.

    abs_rel: mean of abs(p - t) / t. sq_rel: mean of (p - t)^2 / t, in metres. rmse: root of the mean of (p - t)^2, in
    metres. rmse_log: the same of log p - log t. delta_k: share of pixels with max(p / t, t / p) < 1.25^k. An image
    without any depth gets NaN. Raises ValueError for shapes that differ, a prediction that is not positive and
    finite, or a negative truth.
    """
    if predicted.shape != truth.shape or truth.ndim != 3:
        raise ValueError(f"depths must both be (N, H, W), not {tuple(predicted.shape)} and {tuple(truth.shape)}")
    known = truth > 0
    if not (torch.isfinite(truth).all() and (truth >= 0).all()):
        raise ValueError("truth must be finite and not negative; zero says that there is no depth")
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


@dataclass(frozen=True)
class DepthEvaluation:
    """What a perturbation does to a network that estimates depth.

    clean and perturbed: the measures of `errors` against ground truth, by name. gfr: the generalised fooling rate of
    delta_1, that is the share of pixels whose depth becomes larger or smaller by a factor of 1.25 or more, against the
    clean prediction, where the ground truth has a depth.
    """

    clean: dict[str, Estimate]
    perturbed: dict[str, Estimate]
    gfr: Estimate
    clip: bool

    def as_dict(self) -> dict:
        """Return JSON-safe values: each estimate as value, interval and n."""
        return json_safe({**vars(self), "clean": json_safe(self.clean), "perturbed": json_safe(self.perturbed)})


def evaluate(
    model: nn.Module, images: Tensor, truth: Tensor, delta: Tensor, *, clip: bool = True, progress: bool = False
) -> DepthEvaluation:
    """Compare a network's depths with and without `delta`.

    images: (N, C, H, W) in [0, 1]. truth: depths (N, H, W), 0 where there is none. The rest as in
    `uaplib.metrics.predict`. Intervals are over images, of which those without any depth are left out. Raises
    ValueError when none has any.
    """
    if not (truth > 0).any():
        raise ValueError("no pixel of truth has a depth: all of them are zero")
    clean = predict(model, images, progress=progress)
    perturbed = predict(model, images, delta, clip=clip, progress=progress)
    before, after = errors(clean, truth), errors(perturbed, truth)
    moved = errors(perturbed, clean.where(truth > 0, 0.0))["delta_1"]
    return DepthEvaluation(_estimates(before), _estimates(after), _estimate(1 - moved), clip)


def _estimates(found: dict[str, Tensor]) -> dict[str, Estimate]:
    return {name: _estimate(values) for name, values in found.items()}


def _estimate(values: Tensor) -> Estimate:
    """The mean over images with its bootstrap."""
    kept = values[~values.isnan()].cpu().numpy()
    return bootstrap(lambda index: kept[index].mean(-1), len(kept))
