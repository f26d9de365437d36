import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.conftest import or_skip
from uaplib import attacks, data, depth, metrics, models, recipes, segmentation
from uaplib.attacks.activations import Settings
from uaplib.balls import NormBall
from uaplib.data import camvid, scenes
from uaplib.features import Layer
from uaplib.models import dense
from uaplib.perturbation import UniversalPerturbation
from uaplib.recipes import Recipe, linf

SMALL = {"images": 6, "max_passes": 1}


@pytest.fixture
def folders(monkeypatch, tmp_path):
    """Empty folders for artifacts: the checkout's, and that of the data."""
    checkout, kept = tmp_path / "checkout", tmp_path / "data" / "artifacts"
    monkeypatch.setattr(recipes, "ARTIFACTS", checkout)
    monkeypatch.setattr(recipes, "HELD_OUT_IMAGES", 50)
    monkeypatch.setattr(recipes, "data_folder", lambda: tmp_path / "data")
    return checkout, kept


@pytest.fixture
def few(monkeypatch):
    """Four iterations for every method that over-activates, unless a variant says otherwise."""
    settings = Settings(learning_rate=0.02, batch_size=2, max_iterations=4, check_every=2, check_after=0, patience=9)
    fff, gd = attacks._fast_feature_fool, attacks._gd_uap
    monkeypatch.setattr(fff, "DEFAULT", settings)
    monkeypatch.setitem(fff.fast_feature_fool.__kwdefaults__, "settings", settings)
    for prior in gd.DEFAULTS:
        monkeypatch.setitem(gd.DEFAULTS, prior, settings)


@pytest.fixture
def evaluated(monkeypatch):
    """Ten images in place of the evaluation images."""
    images, labels = torch.rand(10, 1, 28, 28, generator=torch.Generator().manual_seed(0)), torch.arange(10)
    monkeypatch.setattr(recipes, "evaluation_set", lambda model, count=None: (images, labels))
    return images, labels


def empty(recipe):
    """A perturbation of zeros that says it is the recipe's."""
    identity = recipe.identity(recipes.images_at_hand)
    del identity["ball"]
    return UniversalPerturbation(torch.zeros(1, 1, 28, 28), recipe.ball, **identity)


def test_linf_is_in_255ths():
    assert linf(10) == NormBall(math.inf, 10 / 255)


@pytest.mark.parametrize(
    ("recipe", "name"),
    [
        (Recipe("uap", "vgg16-mini", linf(28)), "uap-vgg16-mini-linf28-n100-p5-s0"),
        (Recipe("uap", "resnet-mini", NormBall(2, 2.5), 50, 3, 2), "uap-resnet-mini-l2_2.5-n50-p2-s3"),
        (Recipe("noise", "vgg16-mini", linf(8), seed=1), "noise-vgg16-mini-linf8-s1"),
        (Recipe("fff", "resnet18", linf(10)), "fff-resnet18-linf10-s0"),
        (Recipe("gd-uap-data", "timm:x", linf(10), variant="paper"), "gd-uap-data-timm-x-linf10-paper-s0"),
    ],
)
def test_names(recipe, name):
    assert recipe.name == name


def test_recipes_that_differ_have_names_that_differ():
    base = {"method": "uap", "model": "vgg16-mini", "ball": linf(8)}
    changes = [{}, {"model": "vgg19-mini"}, {"ball": linf(8.5)}, {"ball": NormBall(2, 8)}, {"images": 50}, {"seed": 1},
               {"max_passes": 2}, {"target_rate": 0.8}]  # fmt: skip
    assert len({Recipe(**(base | change)).name for change in changes}) == len(changes)


def test_unknown_names_get_suggestions():
    with pytest.raises(ValueError, match="method='upa' is unknown. Did you mean 'uap'"):
        Recipe("upa", "vgg16-mini", linf(8))
    with pytest.raises(ValueError, match="model='vgg16-min' is unknown. Did you mean 'vgg16-mini'"):
        Recipe("uap", "vgg16-min", linf(8))
    with pytest.raises(ValueError, match="variant='papers' is unknown. Did you mean 'paper"):
        Recipe("fff", "vgg16-mini", linf(8), variant="papers")


