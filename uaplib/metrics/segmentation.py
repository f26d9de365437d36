"""Measures of semantic segmentation: intersection over union, and how far a perturbation moves a prediction.

Everything comes from confusion matrices, one per image, so that bootstrap over images costs no second prediction.
Void pixels, whose label is no class, take no part where ground truth is asked for.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor, nn

from uaplib.metrics.counts import Counts
from uaplib.metrics.intervals import Estimate, bootstrap
from uaplib.metrics.labels import first_answer, predict_both


def confusion(predictions: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Return one confusion matrix per image, (N, K, K), int64: rows are the labels, columns the predictions.

    Both of shape (N, H, W), int64. Labels are 0 ... K - 1, or K for void, which is not counted. Raises ValueError for
    other labels, or shapes that differ.
    """
    from torchmetrics.functional.classification import multiclass_confusion_matrix  # slow to import

    _check_maps(predictions.shape, labels, num_classes)
    return torch.stack(
        [
            multiclass_confusion_matrix(p, t, num_classes, ignore_index=num_classes, validate_args=False)
            for p, t in zip(predictions, labels, strict=True)
        ]
    )


def _check_maps(predicted: Sequence[int], labels: Tensor, num_classes: int) -> None:
    """Raise unless labels have the shape of the predictions, (N, H, W), and lie in 0 ... K."""
    if tuple(predicted) != tuple(labels.shape) or labels.ndim != 3:
        raise ValueError(
            f"predictions and labels must both be (N, H, W), not {tuple(predicted)} and {tuple(labels.shape)}"
        )
    low, high = labels.aminmax()
    if low < 0 or high > num_classes:
        raise ValueError(f"labels must lie in 0 ... {num_classes} ({num_classes} is void), found {low} ... {high}")


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


def moved(clean: Tensor, perturbed: Tensor, num_classes: int, block: int = 1) -> Estimate:
    """Return the generalised fooling rate of the mean IoU of two predictions (N, H, W), int64, with its interval.

    block: see `uaplib.metrics.bootstrap`.
    """
    return _estimate(confusion(perturbed, clean, num_classes), _gfr, block)


def _gfr(matrix: Tensor) -> Tensor:
    return 1 - mean_iou(matrix)


@dataclass(frozen=True, eq=False, repr=False)
class SegmentationEvaluation(Counts):
    """What a perturbation does to a segmenter, in counts: confusion matrices of each image, int64 (N, K, K).

    before, after: of ground truth with the clean and with the perturbed predictions, without void pixels. changes: of
    the clean with the perturbed predictions, over all pixels. `clip` says how image and perturbation were added.
    """

    MEASURES = (
        "clean_mean_iou", "mean_iou", "clean_pixel_accuracy", "pixel_accuracy", "flip_rate", "gfr", "clean_class_iou",
        "class_iou", "clip",
    )  # fmt: skip
    before: Tensor
    after: Tensor
    changes: Tensor
    clip: bool
    block = 1  # no count: how many consecutive images the intervals draw together

    def over_blocks(self, block: int) -> "SegmentationEvaluation":
        """Return the same counts with intervals by bootstrap over blocks of consecutive images, as of a film."""
        found = replace(self)
        object.__setattr__(found, "block", block)
        return found

    @cached_property
    def clean_mean_iou(self) -> Estimate:
        """Mean IoU of the clean predictions against ground truth."""
        return _estimate(self.before, mean_iou, self.block)

    @cached_property
    def mean_iou(self) -> Estimate:
        """Mean IoU of the perturbed predictions against ground truth."""
        return _estimate(self.after, mean_iou, self.block)

    @cached_property
    def clean_pixel_accuracy(self) -> Estimate:
        """Pixel accuracy of the clean predictions."""
        return _estimate(self.before, pixel_accuracy, self.block)

    @cached_property
    def pixel_accuracy(self) -> Estimate:
        """Pixel accuracy of the perturbed predictions."""
        return _estimate(self.after, pixel_accuracy, self.block)

    @cached_property
    def flip_rate(self) -> Estimate:
        """The share of pixels whose label changes."""
        return _estimate(self.changes, lambda matrix: 1 - pixel_accuracy(matrix), self.block)

    @cached_property
    def gfr(self) -> Estimate:
        """The generalised fooling rate of the mean IoU, against the clean predictions."""
        return _estimate(self.changes, _gfr, self.block)

    @property
    def clean_class_iou(self) -> list[float | None]:
        """The IoU of each class of the clean predictions, None for a class that does not occur."""
        return _per_class(self.before)

    @property
    def class_iou(self) -> list[float | None]:
        """The IoU of each class of the perturbed predictions, None for a class that does not occur."""
        return _per_class(self.after)


def check(model: nn.Module, images: Tensor, labels: Tensor) -> int:
    """Return the number of classes. Raises ValueError or TypeError unless the labels are maps for a segmenter's images.

    That is (N, H, W), 0 ... K - 1 or K for void, and at least one pixel that is not void.
    """
    said = first_answer(model, images)
    num_classes = said.shape[1]
    if said.ndim != 4 or num_classes < 2:
        raise ValueError(f"the model must be a segmenter, with a map (N, K, H, W), K > 1, not {tuple(said.shape)}")
    if (labels == num_classes).all():
        raise ValueError(f"no pixel of labels has a class: all of them are void, {num_classes}")
    _check_maps((len(images), *said.shape[2:]), labels, num_classes)
    return num_classes


def compare(
    clean: Tensor, perturbed: Tensor, labels: Tensor, num_classes: int, *, clip: bool
) -> SegmentationEvaluation:
    """Return the evaluation of predictions without and with a perturbation, all int64 (N, H, W)."""
    pairs = (clean, labels), (perturbed, labels), (perturbed, clean)
    return SegmentationEvaluation(*(confusion(*pair, num_classes).cpu() for pair in pairs), clip)


def evaluate(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    delta: Tensor,
    *,
    clip: bool = True,
    batch_size: int | None = None,
    progress: bool = False,
) -> SegmentationEvaluation:
    """Compare a segmenter's predictions with and without `delta`.

    images: (N, C, H, W) in [0, 1]. labels: (N, H, W), int64, the number of classes for void. The rest as in
    `uaplib.metrics.predict`. Intervals are over images. Raises ValueError when no pixel has a class.
    """
    num_classes = check(model, images, labels)
    said = predict_both(model, images, delta, clip=clip, batch_size=batch_size, progress=progress)
    return compare(*said, labels, num_classes, clip=clip)


def _estimate(matrices: Tensor, measure, block: int) -> Estimate:
    """A measure of the sum of the images' confusion matrices, with its bootstrap over blocks of images."""
    matrices = matrices.cpu()
    return bootstrap(
        lambda index: measure(matrices[torch.from_numpy(index)].sum(-3)).numpy(), len(matrices), block=block
    )


def _per_class(matrices: Tensor) -> list[float | None]:
    return [None if value != value else value for value in iou(matrices.sum(0)).tolist()]
