"""Fooling rate and the rest, each proportion with its count and a 95 % Wilson interval."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from uaplib.checks import ask, check_images, check_labels, check_mode, check_model, check_tensor


@dataclass(frozen=True)
class Proportion:
    """A share `count` / `n`. Raises ValueError unless 0 <= count <= n and n > 0."""

    count: int
    n: int

    def __post_init__(self):
        """Check the two counts."""
        if not (self.n > 0 and 0 <= self.count <= self.n):
            raise ValueError(f"a proportion needs 0 <= count <= n and n > 0, not {self.count} of {self.n}")

    @property
    def value(self) -> float:
        """The share, in [0, 1]."""
        return self.count / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % Wilson score interval (Wilson, 1927), in [0, 1]."""
        from scipy import stats  # slow to import, and attacks only count

        low, high = stats.binomtest(self.count, self.n).proportion_ci(0.95, method="wilson")
        return float(low), float(high)

    def __str__(self) -> str:
        """Write percentage, interval and n, for instance '63.2 % [60.2, 66.1], n=1000'."""
        low, high = self.interval
        return f"{100 * self.value:.1f} % [{100 * low:.1f}, {100 * high:.1f}], n={self.n}"


def share(mask: Tensor) -> Proportion:
    """Return the share of True in a boolean tensor."""
    return Proportion(int(mask.sum()), mask.numel())


@torch.no_grad()
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
    500 of up to 64 x 64 pixels and 8 larger ones. The model gets copies and may change them.

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


@dataclass(frozen=True)
class Estimate:
    """A measure over `n` images, with its 95 % interval by bootstrap over the images."""

    value: float
    interval: tuple[float, float]
    n: int

    def __str__(self) -> str:
        """Write value, interval and n, for instance '0.632 [0.602, 0.661], n=233'."""
        return f"{self.value:.3f} [{self.interval[0]:.3f}, {self.interval[1]:.3f}], n={self.n}"


def bootstrap(statistic: Callable[[np.ndarray], np.ndarray], n: int, resamples: int = 1000) -> Estimate:
    """Return a measure of `n` images with its percentile interval, from the same resamples in every call.

    statistic: from indices of images, (..., n), to values (...). Where all images agree, or there is but one, the
    interval is the value itself.
    """
    from scipy import stats

    value = float(statistic(np.arange(n)))
    if n == 1:
        return Estimate(value, (value, value), n)
    drawn = stats.bootstrap(
        (np.arange(n),), lambda index, axis: statistic(index), vectorized=True, n_resamples=resamples, batch=50,
        method="percentile", rng=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    return Estimate(value, (float(drawn.low), float(drawn.high)), n)


def json_safe(fields: Mapping[str, Any]) -> dict:
    """Return the fields with each proportion and estimate as value, interval and n."""
    return {
        name: {"value": value.value, "interval": list(value.interval), "n": value.n}
        if isinstance(value, Proportion | Estimate)
        else value
        for name, value in fields.items()
    }


@dataclass(frozen=True)
class Evaluation:
    """What a perturbation does to a model on labelled images; `clip` says how the two were added."""

    fooling_rate: Proportion
    clean_accuracy: Proportion
    adversarial_accuracy: Proportion
    dominant_label: int
    dominant_share: Proportion
    clip: bool

    def as_dict(self) -> dict:
        """Return JSON-safe values: each proportion as value, interval and n."""
        return json_safe(vars(self))


def evaluate(
    model: nn.Module, images: Tensor, labels: Tensor, delta: Tensor, *, clip: bool = True, progress: bool = False
) -> Evaluation:
    """Compare the model's predictions with and without `delta`; arguments as in `predict`, labels (N,)."""
    check_images(images)
    check_labels(labels, images, check_model(model, images).shape[1])
    clean = predict(model, images, progress=progress)
    perturbed = predict(model, images, delta, clip=clip, progress=progress)
    label, label_share = dominant_label(perturbed)
    return Evaluation(
        fooling_rate(clean, perturbed), accuracy(clean, labels), accuracy(perturbed, labels), label, label_share, clip
    )


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
