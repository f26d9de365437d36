"""The committed artifacts: complete, of today's weights, and what their measurements say."""

from functools import cache
from itertools import product

import pytest
import torch

from tests.conftest import or_skip
from uaplib import metrics, models, transfer
from uaplib.attacks import METHODS
from uaplib.data import nips2017
from uaplib.experiments import Recipe, images, images_for, store, studies
from uaplib.metrics.tasks import TASKS

over_activating = [*studies.imagenet_study(), *studies.mini_study()]
dense = studies.dense_study()
dense_files = [recipe for recipe in dense if not recipe.preset]  # of an ablation, only record and cell are kept
SEEN = {  # model, role and number, once for all networks that see the same
    f"{images._seen_by(model)}, {images._part(role, count)}": (model, role, count)
    for model, role, count in sorted(studies.images_of_the_book(), key=str)
    if role != "evaluation" or model in (*models.names(), studies.IMAGENET_MODELS[0])
}
DATA_FREE = [name for name, row in METHODS.items() if row.sees == "nothing" and row.optimised]


@cache
def kept_matrix(name):
    return studies.transfer_studies()[name].kept()


def found(recipe):
    """The committed artifact of a recipe."""
    return recipe.find(iter([store.ARTIFACTS / recipe.place]))


def named(some):
    return pytest.mark.parametrize("recipe", some, ids=lambda recipe: recipe.name)


@pytest.fixture(autouse=True)
def installed(request):
    """The EfficientNet-Lite packages belong to an extra."""
    if any(name in request.node.name for name in ("efficientnet", "lite0")):
        pytest.importorskip("efficientnet_lite_pytorch")


@named(studies.book())
def test_it_is_there_and_of_todays_weights(recipe):
    if studies.keeps(recipe):
        assert found(recipe) is not None
    evaluation, record = recipe.find_measured()
    assert record["command"] == recipe.command
    rate = getattr(evaluation, "gfr", None) or evaluation.fooling_rate
    assert (
        rate.n
        == {"fashion-mnist": 10_000, "imagenet-samples": 1000, "camvid": 233, "scenes": 300}[
            models.find(recipe.model).data_set
        ]
    )
    assert evaluation.clip is True


@pytest.mark.parametrize("part", SEEN.values(), ids=SEEN)
def test_the_books_images_are_those_that_are_at_hand(part):
    """Photographs to evaluate on are read for one network; of these and of scenes, rates are measured again below."""
    there, known = len(or_skip(images_for, *part)[0]), images.of_the_book(*part)
    if there != known["images"]:
        pytest.skip(f"there are {there} images, and the book's artifacts were made on {known['images']}")
    assert images.at_hand(*part) == known


@named([recipe for recipe in studies.book() if recipe.preset])
def test_the_record_of_an_ablation_is_of_a_whole_run(recipe):
    record = recipe.find_record()
    assert record["history"]
    counted = "tried" if recipe.method.endswith("-search") else "iteration"
    steps = record["run"]["patterns" if counted == "tried" else "iterations"]
    assert steps >= record["history"][-1][counted]


@named([recipe for recipe in over_activating if recipe.method in DATA_FREE])
def test_no_image_chose_the_iterate(recipe):
    assert found(recipe).parameters["selection"] == "noise pictures"


@cache
def photographs(name):
    """Some photographs as a network sees them, and what it says of them."""
    images, _ = images_for(name, "evaluation", 40)
    return images, metrics.predict(models.load(name), images)


@named([recipe for recipe in studies.imagenet_study() if recipe.method != "noise" and recipe.seed == 0])
def test_the_rate_is_found_again_on_a_part_of_the_photographs(recipe):
    or_skip(nips2017.pictures)  # not those that take their place
    images, clean = photographs(recipe.model)
    rate = metrics.fooling_rate(clean, metrics.predict(models.load(recipe.model), images, found(recipe).delta))
    low, high = rate.interval
    assert low - 0.05 < recipe.measured().evaluation.fooling_rate.value < high + 0.05


@pytest.mark.parametrize(("method", "floor"), [("fff", 0.6), ("gd-uap-none", 0.65), ("gd-uap-range", 0.7)])
def test_on_the_first_network_the_methods_without_data_are_strong(method, floor):
    pytest.importorskip("efficientnet_lite_pytorch")
    chosen = [r for r in studies.imagenet_study() if (r.method, r.model) == (method, studies.IMAGENET_MODELS[0])]
    rates = torch.tensor([recipe.measured().evaluation.fooling_rate.value for recipe in chosen])
    assert len(rates) == studies.IMAGENET_SEEDS
    assert rates.mean() > floor


@named(dense_files)
def test_the_perturbation_of_a_dense_network_has_its_images_shape(recipe):
    perturbation = found(recipe)
    assert perturbation.delta.shape[2:] == models.find(recipe.model).size
    assert recipe.ball.contains(perturbation.delta)


@named([recipe for recipe in dense if recipe.method != "noise"])
def test_on_a_dense_network_what_was_crafted_does_more_than_noise(recipe):
    noise = Recipe("noise", recipe.model, recipe.ball).measured()
    assert recipe.measured().evaluation.gfr.value > noise.evaluation.gfr.value