@pytest.mark.parametrize("method", ["noise", "uap"])
def test_only_what_overactivates_has_variants(method):
    with pytest.raises(ValueError, match=f"variant='paper' is of 'fff' and GD-UAP, not of '{method}'"):
        Recipe(method, "vgg16-mini", linf(8), variant="paper")


def test_noise_needs_no_data(no_data):
    found = Recipe("noise", "vgg16-mini", linf(8), seed=4).craft()
    assert found.delta.shape == (1, 1, 28, 28)
    assert (found.method, found.seed) == ("noise", 4)


def test_a_crafted_uap_keeps_its_budget_and_says_where_it_is_from(clothes, crafting_clothes, folders):
    recipe = Recipe("uap", "vgg16-mini", linf(28), seed=2, **SMALL)
    found = recipe.craft()
    assert recipe.ball.contains(found.delta)
    assert (found.method, found.source, found.seed, found.parameters["images"]) == ("uap", "vgg16-mini", 2, 6)
    assert found.history[-1].keys() >= {"crafting_fooling_rate", "held_out_fooling_rate", "held_out_accuracy"}


def test_what_was_crafted_is_kept_and_found_again(clothes, crafting_clothes, folders, monkeypatch):
    recipe = Recipe("uap", "vgg16-mini", linf(28), **SMALL)
    crafted = recipe.load_or_craft()
    assert [p.name for p in folders[1].iterdir()] == [f"{recipe.name}.safetensors"]
    monkeypatch.setattr(Recipe, "craft", lambda *a, **k: pytest.fail("it was crafted again"))
    assert torch.equal(recipe.load_or_craft().delta, crafted.delta)


def test_the_checkouts_artifact_comes_first(folders):
    recipe = Recipe("fff", "vgg16-mini", linf(8))
    special = empty(recipe)
    special.save(folders[0] / f"{recipe.name}.safetensors")
    assert (recipe.load_or_craft().delta == 0).all()


def test_an_artifact_of_other_weights_is_crafted_anew(clothes, crafting_clothes, folders):
    recipe = Recipe("uap", "vgg16-mini", linf(28), **SMALL)
    stale = UniversalPerturbation(torch.zeros(1, 1, 28, 28), linf(28), "uap", source_sha256="0" * 64)
    stale.save(folders[0] / f"{recipe.name}.safetensors")
    assert recipe.find(folders[0]) is None
    assert (recipe.load_or_craft().delta != 0).any()


def test_a_missing_artifact_is_none(folders):
    assert Recipe("fff", "vgg16-mini", linf(8)).find(folders[0]) is None


def test_noise_is_made_and_not_kept(folders):
    recipe = Recipe("noise", "vgg16-mini", linf(8), seed=3)
    assert torch.equal(recipe.find(folders[0]).delta, recipe.craft().delta)
    assert torch.equal(recipe.load_or_craft().delta, recipe.craft().delta)
    assert not folders[1].exists()


def test_where_nothing_can_be_kept_there_is_a_warning_and_the_result(folders, few):
    folders[1].parent.mkdir(parents=True)
    folders[1].write_text("a file where the folder of artifacts should be")
    with pytest.warns(UserWarning, match="could not be kept for the next run: .* cannot be written"):
        assert Recipe("fff", "vgg16-mini", linf(8)).load_or_craft().method == "fff"


def test_the_books_recipes_are_listed_once():
    listed = recipes.book()
    assert len(listed) == len(set(listed)) == len({recipe.name for recipe in listed}) > 10


@pytest.mark.parametrize(
    ("method", "found_method", "selection"),
    [("fff", "fff", "noise pictures"), ("gd-uap-none", "gd-uap-none", "noise pictures"),
     ("gd-uap-range", "gd-uap-range", "noise pictures")],
)  # fmt: skip
def test_data_free_methods_need_no_data(no_data, few, method, found_method, selection):
    recipe = Recipe(method, "resnet-mini", linf(24), seed=2)
    found = recipe.craft()
    assert recipe.ball.contains(found.delta)
    assert (found.method, found.source, found.seed) == (found_method, "resnet-mini", 2)
    assert found.parameters["selection"] == selection
    assert len(found.history) == 4


