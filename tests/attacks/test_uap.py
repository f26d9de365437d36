import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tests.attacks.test_deepfool import Wavy
from uaplib import metrics
from uaplib.attacks import batched_uap, runs, uap
from uaplib.attacks._deepfool import LinearStep
from uaplib.attacks._uap import Run
from uaplib.balls import NormBall
from uaplib.perturbation import noise

BALL = NormBall(2, 1.0)


@pytest.fixture
def images(blobs):
    return blobs[0][::2]


def test_it_fools_more_than_noise_of_the_same_budget(model, images):
    found = uap(model, images, BALL, max_passes=3, target_rate=1.0)
    clean = metrics.predict(model, images)
    rate, baseline = (
        metrics.fooling_rate(clean, metrics.predict(model, images, delta)).value
        for delta in (found.delta, noise(BALL, (1, 12, 12)).delta)
    )
    assert rate > 2 * baseline
    assert rate > 0.4


@given(p=st.sampled_from([2, math.inf]), share=st.floats(0.01, 1), seed=st.integers(0, 99), clip=st.booleans())
@settings(max_examples=12)
def test_the_budget_is_kept_and_the_history_complete(trained, blobs, p, share, seed, clip):
    ball = NormBall(p, share if p == 2 else 0.1 * share)
    found = uap(trained, blobs[0][:20], ball, seed=seed, clip=clip, max_passes=2, target_rate=1.0)
    assert ball.contains(found.delta, tolerance=1e-12)
    assert [entry["pass"] for entry in found.history] == list(range(len(found.history)))
    assert found.history[0]["crafting_fooling_rate"] == 0
    assert found.history[0]["accepted"] == found.history[0]["l2_norm"] == 0
    assert found.history[-1]["l2_norm"] == pytest.approx(found.delta.norm().item())
    assert found.history[-1].get("saturation") == found.saturation  # of an l2 ball there is none


@pytest.mark.parametrize("p", [2, math.inf])
def test_the_budget_is_kept_after_every_single_step(model, images, p, monkeypatch):
    ball = NormBall(p, 0.3 if p == 2 else 0.03)
    deltas, visit = [], Run.visit

    def recording(run, block):
        visited = visit(run, block)
        deltas.append(run.v)
        return visited

    monkeypatch.setattr(Run, "visit", recording)
    uap(model, images, ball, max_passes=2, target_rate=1.0)
    assert len(deltas) > 20
    assert ball.contains(torch.cat(deltas), tolerance=1e-12).all()


def test_the_history_measures_what_evaluate_measures(model, blobs):
    images, labels = blobs[0][::2], blobs[1][::2]
    held_out = blobs[0][1::2], blobs[1][1::2]
    found = uap(model, images, BALL, labels=labels, held_out=held_out, max_passes=2, target_rate=1.0)
    for name, data in {"crafting": (images, labels), "held_out": held_out}.items():
        measured = metrics.evaluate(model, *data, found.delta)
        assert found.history[-1][f"{name}_fooling_rate"] == measured.fooling_rate.value
        assert found.history[-1][f"{name}_accuracy"] == measured.adversarial_accuracy.value
        assert found.history[0][f"{name}_accuracy"] == measured.clean_accuracy.value


def test_labels_and_held_out_images_only_feed_the_history(model, blobs):
    images, labels = blobs[0][::2], blobs[1][::2]
    plain = uap(model, images, BALL, max_passes=2)
    measured = uap(model, images, BALL, labels=labels, held_out=(blobs[0][1::2], blobs[1][1::2]), max_passes=2)
    assert torch.equal(plain.delta, measured.delta)


def test_it_stops_at_the_target_rate(model, images):
    found = uap(model, images, BALL, target_rate=0.1, max_passes=10)
    rates = [entry["crafting_fooling_rate"] for entry in found.history]
    assert len(rates) < 11
    assert rates[-1] >= 0.1
    assert all(rate < 0.1 for rate in rates[:-1])


def test_a_target_rate_that_is_just_reached_is_reached(model, images):
    reached = uap(model, images, BALL, target_rate=1.0, max_passes=1).history[1]["crafting_fooling_rate"]
    assert len(uap(model, images, BALL, target_rate=reached, max_passes=3).history) == 2


@pytest.mark.parametrize("clip", [True, False])
def test_what_is_clipped_is_all_that_the_network_sees_and_is_measured(model, blobs, clip, monkeypatch):
    images, labels = ((blobs[0] - 0.5) * 2).clamp(-0.5, 0.5)[::2] + 0.5, blobs[1][::2]
    seen, perturbed = [], Run.perturbed

    def recording(run, some):
        seen.append(perturbed(run, some))
        return seen[-1]

    monkeypatch.setattr(Run, "perturbed", recording)
    found = uap(model, images, BALL, max_passes=1, target_rate=1.0, clip=clip)
    outside = [side.any().item() for side in (torch.cat(seen) < 0, torch.cat(seen) > 1)]
    assert outside == [not clip, not clip]
    rates = {c: metrics.evaluate(model, images, labels, found.delta, clip=c).fooling_rate.value for c in (True, False)}
    assert rates[True] != rates[False]
    assert found.history[-1]["crafting_fooling_rate"] == rates[clip]