@pytest.mark.parametrize("model", [name for name in models.trained_here() if models.says(name) != "label"])
def test_a_dense_network_is_as_good_on_clean_images_as_its_card_says(model):
    (kept,) = (r.measured().evaluation for r in dense if (r.method, r.model) == ("noise", model))
    if models.says(model) == "depth":
        clean, card = kept.clean["delta_1"].value, models.card(model)["test_delta_1"]
    else:
        clean, card = kept.clean_mean_iou.value, models.card(model)["test_mean_iou"]
    assert clean == pytest.approx(card, abs=1e-3)


@cache
def some_scenes(name):
    """Every eighth scene, for a drive goes from dusk to daylight; what is true, and what a network says."""
    images, truth = (part[::8] for part in images_for(name, "evaluation"))
    return images, truth, metrics.predict(models.load(name), images)


@named(dense_files)
def test_the_rate_is_found_again_on_a_part_of_the_scenes(recipe):
    images, truth, clean = or_skip(some_scenes, recipe.model)
    model, task = models.load(recipe.model), TASKS[models.says(recipe.model)]
    perturbed = metrics.predict(model, images, found(recipe).delta)
    again = task.compare(clean, perturbed, truth, task.check(model, images, truth), True)
    low, high = recipe.measured().evaluation.gfr.interval
    assert low - 0.1 < again.gfr.value < high + 0.1


@pytest.mark.parametrize("name", studies.KEPT_STUDIES)
def test_a_kept_matrix_has_every_cell(name):
    study, table = studies.transfer_studies()[name], kept_matrix(name).table
    assert set(zip(table.source, table.victim, strict=True)) == set(product(study.rows, study.victims))
    assert (table.n == (10_000 if name.startswith("fashion-mnist") else 1000)).all()
    crafted_on = {recipe.name: recipe.model for recipe in study.recipes if recipe.row.optimised}
    ours = table[~table.source.str.startswith("published:")]
    assert (ours.crafted_on == ours.source.map(crafted_on).fillna("")).all()


@named(
    list(
        dict.fromkeys(
            recipe
            for name in studies.KEPT_STUDIES
            for recipe in studies.transfer_studies()[name].recipes
            if recipe.row.optimised and recipe.model in studies.transfer_studies()[name].victims
        )
    )
)
def test_the_diagonal_of_the_matrix_is_what_the_recipe_measured(recipe):
    name = next(name for name in studies.KEPT_STUDIES if recipe in studies.transfer_studies()[name].recipes)
    cell = kept_matrix(name).table.set_index(["source", "victim"]).loc[recipe.name, recipe.model]
    evaluation = recipe.measured().evaluation
    assert cell.white_box
    assert cell.resized == ""
    assert cell.fooling_rate == evaluation.fooling_rate.value
    assert cell.error == pytest.approx(1 - evaluation.adversarial_accuracy.value)


@pytest.mark.parametrize("model", studies.long_uaps())
def test_the_history_of_a_long_uap_ends_with_the_rate_that_was_measured(model):
    recipe = studies.long_uaps()[model]
    first, *_, last = recipe.find_record()["history"] or found(recipe).history
    assert recipe.measured().evaluation.fooling_rate.value == pytest.approx(last["held_out_fooling_rate"], abs=1e-3)
    assert (first["l2_norm"], first["saturation"]) == (0, 0)
    assert last["l2_norm"] == pytest.approx(found(recipe).delta.norm().item(), rel=1e-5)


@pytest.mark.parametrize("model", studies.control_studies())
def test_the_controls_of_a_uap_were_measured(model):
    study = studies.control_studies()[model]
    table = study.kept().table.set_index("source")
    assert list(table.index) == study.rows
    assert set(table.n) == {1000}
    name = study.controlled[0].name
    assert table.fooling_rate[name] == study.controlled[0].measured().evaluation.fooling_rate.value
    assert table.fooling_rate[f"{name}, sign"] > table.fooling_rate[f"{name}, equal-norm noise"]


def test_kept_cells_are_found_by_their_keys(clothes, tmp_path):
    """The cells of two rows on one network: nothing is computed when a matrix over all images is asked for again."""
    study = studies.transfer_studies()["fashion-mnist"]
    rows = {r.name: found(r) for r in study.recipes if r.model == "vgg-f-mini" and r.seed == 2}
    copy, kept = tmp_path / "cells.jsonl", store.ARTIFACTS / study.cells
    copy.write_bytes(kept.read_bytes())
    transfer.transfer_matrix(rows, ["vgg-f-mini"], lambda victim: images_for(victim, "evaluation"), cells=copy)
    assert copy.stat().st_size == kept.stat().st_size


def test_small_networks_fool_again_whom_they_fooled(clothes):
    study, kept = studies.transfer_studies()["fashion-mnist"], kept_matrix("fashion-mnist")
    rows = {r.name: found(r) for r in study.recipes if r.seed == 1 and r.model == "resnet-mini"}
    few = clothes.images[:500], clothes.labels[:500]
    again = transfer.transfer_matrix(rows, ["googlenet-mini", "resnet-mini"], few)
    for pair, mask in again.fooled.items():
        assert (mask == kept.fooled[pair][:500]).mean() > 0.99
