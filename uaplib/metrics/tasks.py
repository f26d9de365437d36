"""The tasks of networks, one row each: what is true, and how it is measured. `models.says` names a network's task."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from torch import Tensor, nn

from uaplib.metrics import depth, labels, segmentation
from uaplib.metrics.counts import Counts


@dataclass(frozen=True)
class Task:
    """One task.

    truth: the field of a data set that says what is right. evaluation: the class of what `evaluate` returns. evaluate:
    from model, images, truth and delta, with the options clip, batch_size and progress of `metrics.predict`. check:
    from model, images and truth to the number of classes (None where there are none); raises ValueError or TypeError
    for what does not fit together. compare: from clean and perturbed predictions, truth, number of classes and clip
    to the evaluation, for predictions that are there already.
    """

    truth: str
    evaluation: type[Counts]
    evaluate: Callable[..., Counts]
    check: Callable[[nn.Module, Tensor, Tensor], int | None]
    compare: Callable[[Tensor, Tensor, Tensor, int | None, bool], Counts]

    def read(self, counts: Mapping[str, Any]) -> Counts:
        """Return the evaluation of `counts()`. Raises ValueError for counts of another task, or damaged ones."""
        return self.evaluation.from_counts(counts)


TASKS: Mapping[str, Task] = MappingProxyType(
    {
        "label": Task(
            "labels", labels.Evaluation, labels.evaluate, labels.check,
            lambda clean, perturbed, truth, _, clip: labels.compare(clean, perturbed, truth, clip=clip),
        ),
        "classes": Task(
            "labels", segmentation.SegmentationEvaluation, segmentation.evaluate, segmentation.check,
            lambda clean, perturbed, truth, k, clip: segmentation.compare(clean, perturbed, truth, k, clip=clip),
        ),
        "depth": Task(
            "depth", depth.DepthEvaluation, depth.evaluate, depth.check,
            lambda clean, perturbed, truth, _, clip: depth.compare(clean, perturbed, truth, clip=clip),
        ),
    }
)  # fmt: skip
