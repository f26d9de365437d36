"""GD-UAP and Fast Feature Fool on a tiny network."""

import copy
import math
from contextlib import nullcontext
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from uaplib import attacks, metrics, models, priors
from uaplib.attacks import GDUAPSettings, Settings, activations, fast_feature_fool, gd_uap, runs
from uaplib.balls import NormBall, linf
from uaplib.models import Normalized, dense

BALL = NormBall(math.inf, 0.1)
SHORT = {"learning_rate": 0.01, "batch_size": 3, "max_iterations": 12, "check_every": 4, "check_after": 0,
         "patience": 99, "halve_every": 7}  # fmt: skip
ATTACKS = {
    "fff": fast_feature_fool,
    "none": gd_uap,
    "range": partial(gd_uap, prior="range"),
    "data": partial(gd_uap, prior="data"),
}
every = pytest.mark.parametrize("name", ATTACKS)
image_free = pytest.mark.parametrize("name", ["fff", "none", "range"])


@pytest.fixture
def model(model):
    model.size = 12
    return model


@pytest.fixture
def craft(model, blobs):
    """Craft by the attack of this name on the tiny network, with few iterations."""

    def run(name, ball=BALL, **arguments):
        kind = Settings if name == "fff" else GDUAPSettings
        settings = kind(**(SHORT | arguments.pop("settings", {})))
        if name == "data":
            arguments = {"images": blobs[0][:20]} | arguments
        return ATTACKS[name](arguments.pop("model", model), ball, settings=settings, **arguments)

    return run


def interrupt(monkeypatch, method, call):
    """Let the given call of a method of the run, or of what drives it, raise KeyboardInterrupt."""
    owner = activations._Run if hasattr(activations._Run, method) else runs._Crafting
    original, calls = getattr(owner, method), []

    def wrapper(*arguments):
        calls.append(1)
        if len(calls) == call:
            raise KeyboardInterrupt
        return original(*arguments)

    monkeypatch.setattr(owner, method, wrapper)


def interrupt_forward(model, call):
    """Let a forward pass of the model raise KeyboardInterrupt."""
    calls = []

    def hook(*arguments):
        calls.append(1)
        if len(calls) == call:
            raise KeyboardInterrupt

    return model.network[0].register_forward_hook(hook)


@pytest.mark.parametrize("name", ["fff", "none"])
@pytest.mark.parametrize("mean", [0.5, 0.3])
def test_without_data_the_network_sees_the_normalised_perturbation_and_nothing_else(craft, model, name, mean):
    model.mean.fill_(mean)
    seen = []
    model.network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach().clone()))
    found = craft(name, settings={"learning_rate": 1e-300, "max_iterations": 1, "check_every": 1})
    steps = [batch for batch in seen if len(batch) == 1 and batch.abs().max() > 1e-9]
    assert found.delta.abs().max() > 0.09
    assert len(steps) == 1
    assert torch.allclose(steps[0], found.delta / model.std, atol=1e-12)


def test_with_data_the_network_sees_images_plus_the_perturbation(craft, model, blobs):
    images, seen = blobs[0][:3], []
    model.network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach().clone()))
    found = craft("data", images=images, settings={"learning_rate": 1e-300, "max_iterations": 1, "check_every": 1})
    (step,) = (batch for batch in seen if len(batch) == 3)
    expected = (((images + found.delta).clamp(0, 1) - model.mean) / model.std).flatten(1)
    assert torch.cdist(step.flatten(1), expected).min(1).values.max() < 1e-9
    assert torch.cdist(expected, step.flatten(1)).min(1).values.max() < 1e-9


@every
@pytest.mark.parametrize("eps", [0.002, 0.1])
@pytest.mark.parametrize("project", [True, False])
def test_the_result_keeps_its_budget(craft, name, eps, project):
    ball = NormBall(math.inf, eps)
    found = craft(name, ball, settings={"project": project, "clip": project})
    assert ball.contains(found.delta, tolerance=1e-12)
    assert found.delta.abs().max() > eps / 2
    assert not found.delta.requires_grad


@every
def test_the_loss_goes_down(craft, name):
    history = craft(name, settings={"max_iterations": 40, "halve_every": None, "saturation": 1.0}).history
    assert [entry["iteration"] for entry in history] == list(range(1, 41))
    assert history[-1]["loss"] < history[0]["loss"]
    assert history[-1]["saturation"] > history[0]["saturation"]


