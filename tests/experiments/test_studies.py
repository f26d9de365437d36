"""The book's studies: what is kept is what they list, and what they are asked for reaches every recipe."""

import json
from dataclasses import replace
from itertools import chain, product
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from uaplib import controls, features, models, perturbation, provenance, published, releases, transfer
from uaplib.attacks import METHODS
from uaplib.balls import NormBall, linf
from uaplib.controls import CONTROLS
from uaplib.experiments import Recipe, images, recipes, store, studies

weights = recipes.weights_sha256
MATRIX_METHODS = {"noise", "uap", "fff", "gd-uap-none", "gd-uap-range", "gd-uap-data"}


@pytest.mark.usefixtures("checkout")
def test_what_is_kept_is_what_the_studies_list():
    crafted = [recipe for recipe in studies.book() if recipe.row.optimised]
    places = {recipe.place if studies.keeps(recipe) else recipe.record_place for recipe in crafted}
    places |= {recipe.cells for recipe in studies.book()} | {"images.json"}
    there = {str(path.relative_to(store.ARTIFACTS)) for path in store.ARTIFACTS.rglob("*") if path.is_file()}
    assert {place for place in there if not place.startswith(f"{studies.SUBMISSIONS}/")} == places


@pytest.mark.usefixtures("checkout")
def test_the_images_on_record_are_those_that_the_book_meets():
    found = {}
    for model, role, count in studies.images_of_the_book():
        found.setdefault(images._seen_by(model), set()).add(images._part(role, count))
    assert found == {
        seen: set(parts) for seen, parts in json.loads((store.ARTIFACTS / images.FILE).read_text()).items()
    }


def test_the_books_recipes_are_listed_once():
    listed = studies.book()
    assert len(listed) == len(set(listed)) == len({recipe.name for recipe in listed}) > 10


def test_the_studies_of_uaps_are_of_what_they_are_asked_for():
    study = studies.uap_study("vgg16-mini", 12, 3.0, seed=7)
    assert {recipe.method for listed in study.values() for recipe in listed} == {"uap"}
    assert {recipe.model for listed in study.values() for recipe in listed} == {"vgg16-mini"}
    assert [recipe.ball for recipe in study["budgets"]] == [linf(budget) for budget in studies.BUDGETS_255]
    assert {recipe.ball for name in ("sizes", "seeds") for recipe in study[name]} == {linf(12)}
    assert [recipe.ball for recipe in study["norms"]] == [linf(12), NormBall(2, 3.0)]
    made = [(r.images, r.all_settings["max_passes"], r.seed) for r in study["sizes"]]
    assert made == [(n, 3, 7 + k) for n in studies.SIZES for k in range(3)]
    assert [recipe.seed for recipe in study["seeds"]] == list(range(7, 7 + studies.SEEDS))
    assert {recipe.seed for name in ("budgets", "norms") for recipe in study[name]} == {7}
    whole = [recipe for name in ("budgets", "seeds", "norms") for recipe in study[name]]
    assert {(recipe.images, recipe.all_settings["max_passes"]) for recipe in whole} == {(100, 5)}
    assert studies.uap_study() == studies.uap_study("resnet-mini", 24, 2.0, 0)


def test_only_the_first_imagenet_network_has_several_seeds():
    first, *others = studies.IMAGENET_MODELS
    made = [(recipe.method, recipe.model, recipe.seed) for recipe in studies.imagenet_study()]
    methods = sorted(MATRIX_METHODS - {"uap"})
    assert sorted(made) == sorted([*product(methods, [first], range(3)), *product(methods, others, [0])])
    assert {recipe.ball for recipe in studies.imagenet_study()} == {linf(10)}


def test_the_study_of_minis_has_the_seeds_that_are_asked_for():
    made = [(recipe.method, recipe.model, recipe.seed) for recipe in studies.mini_study(2)]
    assert sorted(made) == sorted(product(sorted(MATRIX_METHODS - {"uap"}), models.names(), range(2)))
    assert {recipe.ball for recipe in studies.mini_study(2)} == {linf(24)}
    assert {recipe.seed for recipe in studies.mini_study()} == {0}


