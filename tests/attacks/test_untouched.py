"""Every attack and metric leaves the model, the images and the random generator as they were."""

import copy
import math

import pytest
import torch

from uaplib import metrics
from uaplib.attacks import (
    CosineUAPSettings,
    DFUAPSettings,
    DMUAPSettings,
    PatternSearchSettings,
    SGASettings,
    SGDUAPSettings,
    SVUAPSettings,
    cosine_uap,
    deepfool,
    df_uap,
    dm_uap,
    fgsm,
    iterated_fgsm,
    pattern_search,
    sga,
    sgd_uap,
    sv_uap,
    uap,
)
from uaplib.balls import NormBall

BALL = NormBall(math.inf, 0.05)
CALLS = {
    "fgsm": lambda model, x: fgsm(model, x, 0.1),
    "iterated_fgsm": lambda model, x: iterated_fgsm(model, x, 0.1, step=0.05, steps=2),
    "deepfool": lambda model, x: deepfool(model, x).perturbations,
    "deepfool-linf": lambda model, x: deepfool(model, x, p=math.inf, convention="matlab").perturbations,
    "uap": lambda model, x: uap(model, x, NormBall(2, 0.3), max_passes=1).delta,
    "sgd_uap": lambda model, x: sgd_uap(model, x, BALL, settings=SGDUAPSettings(max_gradients=30)).delta,
    "sga": lambda model, x: sga(model, x, BALL, settings=SGASettings(max_gradients=30)).delta,
    "df_uap": lambda model, x: df_uap(model, x, BALL, settings=DFUAPSettings(max_gradients=30)).delta,
    "cosine_uap": lambda model, x: cosine_uap(model, x, BALL, settings=CosineUAPSettings(max_gradients=30)).delta,
    "dm_uap": lambda model, x: dm_uap(model, x, BALL, settings=DMUAPSettings(max_gradients=200)).delta,
    "sv_uap": lambda model, x: sv_uap(model, x, BALL, settings=SVUAPSettings(max_iterations=2)).delta,
    "pattern_search": lambda model, x: pattern_search(model, x, BALL, settings=PatternSearchSettings(trials=4)).delta,
    "predict": lambda model, x: metrics.predict(model, x),
    "evaluate": lambda model, x: metrics.evaluate(model, x, model(x).argmax(1), torch.zeros_like(x[:1])),
}
everything = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


@pytest.fixture
def images(blobs):
    return blobs[0][:12].clone()


@everything
@pytest.mark.parametrize("frozen", [True, False])
def test_parameters_modes_and_gradients_stay(call, frozen, model, images):
    model.requires_grad_(not frozen)
    before = copy.deepcopy(model.state_dict())
    call(model, images)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(p.requires_grad is not frozen and p.grad is None for p in model.parameters())
    assert not any(m.training for m in model.modules())


@everything
def test_a_gradient_that_was_there_stays(call, model, images):
    model(images).sum().backward()
    before = [p.grad.clone() for p in model.parameters()]
    call(model, images)
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), before, strict=True))


@everything
def test_hooks_stay(call, model, images):
    def hook(*arguments):
        return None

    model.network[0].register_forward_hook(hook)
    call(model, images)
    hooks = [len(m._forward_hooks) + len(m._backward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
    assert sum(hooks) == 1


@everything
def test_the_global_generator_and_the_gradient_mode_stay(call, model, images):
    state = torch.get_rng_state()
    call(model, images)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.is_grad_enabled()


@everything
def test_the_images_stay(call, model, images):
    before = images.clone()
    call(model, images)
    assert torch.equal(images, before)


@everything
def test_the_result_is_the_same_under_no_grad(call, model, images):
    expected = call(model, images)
    with torch.no_grad():
        found = call(model, images)
    assert found == expected if isinstance(expected, metrics.Evaluation) else torch.equal(found, expected)


@pytest.mark.parametrize("name", [name for name in CALLS if name not in ("predict", "evaluate")])
def test_images_that_require_gradients_are_taken_as_they_are(name, model, images):
    result = CALLS[name](model, images.requires_grad_())
    assert not result.requires_grad
    assert images.grad is None


@everything
def test_the_same_call_gives_the_same_bits(call, model, images):
    first, second = call(model, images), call(model, images)
    assert first == second if isinstance(first, metrics.Evaluation) else torch.equal(first, second)