@every
def test_the_activations_rise_above_those_under_noise(craft, model, name):
    found = craft(name, settings={"max_iterations": 30, "halve_every": None, "saturation": 1.0})
    last = activations.features.choose(model, model.mean_image())[-1]
    crafted, noise = (
        activations.features.measure(model, model.mean_image() + delta, [last], activations.energy)
        for delta in (found.delta, BALL.sample((1, 1, 12, 12)))
    )
    assert crafted > noise


@every
def test_the_best_iterate_is_returned(craft, model, blobs, name):
    selection = blobs[0][40:]
    found = craft(name, BALL, selection=selection, settings={"max_iterations": 30, "check_every": 2, "halve_every": 3})
    clean, fooled = metrics.predict(model, selection), metrics.predict(model, selection, found.delta)
    rates = [entry["rate"] for entry in found.history if "rate" in entry]
    assert len(rates) == 15
    assert metrics.fooling_rate(clean, fooled).value == max(rates)
    assert len(set(rates)) > 1


@pytest.mark.parametrize("halve_every", [None, 3])
def test_halving_is_on_record(craft, halve_every):
    settings = {"halve_every": halve_every, "learning_rate": 0.05, "max_iterations": 30}
    halved = [entry["iteration"] for entry in craft("none", settings=settings).history if entry.get("halved")]
    assert halved == list(range(3, 31, 3)) if halve_every else halved


def test_half_of_the_iterate_goes_on(craft, monkeypatch):
    largest, step = [], activations._Run.step

    def recording(run):
        worth_keeping = step(run)
        largest.append(run.v.detach().abs().max().item() / BALL.eps)
        return worth_keeping

    monkeypatch.setattr(activations._Run, "step", recording)
    craft("none", settings={"learning_rate": 10.0, "halve_every": 3, "max_iterations": 5})
    assert largest == pytest.approx([1, 1, 0.5, 1, 1])


def test_saturation_halves_the_perturbation(craft):
    history = craft("none", settings={"halve_every": None, "learning_rate": 0.05, "max_iterations": 60}).history
    halved = [i for i, entry in enumerate(history) if entry.get("halved")]
    assert halved
    for i in halved:
        assert history[i]["saturation"] > 0.5
        assert history[i]["saturation"] == pytest.approx(history[i - 1]["saturation"], abs=1e-5)
    assert all(history[i + 1]["saturation"] < 0.5 for i in halved if i + 1 < len(history))


def test_what_is_due_together_is_measured_first_and_halved_then(craft):
    found = craft("none", settings={"learning_rate": 10.0, "check_every": 3, "halve_every": 3})
    assert [("rate" in entry, entry.get("halved", False)) for entry in found.history[2::3]] == [(True, True)] * 4
    assert (found.delta.abs() == BALL.eps).float().mean() > 0.9  # the iterate itself was kept, not half of it


def test_the_first_iterate_counts_as_saturated_only_at_the_border_of_the_ball(craft):
    history = craft("none", settings={"learning_rate": 1e-12, "max_iterations": 1, "check_every": 1}).history
    assert history[0]["saturation"] < 0.02  # uniform noise: of its pixels a tenth lie above 0.9 of the budget


def test_a_run_without_measurement_is_measured_in_the_end(craft):
    history = craft("none", settings={"check_every": 100}).history
    assert ["rate" in entry for entry in history] == [False] * 11 + [True]


def test_patience_ends_the_run(craft):
    found = craft("none", NormBall(math.inf, 1e-9), settings={"patience": 2})
    assert [entry.get("rate") for entry in found.history][3::4] == [0, 0, 0]
    assert len(found.history) == 12


@every
def test_the_seed_decides_all(craft, name):
    results = []
    for seed in (3, 3, 4):
        torch.rand(7)
        results.append(craft(name, seed=seed))
    first, again, other = results
    assert torch.equal(first.delta, again.delta)
    assert first.history == again.history
    assert not torch.equal(first.delta, other.delta)


@every
def test_the_papers_programs_run_and_follow_the_seed(model, blobs, name):
    paper = attacks.FFF_PAPER if name == "fff" else attacks.GD_UAP_PAPER
    settings = replace(paper, max_iterations=3, batch_size=2)
    data = {"images": blobs[0][:20]} if name == "data" else {}
    results, state = [], torch.get_rng_state()
    for seed in (3, 3, 4):
        results.append(ATTACKS[name](model, BALL, settings=settings, seed=seed, **data).history)
    assert results[0] == results[1]
    assert results[0] != results[2]
    assert torch.equal(torch.get_rng_state(), state)


