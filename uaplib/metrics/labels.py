"""What a network predicts, and how far a perturbation changes it: fooling rate, accuracy and the rest."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from tqdm import tqdm

from uaplib.checks import ask, check_images, check_labels, check_mode, check_model, check_tensor, classes
from uaplib.devices import device_of, whole_precision
from uaplib.metrics.counts import Counts
from uaplib.metrics.intervals import Proportion, share


@torch.no_grad()
@whole_precision()
def predict(
    model: nn.Module,
    images: Tensor,
    delta: Tensor | None = None,
    *,
    clip: bool = True,
    batch_size: int | None = None,
    progress: bool = False,
) -> Tensor:
    """Return what `model` says of `images`, or of `images + delta`: the most likely labels, int64.

    That is (N,) for a classifier, and (N, H, W), one label per pixel, for a segmenter. A map of one channel, such as
    depth, is no choice between classes; it is returned as it is, floating point (N, H, W).

    images: (N, C, H, W) in [0, 1]. delta: (1, C, H, W), or one perturbation per image. clip: whether the sum is
    clipped to [0, 1] before the model sees it (the papers evaluate without). batch_size: images at a time; when absent,
    500 of up to 64 x 64 pixels and 8 larger ones. The model gets copies and may change them. A GPU computes in whole
    precision (`uaplib.devices.whole_precision`), so that it counts what a CPU counts.

    Raises ValueError or TypeError for bad images, a model in training mode or on another device, a delta of another
    shape, and for what is no answer of a network (`uaplib.checks.ask`): NaN, one logit, a map of one channel that is
    not positive.
    """
    check_images(images)
    check_mode(model)
    if delta is not None:
        check_tensor("delta", delta)
        if delta.shape[1:] != images.shape[1:] or len(delta) not in (1, len(images)):
            raise ValueError(f"delta of shape {tuple(delta.shape)} does not fit images of shape {tuple(images.shape)}")
        delta = delta.to(images)
    batch_size = batch_size or (500 if images[0, 0].numel() <= 64 * 64 else 8)
    labels = []
    for start in tqdm(range(0, len(images), batch_size), desc="predicting", disable=not progress, leave=False):
        batch = images[start : start + batch_size]
        if delta is not None:
            batch = batch + (delta if len(delta) == 1 else delta[start : start + batch_size])
            batch = batch.clamp(0, 1) if clip else batch
        labels.append(_said(ask(model, batch)))
    return torch.cat(labels)


def predict_both(model: nn.Module, images: Tensor, delta: Tensor, *, clip: bool, **options) -> tuple[Tensor, Tensor]:
    """Return what `model` says of `images`, and of `images + delta`; the rest as in `predict`."""
    return predict(model, images, **options), predict(model, images, delta, clip=clip, **options)


def _said(output: Tensor) -> Tensor:
    """The most likely labels; a map of one channel is depth."""
    if output.ndim == 4 and output.shape[1] == 1:
        _check_depth(output)
        return output[:, 0]
    return output.argmax(1)


def _check_depth(*maps: Tensor) -> None:
    for depth in maps:
        if not (depth > 0).all():
            raise ValueError(
                f"a map of one channel is read as depth, which is positive, and this one goes down to {depth.min():g}. "
                "A segmenter of two classes with one logit a pixel needs two maps: torch.cat([-x, x], dim=1)"
            )


def fooling_rate(clean_predictions: Tensor, perturbed_predictions: Tensor) -> Proportion:
    """Return the share of predictions that change; ground truth plays no part.

    A label changes when it becomes another one; of a segmenter, each pixel counts (the flip rate). Depth, which is
    floating point and positive, changes where it becomes larger or smaller by a factor of 1.25 or more.
    """
    if clean_predictions.is_floating_point():
        _check_depth(clean_predictions, perturbed_predictions)
        return share(_within(clean_predictions, perturbed_predictions).logical_not())
    return share(_agree(clean_predictions, perturbed_predictions).logical_not())


def _within(depth: Tensor, other: Tensor, factor: float = 1.25) -> Tensor:
    _check_same_images(depth, other)
    return torch.maximum(depth / other, other / depth) < factor


def accuracy(predictions: Tensor, labels: Tensor) -> Proportion:
    """Return the share of predictions that equal the true labels (clean or adversarial accuracy)."""
    return share(_agree(predictions, labels))


def _agree(labels: Tensor, others: Tensor) -> Tensor:
    _check_same_images(labels, others)
    return labels == others


def _check_same_images(predictions: Tensor, others: Tensor) -> None:
    if predictions.shape != others.shape:
        raise ValueError(
            f"predictions of shape {tuple(predictions.shape)} and {tuple(others.shape)} are not of the same images"
        )


def dominant_label(predictions: Tensor) -> tuple[int, Proportion]:
    """Return the most frequent label and its share."""
    counts = predictions.bincount()
    return int(counts.argmax()), Proportion(int(counts.max()), len(predictions))


@dataclass(frozen=True, eq=False, repr=False)
class Evaluation(Counts):
    """What a perturbation does to a classifier on labelled images, in counts.

    fooled: booleans (N,), whether the label of an image changes. clean_wrong, wrong: how many labels are not the true
    ones, without and with the perturbation. dominant_label: the most frequent label with it, and dominant, how often.
    `clip` says how image and perturbation were added.
    """

    MEASURES = (
        "fooling_rate", "clean_accuracy", "adversarial_accuracy", "dominant_label", "dominant_share", "clip",
    )  # fmt: skip
    fooled: Tensor
    clean_wrong: int
    wrong: int
    dominant_label: int
    dominant: int
    clip: bool

    @property
    def n(self) -> int:
        """The number of images."""
        return len(self.fooled)

    @property
    def fooling_rate(self) -> Proportion:
        """The share of labels that change."""
        return share(self.fooled)

    @property
    def clean_accuracy(self) -> Proportion:
        """The share of labels that are right without the perturbation."""
        return Proportion(self.n - self.clean_wrong, self.n)

    @property
    def adversarial_accuracy(self) -> Proportion:
        """The share of labels that are right with the perturbation."""
        return Proportion(self.n - self.wrong, self.n)

    @property
    def dominant_share(self) -> Proportion:
        """The share of the most frequent label with the perturbation."""
        return Proportion(self.dominant, self.n)


def first_answer(model: nn.Module, images: Tensor) -> Tensor:
    """Return what `model` says of the first image, which is moved to it; check all of the images (N, C, H, W)."""
    check_images(images)
    return check_model(model, images[:1].to(device_of(model)))


def check(model: nn.Module, images: Tensor, labels: Tensor) -> int:
    """Return the number of classes. Raises ValueError or TypeError unless the labels (N,) are those of a classifier."""
    num_classes = classes(first_answer(model, images))
    check_labels(labels, images, num_classes)
    return num_classes


def compare(clean: Tensor, perturbed: Tensor, labels: Tensor, *, clip: bool) -> Evaluation:
    """Return the evaluation of predictions without and with a perturbation, all int64 (N,)."""
    dominant, its_share = dominant_label(perturbed)
    wrong = [int((~_agree(each, labels)).sum()) for each in (clean, perturbed)]
    return Evaluation((~_agree(clean, perturbed)).cpu(), *wrong, dominant, its_share.count, clip)


def evaluate(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    delta: Tensor,
    *,
    clip: bool = True,
    batch_size: int | None = None,
    progress: bool = False,
) -> Evaluation:
    """Compare the model's predictions with and without `delta`; arguments as in `predict`, labels (N,)."""
    check(model, images, labels)
    said = predict_both(model, images, delta, clip=clip, batch_size=batch_size, progress=progress)
    return compare(*said, labels, clip=clip)


def norms(perturbations: Tensor, p: float = 2) -> Tensor:
    """Return the p-norm of each perturbation in a batch (N, C, H, W), of shape (N,)."""
    return torch.linalg.vector_norm(perturbations.flatten(1), p, dim=1)


def rho_adv(images: Tensor, perturbations: Tensor) -> float:
    """Return the robustness of a classifier: the mean of ||r(x)||_2 / ||x||_2 (DeepFool, eq. 2).

    Both of shape (N, C, H, W); the perturbations are the smallest found for each image. Raises ValueError for a black
    image, whose norm is zero.
    """
    if not norms(images).all():
        raise ValueError(f"image {int(norms(images).argmin())} is black: a perturbation relative to it has no size")
    return (norms(perturbations) / norms(images)).mean().item()
