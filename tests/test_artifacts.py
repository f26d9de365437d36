"""The committed artifacts: complete, of today's weights, and what their measurements say."""

from functools import cache
from itertools import product

import pytest
import torch

from tests.conftest import or_skip
from uaplib import metrics, models, recipes, transfer
from uaplib.data import pictures
from uaplib.metrics.tasks import TASKS

over_activating = [*recipes.imagenet_study(), *recipes.mini_study()]
dense = recipes.dense_study()
dense_files = [recipe for recipe in dense if not recipe.variant]  # of a variant, only the measurement is kept


@cache
def kept_matrix(name):
    return transfer.load(recipes.ARTIFACTS / f"transfer-{name}.jsonl")


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
    or_skip(pictures.samples, "evaluation")  # not the twenty pictures that take their place
    images, _ = recipes.evaluation_set(recipe.model, 60)
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
    images, truth = (
        part[::8] for part in or_skip(recipes.evaluation_set, recipe.model)
    )  # a drive: from dusk to daylight
    model, delta = models.load(recipe.model), recipe.find(recipes.ARTIFACTS).delta
    found = TASKS[models.says(recipe.model)].evaluate(model, images, truth, delta)
    low, high = recipe.find_measured(recipes.ARTIFACTS)["gfr"]["interval"]
    assert low - 0.1 < found.gfr.value < high + 0.1


@pytest.mark.parametrize("name", recipes.KEPT_STUDIES)
def test_a_kept_matrix_has_every_cell(name):
    study, table = recipes.transfer_studies()[name], kept_matrix(name).table
    rows = [recipe.name for recipe in study.recipes] + [f"published:{release}" for release in study.released]
    assert set(zip(table.source, table.victim, strict=True)) == set(product(rows, study.victims))
    assert (table.n == {"fashion-mnist": 10_000, "imagenet": 600}[name]).all()
    crafted_on = {recipe.name: recipe.model for recipe in study.recipes if recipe.method != "noise"}
    ours = table[~table.source.str.startswith("published:")]
    assert (ours.crafted_on == ours.source.map(crafted_on).fillna("")).all()


@named([r for name in recipes.KEPT_STUDIES for r in recipes.transfer_studies()[name].recipes if r.method != "noise"])
def test_the_white_box_cell_is_what_was_measured_before(recipe):
    name = "fashion-mnist" if recipe.model in models.MINIS else "imagenet"
    table = kept_matrix(name).table.set_index(["source", "victim"])
    cell = table.loc[recipe.name, recipe.model]
    assert cell.white_box
    assert cell.resized == ""
    if recipe.method == "uap":
        if name == "imagenet":  # all evaluation images were held out; of Fashion-MNIST, the first 2,000
            last = recipe.find(recipes.ARTIFACTS).history[-1]
            assert cell.fooling_rate == pytest.approx(last["held_out_fooling_rate"], abs=0.01)
    else:
        kept = recipe.find_measured(recipes.ARTIFACTS)
        assert cell.fooling_rate == pytest.approx(kept["fooling_rate"]["value"], abs=0.01)
        assert cell.error == pytest.approx(1 - kept["adversarial_accuracy"]["value"], abs=0.01)


def test_kept_cells_are_found_by_their_keys(clothes, tmp_path):
    """The cells of two rows on one network: nothing is computed when a matrix over all images is asked for again."""
    study = recipes.transfer_studies()["fashion-mnist"]
    rows = {r.name: r.find(recipes.ARTIFACTS) for r in study.recipes if r.model == "vgg-f-mini" and r.seed == 2}
    copy = tmp_path / "cells.jsonl"
    copy.write_bytes((recipes.ARTIFACTS / "transfer-fashion-mnist.jsonl").read_bytes())
    transfer.transfer_matrix(rows, ["vgg-f-mini"], recipes.evaluation_set, cells=copy)
    assert copy.stat().st_size == (recipes.ARTIFACTS / "transfer-fashion-mnist.jsonl").stat().st_size


def test_small_networks_fool_again_whom_they_fooled(clothes):
    study, kept = recipes.transfer_studies()["fashion-mnist"], kept_matrix("fashion-mnist")
    rows = {r.name: r.find(recipes.ARTIFACTS) for r in study.recipes if r.seed == 1 and r.model == "resnet-mini"}
    few = clothes.images[:500], clothes.labels[:500]
    found = transfer.transfer_matrix(rows, ["googlenet-mini", "resnet-mini"], few)
    for pair, mask in found.fooled.items():
        assert (mask == kept.fooled[pair][:500]).mean() > 0.99
