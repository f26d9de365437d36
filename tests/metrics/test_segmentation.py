import json
import math

import numpy as np
import pytest
import torch
from torch import nn

from uaplib import models
from uaplib.metrics import segmentation

NAN = math.nan
LABELS = torch.tensor([[[0, 0, 1], [1, 2, 3]]])  # of three classes; 3 is void
PREDICTIONS = torch.tensor([[[0, 1, 1], [1, 0, 2]]])


def segmenter(weight, bias):
    """A network that looks at one pixel at a time: logits = weight (K, 3) times the normalised colour + bias."""
    network = nn.Conv2d(3, len(bias), 1).requires_grad_(False)
    network.weight.copy_(torch.tensor(weight)[..., None, None])
    network.bias.copy_(torch.tensor(bias))
    return models.Normalized(network, [0.5] * 3, [0.25] * 3).eval()


@pytest.fixture
def red():
    """Says 0 where there is more red than 0.5, 1 where there is less, and 2 never."""
    return segmenter([[1.0, 0, 0], [-1, 0, 0], [0, 0, 0]], [0.0, 0, -100])


@pytest.fixture
def scenes():
    """Two images of 2 x 3 pixels, their labels, and a perturbation that turns three of the twelve predictions."""
    reds = torch.tensor([[[0.9, 0.9, 0.9], [0.1, 0.1, 0.1]], [[0.9, 0.9, 0.9], [0.9, 0.9, 0.9]]])
    images = torch.stack([reds, torch.zeros(2, 2, 3), torch.ones(2, 2, 3)], 1)
    labels = torch.tensor([[[0, 0, 0], [1, 1, 3]], [[0, 0, 2], [0, 0, 0]]])
    delta = torch.zeros(1, 3, 2, 3)
    delta[0, 0, 0, 0], delta[0, 0, 1, 0] = -0.5, 0.5
    return images, labels, delta


def test_the_confusion_matrix_has_labels_in_rows_and_leaves_void_out():
    matrix = segmentation.confusion(PREDICTIONS, LABELS, 3)
    assert matrix.tolist() == [[[1, 1, 0], [0, 2, 0], [1, 0, 0]]]
    assert matrix.dtype == torch.int64


def test_there_is_one_confusion_matrix_per_image():
    predictions, labels = torch.tensor([[[0, 1]], [[1, 1]]]), torch.tensor([[[0, 0]], [[1, 2]]])
    assert segmentation.confusion(predictions, labels, 2).tolist() == [[[1, 1], [0, 0]], [[0, 0], [0, 1]]]


def test_an_image_of_void_alone_counts_nothing():
    assert segmentation.confusion(torch.zeros(1, 2, 3).long(), torch.full((1, 2, 3), 4), 4).sum() == 0


@pytest.mark.parametrize(("label", "found"), [(-1, r"found -1 \.\.\. 0"), (4, r"found 0 \.\.\. 4")])
def test_labels_out_of_range_are_refused(label, found):
    with pytest.raises(ValueError, match=rf"labels must lie in 0 \.\.\. 3 \(3 is void\), {found}"):
        segmentation.confusion(torch.zeros(1, 1, 2).long(), torch.tensor([[[0, label]]]), 3)


@pytest.mark.parametrize(
    ("predictions", "labels"), [((1, 2, 3), (1, 3, 2)), ((2, 2, 3), (1, 2, 3)), ((2, 3), (2, 3)), ((1, 2, 3), (2, 3))]
)
def test_shapes_that_differ_or_are_no_maps_are_refused(predictions, labels):
    with pytest.raises(ValueError, match=r"predictions and labels must both be \(N, H, W\)"):
        segmentation.confusion(torch.zeros(predictions).long(), torch.zeros(labels).long(), 3)


def test_measures_by_hand():
    matrix = segmentation.confusion(PREDICTIONS, LABELS, 3)
    assert segmentation.iou(matrix)[0].tolist() == pytest.approx([1 / 3, 2 / 3, 0])
    assert segmentation.mean_iou(matrix).tolist() == pytest.approx([1 / 3])
    assert segmentation.pixel_accuracy(matrix).tolist() == pytest.approx([3 / 5])


