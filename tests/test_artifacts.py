"""The committed artifacts: complete, of today's weights, and what their measurements say."""

import pytest
import torch

from uaplib import metrics, models, recipes
from uaplib.data import camvid

over_activating = [*recipes.imagenet_study(), *recipes.mini_study()]
dense = recipes.dense_study()
dense_files = [recipe for recipe in dense if not recipe.variant]  # of a variant, only the measurement is kept


def named(some):
    return pytest.mark.parametrize("recipe", some, ids=lambda recipe: recipe.name)


@pytest.fixture(autouse=True)
def installed(request):
    """The EfficientNet-Lite packages belong to an extra."""
    if any(name in request.node.name for name in ("efficientnet", "lite0")):
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


@named(dense)
def test_the_measurement_of_a_dense_network_is_of_this_recipe(recipe):
    kept = recipe.find_measured(recipes.ARTIFACTS)
    assert (kept["recipe"], kept["command"], kept["model"]) == (recipe.name, recipe.command, recipe.model)
    assert kept["gfr"]["n"] == (233 if "camvid" in recipe.model else 300)
    low, high = kept["gfr"]["interval"]
    assert 0 <= low <= kept["gfr"]["value"] <= high <= 1
    assert kept["clip"] is True
    measures = {"clean", "perturbed"} if recipe.model == "unet-depth" else {"mean_iou", "clean_mean_iou", "flip_rate"}
    assert measures <= set(kept)
    if recipe.method != "noise":
        assert kept["history"]
        assert kept["run"]["iterations"] >= kept["history"][-1]["iteration"]


@named(dense_files)
def test_the_measurement_of_a_dense_network_is_of_this_file(recipe):
    found, kept = recipe.find(recipes.ARTIFACTS), recipe.find_measured(recipes.ARTIFACTS)
    height, width = models.DENSE[recipe.model].size
    assert found.delta.shape == (1, 3, height, width)
    assert recipe.ball.contains(found.delta)
    assert kept["l2_norm"] == pytest.approx(found.delta.norm().item(), rel=1e-5)
    if recipe.method != "noise":
        assert found.parameters["selection"] == "noise pictures"
        assert kept["history"] == [entry for entry in found.history if "rate" in entry]
        assert kept["run"]["iterations"] == found.history[-1]["iteration"]


@named([recipe for recipe in dense if recipe.method != "noise"])
def test_on_a_dense_network_what_was_crafted_does_more_than_noise(recipe):
    noise = recipes.Recipe("noise", recipe.model, recipe.ball).find_measured(recipes.ARTIFACTS)
    assert recipe.find_measured(recipes.ARTIFACTS)["gfr"]["value"] > noise["gfr"]["value"]


@pytest.mark.parametrize("model", models.DENSE)
def test_a_dense_network_is_as_good_on_clean_images_as_its_card_says(model):
    (kept,) = (r.find_measured(recipes.ARTIFACTS) for r in dense if (r.method, r.model) == ("noise", model))
    if models.says(model) == "depth":
        clean, card = kept["clean"]["delta_1"]["value"], models.card(model)["test_delta_1"]
    else:
        clean, card = kept["clean_mean_iou"]["value"], models.card(model)["test_mean_iou"]
    assert clean == pytest.approx(card, abs=1e-3)


@named(dense_files)
def test_the_rate_is_found_again_on_a_part_of_the_scenes(recipe):
    if models.DENSE[recipe.model].data is camvid and not camvid.available():
        pytest.skip(f"CamVid is not in {camvid.folder()}")
    images, truth = (part[::8] for part in recipes.evaluation_set(recipe.model))  # a drive: from dusk to daylight
    model, delta = models.load(recipe.model), recipe.find(recipes.ARTIFACTS).delta
    found = recipes.EVALUATE[models.says(recipe.model)](model, images, truth, delta)
    low, high = recipe.find_measured(recipes.ARTIFACTS)["gfr"]["interval"]
    assert low - 0.1 < found.gfr.value < high + 0.1
