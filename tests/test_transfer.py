"""Transfer matrices: known answers, resuming, other sizes, and what is refused."""

import io
import json
import math
import os

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib import pyplot as plt
from torch import nn

from uaplib import journal, metrics, provenance, transfer
from uaplib.balls import NormBall
from uaplib.metrics.tasks import TASKS
from uaplib.perturbation import FITS, UniversalPerturbation
from uaplib.transfer import transfer_matrix

EPS = 0.125
BALL = NormBall(math.inf, EPS)
MODES = {"tiled": "tiled", "resized": "bilinear"}  # on record
VALUES = torch.tensor([0.25, 0.375, 0.5, 0.625, 0.75])  # binary fractions: sums with EPS are exact


class Threshold(nn.Module):
    """Class 1 where the mean of one channel is above a threshold: the rate of a constant can be counted by hand."""

    def __init__(self, threshold: float, classes: int = 2):
        super().__init__()
        self.register_buffer("threshold", torch.tensor(threshold))
        self.classes, self.images_seen = classes, 0

    def forward(self, images):
        self.images_seen += len(images)
        above = images.mean((1, 2, 3)) - self.threshold
        return torch.stack([-above, above, *[torch.full_like(above, -9)] * (self.classes - 2)], 1)


def constant(value: float, size: int = 4, channels: int = 1, source: str = "") -> UniversalPerturbation:
    return UniversalPerturbation(torch.full((1, channels, size, size), value), BALL, "constant", source, seed=0)


def flat(size: int = 4, channels: int = 1):
    """Five constant images and the labels that a threshold of 0.55 gives them."""
    return VALUES.view(-1, 1, 1, 1).expand(-1, channels, size, size).contiguous(), (VALUES > 0.55).long()


@pytest.fixture
def two():
    return {"low": Threshold(0.55).eval(), "high": Threshold(0.7).eval()}


@pytest.fixture
def signs():
    return {"up": constant(EPS, source="low"), "down": constant(-EPS, source="high"), "zero": constant(0.0)}


def test_a_matrix_counted_by_hand(two, signs):
    # up: 0.5 passes 0.55, and 0.625 passes 0.7. down: 0.625 falls below 0.55, and 0.75 below 0.7.
    found = transfer_matrix(signs, two, flat())
    assert found.pivot().to_dict("list") == {"low": [20, 20, 0], "high": [20, 20, 0]}
    assert found.fooled["up", "low"].tolist() == [False, False, True, False, False]
    assert found.fooled["down", "high"].tolist() == [False, False, False, False, True]
    # Against the labels: low is always right, high is wrong about 0.625 alone.
    errors = found.table.set_index(["source", "victim"])[["error", "clean_error"]]
    assert errors.loc["up", "low"].tolist() == [0.2, 0]
    assert errors.loc["up", "high"].tolist() == [0, 0.2]
    assert errors.loc["down", "high"].tolist() == [0.4, 0.2]
    assert found.white_box().to_numpy().tolist() == [[True, False], [False, True], [False, False]]
    assert (found.table.n == 5).all()
    assert (found.table.resized == "").all()
    low, high = metrics.Proportion(1, 5).interval
    assert found.table.low[0] == pytest.approx(low)
    assert found.table.high[0] == pytest.approx(high)


def test_mirrored_networks_and_signs_give_a_symmetric_matrix():
    # Images symmetric about 1/2, thresholds symmetric too: what up does to one network, down does to the other.
    networks = {"low": Threshold(0.45).eval(), "high": Threshold(0.55).eval()}
    found = transfer_matrix({"up": constant(EPS), "down": constant(-EPS)}, networks, flat()).pivot().to_numpy()
    assert found[0, 0] == found[1, 1]
    assert found[0, 1] == found[1, 0]


def test_each_cell_is_what_evaluate_says(model, blobs):
    images, labels = blobs[0], blobs[1]
    delta = BALL.sample_boundary((1, 1, 12, 12), torch.Generator().manual_seed(0))
    source = UniversalPerturbation(delta.double(), BALL, "noise")
    (row,) = transfer_matrix({"noise": source}, {"blobs": model}, blobs).table.to_dict("records")
    expected = metrics.evaluate(model, images, labels, source.delta)
    assert row["fooling_rate"] == expected.fooling_rate.value
    assert row["error"] == pytest.approx(1 - expected.adversarial_accuracy.value)
    assert row["clean_error"] == pytest.approx(1 - expected.clean_accuracy.value)