def test_the_floor_of_a_network_has_ten_draws_of_noise_and_patterns_of_several_sizes():
    found = studies.floor_recipes("unet-depth", linf(10))
    assert [(recipe.method, recipe.seed) for recipe in found["noise"]] == [("noise", seed) for seed in range(10)]
    assert [studies.pattern_name(recipe) for recipe in found["patterns"]] == [
        "chessboard, 1 pixel", "chessboard, 2 pixels", "chessboard, 4 pixels", "chessboard, 8 pixels",
        "stripes, 2 pixels, columns", "stripes, 2 pixels, rows", "stripes, 4 pixels, columns",
        "stripes, 4 pixels, rows", "fourier", "blocks, 8 pixels",
    ]  # fmt: skip
    every = [*found["noise"], *found["patterns"]]
    assert {(recipe.model, recipe.ball) for recipe in every} == {("unet-depth", linf(10))}
    assert len({recipe.craft().delta.numpy().tobytes() for recipe in every}) == 20


def test_the_ablations_are_of_their_priors_and_presets():
    found = [
        (prior, preset, recipe) for prior, each in studies.ablation_study().items() for preset, recipe in each.items()
    ]
    for prior, preset, recipe in found:
        assert (recipe.method, recipe.preset) == (f"gd-uap-{prior}", "" if preset == "default" else preset)
    assert {(recipe.model, recipe.ball, recipe.seed) for *_, recipe in found} == {("efficientnet-lite0", linf(10), 0)}
    for prior, each in studies.ablation_study().items():
        assert set(each) - {"default"} < set(METHODS[f"gd-uap-{prior}"].presets)


def test_the_ablations_of_another_network_are_the_same_without_those_of_the_port():
    first, second = studies.ablation_study(), studies.ablation_study(studies.SECOND_MODEL)
    for prior, each in second.items():
        assert list(each) == [preset for preset in first[prior] if "paper" not in preset]
        for preset, recipe in each.items():
            assert (recipe.model, recipe.settings) == ("mobilenet-v1-0.5", first[prior][preset].settings)
    assert sum(len(each) for each in second.values()) == sum(len(each) for each in first.values()) - 4
    assert {recipe for each in second.values() for recipe in each.values()} <= set(studies.book())


def test_the_methods_since_2018_have_one_cost_and_on_small_networks_several_seeds():
    study = studies.modern_study()
    fewer = dict.fromkeys(studies.MODERN_NETWORKS, studies.EARLIER + studies.MODERN_LARGER)
    assert set(study) == {*models.names(), studies.SMALL_MODEL, *fewer}
    for model, made in study.items():
        searches = studies.SEARCHES if model == studies.SMALL_MODEL else ()
        methods = fewer.get(model, studies.EARLIER + studies.MODERN + searches)
        assert {(r.method, r.seed) for r in made} == set(product(methods, range(1 if model in fewer else 3)))
        assert {r.ball for r in made} == {linf(24 if model in models.names() else 10)}
        costs = {r.all_settings["max_gradients"] for r in made if "max_gradients" in r.all_settings}
        assert costs == {10_000}


def test_costs_are_compared_at_equal_cost():
    study = studies.cost_study()
    assert list(study) == ["sgd-uap", "sga", "sga, 250"]
    for by_cost in study.values():
        assert list(by_cost) == list(studies.COSTS)
        for cost, made in by_cost.items():
            assert [r.seed for r in made] == [0, 1, 2]
            assert {r.all_settings["max_gradients"] for r in made} == {cost}


def test_the_ablations_of_pseudo_semantic_priors_change_one_thing_each():
    study = studies.psp_study()
    assert len(study) >= 5
    assert all(r.settings == {} for r in study["default"])
    for way, made in study.items():
        assert [r.seed for r in made] == [0, 1, 2]
        assert way == "default" or all(len(r.settings) == 1 for r in made)


def test_targets_are_classes_of_their_networks_and_part_of_the_recipe():
    for model, made in studies.targeted_study().items():
        assert {r.model for r in made} == {model}
        assert {r.all_settings["target"] for r in made} <= set(studies.TARGETS)


def test_frequencies_are_many_and_kept_as_records():
    for model, recipe in studies.frequency_study().items():
        assert (recipe.model, recipe.method, recipe.preset) == (model, "fourier-search", "fine")
        assert recipe.all_settings["trials"] == 240