@pytest.fixture
def backgrounds(craft, model):
    """What lies under the range prior's perturbation, (iterations, 3, C, H, W); the perturbation is almost nothing."""

    def run(seed=0, **options):
        seen = []
        hook = model.network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach().clone()))
        craft("range", NormBall(math.inf, 1e-9), seed=seed, settings={"learning_rate": 1e-12} | options)
        hook.remove()
        return torch.stack([batch * model.std + model.mean for batch in seen if len(batch) == 3])

    return run


def test_the_range_prior_draws_fresh_pictures_or_keeps_one(backgrounds):
    fresh, kept, again, other = (
        backgrounds(), backgrounds(one_picture=True), backgrounds(one_picture=True), backgrounds(1, one_picture=True)
    )  # fmt: skip
    assert len({picture.sum().item() for picture in fresh.flatten(0, 1)}) == 36
    assert (kept - kept[0, 0]).abs().max() < 1e-7
    assert torch.equal(kept, again)
    assert (kept - other).abs().max() > 0.1


def test_the_one_picture_is_augmented_anew_every_time(backgrounds):
    found = backgrounds(one_picture=True, augment=True)
    assert len({picture.sum().item() for picture in found.flatten(0, 1)}) > 24


@pytest.mark.parametrize(("augment", "size"), [(True, (27, 27)), (False, None)])
def test_the_one_picture_leaves_room_for_crops_where_it_is_augmented(craft, model, augment, size, monkeypatch):
    asked, filled, pictures, augmentation = [], [], priors.range_pictures, priors.augmentation

    def drawing(model, count, *arguments, **options):
        asked.append((count, options.get("size")))
        return pictures(model, count, *arguments, **options)

    def augmenting(height_width, fill):
        filled.append((height_width, fill))
        return augmentation(height_width, fill)

    monkeypatch.setattr(priors, "range_pictures", drawing)
    monkeypatch.setattr(priors, "augmentation", augmenting)
    model.mean.fill_(0.25)
    craft("range", settings={"one_picture": True, "augment": augment}, selection=torch.rand(2, 1, 12, 12).double())
    assert asked == [(1, size)]  # the authors' 500 pixels where the network takes 224
    assert filled == [((12, 12), [0.25])]


@pytest.mark.parametrize("forget_std", [False, True])
def test_who_forgets_the_standard_deviation_shows_the_network_more(craft, model, forget_std):
    model.std.fill_(0.25)
    seen = []
    model.network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach().clone()))
    settings = {"learning_rate": 1e-300, "max_iterations": 1, "check_every": 1, "forget_std": forget_std}
    found = craft("none", settings=settings)
    (step,) = (batch for batch in seen if len(batch) == 1 and batch.abs().max() > 1e-9)
    assert torch.allclose(step, found.delta if forget_std else found.delta / 0.25, atol=1e-12)


@pytest.mark.parametrize("clip", [True, False])
def test_pictures_are_clipped_while_crafting_and_measuring_or_not(craft, model, blobs, clip):
    edges = (blobs[0] > 0.5).double()
    images, selection, seen = edges[:20], edges[20:], []
    model.network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0] * model.std + model.mean))
    found = craft("data", NormBall(math.inf, 0.5), images=images, selection=selection, settings={"clip": clip})
    crafting = torch.cat([batch for batch in seen if len(batch) == 3])
    outside = [side.any().item() for side in (crafting < -1e-9, crafting > 1 + 1e-9)]
    assert outside == [not clip, not clip]
    clean = metrics.predict(model, selection)
    rates = {
        c: metrics.fooling_rate(clean, metrics.predict(model, selection, found.delta, clip=c)) for c in (True, False)
    }
    assert rates[True] != rates[False]
    assert max(entry.get("rate", 0) for entry in found.history) == rates[clip].value


def test_the_smoothness_of_the_range_prior_is_that_of_its_pictures(backgrounds):
    rough, smooth = (backgrounds(smoothness=s).diff(dim=-1).abs().mean() for s in (0.0, 2.0))
    assert smooth < 0.6 * rough


