"""The table of tasks: each measures, and is read again from its counts."""

import json

import pytest
import torch
from torch import nn

from uaplib import metrics
from uaplib.metrics import depth, segmentation
from uaplib.metrics.tasks import TASKS


class Shown(nn.Module):
    """Says the first `count` channels: as logits their means, or as a map."""

    def __init__(self, count, label=False):
        super().__init__()
        self.count, self.label = count, label

    def forward(self, x):
        said = x[:, : self.count]
        return said.mean((2, 3)) if self.label else said


NETWORKS = {"label": Shown(3, label=True).eval(), "classes": Shown(3).eval(), "depth": Shown(1).eval()}
IMAGES = torch.rand(4, 3, 5, 7, generator=torch.Generator().manual_seed(0)).clamp_min(0.1)
TRUTH = {
    "label": torch.tensor([0, 1, 2, 1]),
    "classes": torch.arange(4 * 5 * 7).reshape(4, 5, 7) % 4,
    "depth": torch.rand(4, 5, 7, generator=torch.Generator().manual_seed(1)).add(0.1) * (torch.arange(7) > 0),
}
DELTA = 0.4 * torch.randn(1, 3, 5, 7, generator=torch.Generator().manual_seed(2)).abs()
EVALUATE = {"label": metrics.evaluate, "classes": segmentation.evaluate, "depth": depth.evaluate}


def test_the_tasks_and_their_truths():
    assert {name: task.truth for name, task in TASKS.items()} == {
        "label": "labels", "classes": "labels", "depth": "depth",
    }  # fmt: skip


@pytest.fixture(params=TASKS)
def name(request):
    return request.param


def test_a_task_measures_as_its_module_does(name):
    arguments = NETWORKS[name], IMAGES, TRUTH[name], DELTA
    for clip in (True, False):
        found = TASKS[name].evaluate(*arguments, clip=clip, batch_size=3, progress=False)
        assert found == EVALUATE[name](*arguments, clip=clip)
        assert found.clip is clip
    assert found != EVALUATE[name](*arguments, clip=True)


def test_predictions_that_are_there_are_compared_as_evaluate_does(name):
    task, model = TASKS[name], NETWORKS[name]
    num_classes = task.check(model, IMAGES, TRUTH[name])
    assert num_classes == (None if name == "depth" else 3)
    said = metrics.predict(model, IMAGES), metrics.predict(model, IMAGES, DELTA, clip=False)
    found = task.compare(*said, TRUTH[name], num_classes, False)
    assert found == task.evaluate(model, IMAGES, TRUTH[name], DELTA, clip=False)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_the_batch_size_is_passed_on(name, batch_size):
    sizes = []
    model = Shown(NETWORKS[name].count, label=name == "label").eval()
    model.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
    TASKS[name].evaluate(model, IMAGES, TRUTH[name], DELTA, batch_size=batch_size)
    assert sizes == [1] + 2 * {1: [1, 1, 1, 1], 3: [3, 1]}[batch_size]  # the first tells what the network says


def test_counts_give_the_same_evaluation_again(name):
    found = TASKS[name].evaluate(NETWORKS[name], IMAGES, TRUTH[name], DELTA)
    again = TASKS[name].read(json.loads(json.dumps(found.counts())))
    assert type(again) is TASKS[name].evaluation
    assert again == found
    assert again != found.counts()
    assert json.dumps(again.as_dict()) == json.dumps(found.as_dict())


def test_other_counts_are_refused(name):
    counts = TASKS[name].evaluate(NETWORKS[name], IMAGES, TRUTH[name], DELTA).counts()
    for other in TASKS.keys() - {name}:
        with pytest.raises(ValueError, match=f"{TASKS[other].evaluation.__name__} is made of"):
            TASKS[other].read(counts)
    with pytest.raises(ValueError, match="is made of"):
        TASKS[name].read(counts | {"n": 4})
    del counts["clip"]
    with pytest.raises(ValueError, match="is made of"):
        TASKS[name].read(counts)


def test_a_network_of_another_task_is_refused(name):
    for other in TASKS.keys() - {name}:
        with pytest.raises(ValueError, match="the model must .*map"):
            TASKS[name].check(NETWORKS[other], IMAGES, TRUTH[name])


def test_truths_that_do_not_fit_are_refused_before_the_perturbation_is_tried(name):
    with pytest.raises(ValueError, match="labels|depths"):
        TASKS[name].check(NETWORKS[name], IMAGES, TRUTH[name][:3])
    with pytest.raises(ValueError, match="must lie in|no pixel of truth has a depth"):
        TASKS[name].check(NETWORKS[name], IMAGES, -1 - TRUTH[name])
    with pytest.raises(ValueError, match=r"images must lie in \[0, 1\]"):
        TASKS[name].check(NETWORKS[name], 255 * IMAGES, TRUTH[name])