def test_clip_is_passed_on():
    bright = (torch.full((3, 1, 4, 4), 0.95), torch.zeros(3).long())
    above_one = {"n": Threshold(1.01).eval()}
    rates = [
        transfer_matrix({"s": constant(EPS)}, above_one, bright, clip=clip).table.fooling_rate[0]
        for clip in (True, False)
    ]
    assert rates == [0, 1]


def test_clean_predictions_are_computed_once_per_victim(two, signs):
    transfer_matrix(signs, two, flat())
    # One image to see the number of classes, five clean ones, five for each of three sources.
    assert two["low"].images_seen == two["high"].images_seen == 1 + 5 + 15


def test_a_finished_cell_is_not_computed_again(two, signs, tmp_path):
    file = tmp_path / "cells.jsonl"
    first = transfer_matrix(signs, two, flat(), cells=file)
    content = file.read_bytes()
    two["low"].images_seen = 0
    again = transfer_matrix(signs, two, flat(), cells=file)
    assert two["low"].images_seen == 1  # how many classes it has
    assert file.read_bytes() == content
    pd.testing.assert_frame_equal(first.table, again.table)
    pd.testing.assert_frame_equal(first.table, transfer.load(file).table)


@pytest.mark.parametrize("kept", [0, 1, 2.5, 5])
def test_after_a_kill_the_file_becomes_the_same_bytes(two, signs, tmp_path, kept):
    whole, cut = tmp_path / "whole.jsonl", tmp_path / "cut.jsonl"
    transfer_matrix(signs, two, flat(), cells=whole)
    lines = whole.read_bytes().splitlines(keepends=True)
    torn = lines[int(kept)][:40] if kept % 1 else b""
    cut.write_bytes(b"".join(lines[: int(kept)]) + torn)
    transfer_matrix(signs, two, flat(), cells=cut)
    assert cut.read_bytes() == whole.read_bytes()


def test_a_run_that_stops_between_cells_goes_on_and_gives_the_same_bytes(two, signs, tmp_path, monkeypatch):
    whole, cut = tmp_path / "whole.jsonl", tmp_path / "cut.jsonl"
    expected = transfer_matrix(signs, two, flat(), cells=whole)
    measure, calls = transfer.Victim.measure, []

    def stops(victim, source):
        calls.append(source)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return measure(victim, source)

    monkeypatch.setattr(transfer.Victim, "measure", stops)
    with pytest.raises(KeyboardInterrupt):
        transfer_matrix(signs, two, flat(), cells=cut)
    assert len(cut.read_bytes().splitlines()) == 4
    pd.testing.assert_frame_equal(transfer_matrix(signs, two, flat(), cells=cut).table, expected.table)
    assert len(calls) == 5 + 2
    assert cut.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("change", ["perturbation", "weights", "images", "labels", "clip", "ball", "autocast"])
def test_a_cell_counts_only_for_what_it_was_computed_from(tmp_path, change):
    file, (images, labels), delta, threshold, options, ball = tmp_path / "c.jsonl", flat(), EPS, 0.55, {}, BALL

    def run():
        source = UniversalPerturbation(torch.full((1, 1, 4, 4), delta), ball, "constant")
        return transfer_matrix(
            {"s": source}, {"v": Threshold(threshold).eval()}, (images, labels), cells=file, **options
        )

    run()
    if change == "perturbation":
        delta = -EPS
    elif change == "weights":
        threshold = 0.6
    elif change == "images":
        images = images.flip(0)
    elif change == "labels":
        labels = 1 - labels
    elif change == "clip":
        options = {"clip": False}
    elif change == "ball":
        ball = NormBall(math.inf, 2 * EPS)
    with torch.autocast("cpu", enabled=change == "autocast"):
        run()
        run()
    assert len(file.read_bytes().splitlines()) == 2