def test_steps_that_lead_nowhere_are_no_missing_gradient(images, recwarn):
    found = uap(Wavy().eval(), images[:4], BALL, max_passes=2)
    assert [entry["accepted"] for entry in found.history] == [0, 0, 0]
    assert [warning for warning in recwarn if "gradient is exactly zero" in str(warning.message)] == []


def test_the_perturbation_of_half_precision_images_is_in_single_precision(model, images):
    found = uap(model.bfloat16(), images[:4].bfloat16(), BALL, max_passes=1)
    assert found.delta.dtype == torch.float32


def test_the_constants_of_the_authors_are_the_defaults(model, images):
    expected = {"target_rate": 0.8, "max_passes": 10, "num_classes": 10, "overshoot": 0.02, "max_iterations": 10}
    assert expected.items() <= uap(model, images[:3], BALL).parameters.items()


def test_it_stops_after_max_passes(model, images):
    assert len(uap(model, images, NormBall(2, 0.1), target_rate=1.0, max_passes=2).history) == 3


def test_the_seed_chooses_the_order(model, images):
    first, again, other = (uap(model, images, BALL, seed=seed, max_passes=1).delta for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_steps_that_took_too_many_iterations_are_not_kept(model, images):
    # Without overshoot DeepFool crawls up to the boundary and never crosses it within three iterations.
    found = uap(model, images, BALL, overshoot=0.0, max_iterations=3, max_passes=1)
    full = uap(model, images, BALL, overshoot=0.0, max_iterations=50, max_passes=1)
    assert found.history[1]["accepted"] < full.history[1]["accepted"]


def test_an_empty_budget_gives_the_zero_perturbation(model, images):
    found = uap(model, images, NormBall(2, 0), max_passes=1)
    assert (found.delta == 0).all()
    assert found.history[-1]["crafting_fooling_rate"] == 0


def test_clipping_is_the_default_and_is_recorded(model, images):
    edges = ((images - 0.5) * 2).clamp(-0.5, 0.5) + 0.5
    clipped, free = (uap(model, edges, BALL, max_passes=1, **{"clip": c}) for c in (True, False))
    assert torch.equal(uap(model, edges, BALL, max_passes=1).delta, clipped.delta)
    assert (clipped.parameters["clip"], free.parameters["clip"]) == (True, False)
    assert not torch.equal(clipped.delta, free.delta)


def test_the_record_says_what_was_run(model, images):
    found = uap(model, images, BALL, seed=7, max_passes=1, source="some-model")
    assert (found.method, found.source, found.seed, found.ball) == ("uap", "some-model", 7, BALL)
    assert found.parameters["images"] == len(images)
    assert len(found.source_sha256) == len(found.parameters["images_sha256"]) == 64
    assert {"seconds", "device", "commit"} <= found.run.keys()


@pytest.mark.parametrize(
    "bad",
    [{"target_rate": 0}, {"target_rate": 1.1}, {"target_rate": math.nan}, {"max_passes": 0}, {"max_iterations": 2},
     {"num_classes": 1}, {"overshoot": -0.1}, {"overshoot": math.nan}],
    ids=str,
)  # fmt: skip
def test_bad_numbers_are_named(model, images, bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        uap(model, images, BALL, **bad)


def test_held_out_images_out_of_range_are_refused(model, images):
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
        uap(model, images, BALL, held_out=(images * 255, torch.zeros(len(images), dtype=torch.int64)))


class Interrupt:
    """Raises KeyboardInterrupt at the given call of a method, and lets all other calls through."""

    def __init__(self, monkeypatch, method, call):
        owner = Run if hasattr(Run, method) else runs._Crafting
        self.original, self.left = getattr(owner, method), call

        def wrapper(run, *arguments):
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt
            return self.original(run, *arguments)

        monkeypatch.setattr(owner, method, wrapper)


@pytest.mark.parametrize(
    ("method", "call"),
    [("visit", 1), ("visit", 2), ("visit", 40), ("measure", 2), ("measure", 3), ("save", 1), ("save", 2),
     ("step", 1), ("step", 15), ("permutation", 2), ("copy", 9)],
)  # fmt: skip
def test_an_interrupted_run_goes_on_bit_for_bit(model, blobs, tmp_path, monkeypatch, method, call):
    images, labels, ball = blobs[0][:40], blobs[1][:40], NormBall(2, 0.3)
    arguments = {"labels": labels, "max_passes": 2, "target_rate": 1.0, "held_out": (blobs[0][40:], blobs[1][40:])}
    expected = uap(model, images, ball, **arguments)
    path = tmp_path / "checkpoint"
    with monkeypatch.context() as patch:
        interrupt = Interrupt(patch, method, call)
        with pytest.raises(KeyboardInterrupt):
            uap(model, images, ball, **arguments, checkpoint=path)
        assert interrupt.left <= 0
    assert path.exists()
    resumed = uap(model, images, ball, **arguments, checkpoint=path)
    assert torch.equal(resumed.delta, expected.delta)
    assert resumed.history == expected.history


def test_interrupted_again_and_again_it_still_ends_with_the_same_bits(model, blobs, tmp_path, monkeypatch):
    images = blobs[0][:40]
    expected = uap(model, images, BALL, max_passes=2, target_rate=1.0)
    for _ in range(200):
        with monkeypatch.context() as patch:
            Interrupt(patch, "visit", 7)
            try:
                resumed = uap(model, images, BALL, max_passes=2, target_rate=1.0, checkpoint=tmp_path / "c")
                break
            except KeyboardInterrupt:
                continue
    assert torch.equal(resumed.delta, expected.delta)
    assert resumed.history == expected.history


def test_resuming_a_finished_run_returns_it(model, images, tmp_path):
    first = uap(model, images, BALL, max_passes=2, checkpoint=tmp_path / "c")
    again = uap(model, images, BALL, max_passes=2, checkpoint=tmp_path / "c")
    assert torch.equal(first.delta, again.delta)
    assert first.history == again.history


@pytest.mark.parametrize(
    "change",
    [{"seed": 1}, {"ball": NormBall(2, 2)}, {"max_passes": 3}, {"clip": False}, {"num_classes": 3}, {"held_out": True}],
    ids=str,
)
def test_the_checkpoint_of_another_run_is_refused(model, blobs, tmp_path, change):
    images = blobs[0][:10]
    arguments = {"ball": BALL, "max_passes": 1, "checkpoint": tmp_path / "c"}
    uap(model, images, **arguments)
    if "held_out" in change:
        change = {"held_out": (images, blobs[1][:10])}
    with pytest.raises(ValueError, match="belongs to a run with other arguments"):
        uap(model, images, **(arguments | change))


def test_the_checkpoint_of_another_model_or_other_images_is_refused(model, blobs, tmp_path):
    images = blobs[0][:10]
    uap(model, images, BALL, max_passes=1, checkpoint=tmp_path / "c")
    with pytest.raises(ValueError, match="belongs to a run with other arguments"):
        uap(model, blobs[0][10:20], BALL, max_passes=1, checkpoint=tmp_path / "c")
    with torch.no_grad():
        model.network[0].bias += 1e-6
    with pytest.raises(ValueError, match="belongs to a run with other arguments"):
        uap(model, images, BALL, max_passes=1, checkpoint=tmp_path / "c")


def test_other_held_out_images_belong_to_another_run_though_nothing_was_measured_on_them(model, blobs, tmp_path):
    images, path = blobs[0][:10], tmp_path / "c"
    uap(model, images, BALL, max_passes=1, held_out=blobs[0][20:30], checkpoint=path)
    for change in ({"held_out": blobs[0][30:40]}, {"held_out": blobs[0][20:30], "labels": blobs[1][:10]}, {}):
        with pytest.raises(ValueError, match="belongs to a run with other arguments"):
            uap(model, images, BALL, max_passes=1, checkpoint=path, **change)


def test_a_damaged_checkpoint_is_refused(model, images, tmp_path):
    (tmp_path / "c").write_bytes(b"half")
    with pytest.raises(ValueError, match="is no checkpoint, or a damaged one; delete it"):
        uap(model, images, BALL, max_passes=1, checkpoint=tmp_path / "c")


@pytest.mark.parametrize(("batch", "error"), [(0, ValueError), (2.5, TypeError)])
def test_a_batch_is_a_number_of_images(model, blobs, batch, error):
    with pytest.raises(error, match="batch must be"):
        batched_uap(model, blobs[0], NormBall(2, 1.0), batch=batch)


@pytest.mark.parametrize("attack", [uap, batched_uap])
def test_a_warning_about_the_network_names_the_callers_line(model, blobs, attack):
    with pytest.warns(UserWarning, match="softmax") as caught:
        attack(nn.Sequential(model, nn.Softmax(1)).eval(), blobs[0][:4], NormBall(2, 1.0), max_passes=1)
    assert __file__ in {warning.filename for warning in caught}


def test_the_steps_of_a_batch_are_summed_in_single_precision(model, blobs, monkeypatch):
    """Forty steps of 1 + 1/128 in bfloat16, where their sum would be 40.25."""
    images = blobs[0][::3].bfloat16()
    taken = torch.full_like(images, 1 + 1 / 128), torch.ones(40), torch.zeros(40), torch.ones(40)
    monkeypatch.setattr(LinearStep, "attack", lambda *_: taken)
    monkeypatch.setattr("uaplib.attacks._batched_uap.meaningful", lambda steps: torch.ones(40, dtype=torch.bool))
    found = batched_uap(model.bfloat16(), images, NormBall(2, 1e6), batch=40, max_passes=1)
    assert (found.delta == 40.3125).all()