def test_halving_is_studied_at_two_steps_from_several_starts():
    study = studies.halving_study()
    assert list(study) == [f"{steps} steps, {how}" for steps in ("large", "small") for how in ("halved", "not halved")]
    step = {"large": 10 / 255, "small": 1 / 255}
    for name, starts in study.items():
        assert [recipe.seed for recipe in starts] == [0, 1, 2]
        for recipe in starts:
            settings = recipe.all_settings
            assert (recipe.method, recipe.model, recipe.ball) == ("fff", "efficientnet-lite0", linf(10))
            assert settings["learning_rate"] == pytest.approx(step[name.split()[0]])
            assert (settings["halve_every"] is None and settings["saturation"] == 1) == ("not halved" in name)
            assert bool(recipe.preset) == (name != "large steps, halved")
    assert {recipe for recipes in study.values() for recipe in recipes} <= set(studies.book())


def test_the_dense_study_has_every_recipe_once():
    study, segmenters = studies.dense_study(), {m for m in models.trained_here() if models.says(m) == "classes"}
    dense = [name for name in models.trained_here() if models.says(name) != "label"]
    methods = ("noise", "gd-uap-none", "gd-uap-range", "gd-uap-data")
    made = [(recipe.method, recipe.model) for recipe in study if not recipe.preset]
    assert sorted(made) == sorted(product(methods, dense))
    assert {(recipe.method, recipe.model, recipe.preset) for recipe in study if recipe.preset} == set(
        product(["gd-uap-data"], segmenters, ["less-background"])
    )
    assert {(recipe.ball, recipe.seed) for recipe in study} == {(linf(10), 0)}
    assert len(study) == len(set(study)) == len(dense) * 4 + len(segmenters)
    assert set(study) <= set(studies.book())


def test_the_transfer_studies_have_every_method_on_every_network():
    found, listed = studies.transfer_studies(), set(studies.book())
    assert set(studies.KEPT_STUDIES) < set(found)
    small = found["fashion-mnist"]
    made = [(r.method, r.model, r.seed) for r in small.recipes if r.method != "noise"]
    assert sorted(made) == sorted(product(MATRIX_METHODS - {"noise"}, models.names(), range(3)))
    assert [r.seed for r in small.recipes if r.method == "noise"] == [0, 1, 2]
    assert {r.ball for r in small.recipes} == {linf(24)}
    assert (list(small.victims), small.cells) == (models.names(), "cells/fashion-mnist.jsonl")
    for name, networks in [("imagenet", studies.IMAGENET_MODELS), ("paper", studies.PAPER_NETWORKS)]:
        made = [(r.method, r.model) for r in found[name].recipes]
        assert sorted(made) == sorted(product(MATRIX_METHODS, networks))
        assert list(found[name].victims) == list(networks)
        assert list(found[name].released) == releases.of_the_matrix()
        assert found[name].controlled == ()
        assert found[name].cells == "cells/imagenet-samples.jsonl"
        assert {(r.ball, r.seed) for r in found[name].recipes} == {(linf(10), 0)}
        assert {(r.images, r.all_settings["max_passes"]) for r in found[name].recipes if r.method == "uap"} == {
            (300, 3)
        }
    assert {recipe for name in studies.KEPT_STUDIES for recipe in found[name].recipes} < listed
    assert not {recipe.model for recipe in listed} & set(studies.PAPER_NETWORKS)


def test_the_families_are_the_victims_of_every_method_and_of_what_nobody_optimised():
    study, listed = studies.transfer_studies()["families"], studies.book()
    assert list(study.victims) == [name for family in studies.FAMILIES.values() for name in family]
    assert list(study.released) == releases.of_the_matrix()
    assert len(set(study.rows)) == len(study.rows)
    assert {recipe.ball for recipe in study.recipes} == {linf(10)}
    modern = studies.modern_study()
    for model in ("mobilenet-v1-0.25", "googlenet-caffe", "efficientnet-lite0"):
        assert {r for r in modern[model] if r.seed == 0 and "search" not in r.method} <= set(study.recipes)
    assert {r for r in studies.imagenet_study() if r.seed == 0 and r.row.optimised} <= set(study.recipes)
    assert {r.method for r in study.recipes if not r.row.optimised} == set(studies.NOT_OPTIMISED)
    assert set(study.recipes) <= set(listed)
    assert set(studies.long_uaps().values()) <= set(study.recipes)
    assert {(model, "evaluation", None) for model in study.victims} <= studies.images_of_the_book()


