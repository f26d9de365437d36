"""Measures of semantic segmentation: intersection over union, and how far a perturbation moves a prediction.

Everything comes from confusion matrices, one per image, so that bootstrap over images costs no second prediction.
Void pixels, whose label is no class, take no part where ground truth is asked for.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from uaplib.checks import check_images, check_model
from uaplib.metrics import Estimate, bootstrap, json_safe, predict


def confusion(predictions: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Return one confusion matrix per image, (N, K, K), int64: rows are the labels, columns the predictions.

    Both of shape (N, H, W), int64. Labels are 0 ... K - 1, or K for void, which is not counted. Raises ValueError for
    other labels, or shapes that differ.
    """
    from torchmetrics.functional.classification import multiclass_confusion_matrix  # slow to import

    if predictions.shape != labels.shape or labels.ndim != 3:
        raise ValueError(
            f"predictions and labels must both be (N, H, W), not {tuple(predictions.shape)} and {tuple(labels.shape)}"
        )
    low, high = labels.aminmax()
    if low < 0 or high > num_classes:
        raise ValueError(f"labels must lie in 0 ... {num_classes} ({num_classes} is void), found {low} ... {high}")
    return torch.stack(
        [
            multiclass_confusion_matrix(p, t, num_classes, ignore_index=num_classes, validate_args=False)
            for p, t in zip(predictions, labels, strict=True)
        ]
    )


def iou(matrix: Tensor) -> Tensor:
    """Return the intersection over union of each class, (..., K), of confusion matrices (..., K, K).

    NaN for a class that neither the labels nor the predictions have.
    """
    hit = matrix.diagonal(dim1=-2, dim2=-1).double()
    return hit / (matrix.sum(-1) + matrix.sum(-2) - hit)


def mean_iou(matrix: Tensor) -> Tensor:
    """Return the mean of `iou` over the classes that occur, (...)."""
    return iou(matrix).nanmean(-1)


def pixel_accuracy(matrix: Tensor) -> Tensor:
    """Return the share of pixels on the diagonal, (...); NaN when there is none."""
    return matrix.diagonal(dim1=-2, dim2=-1).sum(-1).double() / matrix.sum((-2, -1))


def generalised_fooling_rate(performance: float, best: float = 1.0) -> float:
    """Return (R - M) / R of a performance M in [0, R] that takes the clean prediction for the truth (GD-UAP, eq. 7).

    0: nothing has changed. 1: nothing is left. With M the top-1 accuracy it is the fooling rate. Raises ValueError
    for a performance out of its range.
    """
    if not 0 <= performance <= best:
        raise ValueError(f"performance must lie in [0, {best}], not {performance}")
    return (best - performance) / best


def moved(clean: Tensor, perturbed: Tensor, num_classes: int) -> Estimate:
    """Return the generalised fooling rate of the mean IoU of two predictions (N, H, W), int64, with its interval."""
    return _estimate(confusion(perturbed, clean, num_classes), _gfr)


def _gfr(matrix: Tensor) -> Tensor:
    return 1 - mean_iou(matrix)


@dataclass(frozen=True)
class SegmentationEvaluation:
    """What a perturbation does to a segmenter.

    Against ground truth, without void pixels: mean_iou and pixel_accuracy of the perturbed predictions, and clean_* of
    the clean ones. Against the clean predictions, over all pixels: flip_rate, the share of pixels whose label
    changes, and gfr, the generalised fooling rate of the mean IoU. class_iou and clean_class_iou have one entry per
    class, None for one that does not occur. `clip` says how image and perturbation were added.
    """

    clean_mean_iou: Estimate
    mean_iou: Estimate
    clean_pixel_accuracy: Estimate
    pixel_accuracy: Estimate
    flip_rate: Estimate
    gfr: Estimate
    clean_class_iou: list[float | None]
    class_iou: list[float | None]
    clip: bool

    def as_dict(self) -> dict:
        """Return JSON-safe values: each estimate as value, interval and n."""
        return json_safe(vars(self))


def evaluate(
    model: nn.Module, images: Tensor, labels: Tensor, delta: Tensor, *, clip: bool = True, progress: bool = False
) -> SegmentationEvaluation:
    """Compare a segmenter's predictions with and without `delta`.

    images: (N, C, H, W) in [0, 1]. labels: (N, H, W), int64, the number of classes for void. The rest as in
    `uaplib.metrics.predict`. Intervals are over images. Raises ValueError when no pixel has a class.
    """
    check_images(images)
    num_classes = check_model(model, images).shape[1]
    if (labels == num_classes).all():
        raise ValueError(f"no pixel of labels has a class: all of them are void, {num_classes}")
    clean = predict(model, images, progress=progress)
    perturbed = predict(model, images, delta, clip=clip, progress=progress)
    before, after = confusion(clean, labels, num_classes), confusion(perturbed, labels, num_classes)
    changes = confusion(perturbed, clean, num_classes)
    return SegmentationEvaluation(
        _estimate(before, mean_iou),
        _estimate(after, mean_iou),
        _estimate(before, pixel_accuracy),
        _estimate(after, pixel_accuracy),
        _estimate(changes, lambda matrix: 1 - pixel_accuracy(matrix)),
        _estimate(changes, _gfr),
        _per_class(before),
        _per_class(after),
        clip,
    )


def _estimate(matrices: Tensor, measure) -> Estimate:
    """A measure of the sum of the images' confusion matrices, with its bootstrap over images."""
    matrices = matrices.cpu()
    return bootstrap(lambda index: measure(matrices[torch.from_numpy(index)].sum(-3)).numpy(), len(matrices))


def _per_class(matrices: Tensor) -> list[float | None]:
    return [None if value != value else value for value in iou(matrices.sum(0)).tolist()]