def test_a_class_that_does_not_occur_is_nan_and_left_out_of_the_mean():
    matrix = torch.tensor([[3, 1, 0], [0, 4, 0], [0, 0, 0]])
    assert segmentation.iou(matrix).tolist() == pytest.approx([3 / 4, 4 / 5, NAN], nan_ok=True)
    assert segmentation.mean_iou(matrix).item() == pytest.approx((3 / 4 + 4 / 5) / 2)


def test_a_class_that_is_predicted_only_counts_as_missed():
    matrix = torch.tensor([[3, 1], [0, 0]])
    assert segmentation.iou(matrix).tolist() == [3 / 4, 0]
    assert segmentation.mean_iou(matrix).item() == 3 / 8


def test_without_any_pixel_every_measure_is_nan():
    nothing = torch.zeros(2, 2).long()
    assert segmentation.mean_iou(nothing).isnan()
    assert segmentation.pixel_accuracy(nothing).isnan()


def test_large_counts_keep_their_digits():
    matrix = torch.tensor([[2**40 + 1, 0], [1, 2**40]])
    assert 1 - segmentation.pixel_accuracy(matrix).item() == pytest.approx(2**-41, rel=1e-3)


def test_how_far_predictions_moved_by_hand():
    clean, perturbed = torch.tensor([[[0, 0, 0, 1]]]), torch.tensor([[[0, 0, 1, 1]]])
    found = segmentation.moved(clean, perturbed, 2)  # IoU 2/3 of class 0, 1/2 of class 1
    assert found.value == pytest.approx(1 - (2 / 3 + 1 / 2) / 2)
    more = torch.cat([clean, clean]), torch.cat([perturbed, clean])
    assert segmentation.moved(*more, 2).value == pytest.approx(1 - (5 / 6 + 2 / 3) / 2)  # of all pixels together
    low, high = segmentation.moved(*more, 2).interval
    assert (low, high) == (0, pytest.approx(found.value))  # the first image always, or the second


@pytest.mark.parametrize(
    ("performance", "best", "expected"), [(1, 1, 0), (0, 1, 1), (0.25, 1, 0.75), (30, 40, 0.25), (40, 40, 0)]
)
def test_the_generalised_fooling_rate_by_hand(performance, best, expected):
    assert segmentation.generalised_fooling_rate(performance, best) == pytest.approx(expected)
    if best == 1:
        assert segmentation.generalised_fooling_rate(performance) == pytest.approx(expected)


@pytest.mark.parametrize(("performance", "best"), [(-0.1, 1), (1.1, 1), (41, 40), (NAN, 1)])
def test_a_performance_out_of_its_range_is_refused(performance, best):
    with pytest.raises(ValueError, match=rf"performance must lie in \[0, {best}\]"):
        segmentation.generalised_fooling_rate(performance, best)


def test_evaluate_by_hand(red, scenes):
    found = segmentation.evaluate(red, *scenes)
    assert found.clean_class_iou == pytest.approx([8 / 9, 1, 0])
    assert found.class_iou == pytest.approx([6 / 10, 1 / 4, 0])
    assert found.clean_mean_iou.value == pytest.approx((8 / 9 + 1) / 3)
    assert found.mean_iou.value == pytest.approx((6 / 10 + 1 / 4) / 3)
    assert found.clean_pixel_accuracy.value == pytest.approx(10 / 11)
    assert found.pixel_accuracy.value == pytest.approx(7 / 11)
    assert found.flip_rate.value == pytest.approx(3 / 12)
    assert found.gfr.value == pytest.approx(1 - (7 / 10 + 2 / 5) / 2)
    assert {getattr(found, name).n for name in ("mean_iou", "pixel_accuracy", "flip_rate", "gfr")} == {2}
    assert found.clip is True


def test_the_confusion_matrices_of_an_evaluation_by_hand(red, scenes):
    found = segmentation.evaluate(red, *scenes)
    assert found.before.tolist() == [[[3, 0, 0], [0, 2, 0], [0, 0, 0]], [[5, 0, 0], [0, 0, 0], [1, 0, 0]]]
    assert found.after.tolist() == [[[2, 1, 0], [1, 1, 0], [0, 0, 0]], [[4, 1, 0], [0, 0, 0], [1, 0, 0]]]
    # Rows are the clean predictions: in the second image one pixel of class 0 becomes 1.
    assert found.changes.tolist() == [[[2, 1, 0], [1, 2, 0], [0, 0, 0]], [[5, 1, 0], [0, 0, 0], [0, 0, 0]]]


