"""What every method promises, asked of each row of METHODS on one small network."""

import contextlib
import copy
import json
import math

import numpy as np
import pytest
import torch

from tests.pretend import DEVICE, PretendDevice, place, place_model
from uaplib import metrics, models
from uaplib.attacks import METHODS
from uaplib.attacks.methods import SEES
from uaplib.attacks.runs import Run
from uaplib.balls import NormBall, linf
from uaplib.perturbation import UniversalPerturbation

SHORT = {  # as far as a method has them
    "max_passes": 2, "max_iterations": 6, "check_every": 2, "batch_size": 2, "max_gradients": 24, "rounds": 2,
    "inner_batch_size": 1, "weight_steps": 1, "image_steps": 1, "crops": 2,
    "trials": 8,
}  # fmt: skip
ONE_ONLY = ("chessboard", "stripes", "fourier", "circles", "fourier-search")  # what has nothing random
every = pytest.mark.parametrize("name", METHODS)
crafted = pytest.mark.parametrize("name", [name for name, row in METHODS.items() if row.optimised])


@pytest.fixture(scope="module")
def network():
    return models.load("vgg-f-mini")


@pytest.fixture
def data():
    """Twelve images that the network tells apart, and labels."""
    coarse = torch.rand(12, 1, 4, 4, generator=torch.Generator().manual_seed(3))
    return torch.nn.functional.interpolate(coarse, (28, 28), mode="bilinear"), torch.arange(12) % 10


def settings_of(name, ball, short=SHORT, **changes):
    row = METHODS[name]
    return row.settings(ball, **{k: v for k, v in short.items() if k in row.settings(ball)}, **changes)


def craft(name, network, data, ball=None, seed=3, **options):
    row, ball = METHODS[name], ball or linf(24)
    seen = {} if row.sees == "nothing" else {"images": data[0]}
    return row.craft(network, ball, settings_of(name, ball), seen, seed=seed, source="vgg-f-mini", **options)


@contextlib.contextmanager
def interrupted(monkeypatch, call):
    """Inside, Ctrl-C comes in this call of an attack's step."""
    calls = []

    def stopping(step):
        def stop_or_step(run):
            calls.append(run)
            if len(calls) == call:
                raise KeyboardInterrupt
            return step(run)

        return stop_or_step

    with monkeypatch.context() as patch:
        for run in Run.__subclasses__():
            patch.setattr(run, "step", stopping(run.step))
        yield


@every
def test_a_row_says_what_it_must(name):
    row = METHODS[name]
    assert row.name == name
    assert row.title
    assert row.short
    assert row.cost
    assert row.sees in SEES
    assert (row.images is None) == (row.sees == "nothing")
    assert set(row.tasks) <= {"label", "classes", "depth"}
    assert set(row.norms) <= {2, math.inf}
    assert row.version >= 1
    assert json.loads(json.dumps(row.settings(linf(10)))) == row.settings(linf(10))


@every
def test_presets_are_changes_of_settings_or_of_the_data(name):
    row, of_the_data = METHODS[name], {"images", "role", "selection"}
    for changes in row.presets.values():
        own = {k: v for k, v in changes.items() if k not in of_the_data}
        changed = row.settings(linf(10), **own)
        assert {k: changed[k] for k in own} == own
        assert changes.keys() & of_the_data or changed != row.settings(linf(10))


@pytest.mark.parametrize(("name", "p"), [(name, p) for name, row in METHODS.items() for p in row.norms])
@pytest.mark.parametrize("size", [0.3, 1.0])
def test_the_budget_is_kept_and_used(name, network, data, p, size):
    ball = NormBall(p, size * (24 / 255 if p == math.inf else 2.0))
    found = craft(name, network, data, ball)
    assert ball.contains(found.delta)
    assert ball.norm(found.delta) > 0.4 * ball.eps


@crafted
def test_it_fools_more_than_noise(name, network, data):
    row, ball = METHODS[name], linf(40)
    images = data[0]
    seen = {} if row.sees == "nothing" else {"images": images}
    found = row.craft(network, ball, settings_of(name, ball, {"max_gradients": 1000, "crops": 2}), seen, seed=0)
    clean = metrics.predict(network, images)
    noise = craft("noise", network, data, ball)
    rates = [metrics.fooling_rate(clean, metrics.predict(network, images, v.delta)).count for v in (found, noise)]
    assert rates[0] > rates[1]