def test_gd_uap_with_data_sees_the_crafting_images(clothes, crafting_clothes, few):
    found = Recipe("gd-uap-data", "vgg16-mini", linf(24)).craft()
    assert (found.method, found.parameters["images"], found.parameters["prior"]) == ("gd-uap-data", 300, "data")
    assert found.delta.shape == (1, 1, 28, 28)


def test_a_variant_changes_what_it_says(few):
    plain, changed = (Recipe("gd-uap-none", "resnet-mini", linf(24), variant=v).craft() for v in ("", "convolutions"))
    assert len(changed.parameters["layers"]) > len(plain.parameters["layers"])
    assert changed.parameters["learning_rate"] == plain.parameters["learning_rate"]
    assert plain.parameters["learning_rate"] == pytest.approx(0.02 * 2.4)  # in proportion to the budget


def test_an_interrupted_recipe_leaves_a_checkpoint(few, tmp_path):
    recipe = Recipe("fff", "vgg16-mini", linf(24))
    first = recipe.craft(checkpoint=tmp_path / "c")
    assert (tmp_path / "c").exists()
    assert torch.equal(recipe.craft(checkpoint=tmp_path / "c").delta, first.delta)


def test_measuring_gives_what_evaluate_gives(evaluated):
    recipe = Recipe("noise", "vgg16-mini", linf(24), seed=1)
    crafted, model = recipe.craft(), models.load("vgg16-mini")
    found = recipe.measure(crafted)
    assert json.loads(json.dumps(found)) == found
    for key, value in metrics.evaluate(model, *evaluated, crafted.delta).as_dict().items():
        assert found[key] == value
    assert (found["recipe"], found["command"], found["model"]) == (recipe.name, recipe.command, "vgg16-mini")
    assert found["saturation"] == 1
    assert found["l2_norm"] == pytest.approx(28 * 24 / 255)
    assert not recipe.measure(crafted, clip=False)["clip"]


def test_saturation_is_of_the_linf_ball_only(evaluated):
    recipe = Recipe("noise", "vgg16-mini", NormBall(2, 2.0))
    found = recipe.measure(recipe.craft())
    assert found["saturation"] is None
    assert found["l2_norm"] == pytest.approx(2)


def test_what_was_measured_is_kept_and_read_again(folders, evaluated, few, monkeypatch):
    recipe = Recipe("fff", "vgg16-mini", linf(24))
    crafted = recipe.craft()
    assert recipe.find_measured(folders[0]) is None
    recipe.keep_measured(crafted, folders[0])
    assert [path.name for path in folders[0].iterdir()] == [f"{recipe.name}.json"]
    monkeypatch.setattr(Recipe, "measure", lambda *a, **k: pytest.fail("it was measured again"))
    found = recipe.measured()
    assert found["history"] == [entry for entry in crafted.history if "rate" in entry]
    assert len(found["history"]) == 2


def test_what_was_measured_on_other_weights_is_measured_anew(folders, evaluated, few):
    recipe = Recipe("noise", "vgg16-mini", linf(24))
    recipe.keep_measured(recipe.craft(), folders[0])
    path = folders[0] / f"{recipe.name}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"source_sha256": "0" * 64, "l2_norm": 0}))
    assert recipe.find_measured(folders[0]) is None
    assert recipe.measured()["l2_norm"] > 1


@pytest.mark.parametrize(
    ("recipe", "command"),
    [
        (Recipe("noise", "vgg16-mini", linf(8), seed=1), "noise --model vgg16-mini --eps-255 8 --seed 1"),
        (Recipe("fff", "resnet18", linf(10), variant="paper"),
         "fff --model resnet18 --eps-255 10 --variant paper --seed 0"),
        (Recipe("uap", "vgg16-mini", NormBall(2, 2.5), 50, 3, 2, 0.8),
         "uap --model vgg16-mini --eps-l2 2.5 --images 50 --passes 2 --target-rate 0.8 --seed 3"),
    ],
)  # fmt: skip
def test_the_command_says_everything(recipe, command):
    assert recipe.command == f"uaplib craft {command}"


def test_the_methods_of_the_book():
    assert recipes.METHODS == ("noise", "uap", "fff", "gd-uap-none", "gd-uap-range", "gd-uap-data")


SEGMENTERS = ["lite0-camvid", "unet-camvid", "lite0-scenes", "unet-scenes"]