def test_intervals_are_over_images(red, scenes):
    found = segmentation.evaluate(red, *scenes)
    assert found.flip_rate.interval == pytest.approx((1 / 6, 2 / 6))  # only the one image, or only the other
    alike = segmentation.evaluate(red, *(torch.cat([part[:1]] * 3) for part in scenes[:2]), scenes[2])
    assert alike.flip_rate.interval == pytest.approx((2 / 6, 2 / 6))
    assert alike.flip_rate.n == 3


def test_a_perturbation_of_zero_changes_nothing(red, scenes):
    images, labels, delta = scenes
    found = segmentation.evaluate(red, images, labels, 0 * delta)
    assert (found.flip_rate.value, found.gfr.value) == (0, 0)
    assert found.mean_iou == found.clean_mean_iou
    assert found.class_iou == found.clean_class_iou


def test_the_truth_plays_no_part_in_flip_rate_and_gfr(red, scenes):
    images, labels, delta = scenes
    found, other = (segmentation.evaluate(red, images, each, delta) for each in (labels, (labels + 1) % 4))
    assert (found.flip_rate, found.gfr) == (other.flip_rate, other.gfr)
    assert found.mean_iou != other.mean_iou


def test_a_class_that_never_occurs_is_none(red, scenes):
    images, _, delta = scenes
    found = segmentation.evaluate(red, images, torch.zeros(2, 2, 3).long(), delta)
    assert found.clean_class_iou == pytest.approx([9 / 12, 0, None])
    assert found.class_iou == pytest.approx([8 / 12, 0, None])


@pytest.mark.parametrize(("clip", "flips"), [(True, 1), (False, 0)])
def test_the_sum_is_clipped_on_demand(clip, flips):
    bright = segmenter([[1.0, 1, 0], [0, 0, 0]], [-0.8, 0])  # 0 where red + green > 1.2
    images, delta = torch.zeros(1, 3, 2, 3), torch.zeros(1, 3, 2, 3)
    images[:, 0], images[:, 1], delta[:, 0], delta[:, 1] = 0.9, 0.4, 0.5, -0.3
    found = segmentation.evaluate(bright, images, torch.zeros(1, 2, 3).long(), delta, clip=clip)
    assert found.flip_rate.value == flips
    assert found.clip is clip


def test_an_evaluation_becomes_json_safe_values(red, scenes):
    images, _, delta = scenes
    found = segmentation.evaluate(red, images, torch.zeros(2, 2, 3).long(), delta).as_dict()
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["flip_rate"] == {"value": 0.25, "interval": [pytest.approx(1 / 6), pytest.approx(1 / 3)], "n": 2}
    assert found["class_iou"][2] is None


def test_evaluate_refuses_what_is_no_image_or_no_label_map(red, scenes):
    images, labels, delta = scenes
    with pytest.raises(ValueError, match=r"images must lie in \[0, 1\]"):
        segmentation.evaluate(red, 255 * images, labels, delta)
    with pytest.raises(ValueError, match=r"must both be \(N, H, W\), not \(2, 2, 3\) and \(2, 3, 2\)"):
        segmentation.evaluate(red, images, labels.mT, delta)
    with pytest.raises(ValueError, match=r"labels must lie in 0 \.\.\. 3"):
        segmentation.evaluate(red, images, labels + 252, delta)


def test_intervals_over_blocks_of_frames_are_of_the_same_counts(red, scenes):
    images, labels, delta = scenes
    film = [each.repeat_interleave(5, 0) for each in (images, labels)]
    found = segmentation.evaluate(red, *film, delta)
    blocks = found.over_blocks(5)
    assert blocks == found
    assert blocks.counts() == found.counts()
    for name in ("clean_mean_iou", "mean_iou", "clean_pixel_accuracy", "pixel_accuracy", "flip_rate", "gfr"):
        single, wide = getattr(found, name), getattr(blocks, name)
        assert (wide.value, wide.n) == (single.value, single.n)
        assert np.diff(wide.interval) >= np.diff(single.interval)
    assert np.diff(blocks.flip_rate.interval) > np.diff(found.flip_rate.interval)