@every
def test_the_seed_decides_all_and_bits_repeat(name, network, data):
    first, again, other = (craft(name, network, data, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(first.delta, again.delta)
    assert first.history == again.history
    assert first.key == again.key != other.key
    assert torch.equal(first.delta, other.delta) == (name in ONE_ONLY)


@crafted
@pytest.mark.parametrize("call", [2, 4])
def test_resumed_is_as_uninterrupted(name, network, data, tmp_path, monkeypatch, call):
    expected = craft(name, network, data)
    with interrupted(monkeypatch, call), pytest.raises(KeyboardInterrupt):
        craft(name, network, data, checkpoint=tmp_path / "c")
    assert (tmp_path / "c").is_file()
    resumed = craft(name, network, data, checkpoint=tmp_path / "c")
    assert torch.equal(resumed.delta, expected.delta)
    assert resumed.history == expected.history


@crafted
def test_progress_counts_up_to_its_total_and_shows_where_it_is_asked_for(name, network, data, monkeypatch, capfd):
    told = []

    def telling(step):
        def step_and_tell(run):
            worth_keeping = step(run)
            told.append(run.progress())
            return worth_keeping

        return step_and_tell

    for run in Run.__subclasses__():
        monkeypatch.setattr(run, "step", telling(run.step))
    craft(name, network, data)
    assert capfd.readouterr().err == ""
    done, totals = zip(*told, strict=True)
    assert list(done) == sorted(set(done))
    assert 0 < done[0] <= done[-1] <= totals[0]
    assert len(set(totals)) == 1
    craft(name, network, data, progress=True)
    assert METHODS[name].name in capfd.readouterr().err


@crafted
def test_a_seed_of_none_is_zero_and_a_source_unknown(name, network, data):
    row = METHODS[name]
    seen = {} if row.sees == "nothing" else {"images": data[0]}
    found = row.craft(network, linf(24), settings_of(name, linf(24)), seen)
    assert (found.seed, found.source) == (0, "")
    assert torch.equal(found.delta, craft(name, network, data, seed=0).delta)


@pytest.mark.parametrize("name", [name for name, row in METHODS.items() if "layers" in row.settings(linf(10))])
def test_layers_and_selection_images_reach_the_attack(name, network, data):
    row, layers = METHODS[name], ["network.0", "network.4"]
    seen = {"selection": torch.rand(3, 1, 28, 28)} | ({} if row.sees == "nothing" else {"images": data[0]})
    found = row.craft(network, linf(24), settings_of(name, linf(24), layers=layers), seen, seed=3)
    assert found.parameters["selection"] == "3 images"
    assert [layer.partition(":")[0] for layer in found.parameters["layers"]] == layers
    usual = row.craft(network, linf(24), settings_of(name, linf(24)), seen, seed=3)
    assert not torch.equal(found.delta, usual.delta)


@every
def test_network_generator_and_images_stay_as_they_were(name, network, data):
    model = copy.deepcopy(network).requires_grad_(True)
    hook = model.network[0].register_forward_hook(lambda *_: None)
    weights, images, state = copy.deepcopy(model.state_dict()), data[0].clone(), torch.get_rng_state()
    craft(name, model, data)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(data[0], images)
    assert all(torch.equal(value, weights[key]) for key, value in model.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert not any(module.training for module in model.modules())
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in model.modules()]
    assert sum(hooks) == 1
    hook.remove()


@every
def test_the_record_is_complete_and_comes_back(name, network, data, tmp_path):
    found = craft(name, network, data)
    found.save(tmp_path / "v")
    again = UniversalPerturbation.load(tmp_path / "v")
    assert torch.equal(again.delta, found.delta)
    assert again.key == found.key
    assert (again.method, again.seed, again.ball, again.version) == (name, 3, linf(24), METHODS[name].version)
    if METHODS[name].optimised:
        assert again.source == "vgg-f-mini"
        assert len(again.source_sha256) == 64
        assert again.history
        assert {"seconds", "device", "commit"} <= again.run.keys()
    settings = settings_of(name, linf(24))
    settings.pop("layers", None)
    assert settings.items() <= again.parameters.items()
    if METHODS[name].sees != "nothing":
        assert again.parameters["images"] == 12
        assert len(again.parameters["images_sha256"]) == 64


@every
def test_unknown_settings_are_named(name):
    with pytest.raises(ValueError, match=f"{name}: setting='stepps' is unknown"):
        METHODS[name].settings(linf(8), stepps=3)


@crafted
@pytest.mark.parametrize("bad", [math.nan, "many", None, [1]], ids=str)
def test_bad_settings_are_refused(name, bad):
    row = METHODS[name]
    for setting in SHORT.keys() & row.settings(linf(8)).keys():
        with pytest.raises((ValueError, TypeError), match=setting):
            row.settings(linf(8), **{setting: bad})


@crafted
def test_a_network_in_training_mode_is_refused(name, network, data):
    with pytest.raises(ValueError, match="training mode"):
        craft(name, copy.deepcopy(network).train(), data)


@pytest.mark.parametrize("name", [name for name, row in METHODS.items() if row.sees != "nothing"])
@pytest.mark.parametrize("scale", [255, -1, math.nan])
def test_images_out_of_range_are_refused(name, network, data, scale):
    with pytest.raises(ValueError, match=r"images.* (must lie in \[0, 1\]|contains? NaN)"):
        craft(name, network, (scale * data[0], data[1]))


@every
@pytest.mark.parametrize("seed", [-1, 2**64, 1.5, "3"])
def test_bad_seeds_are_refused(name, network, data, seed):
    with pytest.raises((ValueError, TypeError), match="seed"):
        craft(name, network, data, seed=seed)


@every
def test_a_seed_of_numpy_is_as_good(name, network, data):
    assert torch.equal(craft(name, network, data, seed=np.int64(3)).delta, craft(name, network, data).delta)


@every
def test_on_another_device_everything_is_there(name, network, data, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a pretended one")
    expected = craft(name, network, data)
    model, images = place_model(copy.deepcopy(network)), place(data[0])
    with PretendDevice():
        found = craft(name, model, (images, data[1]))
    assert torch.equal(found.delta.cpu(), expected.delta)
    assert found.delta.device == DEVICE


def test_the_pretended_device_refuses_what_a_real_one_refuses(data):
    here, there = data[0], place(data[0])
    with PretendDevice():
        assert (there * 2).device == there[:3].device == there.to(here.dtype).device == DEVICE
        assert here.device == there.cpu().device == torch.zeros(3).device == torch.device("cpu")
        assert here.to(there).device == torch.zeros(3, device=DEVICE).device == torch.zeros_like(there).device == DEVICE
        for together in (lambda: here + there, lambda: torch.cat([here, there]), lambda: there * torch.ones(28)):
            with pytest.raises(RuntimeError, match="tensors on cuda:7 and on the CPU"):
                together()