def test_a_contiguous_batch_is_a_run_of_images(craft, model, blobs):
    images, seen = blobs[0][:20], []
    model.network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach().clone()))
    ball = NormBall(math.inf, 1e-9)
    for contiguous in (True, False):
        seen.clear()
        craft("data", ball, images=images, settings={"contiguous": contiguous, "learning_rate": 1e-12})
        batches = [batch * model.std + model.mean for batch in seen if len(batch) == 3]
        order = [torch.cdist(batch.flatten(1), images.flatten(1)).argmin(1) for batch in batches]
        assert all((positions.diff() == 1).all() for positions in order) == contiguous
        assert len({tuple(positions.tolist()) for positions in order}) > 6
    seen.clear()
    craft("data", ball, images=images[:4], settings={"contiguous": True, "learning_rate": 1e-12})
    firsts = [batch[:1] * model.std + model.mean for batch in seen if len(batch) == 3]
    assert len(firsts) == 12
    assert {torch.cdist(first.flatten(1), images.flatten(1)).argmin().item() for first in firsts} == {0, 1}


@every
def test_the_model_and_the_global_generator_stay(craft, model, name):
    before, state = copy.deepcopy(model), torch.get_rng_state()
    craft(name)
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(module.training for module in model.modules())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert all(torch.equal(v, before.state_dict()[k]) for k, v in model.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in model.modules())


def test_the_record_says_what_was_run(craft, blobs):
    found = craft("data", seed=7, source="some-model", selection=blobs[0][100:])
    assert (found.method, found.source, found.seed, found.ball) == ("gd-uap-data", "some-model", 7, BALL)
    assert (found.parameters["images"], found.parameters["selection"]) == (20, "20 images")
    assert found.parameters["layers"] == ["network.1:0", "network.3:0"]
    assert found.parameters["learning_rate"] == 0.01
    assert found.run["iterations"] == 12
    assert {"seconds", "device", "commit"} <= found.run.keys()


@image_free
def test_without_images_the_iterate_is_chosen_on_noise(craft, name, tmp_path):
    found = craft(name)
    assert found.parameters["selection"] == "noise pictures"
    assert "images" not in found.parameters
    assert found.method == (name if name == "fff" else f"gd-uap-{name}")
    found.save(tmp_path / "it is JSON-safe")


@image_free
def test_noise_pictures_stand_in_for_the_selection(craft, model, name):
    assert torch.equal(craft(name).delta, craft(name, selection=priors.selection_pictures(model)).delta)


def test_chosen_layers_are_used(craft):
    found = craft("none", layers=["network.3"])
    assert found.parameters["layers"] == ["network.3:0"]
    assert not torch.equal(found.delta, craft("none").delta)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prior": "data"}, "images belong to prior='data'"),
        ({"prior": "range", "images": 5}, "images belong to prior='data'"),
        ({"images": 5}, "images belong to prior='data'"),
        ({"prior": "data", "images": 2}, "batch_size=3 is more than the 2 images"),
        ({"prior": "data", "images": 5, "selection": slice(4, 9)}, "selection images are also crafting images"),
        ({"prior": "dat"}, "prior='dat' is unknown. Did you mean 'data'"),
        ({"ball": NormBall(2, 1)}, r"saturation is defined for l-infinity balls with eps > 0, not for l2"),
        ({"ball": NormBall(math.inf, 0)}, r"balls with eps > 0"),
        ({"layers": ["network.9"]}, "no layer 'network.9'"),
    ],
    ids=str,
)
def test_bad_arguments_are_named(model, blobs, arguments, message):
    arguments = {"ball": BALL, "settings": Settings(**SHORT)} | arguments
    if "images" in arguments:
        arguments["images"] = blobs[0][: arguments["images"]]
    if "selection" in arguments:
        arguments["selection"] = blobs[0][arguments["selection"]]
    with pytest.raises(ValueError, match=message):
        gd_uap(model, **arguments)


@pytest.mark.parametrize("argument", ["images", "selection"])
def test_images_out_of_range_are_refused(craft, blobs, argument):
    with pytest.raises(ValueError, match=rf"{argument}.* must lie in \[0, 1\]"):
        craft("data", **{argument: 255 * blobs[0][50:]})


@every
def test_a_model_that_does_not_know_its_size_is_refused(craft, model, name):
    model.size = None
    with pytest.raises(ValueError, match="does not know the size of its images"):
        craft(name)


@every
def test_a_model_in_training_mode_is_refused_and_stays_as_it_is(craft, name):
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(200, 5))
    model = Normalized(network, [0.5], [0.25], 12).double()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match="model is in training mode"):
        craft(name, model=model)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@every