@pytest.fixture
def ten_crafting_images(monkeypatch):
    """Ten images to craft on in place of 300, and nothing remembered before or after."""
    remembered = [recipes.crafting_set, recipes.foreground_set]
    for each in remembered:
        each.cache_clear()
    monkeypatch.setattr(recipes, "CRAFTING_IMAGES", 10)
    yield
    for each in remembered:
        each.cache_clear()


@pytest.fixture
def two_scenes(monkeypatch):
    """Two test scenes in place of all, and tiny random networks under the names of the dense ones."""
    built = {}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        built["unet-scenes"] = dense.UNet(len(scenes.CLASSES), (4, 8))
        built["unet-depth"] = dense.LogDepth(dense.UNet(1, (4, 8)))
    tiny = {name: models.Normalized(net, [0.5] * 3, [0.25] * 3, scenes.SIZE).eval() for name, net in built.items()}
    monkeypatch.setattr(recipes, "evaluation_set", lambda model: recipes.labelled_images(model, "evaluation", 2))
    monkeypatch.setattr(recipes, "weights_sha256", lambda model: "0" * 64)
    monkeypatch.setattr(models, "load", lambda name: tiny[name])
    return tiny


@pytest.mark.parametrize("model", SEGMENTERS)
def test_less_background_is_a_variant_of_the_segmenters(model):
    recipe = Recipe("gd-uap-data", model, linf(10), variant="less-background")
    assert recipe.name == f"gd-uap-data-{model}-linf10-less-background-s0"
    assert recipe.command.endswith("--variant less-background --seed 0")


@pytest.mark.parametrize(
    ("method", "model"),
    [("gd-uap-none", "unet-scenes"), ("gd-uap-range", "unet-camvid"), ("fff", "unet-scenes"),
     ("gd-uap-data", "unet-depth"), ("gd-uap-data", "resnet-mini"), ("gd-uap-data", "resnet18"),
     ("gd-uap-data", "fcn_resnet50"), ("gd-uap-data", "midas-small")],
)  # fmt: skip
def test_nothing_else_has_less_background(method, model):
    with pytest.raises(ValueError, match="'less-background' needs a segmenter of the project and the method 'gd-uap-d"):
        Recipe(method, model, linf(10), variant="less-background")


@pytest.mark.parametrize("model", [*SEGMENTERS, "unet-depth", "midas-small", "fcn_resnet50"])
def test_uap_is_for_classifiers(model):
    with pytest.raises(ValueError, match=f"'uap' crosses borders between classes of images; {model} has none"):
        Recipe("uap", model, linf(10))


@pytest.mark.parametrize("model", ["fcn_resnet50", "deeplabv3_mobilenet_v3_large", "midas-small"])
def test_networks_whose_pixels_nobody_labelled_cannot_be_evaluated_here(model):
    with pytest.raises(ValueError, match=f"{model} says something about pixels, and no pictures with such labels"):
        recipes.evaluation_set(model)


def test_labelled_images_are_what_the_network_learnt_from():
    images, classes = recipes.labelled_images("unet-scenes", "selection", 2)
    same, metres = recipes.labelled_images("unet-depth", "selection", 2)
    assert images.shape == (2, 3, 96, 128)
    assert torch.equal(images, same)
    assert (classes.shape, classes.dtype) == ((2, 96, 128), torch.int64)
    assert (metres.shape, metres.dtype) == ((2, 96, 128), torch.float32)
    assert 0 <= classes.min() < classes.max() < len(scenes.CLASSES)
    assert (metres[classes == scenes.SKY] == 0).all()
    assert metres.max() > 5


def test_sets_of_scenes_come_from_their_own_splits():
    found = [recipes.crafting_set("unet-depth", 2), recipes.evaluation_set("unet-depth", 2)]
    for (images, metres), split in zip(found, ("train", "test"), strict=True):
        expected = scenes.load(split, 2)
        assert torch.equal(images, expected.images)
        assert torch.equal(metres, expected.depth)