def test_another_name_for_the_same_perturbation_costs_nothing_and_is_used(two, tmp_path):
    file = tmp_path / "cells.jsonl"
    transfer_matrix({"old": constant(EPS)}, two, flat(), cells=file)
    seen = two["low"].images_seen
    found = transfer_matrix({"new": constant(EPS, source="low")}, two, flat(), cells=file)
    assert two["low"].images_seen == seen + 1  # how many classes it has
    assert found.table.source.tolist() == ["new", "new"]
    assert found.table.white_box.tolist() == [True, False]
    assert len(file.read_bytes().splitlines()) == 4


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize(("size", "classes"), [(4, 2), (6, 2), (9, 1000)])
def test_a_victim_of_another_size_or_number_of_classes(size, classes, fit):
    pattern = BALL.sample_boundary((1, 1, 4, 4), torch.Generator().manual_seed(0))
    source = UniversalPerturbation(pattern, BALL, "noise")
    seen = []

    class Spy(Threshold):
        def forward(self, images):
            seen.append(images)
            return super().forward(images)

    grey = torch.full((3, 1, size, size), 0.5), torch.zeros(3).long()
    found = transfer_matrix({"s": source}, {"v": Spy(0.7, classes).eval()}, grey, fit=fit)
    assert found.table.resized[0] == {4: "", 6: f"4x4, {MODES[fit]}", 9: f"4x4, {MODES[fit]}"}[size]
    added = seen[1] - 0.5  # after one image that tells the number of classes
    assert added.shape[-1] == size
    assert added.abs().max() <= EPS * (1 + 1e-5)
    assert added.abs().max() > 0.3 * EPS
    expected = source.fitted(torch.empty(1, 1, size, size), fit).delta
    torch.testing.assert_close(added, expected.expand_as(added))


def test_images_can_come_from_a_function_of_the_victims_name(two):
    sizes = {"low": 4, "high": 6}
    found = transfer_matrix({"s": constant(EPS)}, two, lambda name: flat(sizes[name]))
    assert found.table.resized.tolist() == ["", "4x4, tiled"]
    assert found.pivot().to_numpy().tolist() == [[20, 20]]


def test_registered_victims_are_loaded_by_name(clothes, monkeypatch):
    loaded = []
    load = transfer.models.load
    monkeypatch.setattr(transfer.models, "load", lambda name, device: loaded.append(name) or load(name, device))
    few = clothes[0][:20], clothes[1][:20]
    found = transfer_matrix({"zero": constant(0.0, 28)}, ["vgg-f-mini", "resnet-mini"], few)
    assert loaded == ["vgg-f-mini", "resnet-mini"]
    assert found.table.fooling_rate.tolist() == [0, 0]


@pytest.mark.parametrize(
    ("sources", "victims", "error", "message"),
    [
        ({}, {"v": Threshold(0.5).eval()}, ValueError, "at least one source"),
        ({"s": constant(EPS)}, {}, ValueError, "at least one source and one victim"),
        ({"s": torch.zeros(1, 1, 4, 4)}, {"v": Threshold(0.5).eval()}, TypeError, "'s' is a Tensor"),
        ({"s": constant(EPS, channels=3)}, {"v": Threshold(0.5).eval()}, ValueError, "3 channels.*images of 1"),
        ({"s": constant(EPS)}, {"v": Threshold(0.5)}, ValueError, "training mode"),
        ({"s": constant(EPS)}, {"v": nn.Conv2d(1, 2, 1).eval()}, ValueError, "must be a classifier"),
        ({"s": constant(EPS)}, ["resnet-minni"], ValueError, "resnet-mini"),
    ],
)  # fmt: skip
def test_what_is_refused(sources, victims, error, message):
    with pytest.raises(error, match=message):
        transfer_matrix(sources, victims, flat())


@pytest.mark.parametrize("value", [math.nan, math.inf, 2 * EPS])
def test_a_perturbation_that_was_spoilt_after_it_was_made(two, value):
    spoilt = constant(EPS)
    spoilt.delta[0, 0, 0, 0] = value
    with pytest.raises(ValueError, match="NaN|budget"):
        transfer_matrix({"s": spoilt}, two, flat())
    assert two["low"].images_seen == 0