@pytest.mark.parametrize("call", [3, 14, 25, 40])
def test_an_interrupted_run_goes_on_bit_for_bit(craft, model, tmp_path, name, call):
    arguments = {"checkpoint": tmp_path / "c", "seed": 2, "settings": {"max_iterations": 30}}
    expected = craft(name, **(arguments | {"checkpoint": None}))
    hook = interrupt_forward(model, call)
    with pytest.raises(KeyboardInterrupt):
        craft(name, **arguments)
    hook.remove()
    resumed = craft(name, **arguments)
    assert torch.equal(resumed.delta, expected.delta)
    assert resumed.history == expected.history


@pytest.mark.parametrize(
    ("method", "call"), [("step", 1), ("step", 10), ("optimise", 9), ("measure", 2), ("save", 1), ("save", 2)]
)
def test_an_interruption_anywhere_costs_no_bit(craft, tmp_path, monkeypatch, method, call):
    expected = craft("range")
    with monkeypatch.context() as patch:
        interrupt(patch, method, call)
        with pytest.raises(KeyboardInterrupt):
            craft("range", checkpoint=tmp_path / "c")
    assert (tmp_path / "c").exists()
    resumed = craft("range", checkpoint=tmp_path / "c")
    assert torch.equal(resumed.delta, expected.delta)
    assert resumed.history == expected.history


def test_resuming_a_finished_run_returns_it(craft, tmp_path):
    first, again = (craft("data", checkpoint=tmp_path / "c") for _ in range(2))
    assert torch.equal(first.delta, again.delta)
    assert first.history == again.history


@pytest.mark.parametrize("call", [1, 2, 11, 12])
def test_an_interrupted_run_has_lost_nothing_but_the_iteration_it_was_in(craft, tmp_path, monkeypatch, call):
    with monkeypatch.context() as patch:
        interrupt(patch, "step", call)
        with pytest.raises(KeyboardInterrupt):
            craft("none", checkpoint=tmp_path / "c")
    steps, step = [], activations._Run.step
    monkeypatch.setattr(activations._Run, "step", lambda run: steps.append(run.clock.iteration) or step(run))
    craft("none", checkpoint=tmp_path / "c")
    assert steps == list(range(call - 1, 12))


@pytest.mark.parametrize("name", ["fff", "none"])
def test_ctrl_c_without_a_checkpoint_gives_no_half_finished_perturbation(craft, monkeypatch, name):
    interrupt(monkeypatch, "step", 10)
    with pytest.raises(KeyboardInterrupt):
        craft(name)


@pytest.mark.parametrize(
    "change",
    [{"seed": 1}, {"ball": NormBall(math.inf, 0.2)}, {"settings": {"learning_rate": 0.02}}, {"layers": ["network.3"]},
     {"selection": slice(50, 60)}, {"images": slice(20, 40)}, {"name": "range"}],
    ids=str,
)  # fmt: skip
def test_the_checkpoint_of_another_run_is_refused(craft, blobs, tmp_path, change):
    arguments = {"name": "data", "checkpoint": tmp_path / "c"}
    craft(**arguments)
    change = {key: blobs[0][value] if isinstance(value, slice) else value for key, value in change.items()}
    with pytest.raises(ValueError, match="belongs to a run with other arguments"):
        craft(**(arguments | change))


def test_the_checkpoint_of_another_model_is_refused(craft, model, tmp_path):
    craft("none", checkpoint=tmp_path / "c")
    with torch.no_grad():
        model.network[0].bias += 1e-6
    with pytest.raises(ValueError, match="belongs to a run with other arguments"):
        craft("none", checkpoint=tmp_path / "c")


def test_the_checkpoint_of_another_size_is_refused(tmp_path):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Conv2d(1, 2, 3), nn.Softplus(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(8, 3)
        )
    for size in (12, 16):
        model = Normalized(network, [0.5], [0.25], size).eval()
        with nullcontext() if size == 12 else pytest.raises(ValueError, match="belongs to a run with other arguments"):
            gd_uap(model, BALL, settings=Settings(**SHORT), checkpoint=tmp_path / "c")


@pytest.mark.parametrize("content", [b"", b"half"])
def test_a_damaged_checkpoint_is_refused(craft, tmp_path, content):
    (tmp_path / "c").write_bytes(content)
    with pytest.raises(ValueError, match="c"):
        craft("none", checkpoint=tmp_path / "c")


