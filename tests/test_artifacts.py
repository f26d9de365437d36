"""The committed artifacts: complete, of today's weights, and what their measurements say."""

import pytest
import torch

from uaplib import metrics, models, recipes

over_activating = [*recipes.imagenet_study(), *recipes.mini_study()]


def named(some):
    return pytest.mark.parametrize("recipe", some, ids=lambda recipe: recipe.name)


@pytest.fixture(autouse=True)
def installed(request):
    """The EfficientNet-Lite packages belong to an extra."""
    if "efficientnet" in str(request.node.name):
        pytest.importorskip("efficientnet_lite_pytorch")


@named(recipes.book())
def test_it_is_there_and_of_todays_weights(recipe):
    if not recipe.variant:
        assert recipe.find(recipes.ARTIFACTS) is not None
    if recipe.method != "uap":
        assert recipe.find_measured(recipes.ARTIFACTS) is not None


@named(over_activating)
def test_the_measurement_is_of_this_file(recipe):
    found, kept = recipe.find(recipes.ARTIFACTS), recipe.find_measured(recipes.ARTIFACTS)
    assert kept["l2_norm"] == pytest.approx(found.delta.norm().item(), rel=1e-5)
    assert kept["command"] == recipe.command
    assert kept["fooling_rate"]["n"] == (10000 if recipe.model in models.MINIS else 600)
    if recipe.method != "noise":
        assert kept["history"] == [entry for entry in found.history if "rate" in entry]
        assert kept["run"]["iterations"] == found.history[-1]["iteration"]


@named([recipe for recipe in over_activating if recipe.method in recipes.METHODS[2:]])
def test_no_image_chose_the_iterate(recipe):
    assert recipe.find(recipes.ARTIFACTS).parameters["selection"] == "noise pictures"


@named([recipe for recipe in recipes.imagenet_study() if recipe.method != "noise" and recipe.seed == 0])
def test_the_rate_is_found_again_on_a_part_of_the_photographs(recipe):
    try:
        images, _ = recipes.evaluation_set(recipe.model, 60)
    except FileNotFoundError as missing:
        pytest.skip(str(missing))
    if len(images) < 60:
        pytest.skip("the 1,000 ImageNet samples are not here")
    model, delta = models.load(recipe.model), recipe.find(recipes.ARTIFACTS).delta
    found = metrics.fooling_rate(metrics.predict(model, images), metrics.predict(model, images, delta))
    low, high = found.interval
    assert low - 0.05 < recipe.measured()["fooling_rate"]["value"] < high + 0.05


@pytest.mark.parametrize(("method", "floor"), [("fff", 0.6), ("gd-uap-none", 0.65), ("gd-uap-range", 0.7)])
def test_on_the_first_network_the_methods_without_data_are_strong(method, floor):
    pytest.importorskip("efficientnet_lite_pytorch")
    chosen = [r for r in recipes.imagenet_study() if (r.method, r.model) == (method, recipes.IMAGENET_MODELS[0])]
    rates = torch.tensor([recipe.measured()["fooling_rate"]["value"] for recipe in chosen])
    assert len(rates) == recipes.IMAGENET_SEEDS
    assert rates.mean() > floor