@pytest.mark.parametrize("model", ["resnet-mini", "unet-scenes", "unet-camvid", "efficientnet-lite0"])
def test_what_is_crafted_on_selected_with_and_measured_on_are_the_roles_of_the_networks_data_set(
    model, monkeypatch, forgotten
):
    monkeypatch.setattr(recipes, "SELECTION_IMAGES", 2)
    found = {
        "crafting": or_skip(recipes.crafting_set, model, 2)[0],
        "selection": or_skip(recipes.selection_set, model)[0],
        "evaluation": or_skip(recipes.evaluation_set, model, 2)[0],
    }
    prepared = models.preprocessing(model) if models.find(model).resize else None
    for role, images in found.items():
        assert torch.equal(images, data.load(models.find(model).data_set, role, 2, prepared).images), role


def test_at_most_as_many_are_measured_on_as_there_are(clothes, forgotten):
    assert len(recipes.evaluation_set("resnet-mini", 20_000)[0]) == 10_000
    with pytest.raises(ValueError, match="count must be at least 1, not 0"):
        recipes.evaluation_set("resnet-mini", 0)


def test_the_foreground_set_is_the_scenes_with_most_objects(ten_crafting_images):
    images, labels = recipes.crafting_set("unet-scenes")
    objects = [
        sum(label in (scenes.BOX, scenes.BALL, scenes.PILLAR) for label in each.flatten().tolist()) for each in labels
    ]
    most = sorted(range(10), key=lambda i: -objects[i])[:3]  # 28 % of ten
    chosen, chosen_labels = recipes.foreground_set("unet-scenes")
    assert len(set(objects)) == 10
    assert torch.equal(chosen, images[most])
    assert torch.equal(chosen_labels, labels[most])


def test_the_variant_crafts_on_the_foreground_and_nothing_else_does(ten_crafting_images, two_scenes, few):
    chosen = {}
    for variant in ("", "less-background"):
        found = Recipe("gd-uap-data", "unet-scenes", linf(10), variant=variant).craft()
        chosen[variant] = found.parameters["images"]
    assert chosen == {"": 10, "less-background": 3}


def test_a_dense_networks_perturbation_has_its_images_shape(two_scenes, few):
    for method, model in [("noise", "unet-depth"), ("gd-uap-none", "unet-depth"), ("gd-uap-range", "unet-scenes")]:
        recipe = Recipe(method, model, linf(10), seed=1)
        found = recipe.craft()
        assert found.delta.shape == (1, 3, 96, 128)
        assert recipe.ball.contains(found.delta)


def test_the_dense_study_has_every_recipe_once():
    study = recipes.dense_study()
    assert len(study) == len(set(study)) == len({recipe.name for recipe in study}) == 5 * 4 + 4
    assert {recipe.model for recipe in study} == {
        model for model in models.trained_here() if models.says(model) != "label"
    }
    assert {recipe.model for recipe in study if recipe.variant} == set(SEGMENTERS)
    assert set(study) <= set(recipes.book())


def test_camvids_objects_are_its_foreground():
    labels = torch.tensor([[[0, 1], [2, 8]], [[camvid.VOID, 3], [9, 10]], [[3, 3], [4, 5]]])
    assert camvid.object_share(labels).tolist() == [0.5, 0.5, 0]


@pytest.mark.parametrize(
    ("model", "evaluate", "keys"),
    [
        ("unet-scenes", segmentation.evaluate, {"gfr", "flip_rate", "mean_iou", "clean_mean_iou", "class_iou"}),
        ("unet-depth", depth.evaluate, {"gfr", "clean", "perturbed"}),
    ],
)
def test_measuring_suits_what_the_network_says(two_scenes, model, evaluate, keys):
    recipe = Recipe("noise", model, linf(30))
    crafted = recipe.craft()
    found = recipe.measure(crafted)
    expected = evaluate(two_scenes[model], *recipes.labelled_images(model, "evaluation", 2), crafted.delta).as_dict()
    assert found | expected == found
    assert keys <= set(found)
    assert found["gfr"]["n"] == 2
    assert (found["recipe"], found["command"], found["model"]) == (recipe.name, recipe.command, model)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert recipe.measure(crafted, clip=False)["clip"] is False


