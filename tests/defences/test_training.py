"""The loop of training: interruptions, copies, files, random numbers, and bad input."""

import contextlib
import copy
import csv
import dataclasses
import json
import math

import pytest
import torch
from safetensors import safe_open
from torch import nn

from uaplib import models, provenance
from uaplib.balls import NormBall
from uaplib.defences import (
    JPEG,
    CleanTraining,
    DemocraticTraining,
    PoolTraining,
    SharedTraining,
    TrainingSettings,
    UniversalTraining,
    save_weights,
    train,
)
from uaplib.defences._rules import Batch

BALL = NormBall(math.inf, 0.08)
RULES = {
    "clean": CleanTraining(),
    "pool": PoolTraining(pool=0.05 * torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))),
    "alternating": UniversalTraining(ball=BALL),
    "simultaneous": UniversalTraining(ball=BALL, mode="simultaneous", step=0.3),
    "shared": SharedTraining(ball=BALL, heap=2, steps=2),
    "shared-l2": SharedTraining(ball=NormBall(2, 0.5), heap=1, steps=2, cap=None),
    "democratic": DemocraticTraining(ball=BALL, steps=2),
}
every = pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
SHORT = TrainingSettings(epochs=3, batch_size=8, learning_rate=0.05)


@pytest.fixture
def images():
    return torch.rand(27, 1, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def labels():
    return torch.arange(27) % 3


@pytest.fixture
def network():
    """With dropout and batch normalisation, float32, in evaluation mode; its statistics are not those of a new one."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        layers = [nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.2), nn.Flatten()]
        found = nn.Sequential(*layers, nn.Linear(256, 3))
        found[1].running_mean.uniform_()
    return found.eval()


def same(one, other):
    """Whether two trainings gave the same bits."""
    first, second = one.model.state_dict(), other.model.state_dict()
    assert all(torch.equal(first[name], value) for name, value in second.items())
    assert one.memory.keys() == other.memory.keys()
    assert all(torch.equal(one.memory[name], value) for name, value in other.memory.items())
    assert timeless(one.history) == timeless(other.history)
    return True


def timeless(history):
    return [{name: value for name, value in row.items() if name != "seconds"} for row in history]


@contextlib.contextmanager
def interrupted(monkeypatch, call):
    """Inside, Ctrl-C comes with a call of the loss."""
    calls, loss = [], Batch.loss

    def failing(self, images):
        calls.append(1)
        if len(calls) == call:
            raise KeyboardInterrupt
        return loss(self, images)

    with monkeypatch.context() as patch:
        patch.setattr(Batch, "loss", failing)
        with pytest.raises(KeyboardInterrupt):
            yield


@every
@pytest.mark.parametrize("batch_statistics", [False, True])
def test_a_run_that_was_interrupted_goes_on_bit_for_bit(
    rule, batch_statistics, network, images, labels, tmp_path, monkeypatch
):
    settings = dataclasses.replace(SHORT, batch_statistics=batch_statistics, schedule="cosine")
    expected = train(network, images, labels, rule, settings=settings, seed=5)
    path, log = tmp_path / "a" / "run.checkpoint", tmp_path / "log.csv"
    options = {"settings": settings, "seed": 5, "checkpoint": path, "log": log}
    passes = 2 if isinstance(rule, SharedTraining | DemocraticTraining) or rule is RULES["alternating"] else 1
    for call in (2 * 3 * passes - 1, 3 * passes + 2):  # in the second epoch, and in the one after
        with interrupted(monkeypatch, call):
            train(network, images, labels, rule, **options)
    assert len(log.read_text().splitlines()) == 3
    assert same(train(network, images, labels, rule, **options), expected)
    assert same(train(network, images, labels, rule, **options), expected)  # all of it is in the file
    assert [row["epoch"] for row in csv.DictReader(log.read_text().splitlines())] == ["1", "2", "3"]
    assert not list(tmp_path.rglob(".*"))


def test_channels_last_goes_on_bit_for_bit(tmp_path, monkeypatch):
    """Momentum gets the layout in memory that it had: a layout may decide about the order of a sum."""
    model = models.load("vgg-f-mini")
    images, labels = torch.rand(32, 1, 28, 28, generator=torch.Generator().manual_seed(0)), torch.arange(32) % 10
    rule, settings = UniversalTraining(ball=BALL), TrainingSettings(epochs=2, batch_size=16)
    expected = train(model, images, labels, rule, settings=settings)
    with interrupted(monkeypatch, 6):
        train(model, images, labels, rule, settings=settings, checkpoint=tmp_path / "c")
    assert same(train(model, images, labels, rule, settings=settings, checkpoint=tmp_path / "c"), expected)


def test_an_interruption_leaves_the_last_whole_epoch(network, images, labels, tmp_path, monkeypatch):
    path = tmp_path / "c"
    with interrupted(monkeypatch, 2):
        train(network, images, labels, CleanTraining(), settings=SHORT, checkpoint=path)
    assert list(tmp_path.iterdir()) == []
    with interrupted(monkeypatch, 8):
        train(network, images, labels, CleanTraining(), settings=SHORT, checkpoint=path)
    with safe_open(path, framework="pt") as file:
        about = json.loads(file.metadata()["state"])
        kept = file.get_tensor("weights/5.weight")
    assert len(about["history"]) == 2
    two = train(network, images, labels, CleanTraining(), settings=dataclasses.replace(SHORT, epochs=2))
    assert torch.equal(two.model[5].weight, kept)


@every
def test_the_same_seed_gives_the_same_bits_and_another_one_others(rule, network, images, labels):
    torch.manual_seed(1)
    first = train(network, images, labels, rule, settings=SHORT, seed=5)
    torch.manual_seed(2)
    with torch.no_grad():
        assert same(train(network, images, labels, rule, settings=SHORT, seed=5), first)
    other = train(network, images, labels, rule, settings=SHORT, seed=6)
    assert not torch.equal(other.model[5].weight, first.model[5].weight)


@every
@pytest.mark.parametrize("mode", [True, False])
@pytest.mark.parametrize("cut", [False, True])
def test_the_model_and_the_generator_stay_as_they_were(rule, mode, cut, network, images, labels, monkeypatch):
    network.train(mode)
    network[0].requires_grad_(False)
    network[5].weight.grad = torch.ones_like(network[5].weight)
    before, state, handed = copy.deepcopy(network.state_dict()), torch.get_rng_state(), images.clone()
    if cut:
        with interrupted(monkeypatch, 3):
            train(network, images, labels, rule, settings=SHORT)
    else:
        found = train(network, images, labels, rule, settings=SHORT).model
        assert not any(module.training for module in found.modules())
        assert [p.requires_grad for p in found.parameters()] == [p.requires_grad for p in network.parameters()]
        assert all(p.grad is None for p in found.parameters())
        assert not torch.equal(found[0].weight, network[0].weight)  # frozen ones are trained, too
        assert not torch.equal(found[1].weight, network[1].weight)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(module.training is mode for module in network.modules())
    assert [p.requires_grad for p in network.parameters()] == [False] * 2 + [True] * 4
    assert torch.equal(network[5].weight.grad, torch.ones_like(network[5].weight))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(images, handed)


@every
def test_statistics_of_batches_are_frozen_unless_that_is_asked_for(rule, network, images, labels):
    frozen = train(network, images, labels, rule, settings=SHORT).model
    assert torch.equal(frozen[1].running_mean, network[1].running_mean)
    assert torch.equal(frozen[1].num_batches_tracked, network[1].num_batches_tracked)
    kept = dataclasses.replace(SHORT, batch_statistics=True)
    moved = train(network, images, labels, rule, settings=kept).model
    assert not torch.equal(moved[1].running_mean, network[1].running_mean)
    assert moved[1].num_batches_tracked > network[1].num_batches_tracked


def test_dropout_drops(network, images, labels):
    """Without dropout another network comes of it."""
    without = copy.deepcopy(network)
    without[3].p = 0.0
    one, other = (train(each, images, labels, CleanTraining(), settings=SHORT).model for each in (network, without))
    assert not torch.equal(one[5].weight, other[5].weight)


def test_a_run_learns_and_says_so(network, images, labels, tmp_path):
    images = (images + labels.view(-1, 1, 1, 1)) / 3  # brighter from class to class
    settings = TrainingSettings(epochs=30, batch_size=9, learning_rate=0.02)
    seen = []

    def measure(trained):
        assert not trained.training
        assert not torch.is_grad_enabled()
        seen.append(trained)
        return {"accuracy": (trained(images).argmax(1) == labels).float().mean(), "number": len(seen)}

    log = tmp_path / "log.csv"
    found = train(network, images, labels, CleanTraining(), settings=settings, log=log, measure=measure)
    rows = list(csv.DictReader(log.read_text().splitlines()))
    assert list(rows[0]) == ["epoch", "learning_rate", "loss", "seconds", "accuracy", "number"]
    assert [{name: float(value) for name, value in row.items()} for row in rows] == found.history
    assert found.history[-1]["loss"] < found.history[0]["loss"]
    assert found.history[-1]["accuracy"] > 0.9
    assert json.loads(json.dumps(found.history)) == found.history
    plain = train(network, images, labels, CleanTraining(), settings=settings)
    assert torch.equal(plain.model[5].weight, found.model[5].weight)  # to measure changes nothing


def test_a_log_is_written_anew_with_all_rows_and_all_columns(network, images, labels, tmp_path, monkeypatch):
    options = {"settings": SHORT, "checkpoint": tmp_path / "c", "log": tmp_path / "log.csv"}
    with interrupted(monkeypatch, 5):
        train(network, images, labels, CleanTraining(), **options)
    (tmp_path / "log.csv").unlink()
    train(network, images, labels, CleanTraining(), **options, measure=lambda trained: {"one": 1})
    rows = list(csv.DictReader((tmp_path / "log.csv").read_text().splitlines()))
    assert [row["one"] for row in rows] == ["", "1.0", "1.0"]
    (tmp_path / "log.csv").unlink()
    train(network, images, labels, CleanTraining(), **options)
    assert list(csv.DictReader((tmp_path / "log.csv").read_text().splitlines())) == rows


def test_the_loss_of_a_row_is_the_mean_over_its_steps(network, images, labels, monkeypatch):
    seen, loss = [], Batch.loss

    def noted(self, perturbed):
        seen.append(loss(self, perturbed))
        return seen[-1]

    monkeypatch.setattr(Batch, "loss", noted)
    (row,) = train(network, images, labels, CleanTraining(), settings=dataclasses.replace(SHORT, epochs=1)).history
    assert len(seen) == 3  # 27 images: three are left out
    assert row["loss"] == pytest.approx(torch.stack(seen).mean().item())


def test_the_cosine_falls_from_the_learning_rate_towards_zero(network, images, labels):
    settings = dataclasses.replace(SHORT, schedule="cosine", epochs=4)
    rates, constant = (
        [row["learning_rate"] for row in train(network, images, labels, CleanTraining(), settings=each).history]
        for each in (settings, SHORT)
    )
    assert rates == pytest.approx([0.05 * (1 + math.cos(math.pi * k / 4)) / 2 for k in range(4)])
    assert constant == [0.05] * 3


def test_what_was_trained_reloads_bit_for_bit(tmp_path):
    model = models.load("vgg-f-mini")
    images, labels = torch.rand(16, 1, 28, 28, generator=torch.Generator().manual_seed(0)), torch.arange(16) % 10
    settings = TrainingSettings(epochs=1, batch_size=8)
    found = train(model, images, labels, UniversalTraining(ball=BALL), settings=settings).model
    save_weights(found, tmp_path / "one")
    again = models.load("vgg-f-mini", weights=tmp_path / "one")
    assert provenance.weights_sha256(again) == provenance.weights_sha256(found) != provenance.weights_sha256(model)
    assert torch.equal(again(images), found(images))
    save_weights(again, tmp_path / "two")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert not any(p.requires_grad for p in found.parameters())


def test_other_networks_are_saved_as_they_are(network, tmp_path):
    save_weights(nn.Sequential(JPEG(50), network), tmp_path / "w")
    with safe_open(tmp_path / "w", framework="pt") as file:
        assert torch.equal(file.get_tensor("1.5.weight"), network[5].weight)


def test_a_network_behind_a_transformation_is_trained(network, images, labels, tmp_path):
    defended = nn.Sequential(JPEG(50), network)
    found = train(defended, images, labels, CleanTraining(), settings=SHORT, checkpoint=tmp_path / "c").model
    assert not torch.equal(found[1][5].weight, network[5].weight)
    other = nn.Sequential(JPEG(60), network)
    with pytest.raises(ValueError, match="belongs to a run with other arguments"):
        train(other, images, labels, CleanTraining(), settings=SHORT, checkpoint=tmp_path / "c")


def test_a_checkpoint_of_another_run_is_refused(network, images, labels, tmp_path):
    path, rule = tmp_path / "c", UniversalTraining(ball=BALL)
    train(network, images, labels, rule, settings=SHORT, checkpoint=path)
    before = path.read_bytes()
    other = copy.deepcopy(network)
    other[5].bias.data += 1
    for arguments, options in (
        ((other, images, labels, rule), {}),
        ((network, 1 - images, labels, rule), {}),
        ((network, images, 2 - labels, rule), {}),
        ((network, images, labels, UniversalTraining(ball=BALL, mode="simultaneous")), {}),
        ((network, images, labels, UniversalTraining(ball=NormBall(2, 0.08))), {}),
        ((network, images, labels, SharedTraining(ball=BALL, heap=2)), {}),
        ((network, images, labels, rule), {"seed": 1}),
        ((network, images, labels, rule), {"settings": dataclasses.replace(SHORT, epochs=4)}),
    ):
        with pytest.raises(ValueError, match="belongs to a run with other arguments; delete it"):
            train(*arguments, **{"settings": SHORT, "checkpoint": path} | options)
    assert path.read_bytes() == before


def test_pools_are_told_apart():
    pool = torch.zeros(2, 1, 4, 4)
    one, other = PoolTraining(pool=pool).record(), PoolTraining(pool=pool + 0.1).record()
    assert one["rule"] == "PoolTraining"
    assert one["pool"] != other["pool"]
    assert json.loads(json.dumps(one)) == one
    assert UniversalTraining(ball=BALL).record()["ball"] == {"p": "inf", "eps": "0.08"}


@pytest.mark.parametrize("content", [b"", b"something else", b"\x08\x00\x00\x00\x00\x00\x00\x00{}      "])
def test_a_damaged_checkpoint_is_refused(content, network, images, labels, tmp_path):
    (tmp_path / "c").write_bytes(content)
    with pytest.raises(ValueError, match="no checkpoint, or a damaged one|belongs to a run with other"):
        train(network, images, labels, CleanTraining(), settings=SHORT, checkpoint=tmp_path / "c")


def test_files_that_cannot_be_written(network, images, labels, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="cannot be written"):
        train(network, images, labels, CleanTraining(), settings=SHORT, log=tmp_path / "file" / "log.csv")
    with pytest.warns(UserWarning, match="no checkpoint was written"):
        train(network, images, labels, CleanTraining(), settings=SHORT, checkpoint=tmp_path / "file" / "c")


def test_a_loss_that_explodes_is_an_error(network, images, labels, tmp_path):
    wild = dataclasses.replace(SHORT, learning_rate=1e30)
    with pytest.raises(FloatingPointError, match="in epoch 1; a smaller learning_rate than 1e.30 may help"):
        train(network, images, labels, CleanTraining(), settings=wild, checkpoint=tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_the_progress_bar(network, images, labels, capsys):
    train(network, images, labels, CleanTraining(), settings=SHORT, progress=True)
    assert "CleanTraining: 100%" in capsys.readouterr().err
    train(network, images, labels, CleanTraining(), settings=SHORT)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "epochs must be a whole number of at least 1, not 0"),
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1"),
        ({"learning_rate": -0.1}, "learning_rate must be at least 0, not -0.1"),
        ({"weight_decay": -1.0}, "weight_decay must be at least 0"),
        ({"learning_rate": math.inf}, "learning_rate must be a finite number"),
        ({"momentum": 1.0}, r"momentum must lie in \[0, 1\)"),
        ({"momentum": -0.1}, r"momentum must lie in \[0, 1\)"),
        ({"label_smoothing": 1.5}, r"label_smoothing must lie in \[0, 1\]"),
        ({"schedule": "cosin"}, "schedule='cosin' is unknown. Did you mean 'cosine'"),
    ],
)
def test_bad_settings(changes, message):
    with pytest.raises(ValueError, match=message):
        TrainingSettings(**changes)


def test_bad_images_labels_and_models(network, images, labels):
    def run(model=network, x=images, y=labels, **options):
        return train(model, x, y, CleanTraining(), **{"settings": SHORT} | options)

    with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
        run(x=255 * images)
    with pytest.raises(ValueError, match="the model cannot take images of shape"):
        run(x=images[..., :6])
    with pytest.raises(ValueError, match="batch_size=8 is more than the 5 images"):
        run(x=images[:5], y=labels[:5])
    with pytest.raises(ValueError, match="one int64 class per image"):
        run(y=labels[:5])
    with pytest.raises(ValueError, match="one int64 class per image"):
        run(y=labels.float())
    with pytest.raises(ValueError, match=r"labels must lie in 0 ... 2, found 0 ... 3"):
        run(y=labels + (labels == 2))
    with pytest.raises(ValueError, match="no parameters: there is nothing to train"):
        run(model=nn.Flatten())
    with pytest.raises(ValueError, match="must be a classifier"):
        run(model=nn.Conv2d(1, 3, 1))
    with pytest.raises(ValueError, match="seed must lie in"):
        run(seed=-1)
    with pytest.raises(TypeError, match="accuracy must be a number"):
        run(measure=lambda trained: {"accuracy": "high"})