def test_ensembles_stand_beside_their_parts_with_the_same_settings():
    study = studies.ensemble_study()
    *several, first, second, third = study
    assert several == [f"{first}+{second}", f"{first}+{second}+{third}"]
    for method in ("gd-uap-range", "psp-uap"):
        settings = [recipe.settings for listed in study.values() for recipe in listed if recipe.method == method]
        assert len(settings) == len(study)
        assert all(each == settings[0] for each in settings)
    assert studies.for_several_networks() in study[several[1]]


def test_what_the_book_keeps_of_a_perturbation():
    def kept(**about):
        given = {"method": "psp-uap", "model": "mobilenet-v1-0.25", "ball": linf(10)} | about
        return studies.keeps(Recipe(**given))

    assert kept()
    assert kept(model="resnet-mini", ball=linf(24), seed=2)  # a few kilobytes
    assert not kept(seed=1)
    assert not studies.keeps(studies.psp_study()["equal-weights"][0])
    assert studies.keeps(studies.for_several_networks())
    shown = [*studies.imagenet_study(), *chain(*(study.controlled for study in studies.kept_studies()))]
    assert all(map(studies.keeps, shown))


def test_cells_that_are_kept_elsewhere_are_taken_over(folders, forgotten, clothes, monkeypatch):
    few = clothes.images[:40], clothes.labels[:40]
    monkeypatch.setattr(images, "_load", lambda model, role, count: few)
    study = studies.TransferStudy([Recipe("noise", "resnet-mini", linf(24))], ["resnet-mini", "vgg-f-mini"])
    kept = study.measure(folder=store.kept_folder())
    monkeypatch.setattr(transfer, "transfer_matrix", lambda *_, **__: pytest.fail("measured again"))
    pd.testing.assert_frame_equal(study.measure().table, kept.table)
    assert (store.own_folder() / study.cells).read_bytes() == (store.kept_folder() / study.cells).read_bytes()


def test_a_studys_sources_are_artifacts_and_releases(folders, monkeypatch):
    monkeypatch.setattr(published, "load", lambda name: f"the release {name}")
    noise = Recipe("noise", "resnet-mini", linf(24))
    study = studies.TransferStudy([noise], ["resnet-mini"], ["uap-VGG-16"])
    found = study.sources()
    assert list(found) == study.rows == [noise.name, "published:uap-VGG-16"]
    assert torch.equal(found[noise.name].delta, noise.craft().delta)
    assert found["published:uap-VGG-16"] == "the release uap-VGG-16"


def test_the_controls_of_a_recipe_are_rows(folders):
    recipe = Recipe("noise", "resnet-mini", linf(24))
    study = studies.TransferStudy([recipe], ["resnet-mini"], controlled=[recipe])
    found, crafted = study.sources(), recipe.craft()
    assert list(found) == study.rows == [recipe.name, *(f"{recipe.name}, {control}" for control in CONTROLS)]
    for control, make in CONTROLS.items():
        assert torch.equal(found[studies.control_row(recipe, control)].delta, make(crafted).delta)


def test_what_has_its_cells_needs_no_perturbation(folders, forgotten, clothes, monkeypatch):
    """So rows can be added to a study where of others the records are kept alone."""
    few = clothes.images[:40], clothes.labels[:40]
    monkeypatch.setattr(images, "_load", lambda model, role, count: few)
    old, new = Recipe("noise", "resnet-mini", linf(24)), Recipe("chessboard", "resnet-mini", linf(24))
    study = studies.TransferStudy([old, new], ["resnet-mini", "vgg-f-mini"])
    first = study.row_of(old).measure()
    assert list(first.pivot().index) == [old.name]
    asked, load = [], Recipe.load_or_craft
    monkeypatch.setattr(Recipe, "load_or_craft", lambda self, **how: asked.append(self.name) or load(self, **how))
    whole = study.measure()
    assert asked == [new.name]
    assert list(whole.pivot().index) == study.rows
    assert list(whole.pivot().columns) == list(study.victims)
    assert (whole.fooled[old.name, "vgg-f-mini"] == first.fooled[old.name, "vgg-f-mini"]).all()
    again = study.measure()
    assert asked == [new.name]
    pd.testing.assert_frame_equal(again.table, whole.table)