def test_the_transfer_studies_have_every_method_on_every_network():
    studies = recipes.transfer_studies()
    assert set(recipes.KEPT_STUDIES) < set(studies)
    small = studies["fashion-mnist"]
    made = [(r.method, r.model, r.seed) for r in small.recipes if r.method != "noise"]
    methods = set(recipes.METHODS) - {"noise"}
    assert sorted(made) == sorted((m, n, k) for m in methods for n in models.names() for k in range(3))
    assert [r.seed for r in small.recipes if r.method == "noise"] == [0, 1, 2]
    assert {r.ball for r in small.recipes} == {linf(24)}
    for name, networks in [("imagenet", recipes.IMAGENET_MODELS), ("paper", recipes.PAPER_NETWORKS)]:
        made = [(r.method, r.model) for r in studies[name].recipes]
        assert sorted(made) == sorted((m, n) for m in recipes.METHODS for n in networks)
        assert list(studies[name].victims) == list(networks)
        assert len(studies[name].released) == 17
        assert {r.ball for r in studies[name].recipes} == {linf(10)}
    assert all(r in recipes.book() for name in recipes.KEPT_STUDIES for r in studies[name].recipes)
    assert not {r.model for r in recipes.book()} & set(recipes.PAPER_NETWORKS)


def test_a_studys_sources_are_artifacts_and_releases(folders, monkeypatch):
    monkeypatch.setattr(recipes.published, "load", lambda name: f"the release {name}")
    noise = Recipe("noise", "resnet-mini", linf(24))
    found = recipes.TransferStudy([noise], ["resnet-mini"], ["uap-VGG-16"]).sources()
    assert list(found) == [noise.name, "published:uap-VGG-16"]
    assert torch.equal(found[noise.name].delta, noise.craft().delta)
    assert found["published:uap-VGG-16"] == "the release uap-VGG-16"


INTERRUPTED = {method: Recipe(method, "vgg16-mini", linf(24)) for method in ("fff", "gd-uap-none", "gd-uap-data")} | {
    "uap": Recipe("uap", "vgg16-mini", linf(28), images=6, max_passes=2)
}


def interrupt(monkeypatch, recipe, call):
    """Let the given step of a run raise KeyboardInterrupt; return the list in which steps are counted."""
    run, name = (attacks._uap._Run, "visit") if recipe.method == "uap" else (attacks.activations._Run, "step")
    original, calls = getattr(run, name), []

    def step(*arguments):
        calls.append(1)
        if len(calls) == call:
            raise KeyboardInterrupt
        return original(*arguments)

    monkeypatch.setattr(run, name, step)
    return calls


@pytest.mark.parametrize("method", INTERRUPTED)
def test_interrupted_crafting_is_never_kept_as_finished_and_goes_on(
    method, folders, few, monkeypatch, clothes, crafting_clothes
):
    recipe = INTERRUPTED[method]
    with monkeypatch.context() as patch:
        interrupt(patch, recipe, 3)
        with pytest.raises(KeyboardInterrupt):
            recipe.load_or_craft()
    assert [p.name for p in folders[1].iterdir()] == [f"{recipe.name}.safetensors.part"]
    assert recipe.find(folders[1]) is None
    found, whole = recipe.load_or_craft(), recipe.craft()
    assert torch.equal(found.delta, whole.delta)
    assert found.history == whole.history
    assert [p.name for p in folders[1].iterdir()] == [f"{recipe.name}.safetensors"]


def test_a_study_stops_where_it_is_interrupted(folders, few, monkeypatch):
    study = recipes.TransferStudy([INTERRUPTED["fff"], INTERRUPTED["gd-uap-none"]], ["vgg16-mini"])
    interrupt(monkeypatch, INTERRUPTED["fff"], 2)
    with pytest.raises(KeyboardInterrupt):
        study.sources()
    assert [p.suffix for p in folders[1].iterdir()] == [".part"]


def test_crafting_shows_progress(folders, few, capsys):
    INTERRUPTED["fff"].load_or_craft()
    assert "fff" in capsys.readouterr().err


@pytest.fixture
def forgotten():
    """What was remembered of images and layers does not count before or after."""
    remembered = (recipes.crafting_set, recipes.foreground_set, recipes.images_at_hand, recipes._layers,
                  recipes.evaluation_set, recipes.selection_set)  # fmt: skip

    def forget():
        for function in remembered:
            getattr(function, "cache_clear", lambda: None)()

    forget()
    yield forget
    forget()