def test_a_wrong_number_of_labels_or_classes(two):
    with pytest.raises(ValueError, match="labels"):
        transfer_matrix({"s": constant(EPS)}, two, (flat()[0], torch.zeros(4).long()))
    with pytest.raises(ValueError, match="labels"):
        transfer_matrix({"s": constant(EPS)}, two, (flat()[0], torch.full((5,), 2)))


def test_foreign_cells(two, tmp_path):
    file = tmp_path / "cells.jsonl"
    for content, why in [("{}\n", "line 1, is no record"), ('{"key": "a", "victim": "v"}\n', "a has no source, task")]:
        file.write_text(content)
        with pytest.raises(ValueError, match=why):
            transfer_matrix({"s": constant(EPS)}, two, flat(), cells=file)
        with pytest.raises(ValueError, match=why):
            transfer.load(file)
        assert file.read_text() == content
        assert two["low"].images_seen == 0
    with pytest.raises(FileNotFoundError, match="no cells"):
        transfer.load(tmp_path / "nothing.jsonl")


@pytest.fixture
def matrix():
    """Three sources on two victims of 40 images; the masks are given."""
    masks = {("a", "x"): 30, ("a", "y"): 10, ("b_1", "x"): 20, ("b_1", "y"): 32, ("n", "x"): 4, ("n", "y"): 4}
    crafted_on = {"a": "x", "b_1": "y", "n": ""}
    rows = [
        {
            "source": source, "crafted_on": crafted_on[source], "method": "m", "seed": 0, "victim": victim,
            "white_box": crafted_on[source] == victim, "fooling_rate": count / 40, "low": 0.0, "high": 1.0,
            "error": count / 40, "clean_error": 0.0, "n": 40, "resized": "",
        }
        for (source, victim), count in masks.items()
    ]  # fmt: skip
    return transfer.TransferMatrix(pd.DataFrame(rows), {pair: np.arange(40) < count for pair, count in masks.items()})


def test_summary(matrix):
    found = matrix.summary()
    assert found["white-box mean"] == pytest.approx((75 + 80) / 2)
    assert found["black-box mean"] == pytest.approx((25 + 50) / 2)
    assert found["best source"] == "b_1"
    assert found["most robust victim"] == "y"


def test_summary_of_noise_alone(matrix):
    found = matrix.select(matrix.table.source == "n").summary()
    assert math.isnan(found["white-box mean"])
    assert found["best source"] is None


def test_a_selection_keeps_its_images(matrix):
    chosen = matrix.select(matrix.table.victim == "y")
    assert chosen.table.victim.unique().tolist() == ["y"]
    assert set(chosen.fooled) == {("a", "y"), ("b_1", "y"), ("n", "y")}
    assert list(chosen.table.index) == [0, 1, 2]
    assert list(chosen.table.columns) == list(matrix.table.columns)


def test_a_matrix_is_arranged_in_the_order_that_is_asked_for(matrix):
    found = matrix.arranged(["n", "a"], ["y", "x"])
    expected = matrix.table.iloc[[5, 1, 4, 0]].reset_index(drop=True)  # n and a on y, then on x
    pd.testing.assert_frame_equal(found.table, expected)
    assert found.pivot().to_dict("list") == {"y": [10, 25], "x": [10, 75]}
    assert {pair: mask.sum() for pair, mask in found.fooled.items()} == {
        ("n", "y"): 4, ("a", "y"): 10, ("n", "x"): 4, ("a", "x"): 30
    }  # fmt: skip
    with pytest.raises(KeyError):
        matrix.arranged(["z"], ["x"])


def test_joined_matrices_have_the_cells_of_both(matrix):
    upper, lower = (matrix.select(matrix.table.source.isin(names)) for names in (["a"], ["b_1", "n"]))
    found = upper.joined(lower).arranged(["a", "b_1", "n"], ["x", "y"])
    expected = matrix.arranged(["a", "b_1", "n"], ["x", "y"])
    pd.testing.assert_frame_equal(found.table, expected.table)
    assert found.fooled.keys() == expected.fooled.keys()


