"""Measures of segmentation against torchmetrics' classes and against loops over pixels in plain Python."""

import pytest
import torch
from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

from uaplib.metrics import segmentation

CLASSES = 6


@pytest.fixture(params=range(8))
def maps(request):
    """Predictions and labels (3, 11, 17): the last class rare, some pixels void, agreement from little to much."""
    generator = torch.Generator().manual_seed(request.param)
    weights = torch.tensor([8.0, 4, 2, 1, 0.5, 0.02, 1])
    labels = weights.multinomial(3 * 11 * 17, replacement=True, generator=generator).view(3, 11, 17)
    guesses = torch.randint(CLASSES - 1, labels.shape, generator=generator)
    agree = (torch.rand(labels.shape, generator=generator) < request.param / 8) & (labels < CLASSES)
    return torch.where(agree, labels, guesses), labels


def by_pixel(predictions, labels):
    """Mean IoU over the classes that occur, and pixel accuracy, one pixel after the other."""
    pairs = [(p, t) for p, t in zip(predictions.flatten().tolist(), labels.flatten().tolist(), strict=True)]
    pairs = [(p, t) for p, t in pairs if t != CLASSES]
    shares = []
    for k in range(CLASSES):
        either = sum(k in pair for pair in pairs)
        if either:
            shares.append(sum(pair == (k, k) for pair in pairs) / either)
    return sum(shares) / len(shares), sum(p == t for p, t in pairs) / len(pairs)


def test_mean_iou_equals_torchmetrics(maps):
    predictions, labels = maps
    matrix = segmentation.confusion(predictions, labels, CLASSES).sum(0)
    per_class = MulticlassJaccardIndex(CLASSES, average="none", ignore_index=CLASSES, zero_division=torch.nan)
    theirs = per_class(predictions, labels)
    torch.testing.assert_close(segmentation.iou(matrix).float(), theirs, equal_nan=True)
    mean = MulticlassJaccardIndex(CLASSES, average="macro", ignore_index=CLASSES)(predictions, labels)
    assert segmentation.mean_iou(matrix).item() == pytest.approx(mean.item(), abs=1e-6)


def test_pixel_accuracy_equals_torchmetrics(maps):
    predictions, labels = maps
    theirs = MulticlassAccuracy(CLASSES, average="micro", ignore_index=CLASSES)(predictions, labels)
    matrix = segmentation.confusion(predictions, labels, CLASSES).sum(0)
    assert segmentation.pixel_accuracy(matrix).item() == pytest.approx(theirs.item(), abs=1e-6)


def test_all_images_together_equal_a_loop_over_pixels(maps):
    matrix = segmentation.confusion(*maps, CLASSES).sum(0)
    found = segmentation.mean_iou(matrix).item(), segmentation.pixel_accuracy(matrix).item()
    assert found == pytest.approx(by_pixel(*maps), abs=1e-12)


def test_every_image_equals_a_loop_over_its_pixels(maps):
    matrices = segmentation.confusion(*maps, CLASSES)
    found = zip(segmentation.mean_iou(matrices).tolist(), segmentation.pixel_accuracy(matrices).tolist(), strict=True)
    for each, predictions, labels in zip(found, *maps, strict=True):
        assert each == pytest.approx(by_pixel(predictions, labels), abs=1e-12)