def images_of(count):
    images = torch.rand(count, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    return lambda model, asked=None: (images[:asked], torch.zeros(count, dtype=torch.int64)[:asked])


@pytest.mark.parametrize("method", ["gd-uap-data", "uap"])
def test_what_was_crafted_on_fewer_images_is_not_taken_for_all(method, folders, few, monkeypatch, forgotten, clothes):
    recipe = Recipe(method, "vgg16-mini", linf(24), images=100, max_passes=1)
    monkeypatch.setattr(recipes, "crafting_set", images_of(6))
    first = recipe.load_or_craft()
    assert first.parameters["images"] == 6
    assert torch.equal(recipe.load_or_craft().delta, first.delta)
    forgotten()
    monkeypatch.setattr(recipes, "crafting_set", images_of(9))
    with pytest.warns(UserWarning, match="is not used: it was crafted from other weights, settings or images"):
        second = recipe.load_or_craft()
    assert second.parameters["images"] == 9


CHANGES = {
    "a default": lambda patch: patch.setitem(
        attacks._gd_uap.DEFAULTS, "none", replace(attacks._gd_uap.DEFAULTS["none"], halve_every=3)
    ),
    "the layers": lambda patch: patch.setattr(recipes, "_layers", lambda *_: [Layer("network.0")]),
    "a variant": lambda patch: patch.setitem(recipes.VARIANTS, "", recipes.Variant({"smoothness": 2.0})),
    "the weights": lambda patch: patch.setattr(recipes, "weights_sha256", lambda model: "0" * 64),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_was_crafted_otherwise_is_not_found(change, folders, few, monkeypatch):
    recipe = INTERRUPTED["gd-uap-none"]
    recipe.load_or_craft()
    assert recipe.find(folders[1]) is not None
    CHANGES[change](monkeypatch)
    with pytest.warns(UserWarning, match="is not used"):
        assert recipe.find(folders[1]) is None


def test_a_measurement_on_fewer_images_or_of_another_perturbation_is_not_found(folders, evaluated, few, monkeypatch):
    recipe = Recipe("fff", "vgg16-mini", linf(24))
    recipe.keep_measured(recipe.craft(), folders[0])
    assert recipe.find_measured(folders[0]) is not None
    with monkeypatch.context() as patch:
        CHANGES["the layers"](patch)
        assert recipe.find_measured(folders[0]) is None
    recipes.images_at_hand.cache_clear()
    monkeypatch.setattr(recipes, "evaluation_set", images_of(12))
    assert recipe.find_measured(folders[0]) is None


@pytest.mark.parametrize(("method", "model"), [("uap", "resnet-mini"), ("gd-uap-data", "vgg-f-mini")])
def test_without_the_images_the_books_own_artifacts_are_found(no_data, forgotten, method, model):
    recipe = Recipe(method, model, linf(24))
    assert recipe.find(recipes.ARTIFACTS).parameters["images"] in (100, 300)
    with pytest.raises(FileNotFoundError):
        recipes.images_at_hand(recipe.model, "crafting")


def test_the_books_images_are_those_that_are_at_hand(forgotten):
    kept = json.loads((recipes.ARTIFACTS / "images.json").read_text())
    models_of = {"fashion-mnist": "resnet-mini", "camvid": "unet-camvid", "scenes": "unet-scenes"}
    for data_set, parts in kept.items():
        model = models_of.get(data_set) or data_set.split()[1]
        for part, record in parts.items():
            if (data_set, part) in [("scenes", "evaluation"), ("camvid", "evaluation")]:
                continue  # the rates of these are measured again in test_artifacts
            if or_skip(recipes._seen, model, part) and len(recipes._seen(model, part)[0]) == record["images"]:
                assert recipes.images_at_hand(model, part) == record, (data_set, part)


def test_an_installed_package_keeps_what_it_crafts_beside_the_data(monkeypatch, tmp_path, few):
    monkeypatch.setenv("UAPLIB_DATA", str(tmp_path))
    monkeypatch.setattr(recipes, "ARTIFACTS", None)
    recipe = INTERRUPTED["fff"]
    recipe.load_or_craft()
    assert recipes.kept_folder() == tmp_path / "artifacts"
    assert recipe.find(recipes.kept_folder()) is not None
    assert recipe.find_measured(None) is None


@pytest.mark.parametrize("ball", [linf(0), linf(256), NormBall(2, 0)], ids=str)
def test_a_budget_of_nothing_or_of_everything_is_refused(ball):
    with pytest.raises(ValueError, match="the budget must be more than 0 and, for l∞, at most 255/255"):
        Recipe("fff", "vgg16-mini", ball)


def test_a_recipe_takes_numbers_of_numpy(few, tmp_path):
    recipe = Recipe("fff", "vgg16-mini", linf(np.float32(24)), seed=np.int64(3), images=np.int32(5))
    assert recipe.name == "fff-vgg16-mini-linf24-s3"
    recipe.craft_into(tmp_path / "v")
    assert recipe.matches(UniversalPerturbation.load(tmp_path / "v"))


@pytest.mark.parametrize(
    ("model", "part", "words"),
    [("resnet-mini", "crafting", "Fashion-MNIST, train split"), ("unet-camvid", "evaluation", "camvid, test split"),
     ("unet-depth", "selection", "scenes, val split")],
)  # fmt: skip
def test_images_say_where_they_are_from(model, part, words):
    assert recipes.images_from(model, part) == words


@pytest.mark.parametrize(("part", "count"), [("crafting", 6), ("selection", 2), ("evaluation", 12)])
def test_the_twenty_pictures_in_place_of_the_samples_are_announced(no_data, forgotten, part, count):
    pytest.importorskip("foolbox")
    assert recipes.images_from("efficientnet-lite0", part) == "foolbox's twenty pictures"
    with pytest.warns(UserWarning, match=f"for {part} there are only {count} of foolbox's pictures.*were not found"):
        assert len(recipes._seen("efficientnet-lite0", part)[0]) == count


def test_what_is_replaced_in_the_data_folder_is_moved_aside(folders, few):
    recipe = INTERRUPTED["fff"]
    UniversalPerturbation(torch.zeros(1, 1, 28, 28), linf(24), "fff").save(folders[1] / f"{recipe.name}.safetensors")
    before = (folders[1] / f"{recipe.name}.safetensors").read_bytes()
    with pytest.warns(UserWarning, match="is not used"):
        recipe.load_or_craft()
    assert (folders[1] / f"{recipe.name}.safetensors.old").read_bytes() == before
    assert recipe.find(folders[1]) is not None


def test_a_disk_that_fills_while_crafting_costs_no_perturbation(folders, few, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(UniversalPerturbation, "save", full)
    with pytest.warns(UserWarning, match="could not be kept for the next run"):
        found = INTERRUPTED["fff"].load_or_craft()
    assert torch.equal(found.delta, INTERRUPTED["fff"].craft().delta)


@pytest.mark.parametrize("bad", [{"images": 0}, {"images": -5}, {"max_passes": 0}])
def test_counts_below_one_are_refused(bad):
    with pytest.raises(ValueError, match="images and max_passes must be at least 1"):
        Recipe("uap", "resnet-mini", linf(8), **bad)


@pytest.mark.parametrize(
    ("count", "message"), [(0, "at least 1, not 0"), (-5, "at least 1"), (70000, "more than the 55,000")]
)
def test_a_crafting_set_has_as_many_images_as_were_asked_for(crafting_clothes, count, message):
    with pytest.raises(ValueError, match=message):
        recipes.crafting_set("resnet-mini", count)


def test_whether_a_file_is_the_recipes_is_not_guessed_where_the_images_are_missing(no_data, forgotten, folders):
    recipe = Recipe("uap", "vgg16-mini", linf(24), images=77)  # not one of the book's
    UniversalPerturbation(torch.zeros(1, 1, 28, 28), linf(24), "uap").save(folders[0] / f"{recipe.name}.safetensors")
    with pytest.raises(FileNotFoundError, match="train-images"):
        recipe.find(folders[0])


def test_a_damaged_measurement_is_named(folders, few, evaluated):
    recipe = INTERRUPTED["fff"]
    folders[0].mkdir()
    (folders[0] / f"{recipe.name}.json").write_text('{"half')
    with pytest.raises(ValueError, match=f"{recipe.name}.json is damaged"):
        recipe.find_measured(folders[0])