@pytest.mark.parametrize(
    ("source", "crafted_on", "white"),
    [("mine", "x", ["x"]), ("mine", "x+y", ["x", "y"]), ("mine", "", []), ("mine", "GoogLeNet", []),
     ("published:uap-GoogLeNet", "GoogLeNet", ["googlenet-caffe"]), ("published:uap-VGG-16", "VGG-16", []),
     ("published:gd-uap-none-GoogLeNet", "GoogLeNet", [])],  # on torchvision's, which has other weights
)  # fmt: skip
def test_whoever_was_crafted_on_a_victim_is_in_a_white_box(source, crafted_on, white):
    """The networks of an ensemble, and of the releases that one which is at hand by another name."""
    networks = {name: Threshold(0.55).eval() for name in ("x", "y", "googlenet-caffe")}
    found = transfer_matrix({source: constant(EPS, source=crafted_on)}, networks, flat())
    assert found.table.victim[found.table.white_box].tolist() == white


def test_mcnemar_and_the_difference(matrix):
    found = matrix.compare("a", "n", "x")
    assert (found.only_first, found.only_second) == (26, 0)
    assert found.difference.value == pytest.approx(0.65)
    assert found.p_value == pytest.approx(2 * 0.5**26)  # all discordant images on one side
    low, high = found.difference.interval
    assert 0.45 < low < 0.65 < high < 0.85
    same = matrix.compare("n", "n", "x")
    assert (same.p_value, same.difference.value) == (1.0, 0.0)
    mixed = transfer.TransferMatrix(
        matrix.table, {("p", "v"): np.array([1, 1, 1, 0, 0], bool), ("q", "v"): np.array([0, 0, 0, 1, 0], bool)}
    ).compare("p", "q", "v")
    assert mixed.p_value == pytest.approx(2 * (1 + 4) / 2**4)  # 3 of 4, two-sided
    with pytest.raises(KeyError):
        matrix.compare("a", "z", "x")


def test_csv_and_latex(matrix, tmp_path):
    matrix.to_csv(tmp_path / "m.csv")
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "m.csv", keep_default_na=False), matrix.table)
    latex = matrix.to_latex()
    rows = [line.strip() for line in latex.splitlines()]
    assert rows[rows.index(r"\toprule") + 1] == r"& x & y \\"
    assert r"\midrule" in rows
    assert r"\bottomrule" in rows
    assert r"a & \textbf{75.00} & 25.00 \\" in rows
    assert r"b\_1 & 50.00 & \textbf{80.00} \\" in rows
    assert r"n & 10.00 & 10.00 \\" in rows
    renamed = transfer.TransferMatrix(matrix.table.replace({"victim": {"y": "y_1"}}), {})
    assert r"& x & y\_1 \\" in renamed.to_latex()


def test_the_plot_has_every_number_and_frames_white_boxes(matrix):
    figure, axis = plt.subplots()
    matrix.plot(axis)
    assert [text.get_text() for text in axis.texts] == ["75", "25", "50", "80", "10", "10"]
    assert [patch.get_xy() for patch in axis.patches] == [(-0.5, -0.5), (0.5, 0.5)]
    assert axis.images[0].get_clim() == (0, 100)  # so that two matrices can be compared by their colours
    buffer = io.BytesIO()
    figure.savefig(buffer)
    plt.close(figure)


def test_a_cell_is_its_names_and_what_evaluate_counts(two, signs, tmp_path):
    file = tmp_path / "cells.jsonl"
    transfer_matrix(signs, two, flat(), cells=file)
    record = json.loads(file.read_text().splitlines()[0])
    expected = metrics.evaluate(two["low"], *flat(), signs["up"].delta)
    assert record == {
        "key": transfer.Victim(two["low"], *flat()).key(signs["up"]), "source": "up", "crafted_on": "low",
        "method": "constant", "seed": 0, "victim": "low", "task": "label", "resized": None,
        "counts": expected.counts(),
    }  # fmt: skip