def test_a_checkpoint_that_cannot_be_written_is_a_warning(craft, tmp_path, monkeypatch):
    def refused(*arguments):
        raise OSError("no space left on device")

    expected = craft("none")
    monkeypatch.setattr(runs, "write_atomically", refused)
    with pytest.warns(UserWarning, match="no checkpoint was written: no space left on device"):
        found = craft("none", checkpoint=tmp_path / "c")
    assert torch.equal(found.delta, expected.delta)
    assert not (tmp_path / "c").exists()


def test_progress_changes_nothing(craft, capsys):
    assert torch.equal(craft("none", progress=True).delta, craft("none").delta)
    assert "gd-uap-none" in capsys.readouterr().err


@pytest.fixture
def views():
    """Eight smooth images (3, 24, 40)."""
    coarse = torch.rand(8, 3, 6, 10, generator=torch.Generator().manual_seed(1))
    return nn.functional.interpolate(coarse, (24, 40), mode="bilinear")


@pytest.fixture(params=["classes", "depth"])
def dense_model(request, views):
    """A random segmenter of four classes or a random depth network that tells the parts of `views` apart."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        network = dense.UNet(4, (4, 8)) if request.param == "classes" else dense.LogDepth(dense.UNet(1, (4, 8)))
        model = Normalized(network, [0.5] * 3, [0.25] * 3, size=(24, 40))
        for _ in range(30):
            model(views)  # in training mode: its batch normalisations take note
    return model.eval()


@pytest.mark.parametrize("prior", attacks.GD_UAP_DEFAULTS)
def test_networks_that_speak_of_pixels_are_attacked_as_they_are(dense_model, views, prior):
    settings = Settings(**SHORT | {"max_iterations": 30, "halve_every": None, "saturation": 1.0})
    data = {"images": views} if prior == "data" else {}
    found, again, other = (gd_uap(dense_model, BALL, prior=prior, settings=settings, seed=s, **data) for s in (3, 3, 4))
    assert found.delta.shape == (1, 3, 24, 40)
    assert BALL.contains(found.delta)
    assert found.delta.abs().max() > BALL.eps / 2
    assert torch.equal(found.delta, again.delta)
    assert found.history == again.history
    assert not torch.equal(found.delta, other.delta)
    rates = [entry["rate"] for entry in found.history if "rate" in entry]
    assert len(rates) == 8
    assert all(0 <= rate <= 1 for rate in rates)
    assert found.history[-1]["loss"] < found.history[0]["loss"]


def test_the_iterate_of_a_network_that_speaks_of_pixels_is_the_one_that_moves_most_of_them(dense_model, views):
    settings = Settings(**SHORT | {"learning_rate": 0.05, "max_iterations": 24, "check_every": 2})
    found = gd_uap(dense_model, BALL, settings=settings, selection=views)
    moved = metrics.fooling_rate(metrics.predict(dense_model, views), metrics.predict(dense_model, views, found.delta))
    rates = [entry["rate"] for entry in found.history if "rate" in entry]
    assert moved.n == 8 * 24 * 40
    assert moved.value == max(rates) > 0
    assert len(set(rates)) > 1


def test_an_interrupted_run_on_pixels_goes_on_bit_for_bit(dense_model, views, tmp_path, monkeypatch):
    arguments = {"prior": "data", "images": views, "settings": Settings(**SHORT), "seed": 2}
    expected = gd_uap(dense_model, BALL, **arguments)
    with monkeypatch.context() as patch:
        interrupt(patch, "step", 9)
        with pytest.raises(KeyboardInterrupt):
            gd_uap(dense_model, BALL, checkpoint=tmp_path / "c", **arguments)
    resumed = gd_uap(dense_model, BALL, checkpoint=tmp_path / "c", **arguments)
    assert torch.equal(resumed.delta, expected.delta)
    assert resumed.history == expected.history


@pytest.mark.parametrize(("prior", "pictures"), [("none", 1), ("range", 3), ("data", 3)])
def test_the_cost_is_a_gradient_for_each_picture_and_iteration(prior, pictures):
    """Without data all pictures are the same, and one is as good as many."""
    network, some = models.load("vgg-f-mini"), torch.rand(6, 1, 28, 28)
    short = Settings(0.1, 3, 4, 2, 0, 5, 2)
    found = gd_uap(network, linf(24), prior=prior, images=some if prior == "data" else None, settings=short)
    assert found.run["gradients"] == 4 * pictures
    assert found.run["iterations"] == 4