def test_every_network_of_the_book_has_a_floor_of_what_nobody_optimised():
    study = studies.floor_study()
    assert set(studies.NOT_OPTIMISED) <= {row.name for row in METHODS.values() if not row.optimised}
    assert list(study) == [*studies.IMAGENET_MODELS, *studies.OTHERS, *models.names()]
    for model, floor in study.items():
        assert floor == studies.floor_recipes(model, linf(24) if model in models.names() else linf(10))
        listed = [*floor["noise"], *floor["patterns"]]
        assert {recipe.method for recipe in listed} == set(studies.NOT_OPTIMISED)
        assert set(listed) <= set(studies.book())


def test_the_study_of_the_papers_network_has_our_defaults_and_the_authors_rules_on_their_layers():
    study = studies.paper_network_study()
    assert list(study) == ["noise", "fff", "gd-uap-none", "gd-uap-range", "gd-uap-data"]
    assert [list(ways) for ways in study.values()] == [
        ["default"],
        ["default", "image-selected"],
        *[["default", "image-selected", "authors"]] * 3,
    ]
    recipes = [(method, way, recipe) for method, ways in study.items() for way, recipe in ways.items()]
    assert {(r.model, r.ball, r.seed) for _, _, r in recipes} == {("googlenet-caffe", linf(10), 0)}
    own, layers = {"batch_size": 1, "selection": "images"}, features.paper_layers("gd-uap", "googlenet")
    for method, way, recipe in recipes:
        default, rules = study[method]["default"], METHODS[method].presets.get(way, {})
        changes = rules | own | {"layers": layers} if way == "authors" else rules
        assert recipe.method == method
        assert recipe.all_settings == default.all_settings | changes
        assert (recipe.settings == {}) == (way == "default")
    theirs = study["gd-uap-none"]["authors"].all_settings
    assert (theirs["learning_rate"], theirs["halve_every"], theirs["max_iterations"]) == (0.1 / 255, None, 40_000)


def test_uaps_of_large_networks_stand_beside_their_controls_and_beside_what_nobody_optimised():
    found = studies.control_studies()
    assert list(found) == [*studies.IMAGENET_MODELS, "mobilenet-v1-0.25", "googlenet-caffe"]
    for model, study in found.items():
        (uap,) = study.controlled
        assert (uap.method, uap.model, list(study.victims), study.released) == ("uap", model, [model], ())
        assert [recipe.method for recipe in study.recipes] == [*studies.NOT_OPTIMISED, "uap"]
        floor = studies.floor_study()[model]
        assert set(study.recipes) - {uap} <= {*floor["noise"], *floor["patterns"]}
        assert {recipe.ball for recipe in study.recipes} == {linf(10)}
    for model, passes in {"mobilenet-v1-0.25": 15, "googlenet-caffe": 5, "efficientnet-lite0": 17}.items():
        long = studies.long_uaps()[model]
        assert found[model].controlled == [long]
        assert (long.images, long.all_settings["max_passes"], long.seed) == (900, passes, 0)
    assert set(found["efficientnet-lite1"].recipes) & set(studies.transfer_studies()["imagenet"].recipes)


def test_another_size_is_tried_by_resizing_and_by_going_there_and_back():
    found, methods = studies.size_studies(), [name for name in studies.OVERACTIVATING if name != "noise"]
    lites = studies.IMAGENET_MODELS
    assert list(found) == [*(f"{name}, resized" for name in lites), f"{lites[0]}, there and back"]
    for name in lites:
        study, own = found[f"{name}, resized"], models.find(name).size
        expected = [(sister, method) for sister in lites if sister != name for method in methods]
        assert [(recipe.model, recipe.method) for recipe in study.controlled] == expected
        assert list(study.victims) == [name]
        assert {(recipe.ball, recipe.seed) for recipe in study.controlled} == {(linf(10), 0)}
        crafted = study.controlled[0].find()
        assert torch.equal(study.controls["resized"](crafted).delta, crafted.resized(own, own).delta)
    assert found["efficientnet-lite1, resized"].rows[0] == "fff-efficientnet-lite0-linf10-s0, resized"
    back = found[f"{lites[0]}, there and back"]
    assert [(recipe.model, recipe.method) for recipe in back.controlled] == [(lites[0], method) for method in methods]
    mine = back.controlled[0].find()
    expected = mine.resized(240, 240).resized(224, 224).delta
    assert torch.equal(back.controls["there and back"](mine).delta, expected)