@pytest.mark.parametrize("victims", ["resnet-mini", ["resnet-mini"], ("resnet-mini",), iter(["resnet-mini"])])
def test_one_victim_may_be_named_alone(clothes, victims):
    few = clothes.images[:5], clothes.labels[:5]
    found = transfer_matrix({"noise": constant(EPS, 28)}, victims, few)
    assert found.table.victim.tolist() == ["resnet-mini"]


@pytest.mark.parametrize("empty", [b"\n", b"\n\n\n", b"  \n"])
def test_empty_lines_in_a_file_of_cells_count_for_nothing(two, signs, tmp_path, empty):
    path = tmp_path / "cells.jsonl"
    transfer_matrix(signs, {"low": two["low"]}, flat(), cells=path)
    path.write_bytes(empty + path.read_bytes() + empty)
    seen = two["low"].images_seen
    found = transfer_matrix(signs, two, flat(), cells=path)
    assert two["low"].images_seen == seen + 1  # the one that it is asked about
    assert len(transfer.load(path).table) == len(found.table) == 6


def test_victims_that_cannot_be_measured_are_left_out_with_their_reason(two, signs):
    two["broken"] = nn.Linear(3, 2).eval()
    with pytest.warns(UserWarning, match=r"broken is left out: the model cannot take images of shape \(1, 1, 4, 4\)"):
        found = transfer_matrix(signs, two, flat())
    assert found.table.victim.unique().tolist() == ["low", "high"]
    assert found.left_out.keys() == {"broken"}
    assert "cannot take images" in found.left_out["broken"]


def test_without_any_victim_left_the_first_reason_is_raised(signs):
    broken = {"a": nn.Linear(3, 2).eval(), "b": nn.Linear(5, 2).eval()}
    with pytest.raises(ValueError, match="the model cannot take images"):
        transfer_matrix(signs, broken, flat())


def test_an_unknown_victim_is_refused_before_anything_is_measured(signs):
    with pytest.raises(ValueError, match="victims='resnet-minni' is unknown. Did you mean 'resnet-mini'"):
        transfer_matrix(signs, ["resnet-mini", "resnet-minni"], lambda name: pytest.fail("images were loaded"))


def test_on_a_full_disk_the_table_is_computed_and_the_file_stays_readable(two, signs, tmp_path, monkeypatch):
    path = tmp_path / "cells.jsonl"
    transfer_matrix(signs, {"low": two["low"]}, flat(), cells=path)
    before = path.read_bytes()

    def full(file, content, write=os.write):
        return write(file, content[:20])

    monkeypatch.setattr(journal.os, "write", full)
    with pytest.warns(UserWarning, match="a record is not kept in .*: No space left on device"):
        found = transfer_matrix(signs, two, flat(), cells=path)
    assert len(found.table) == 6
    assert path.read_bytes() == before


def test_the_last_run_has_the_last_word_about_a_pair(two, signs, tmp_path):
    path, (images, labels) = tmp_path / "cells.jsonl", flat()
    for count in (5, 3, 5):
        transfer_matrix(signs, two, (images[:count], labels[:count]), cells=path)
        assert set(transfer.load(path).table.n) == {count}
    before = path.read_bytes()
    transfer_matrix(signs, two, (images, labels), cells=path)
    assert path.read_bytes() == before


def test_two_names_of_one_perturbation_are_both_kept(two, tmp_path):
    file, twins = tmp_path / "cells.jsonl", {"one": constant(EPS), "other": constant(EPS)}
    transfer_matrix(twins, two, flat(), cells=file)
    before = file.read_bytes()
    assert transfer.load(file).pivot().to_numpy().tolist() == [[20, 20], [20, 20]]
    transfer_matrix(twins, two, flat(), cells=file)
    assert file.read_bytes() == before


def test_height_and_width_keep_their_places():
    """A perturbation of rows, for images that are wide: only a network that looks at the upper row is fooled."""

    class Upper(Threshold):
        def forward(self, images):
            return super().forward(images[..., : images.shape[-2] // 2, :])

    rows = torch.full((1, 1, 4, 2), EPS)
    rows[..., 2:, :] = -EPS
    source = UniversalPerturbation(rows, BALL, "rows")
    wide = torch.full((2, 1, 8, 24), 0.5), torch.tensor([0, 1])
    victims = {"upper": Upper(0.55).eval(), "all": Threshold(0.55).eval()}
    found = transfer_matrix({"rows": source}, victims, wide, fit="resized")
    assert found.table.fooling_rate.tolist() == [1, 0]
    assert found.table.resized.tolist() == ["4x2, bilinear", "4x2, bilinear"]
    assert found.table.error.tolist() == [0.5, 0.5]


def test_more_images_than_are_on_the_device_at_a_time(monkeypatch):
    monkeypatch.setattr(transfer, "CHUNK", 3)
    victim, batches = Threshold(0.55).eval(), []
    victim.register_forward_pre_hook(lambda _, given: batches.append(len(given[0])))
    found = transfer_matrix({"up": constant(EPS)}, {"v": victim}, flat(), batch_size=2)
    assert found.fooled["up", "v"].tolist() == [False, False, True, False, False]
    assert batches == [1] + 2 * [2, 1, 2]


@pytest.fixture
def parts():
    return {
        "delta_sha256": "d", "shape": (1, 3, 4, 4), "ball": NormBall(math.inf, 0.125), "weights_sha256": "w",
        "images_sha256": "i", "truth_sha256": "t", "clip": True, "autocast": None,
    }  # fmt: skip


def test_the_key_of_a_cell_is_that_of_all_its_parts(parts):
    written = parts | {"shape": [1, 3, 4, 4], "ball": ["inf", "0.125"]}
    assert transfer.cell_key(**parts) == provenance.key(**written)
    assert transfer.cell_key(**parts) == "987c4f10791eabb94c556ee22320042f"
    others = {
        "delta_sha256": "e", "shape": (1, 3, 4, 5), "weights_sha256": "v", "images_sha256": "j", "truth_sha256": "u",
        "clip": False, "autocast": "torch.bfloat16", "fit": "tiled",
    }  # fmt: skip
    assert transfer.cell_key(**parts, fit=None) == transfer.cell_key(**parts)
    changed = [parts | {name: value} for name, value in others.items()]
    changed += [parts | {"ball": ball} for ball in (NormBall(2, 0.125), NormBall(math.inf, 0.25))]
    assert len({transfer.cell_key(**each) for each in [parts, *changed, parts | {"fit": "resized"}]}) == 12


def test_a_victims_key_names_every_part(two):
    images, labels = flat()
    source = constant(EPS)
    expected = transfer.cell_key(
        delta_sha256=provenance.sha256_of(source.delta), shape=(1, 1, 4, 4), ball=BALL,
        weights_sha256=provenance.weights_sha256(two["low"]), images_sha256=provenance.sha256_of(images),
        truth_sha256=provenance.sha256_of(labels), clip=False, autocast=None,
    )  # fmt: skip
    assert transfer.Victim(two["low"], images, labels, clip=False).key(source) == expected
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert transfer.Victim(two["low"], images, labels, clip=False).key(source) != expected


def test_the_way_to_another_size_is_part_of_a_key_only_where_sizes_differ(two):
    same, other = flat(), flat(6)
    source = constant(EPS)
    keys = {fit: [transfer.Victim(two["low"], *each, fit=fit).key(source) for each in (same, other)] for fit in FITS}
    assert keys["tiled"][0] == keys["resized"][0]
    assert keys["tiled"][1] != keys["resized"][1]
    assert transfer.Victim(two["low"], *other).key(source) == keys["tiled"][1]
    with pytest.raises(ValueError, match="fit='tiles' is unknown. Did you mean 'tiled'"):
        transfer.Victim(two["low"], *same, fit="tiles")
    with pytest.raises(ValueError, match="fit='tiles' is unknown"):
        transfer_matrix({"s": source}, two, same, fit="tiles")


def test_both_ways_to_another_size_are_kept_in_one_file(two, tmp_path):
    pattern = UniversalPerturbation(BALL.sample_boundary((1, 1, 4, 4), torch.Generator().manual_seed(0)), BALL, "noise")
    file = tmp_path / "cells.jsonl"
    for fit in (*FITS, *FITS):
        transfer_matrix({"s": pattern}, two, flat(6), fit=fit, cells=file)
    assert len(journal.Journal(file).records) == 4


class Red(nn.Module):
    """Says a map: one channel of depth, or as many logits as classes."""

    def __init__(self, channels):
        super().__init__()
        self.channels = channels

    def forward(self, images):
        return torch.cat([0.2 + images[:, :1], *[0.7 + 0 * images[:, :1]] * (self.channels - 1)], 1)


@pytest.mark.parametrize(("task", "channels"), [("classes", 2), ("depth", 1)])
@pytest.mark.parametrize("clip", [True, False])
def test_victims_of_other_tasks(task, channels, clip):
    images = torch.rand(3, 3, 4, 6, generator=torch.Generator().manual_seed(0))
    truth = (images[:, 1] > 0.5).long() if task == "classes" else 1 + images[:, 1]
    source = UniversalPerturbation(BALL.sample_boundary((1, 3, 2, 3), torch.Generator().manual_seed(1)), BALL, "noise")
    victim = transfer.Victim(Red(channels).eval(), images, truth, clip, batch_size=2, task=task)
    row = TASKS[task]
    expected = row.evaluate(Red(channels).eval(), images, truth, source.tiled(4, 6).delta, clip=clip)
    found = row.read(victim.measure(source))
    assert found == expected
    assert found.gfr.value > 0


def test_an_unknown_task_or_a_truth_that_does_not_fit(two):
    with pytest.raises(ValueError, match="task='labels' is unknown. Did you mean 'label'"):
        transfer.Victim(two["low"], *flat(), task="labels")
    with pytest.raises(ValueError, match="the model must be a segmenter"):
        transfer.Victim(two["low"], *flat(), task="classes")


def test_cells_of_other_tasks_are_no_rows(two, signs, tmp_path):
    file = tmp_path / "cells.jsonl"
    matrix = transfer_matrix(signs, two, flat(), cells=file)
    victim = transfer.Victim(Red(1).eval(), flat()[0], 1 + flat()[0][:, 0], task="depth")
    names = {"source": "up", "victim": "red", "task": "depth"}
    journal.Journal(file).add(victim.key(signs["up"]), names | {"counts": victim.measure(signs["up"])})
    pd.testing.assert_frame_equal(transfer.load(file).table, matrix.table)


def test_networks_of_the_same_weights_are_measured_one_by_one(tmp_path):
    class Dim(Threshold):
        def forward(self, images):
            return super().forward(images / 2)

    networks = {"plain": Threshold(0.55).eval(), "dim": Dim(0.55).eval()}
    file = tmp_path / "cells.jsonl"
    for _ in range(2):
        found = transfer_matrix({"up": constant(EPS)}, networks, flat(), cells=file)
        assert found.pivot().to_numpy().tolist() == [[20, 0]]
        assert len(file.read_bytes().splitlines()) == 2


def test_a_file_that_cannot_be_written_is_refused_before_anything_is_measured(two, signs, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="cannot be written"):
        transfer_matrix(signs, two, flat(), cells=tmp_path / "file" / "cells.jsonl")
    assert two["low"].images_seen == 0


class Moved(Threshold):
    """A network that says where it was sent."""

    to_device = None

    def to(self, device):
        self.to_device = device
        return self


@pytest.mark.parametrize("device", [None, "cpu"])
def test_your_own_networks_go_to_the_device_that_is_named_and_stay_where_none_is(device):
    network = Moved(0.55).eval()
    transfer_matrix({"up": constant(EPS)}, {"v": network}, flat(), device=device)
    assert network.to_device == device


def test_the_bar_counts_cells_and_is_not_shown_unless_asked_for(two, signs, capsys):
    transfer_matrix(signs, two, flat())
    assert capsys.readouterr().err == ""
    transfer_matrix(signs, two, flat(), progress=True)
    shown = capsys.readouterr().err
    assert "transfer: 100%" in shown
    assert "6/6" in shown
    assert "zero on high" in shown


def test_the_type_of_autocast_is_told_by_its_name(two):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert transfer.Victim(two["low"], *flat()).identity["autocast"] == "torch.bfloat16"
    assert transfer.Victim(two["low"], *flat()).identity["autocast"] is None