@pytest.mark.usefixtures("clothes")
def test_a_study_measures_what_is_missing_and_keeps_it(folders, monkeypatch):
    monkeypatch.setattr(studies, "images_for", lambda model, role: [t[:20] for t in images.images_for(model, role)])
    noise = Recipe("noise", "resnet-mini", linf(24))
    study = studies.TransferStudy([noise], ["resnet-mini"], (), [noise])
    found = study.measure()
    assert list(found.pivot().index) == study.rows
    assert set(found.table.n) == {20}
    kept = (store.own_folder() / study.cells).read_bytes()
    assert len(kept.splitlines()) == len(study.rows)
    study.measure()
    assert (store.own_folder() / study.cells).read_bytes() == kept
    assert not (store.kept_folder() / study.cells).exists()
    study.measure(folder=store.kept_folder())
    assert (store.kept_folder() / study.cells).exists()


@pytest.fixture
def measured(folders, monkeypatch):
    """A study of a release and a control on one network, and its cells in the reader's folder."""
    shape = (1, 28, 28)
    noise = Recipe("noise", "resnet-mini", linf(24))
    released = perturbation.noise(linf(24), shape, 7)
    digest = provenance.sha256_of(released.delta)
    monkeypatch.setattr(studies, "RELEASES", {"mine": SimpleNamespace(size=28, delta_sha256=digest)})
    monkeypatch.setattr(published, "ball_of", lambda name: linf(24))
    monkeypatch.setattr(published, "load", lambda name: released)
    monkeypatch.setattr(studies, "_shape", lambda release: (1, *shape))
    study = studies.TransferStudy([], ["resnet-mini"], ["mine"], [noise])
    cells = store.own_folder() / study.cells
    evaluation = images.images_for("resnet-mini", "evaluation")
    transfer.transfer_matrix(study.sources(), study.victims, evaluation, cells=cells)
    return study, digest


@pytest.mark.usefixtures("clothes")
def test_cells_of_releases_and_of_controls_are_known_by_their_digests(measured, monkeypatch):
    study, digest = measured
    assert list(study.kept().pivot().index) == study.rows
    monkeypatch.setattr(studies, "RELEASES", {"mine": SimpleNamespace(size=28, delta_sha256=digest[::-1])})
    with pytest.warns(UserWarning, match="is not used: its cells are not of the perturbations"):
        assert study.kept() is None
    monkeypatch.setattr(studies, "RELEASES", {"mine": SimpleNamespace(size=28, delta_sha256=digest)})
    assert study.kept() is not None
    monkeypatch.setitem(CONTROLS, "shuffled", lambda found: controls.shuffled(found, 5))
    with pytest.warns(UserWarning, match="is not used: its cells are not of the perturbations"):
        assert study.kept() is None


@pytest.mark.usefixtures("checkout")
def test_a_kept_matrix_of_other_weights_is_not_used(monkeypatch):
    study = studies.transfer_studies()["fashion-mnist"]
    few = replace(study, recipes=[r for r in study.recipes if r.model == "vgg-f-mini" and r.seed == 0])
    assert len(few.kept().table) == len(few.recipes) * 6
    monkeypatch.setattr(recipes, "weights_sha256", lambda model: "0" * 64 if model == "resnet-mini" else weights(model))
    with pytest.warns(UserWarning, match="fashion-mnist.jsonl is not used: its cells are not of the perturbations"):
        assert few.kept() is None
    assert replace(few, victims=["vgg-f-mini", "vgg16-mini"]).kept() is not None


@pytest.mark.usefixtures("checkout")
def test_a_matrix_that_lacks_a_row_is_not_kept():
    study = studies.transfer_studies()["fashion-mnist"]
    assert replace(study, recipes=[*study.recipes, Recipe("uap", "resnet-mini", linf(23))]).kept() is None
    assert list(study.kept().pivot().index) == study.rows
