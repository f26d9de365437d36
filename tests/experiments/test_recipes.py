import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.conftest import or_skip
from tests.pretend import place
from uaplib import attacks, data, experiments, metrics, models, provenance
from uaplib.attacks import METHODS, GDUAPSettings, Settings
from uaplib.balls import NormBall, linf
from uaplib.data import camvid, scenes
from uaplib.experiments import Recipe, ablation, images, images_for, recipes, store, studies
from uaplib.experiments.images import images_from
from uaplib.journal import Journal
from uaplib.metrics import depth, segmentation
from uaplib.models import dense
from uaplib.perturbation import UniversalPerturbation

weights = recipes.weights_sha256
SMALL = {"images": 6, "max_passes": 1}
BOOK = store.ARTIFACTS


@pytest.fixture
def few(monkeypatch):
    """Four iterations for every method that over-activates, unless a preset says otherwise; little is held out."""
    short = {
        "learning_rate": 0.02,
        "batch_size": 2,
        "max_iterations": 4,
        "check_every": 2,
        "check_after": 0,
        "patience": 9,
    }
    monkeypatch.setattr(attacks._fast_feature_fool, "DEFAULT", Settings(**short))
    for prior in attacks.GD_UAP_DEFAULTS:
        monkeypatch.setitem(attacks.GD_UAP_DEFAULTS, prior, GDUAPSettings(**short))


@pytest.fixture
def instead(monkeypatch, forgotten):
    """A function that puts random images in place of those of a role."""
    load = images._load

    def put(role, count, shape=(1, 28, 28)):
        found = torch.rand(count, *shape, generator=torch.Generator().manual_seed(0)), torch.arange(count) % 10
        monkeypatch.setattr(
            images,
            "_load",
            lambda model, asked, n: tuple(t[:n] for t in found) if asked == role else load(model, asked, n),
        )
        images.at_hand.cache_clear()
        return found

    return put


@pytest.fixture
def evaluated(instead):
    """Ten images in place of the evaluation images."""
    return instead("evaluation", 10)


def empty(recipe):
    """A perturbation of zeros that says it is the recipe's."""
    identity = {name: value for name, value in recipe.identity().items() if name not in ("ball", "shape")}
    return UniversalPerturbation(torch.zeros(1, 1, 28, 28), recipe.ball, **identity)


def put(perturbation, folder, recipe):
    path = folder / recipe.place
    perturbation.save(path)
    return path


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_linf_is_in_255ths():
    assert linf(10) == NormBall(math.inf, 10 / 255)


@pytest.mark.parametrize(
    ("recipe", "name"),
    [
        (Recipe("uap", "vgg16-mini", linf(28)), "uap-vgg16-mini-linf28-n100-p5-s0"),
        (
            Recipe("uap", "resnet-mini", NormBall(2, 2.5), 3, {"images": 50, "max_passes": 2}),
            "uap-resnet-mini-l2_2.5-n50-p2-s3",
        ),
        (Recipe("noise", "vgg16-mini", linf(8), seed=1), "noise-vgg16-mini-linf8-s1"),
        (Recipe("fff", "resnet18", linf(10)), "fff-resnet18-linf10-s0"),
        (Recipe("fff", "timm:x", linf(10)), "fff-timm-x-linf10-s0"),
        (
            Recipe("fff", "resnet18", linf(10), settings={"learning_rate": 0.5, "clip": False}),
            "fff-resnet18-linf10-clip=False-learning_rate=0.5-s0",
        ),
        (ablation("gd-uap-data", "resnet-mini", linf(10), "paper"), "gd-uap-data-resnet-mini-linf10-paper-s0"),
    ],
)
def test_names(recipe, name):
    assert recipe.name == name


def test_recipes_that_differ_have_names_that_differ():
    base = {"method": "uap", "model": "vgg16-mini", "ball": linf(8)}
    changes = [{}, {"model": "vgg19-mini"}, {"ball": linf(8.5)}, {"ball": NormBall(2, 8)}, {"seed": 1}]
    changes += [
        {"settings": each} for each in ({"images": 50}, {"max_passes": 2}, {"target_rate": 0.8}, {"clip": False})
    ]
    found = [Recipe(**(base | change)) for change in changes]
    assert len({recipe.name for recipe in found}) == len({recipe.place for recipe in found}) == len(changes)


def test_settings_that_say_the_default_are_dropped():
    same = [Recipe("uap", "vgg16-mini", linf(8), settings=each) for each in ({}, {"images": 100}, {"max_passes": 5})]
    assert len(set(same)) == 1
    assert same[0].all_settings == {
        "images": 100, "role": "crafting", "target_rate": 1.0, "max_passes": 5, "num_classes": 10, "overshoot": 0.02,
        "max_iterations": 10, "clip": True,
    }  # fmt: skip


def test_unknown_names_get_suggestions():
    with pytest.raises(ValueError, match="method='upa' is unknown. Did you mean 'uap'"):
        Recipe("upa", "vgg16-mini", linf(8))
    with pytest.raises(ValueError, match="model='vgg16-min' is unknown. Did you mean 'vgg16-mini'"):
        Recipe("uap", "vgg16-min", linf(8))
    with pytest.raises(ValueError, match="variant='papers' is unknown. Did you mean 'paper"):
        ablation("gd-uap-none", "vgg16-mini", linf(8), "papers")
    with pytest.raises(ValueError, match="uap: setting='max_pases' is unknown. Did you mean 'max_passes'"):
        Recipe("uap", "vgg16-mini", linf(8), settings={"max_pases": 3})


@pytest.mark.parametrize("method", ["noise", "uap"])
def test_only_what_overactivates_has_presets(method):
    with pytest.raises(ValueError, match="variant='paper' is unknown"):
        ablation(method, "vgg16-mini", linf(8), "paper")


@pytest.mark.parametrize("method", METHODS)
def test_every_preset_is_possible_and_has_a_name_of_its_own(method):
    model = "unet-scenes" if "classes" in METHODS[method].tasks else "resnet-mini"
    names = {ablation(method, model, linf(10), preset).name for preset in METHODS[method].presets}
    assert len(names) == len(METHODS[method].presets)
    assert all(f"-{preset}-s0" in " ".join(names) for preset in METHODS[method].presets)


def test_noise_needs_no_data(no_data):
    found = Recipe("noise", "vgg16-mini", linf(8), seed=4).craft()
    assert found.delta.shape == (1, 1, 28, 28)
    assert (found.method, found.seed) == ("noise", 4)


def test_a_crafted_uap_keeps_its_budget_and_says_where_it_is_from(clothes, crafting_clothes, folders):
    recipe = Recipe("uap", "vgg16-mini", linf(28), 2, SMALL)
    found = recipe.craft()
    assert recipe.ball.contains(found.delta)
    assert (found.method, found.source, found.seed, found.parameters["images"]) == ("uap", "vgg16-mini", 2, 6)
    assert found.history[-1].keys() >= {"crafting_fooling_rate", "held_out_fooling_rate", "held_out_accuracy"}


def test_what_was_crafted_is_kept_and_found_again(clothes, crafting_clothes, folders, monkeypatch):
    recipe = Recipe("uap", "vgg16-mini", linf(28), settings=SMALL)
    crafted = recipe.load_or_craft()
    assert files(folders[1]) == [recipe.place]
    monkeypatch.setattr(Recipe, "craft", lambda *a, **k: pytest.fail("it was crafted again"))
    assert torch.equal(recipe.load_or_craft().delta, crafted.delta)


def test_the_checkouts_artifact_comes_first(folders):
    recipe = Recipe("fff", "vgg16-mini", linf(8))
    put(empty(recipe), folders[0], recipe)
    assert (recipe.load_or_craft().delta == 0).all()


def test_an_artifact_of_other_weights_is_crafted_anew(clothes, crafting_clothes, folders):
    recipe = Recipe("uap", "vgg16-mini", linf(28), settings=SMALL)
    stale = UniversalPerturbation(torch.zeros(1, 1, 28, 28), linf(28), "uap", source_sha256="0" * 64)
    path = put(stale, folders[0], recipe)
    with pytest.warns(UserWarning, match="is not used: it was crafted from other weights, settings or images"):
        assert recipe.find() is None
    assert path.exists()
    assert (recipe.load_or_craft().delta != 0).any()


def test_a_missing_artifact_is_none(folders):
    assert Recipe("fff", "vgg16-mini", linf(8)).find() is None


def test_noise_is_made_and_not_kept(folders):
    recipe = Recipe("noise", "vgg16-mini", linf(8), seed=3)
    assert torch.equal(recipe.find().delta, recipe.craft().delta)
    assert torch.equal(recipe.load_or_craft().delta, recipe.craft().delta)
    assert not folders[1].exists()


def test_where_nothing_can_be_kept_there_is_a_warning_and_the_result(folders, few):
    folders[1].parent.mkdir(parents=True)
    folders[1].write_text("a file where the folder of artifacts should be")
    with pytest.warns(UserWarning, match="could not be kept for the next run: .* cannot be written"):
        assert Recipe("fff", "vgg16-mini", linf(8)).load_or_craft().method == "fff"


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
    plain, changed = (ablation("gd-uap-none", "resnet-mini", linf(24), v).craft() for v in ("", "convolutions"))
    assert len(changed.parameters["layers"]) > len(plain.parameters["layers"])
    assert changed.parameters["learning_rate"] == plain.parameters["learning_rate"]
    assert plain.parameters["learning_rate"] == pytest.approx(0.02 * 2.4)  # in proportion to the budget


def test_an_interrupted_recipe_leaves_a_checkpoint(few, tmp_path):
    recipe = Recipe("fff", "vgg16-mini", linf(24))
    first = recipe.craft(checkpoint=tmp_path / "c")
    assert (tmp_path / "c").exists()
    assert torch.equal(recipe.craft(checkpoint=tmp_path / "c").delta, first.delta)


def test_measuring_gives_what_evaluate_gives(folders, evaluated):
    recipe = Recipe("noise", "vgg16-mini", linf(24), seed=1)
    crafted, model = recipe.craft(), models.load("vgg16-mini")
    expected = metrics.evaluate(model, *evaluated, crafted.delta)
    assert recipe.measure(crafted).as_dict() == expected.as_dict()
    assert recipe.measured().evaluation.as_dict() == expected.as_dict()
    unclipped = metrics.evaluate(model, *evaluated, crafted.delta, clip=False)
    assert recipe.measure(crafted, clip=False).as_dict() == unclipped.as_dict() != expected.as_dict()


def test_the_record_says_what_was_crafted(tmp_path):
    recipe = Recipe("noise", "vgg16-mini", linf(24), seed=1)
    crafted = replace(recipe.craft(), source_sha256="0" * 64, run={"seconds": 2})
    record = recipe.record(crafted)
    assert json.loads(json.dumps(record)) == record
    assert record == {
        "recipe": recipe.name,
        "command": recipe.command,
        "key": crafted.key,
        "source_sha256": "0" * 64,
        "delta_sha256": provenance.sha256_of(crafted.delta),
        "shape": [1, 1, 28, 28],
        "saturation": 1,
        "l2_norm": pytest.approx(28 * 24 / 255),
        "history": [],
        "run": {"seconds": 2},
    }
    recipe.keep_record(crafted, tmp_path)
    text = (tmp_path / "vgg16-mini" / f"{recipe.name}.json").read_text(encoding="utf-8")
    assert text == json.dumps(record, indent=2) + "\n"  # lines, so that versions can be compared


def test_images_that_choose_the_iterate_are_part_of_the_identity(clothes, crafting_clothes, few):
    recipe = Recipe("fff", "vgg16-mini", linf(24), settings={"selection": "images"})
    crafted = recipe.craft()
    assert recipe.key() == crafted.key != replace(recipe, settings={}).key()
    assert crafted.parameters["selection"] == "100 images"
    chosen = images.at_hand("vgg16-mini", "selection", 100)
    assert recipe.identity()["parameters"]["selection_sha256"] == chosen["images_sha256"]


def test_without_a_preset_an_ablation_is_the_default():
    assert ablation("gd-uap-none", "vgg16-mini", linf(24)) == Recipe("gd-uap-none", "vgg16-mini", linf(24))
    with pytest.raises(ValueError, match="method='gd-uap' is unknown"):
        ablation("gd-uap", "vgg16-mini", linf(24), "paper")


@pytest.mark.parametrize("model", ["vgg16-mini", "unet-scenes"])
def test_noise_depends_on_its_seed_its_budget_and_the_size_of_the_images(model):
    recipe = Recipe("noise", model, linf(24), seed=1)
    assert recipe.key() == recipe.craft().key
    others = [
        Recipe("noise", model, linf(24)),
        Recipe("noise", model, linf(12), 1),
        Recipe("noise", "unet-camvid", linf(24), 1),
    ]
    assert len({each.key() for each in (recipe, *others)}) == 4


def test_layers_can_be_named_one_by_one(few):
    recipe = Recipe("fff", "resnet-mini", linf(24), settings={"layers": ["network.0", "network.1"]})
    crafted = recipe.craft()
    assert recipe.identity()["parameters"]["layers"] == crafted.parameters["layers"]
    assert recipe.key() == crafted.key


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2, "about 1 s"),
        (1.6, "about 2 s"),
        (89.9, "about 90 s"),
        (90, "about 2 min"),
        (300, "about 5 min"),
        (5460, "about 91 min"),
    ],
)
def test_a_time_is_told_as_people_do(seconds, words):
    assert recipes._duration(seconds) == words


def test_what_is_kept_under_a_name_but_cannot_be_told_is_not_taken(folders, monkeypatch, no_data, forgotten):
    recipe = Recipe("uap", "vgg16-mini", linf(24))
    put(UniversalPerturbation(torch.zeros(1, 1, 28, 28), recipe.ball, "uap"), folders[0], recipe)
    monkeypatch.setattr(recipes, "of_the_book", lambda *part: {"images": 100, "images_sha256": "another"})
    with pytest.warns(UserWarning, match="is not used"):
        assert recipe.find() is None


def test_crafting_into_a_file_passes_on_bar_and_device_and_asks_for_room_first(monkeypatch, tmp_path):
    asked, recipe = [], Recipe("noise", "vgg16-mini", linf(24))
    craft = recipe.craft()

    def spy(*arguments):
        asked.append(arguments)
        return craft

    monkeypatch.setattr(recipes, "check_writable", lambda *arguments: asked.append(arguments))
    monkeypatch.setattr(Recipe, "craft", spy)
    path = tmp_path / "v.safetensors"
    recipe.craft_into(path)
    recipe.craft_into(path, True, "cuda:7")
    room, part = (path, 2**22), path.with_name("v.safetensors.part")
    assert asked == [room, (recipe, False, part, "cpu"), room, (recipe, True, part, "cuda:7")]


def test_where_nothing_can_be_kept_bar_and_device_are_passed_on_all_the_same(folders, monkeypatch):
    asked, recipe = [], Recipe("fff", "vgg16-mini", linf(24))
    crafted = Recipe("noise", "vgg16-mini", linf(24)).craft()

    def refuse(path, room):
        asked.append((path, room))
        raise OSError("the disk is full")

    monkeypatch.setattr(recipes, "check_writable", refuse)
    monkeypatch.setattr(Recipe, "craft", lambda recipe, *a, **k: asked.append((a, k)) or crafted)
    with pytest.warns(UserWarning, match="could not be kept for the next run: the disk is full"):
        recipe.load_or_craft(progress=False, device="cuda:7")
    assert asked == [(folders[1] / recipe.place, 2**22), ((False,), {"device": "cuda:7"})]


def test_model_and_images_are_on_the_device(few, monkeypatch, clothes, crafting_clothes):
    asked, load = [], models.load
    monkeypatch.setattr(models, "load", lambda name, device: asked.append(("model", device)) or load(name, device))
    on = Recipe._on
    monkeypatch.setattr(
        Recipe,
        "_on",
        lambda recipe, device, role, count: asked.append((role, count, device)) or on(recipe, device, role, count),
    )
    cpu = torch.device("cpu")
    Recipe("uap", "vgg16-mini", linf(24), settings=SMALL).craft(device="cpu")
    assert asked == [("model", cpu), ("crafting", 6, cpu), ("evaluation", METHODS["uap"].held_out, cpu)]
    asked.clear()
    Recipe("fff", "vgg16-mini", linf(24), settings={"selection": "images"}).craft(device="cpu")
    assert asked == [("model", cpu), ("selection", 100, cpu)]
    found = on(Recipe("uap", "vgg16-mini", linf(24)), torch.device("meta"), "crafting", 2)
    assert [(tensor.device.type, len(tensor)) for tensor in found] == [("meta", 2)] * 2


def test_the_record_says_where_the_images_are_from_if_there_were_any(folders, few, clothes, crafting_clothes):
    assert "images_from" not in Recipe("fff", "vgg16-mini", linf(24)).load_or_craft().run
    found = Recipe("uap", "vgg16-mini", linf(24), settings=SMALL).load_or_craft()
    assert found.run["images_from"] == "Fashion-MNIST, train split"


@pytest.mark.parametrize("role", ["evaluation", "selection"])
def test_one_does_not_craft_on_the_images_that_are_to_measure_or_to_choose(role):
    with pytest.raises(ValueError, match=f"role='{role}' is unknown"):
        Recipe("gd-uap-data", "unet-scenes", linf(10), settings={"role": role})


def test_as_many_images_as_there_are_and_only_one_are_enough(monkeypatch):
    monkeypatch.setattr(data, "most", lambda name, role: 100)
    assert Recipe("uap", "vgg16-mini", linf(24))._count() == 100
    assert Recipe("uap", "vgg16-mini", linf(24), settings={"images": 1})._count() == 1
    assert Recipe("gd-uap-data", "vgg16-mini", linf(24))._count() == 100  # 300 by default, if there are
    with pytest.raises(ValueError, match="images=101 is more than the 100 crafting images there are"):
        Recipe("gd-uap-data", "vgg16-mini", linf(24), settings={"images": 101})._count()


def test_measuring_shows_a_bar_only_when_asked_to(evaluated, capsys):
    recipe = Recipe("noise", "vgg16-mini", linf(24))
    crafted, journal = recipe.craft(), Journal(None)
    recipe.measure(crafted)
    recipe.keep_measured(crafted, journal)
    assert capsys.readouterr().err == ""
    recipe.measure(crafted, progress=True)
    assert "%" in capsys.readouterr().err
    recipe.keep_measured(crafted, journal, progress=True)
    assert "%" in capsys.readouterr().err


def test_what_is_measured_comes_from_the_journal_that_is_asked(folders, evaluated):
    recipe, journal = Recipe("noise", "vgg16-mini", linf(24)), Journal(None)
    recipe.keep_measured(recipe.craft(), journal)
    assert recipe.find_measured() is None
    found = recipe.find_measured(journal)
    assert found.record == recipe.measured().record == recipe.record(recipe.craft())
    assert found.evaluation.as_dict() == recipe.measured().evaluation.as_dict()
    ((*names, _),) = journal.last("source", "victim", "task")
    assert names == [recipe.name, "vgg16-mini"]


def test_a_journal_is_read_again_when_it_has_grown(tmp_path):
    path = tmp_path / "cells.jsonl"
    first = recipes._journal(path)
    assert recipes._journal(path) is first
    Journal(path).add("key", {"source": "a"})
    grown = recipes._journal(path)
    assert grown.get("key") == {"source": "a"}
    assert recipes._journal(path) is grown


def test_the_package_brings_its_names_when_they_are_asked_for():
    assert experiments.__getattr__("Recipe") is Recipe
    assert experiments.__getattr__("images_for") is images_for
    with pytest.raises(AttributeError, match="'uaplib.experiments' has no attribute 'nothing'"):
        experiments.__getattr__("nothing")


def test_saturation_is_of_the_linf_ball_only():
    recipe = Recipe("noise", "vgg16-mini", NormBall(2, 2.0))
    record = recipe.record(recipe.craft())
    assert record["saturation"] is None
    assert record["l2_norm"] == pytest.approx(2)


def test_what_was_measured_is_kept_and_read_again(folders, evaluated, few, monkeypatch):
    recipe = Recipe("fff", "vgg16-mini", linf(24))
    crafted = recipe.craft()
    put(crafted, folders[0], recipe)
    assert recipe.find_measured() is None
    recipe.keep_measured(crafted, Journal(folders[0] / recipe.cells))
    assert files(folders[0]) == ["cells/fashion-mnist.jsonl", recipe.place]
    monkeypatch.setattr(Recipe, "measure", lambda *a, **k: pytest.fail("it was measured again"))
    found = recipe.measured()
    assert found.record["history"] == [entry for entry in crafted.history if "rate" in entry]
    assert len(found.record["history"]) == 2
    assert (
        found.evaluation.as_dict() == metrics.evaluate(models.load("vgg16-mini"), *evaluated, crafted.delta).as_dict()
    )


def test_the_record_stands_for_a_perturbation_that_is_not_kept(folders, evaluated, few, monkeypatch):
    recipe = ablation("gd-uap-none", "vgg16-mini", linf(24), "convolutions")
    crafted = recipe.craft()
    recipe.keep_measured(crafted, Journal(folders[0] / recipe.cells))
    assert recipe.find_measured() is None  # of what, nobody knows
    recipe.keep_record(crafted, folders[0])
    monkeypatch.setattr(Recipe, "craft", lambda *a, **k: pytest.fail("it was crafted again"))
    assert recipe.measured().record == recipe.record(crafted)


def test_what_was_measured_on_other_weights_is_measured_anew(folders, evaluated, few, monkeypatch):
    recipe = Recipe("noise", "vgg16-mini", linf(24))
    recipe.keep_measured(recipe.craft(), Journal(folders[0] / recipe.cells))
    assert recipe.find_measured() is not None
    monkeypatch.setattr(recipes, "weights_sha256", lambda model: "0" * 64)
    assert recipe.find_measured() is None
    assert recipe.measured().evaluation.fooling_rate.n == 10


@pytest.mark.parametrize(
    ("recipe", "command"),
    [
        (Recipe("noise", "vgg16-mini", linf(8), seed=1), "noise --model vgg16-mini --eps-255 8 --seed 1"),
        (ablation("gd-uap-none", "resnet18", linf(10), "paper"),
         "gd-uap-none --model resnet18 --eps-255 10 --variant paper --seed 0"),
        (Recipe("uap", "vgg16-mini", NormBall(2, 2.5), 3, {"images": 50, "max_passes": 2, "target_rate": 0.8}),
         "uap --model vgg16-mini --eps-l2 2.5 --images 50 --passes 2 --target-rate 0.8 --seed 3"),
        (Recipe("gd-uap-data", "vgg16-mini", linf(8), settings={"images": 50, "layers": "blocks"}),
         "gd-uap-data --model vgg16-mini --eps-255 8 --images 50 --set 'layers=\"blocks\"' --seed 0"),
    ],
)  # fmt: skip
def test_the_command_says_everything(recipe, command):
    assert recipe.command == f"uaplib craft {command}"


SEGMENTERS = ["lite0-camvid", "unet-camvid", "lite0-scenes", "unet-scenes"]


@pytest.fixture
def two_scenes(monkeypatch, forgotten):
    """Two test scenes in place of all, and tiny random networks under the names of the dense ones."""
    built = {}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        built["unet-scenes"] = dense.UNet(len(scenes.CLASSES), (4, 8))
        built["unet-depth"] = dense.LogDepth(dense.UNet(1, (4, 8)))
    tiny = {name: models.Normalized(net, [0.5] * 3, [0.25] * 3, scenes.SIZE).eval() for name, net in built.items()}
    load = images._load
    monkeypatch.setattr(
        images, "_load", lambda model, role, count: load(model, role, 2 if role == "evaluation" else min(count, 10))
    )
    monkeypatch.setattr(models, "load", lambda name, device="cpu": tiny[name])
    return tiny


@pytest.mark.parametrize("model", SEGMENTERS)
def test_less_background_is_a_preset_of_the_segmenters(model):
    recipe = ablation("gd-uap-data", model, linf(10), "less-background")
    assert recipe.name == f"gd-uap-data-{model}-linf10-less-background-s0"
    assert recipe.command.endswith("--variant less-background --seed 0")


@pytest.mark.parametrize("model", ["resnet-mini", "resnet18", "fcn_resnet50", "midas-small"])
def test_networks_of_whole_pictures_have_no_foreground(model):
    with pytest.raises(ValueError, match="role='foreground' is unknown. Known: crafting"):
        ablation("gd-uap-data", model, linf(10), "less-background")


@pytest.mark.parametrize("model", [*SEGMENTERS, "unet-depth", "midas-small", "fcn_resnet50"])
def test_uap_is_for_classifiers(model):
    with pytest.raises(ValueError, match=f"'uap' is for networks that say: label; {model} says"):
        Recipe("uap", model, linf(10))


@pytest.mark.parametrize("model", ["fcn_resnet50", "deeplabv3_mobilenet_v3_large", "midas-small"])
def test_networks_whose_pixels_nobody_labelled_cannot_be_evaluated_here(model):
    with pytest.raises(ValueError, match=f"{model} says something about pixels, and no pictures with such labels"):
        images_for(model, "evaluation")


def test_a_networks_task_decides_what_is_known_of_its_images():
    both, classes = images_for("unet-scenes", "selection", 2)
    same, metres = images_for("unet-depth", "selection", 2)
    expected = scenes.load("val", 2)
    assert torch.equal(both, expected.images)
    assert torch.equal(both, same)
    assert torch.equal(classes, expected.labels)
    assert torch.equal(metres, expected.depth)


@pytest.mark.parametrize("model", ["resnet-mini", "unet-scenes", "unet-camvid", "efficientnet-lite0"])
@pytest.mark.parametrize("role", data.ROLES)
def test_the_images_for_a_role_are_those_of_the_networks_data_set(model, role):
    row = models.find(model)
    expected = or_skip(data.load, row.data_set, role, 2, models.preprocessing(model) if row.resize else None)
    assert torch.equal(images_for(model, role, 2)[0], expected.images)


def test_what_is_crafted_selected_and_held_out_plays_its_role(monkeypatch, few):
    seen = {}
    monkeypatch.setattr(
        attacks.methods.Method, "craft", lambda row, model, ball, settings, data, **_: seen.update(data)
    )
    monkeypatch.setattr(Recipe, "_on", lambda recipe, device, role, count: [f"{count} {role}", f"truth of {role}"])
    Recipe("uap", "resnet-mini", linf(24), settings={"images": 7}).craft()
    assert seen == {"images": "7 crafting", "labels": "truth of crafting",
                    "held_out": ["2000 evaluation", "truth of evaluation"]}  # fmt: skip
    seen.clear()
    ablation("gd-uap-data", "resnet-mini", linf(24), "image-selected").craft()
    assert seen == {"images": "300 crafting", "selection": "100 selection"}
    seen.clear()
    Recipe("fff", "resnet-mini", linf(24)).craft()
    assert seen == {}


def test_settings_reach_the_attack(monkeypatch):
    seen = {}

    def craft(row, model, ball, settings, data, **options):
        seen.update(settings=settings, ball=ball, **options)

    monkeypatch.setattr(attacks.Method, "craft", craft)
    recipe = ablation("gd-uap-none", "resnet-mini", linf(24), "paper-without-std", seed=5)
    recipe.craft(checkpoint="there")
    assert seen["settings"]["forget_std"] is True
    assert seen["settings"] == {k: v for k, v in recipe.all_settings.items() if k != "selection"}
    assert (seen["ball"], seen["seed"], seen["source"], seen["checkpoint"]) == (linf(24), 5, "resnet-mini", "there")


def test_at_most_as_many_are_measured_on_as_there_are(clothes):
    assert len(images_for("resnet-mini", "evaluation", 20_000)[0]) == 10_000
    with pytest.raises(ValueError, match="count must be at least 1, not 0"):
        images_for("resnet-mini", "evaluation", 0)


def test_the_preset_crafts_on_the_foreground_and_nothing_else_does(two_scenes, few):
    chosen = {}
    for preset in ("", "less-background"):
        found = ablation("gd-uap-data", "unet-scenes", linf(10), preset).craft()
        chosen[preset] = (found.parameters["images"], found.parameters["images_sha256"])
    first, foreground = (images_for("unet-scenes", role, 10)[0] for role in ("crafting", "foreground"))
    assert chosen == {"": (10, provenance.sha256_of(first)), "less-background": (3, provenance.sha256_of(foreground))}


def test_a_dense_networks_perturbation_has_its_images_shape(two_scenes, few):
    for method, model in [("noise", "unet-depth"), ("gd-uap-none", "unet-depth"), ("gd-uap-range", "unet-scenes")]:
        recipe = Recipe(method, model, linf(10), seed=1)
        found = recipe.craft()
        assert found.delta.shape == (1, 3, 96, 128)
        assert recipe.ball.contains(found.delta)


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
    found = recipe.measure(crafted).as_dict()
    assert found == evaluate(two_scenes[model], *images_for(model, "evaluation"), crafted.delta).as_dict()
    assert keys <= set(found)
    assert found["gfr"]["n"] == 2
    assert recipe.measure(crafted, clip=False).clip is False


INTERRUPTED = {method: Recipe(method, "vgg16-mini", linf(24)) for method in ("fff", "gd-uap-none", "gd-uap-data")} | {
    "uap": Recipe("uap", "vgg16-mini", linf(28), settings={"images": 6, "max_passes": 2})
}


def interrupt(monkeypatch, recipe, call):
    """Let the given step of a run raise KeyboardInterrupt."""
    run = attacks._uap.Run if recipe.method == "uap" else attacks.activations._Run
    original, calls = run.step, []

    def step(*arguments):
        calls.append(1)
        if len(calls) == call:
            raise KeyboardInterrupt
        return original(*arguments)

    monkeypatch.setattr(run, "step", step)


@pytest.mark.parametrize("method", INTERRUPTED)
def test_interrupted_crafting_is_never_kept_as_finished_and_goes_on(
    method, folders, few, monkeypatch, clothes, crafting_clothes
):
    recipe = INTERRUPTED[method]
    with monkeypatch.context() as patch:
        interrupt(patch, recipe, 3)
        with pytest.raises(KeyboardInterrupt):
            recipe.load_or_craft(device="cpu")
    assert files(folders[1]) == [f"{recipe.place}.part"]
    assert recipe.find() is None
    found, whole = recipe.load_or_craft(device="cpu"), recipe.craft()
    assert torch.equal(found.delta, whole.delta)
    assert found.history == whole.history
    assert files(folders[1]) == [recipe.place]


def test_a_study_stops_where_it_is_interrupted(folders, few, monkeypatch):
    study = studies.TransferStudy([INTERRUPTED["fff"], INTERRUPTED["gd-uap-none"]], ["vgg16-mini"])
    interrupt(monkeypatch, INTERRUPTED["fff"], 2)
    with pytest.raises(KeyboardInterrupt):
        study.sources()
    assert files(folders[1]) == [f"{INTERRUPTED['fff'].place}.part"]


def test_what_is_crafted_elsewhere_comes_to_the_cpu(folders, few, monkeypatch):
    asked, craft = [], Recipe.craft

    def elsewhere(recipe, progress=False, checkpoint=None, device="cpu"):
        asked.append(device)
        crafted = craft(recipe, progress, checkpoint)
        return replace(crafted, delta=place(crafted.delta))

    monkeypatch.setattr(Recipe, "craft", elsewhere)
    found = INTERRUPTED["fff"].load_or_craft(device="cuda:7")
    assert asked == ["cuda:7"]
    assert found.delta.device == INTERRUPTED["fff"].load_or_craft().delta.device == torch.device("cpu")


def test_crafting_shows_progress(folders, few, capsys):
    INTERRUPTED["fff"].load_or_craft()
    assert "fff" in capsys.readouterr().err


@pytest.mark.parametrize("method", ["gd-uap-data", "uap"])
def test_what_was_crafted_on_other_images_is_not_taken(method, folders, few, instead, clothes):
    settings = {"max_passes": 1, "images": 6} if method == "uap" else {"images": 6}
    recipe = Recipe(method, "vgg16-mini", linf(24), settings=settings)
    instead("crafting", 6)
    first = recipe.load_or_craft()
    assert first.parameters["images"] == 6
    assert torch.equal(recipe.load_or_craft().delta, first.delta)
    instead("crafting", 9)[0][0] = 0
    with pytest.warns(UserWarning, match="is not used: it was crafted from other weights, settings or images"):
        second = recipe.load_or_craft()
    assert second.parameters["images_sha256"] != first.parameters["images_sha256"]


CHANGES = {
    "a default": lambda patch: patch.setitem(
        attacks.GD_UAP_DEFAULTS, "none", replace(attacks.GD_UAP_DEFAULTS["none"], halve_every=3)
    ),
    "the layers": lambda patch: patch.setattr(recipes, "_layers", lambda *_: ["network.0:0"]),
    "the weights": lambda patch: patch.setattr(recipes, "weights_sha256", lambda model: "0" * 64),
    "the version": lambda patch: patch.setattr(
        recipes, "METHODS", METHODS | {"gd-uap-none": replace(METHODS["gd-uap-none"], version=2)}
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_was_crafted_otherwise_is_not_found(change, folders, few, monkeypatch):
    recipe = Recipe("gd-uap-none", "vgg16-mini", linf(24))
    recipe.load_or_craft()
    assert recipe.find() is not None
    CHANGES[change](monkeypatch)
    with pytest.warns(UserWarning, match="is not used"):
        assert Recipe("gd-uap-none", "vgg16-mini", linf(24)).find() is None
    assert files(folders[1]) == [recipe.place]


def test_a_measurement_on_fewer_images_or_of_another_perturbation_is_not_found(folders, evaluated, few, instead):
    recipe = Recipe("fff", "vgg16-mini", linf(24))
    crafted = recipe.craft()
    put(crafted, folders[0], recipe)
    recipe.keep_measured(crafted, Journal(folders[0] / recipe.cells))
    assert recipe.find_measured() is not None
    put(replace(crafted, delta=crafted.delta / 2), folders[0], recipe)
    assert recipe.find_measured() is None
    put(crafted, folders[0], recipe)
    instead("evaluation", 12)
    assert recipe.find_measured() is None


@pytest.mark.parametrize(("method", "model"), [("uap", "resnet-mini"), ("gd-uap-data", "vgg-f-mini")])
@pytest.mark.usefixtures("checkout")
def test_without_the_images_the_books_own_artifacts_are_found(no_data, forgotten, method, model):
    recipe = Recipe(method, model, linf(24))
    assert recipe.find(iter([BOOK / recipe.place])).parameters["images"] in (100, 300)
    assert recipe.measured().evaluation.fooling_rate.n == 10_000
    with pytest.raises(FileNotFoundError):
        images.at_hand(recipe.model, "crafting")


def test_an_installed_package_keeps_what_it_crafts_beside_the_data(monkeypatch, tmp_path, few):
    monkeypatch.setenv("UAPLIB_DATA", str(tmp_path))
    monkeypatch.setenv("UAPLIB_ARTIFACTS", str(tmp_path / "none"))
    monkeypatch.setattr(store, "ARTIFACTS", None)
    recipe = INTERRUPTED["fff"]
    with pytest.warns(UserWarning, match="could not be fetched .* and is crafted now"):
        recipe.load_or_craft()
    assert store.kept_folder() == tmp_path / "artifacts"
    assert recipe.find() is not None
    assert recipe.find_measured() is None


@pytest.mark.parametrize("ball", [linf(0), linf(256), NormBall(2, 0)], ids=repr)
def test_a_budget_of_nothing_or_of_everything_is_refused(ball):
    with pytest.raises(ValueError, match="the budget must be more than 0 and, for l∞, at most 255/255"):
        Recipe("fff", "vgg16-mini", ball)


@pytest.mark.parametrize("method", ["fff", "gd-uap-data"])
def test_saturation_asks_for_a_ball_of_the_largest_pixel(method):
    with pytest.raises(ValueError, match=f"method='{method}' takes no ball like l2 ≤ 1"):
        Recipe(method, "vgg16-mini", NormBall(2, 1))


def test_the_whole_range_of_a_pixel_is_a_budget():
    assert Recipe("noise", "vgg16-mini", linf(255)).craft().delta.abs().min() == 1


def test_a_recipe_takes_numbers_of_numpy(few, tmp_path):
    recipe = Recipe("fff", "vgg16-mini", linf(np.float32(24)), seed=np.int64(3), settings={"patience": np.int32(5)})
    assert recipe.name == "fff-vgg16-mini-linf24-patience=5-s3"
    assert type(recipe.seed) is int
    recipe.craft_into(tmp_path / "v")
    assert recipe.matches(UniversalPerturbation.load(tmp_path / "v"))


@pytest.mark.parametrize(
    ("model", "role", "words"),
    [("resnet-mini", "crafting", "Fashion-MNIST, train split"), ("unet-camvid", "evaluation", "camvid, test split"),
     ("unet-depth", "selection", "scenes, val split")],
)  # fmt: skip
def test_images_say_where_they_are_from(model, role, words):
    assert images_from(model, role) == words


@pytest.mark.parametrize(("role", "count"), [("crafting", 6), ("selection", 2), ("evaluation", 12)])
def test_the_twenty_pictures_in_place_of_the_samples_are_announced(no_data, forgotten, role, count):
    pytest.importorskip("foolbox")
    assert images_from("efficientnet-lite0", role) == "foolbox's twenty pictures"
    with pytest.warns(UserWarning, match=f"for {role} there are only {count} of foolbox's pictures.*were not found"):
        assert len(images_for("efficientnet-lite0", role, 300)[0]) == count


def test_what_is_replaced_in_the_data_folder_is_moved_aside(folders, few):
    recipe = INTERRUPTED["fff"]
    path = put(UniversalPerturbation(torch.zeros(1, 1, 28, 28), linf(24), "fff"), folders[1], recipe)
    before = path.read_bytes()
    with pytest.warns(UserWarning, match="is not used"):
        recipe.load_or_craft()
    assert path.with_name(f"{path.name}.old").read_bytes() == before
    assert recipe.find() is not None


def test_a_disk_that_fills_while_crafting_costs_no_perturbation(folders, few, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(UniversalPerturbation, "save", full)
    with pytest.warns(UserWarning, match="could not be kept for the next run"):
        found = INTERRUPTED["fff"].load_or_craft(device="cpu")
    assert torch.equal(found.delta, INTERRUPTED["fff"].craft().delta)


@pytest.mark.parametrize("bad", [{"images": 0}, {"images": -5}, {"max_passes": 0}, {"images": 2.5}, {"target_rate": 2}])
def test_bad_settings_are_refused(bad):
    with pytest.raises((ValueError, TypeError), match=next(iter(bad))):
        Recipe("uap", "resnet-mini", linf(8), settings=bad)


def test_the_name_of_many_settings_is_short_and_their_own():
    many = {"learning_rate": 0.5, "clip": False, "patience": 3, "halve_every": None, "max_iterations": 9}
    first, other = (Recipe("fff", "resnet18", linf(10), settings=many | {"patience": p}).name for p in (3, 5))
    assert first != other
    assert len(first) < 60


def test_a_name_that_says_how_many_images_is_not_of_fewer(no_data, forgotten):
    pytest.importorskip("foolbox")
    pytest.importorskip("efficientnet_lite_pytorch")
    for settings in ({}, {"images": 100}):
        with pytest.raises(ValueError, match="images=100 is more than the 6 crafting images there are"):
            Recipe("uap", "efficientnet-lite0", linf(10), settings=settings).craft()


def test_more_crafting_images_than_there_are_are_refused_if_somebody_asked_for_them(crafting_clothes):
    with pytest.raises(ValueError, match="images=70000 is more than the 55000 crafting images there are"):
        Recipe("uap", "resnet-mini", linf(8), settings={"images": 70000}).craft()


def test_whether_a_file_is_the_recipes_is_not_guessed_where_the_images_are_missing(no_data, forgotten, folders):
    recipe = Recipe("uap", "vgg16-mini", linf(24), settings={"images": 77})  # not one of the book's
    put(UniversalPerturbation(torch.zeros(1, 1, 28, 28), linf(24), "uap"), folders[0], recipe)
    with pytest.raises(FileNotFoundError, match="train-images"):
        recipe.find()


def test_a_damaged_record_is_named(folders, few, evaluated):
    recipe = INTERRUPTED["fff"]
    path = (folders[0] / recipe.place).with_suffix(".json")
    path.parent.mkdir(parents=True)
    path.write_text('{"half')
    with pytest.raises(ValueError, match=f"{recipe.name}.json is damaged"):
        recipe.find_measured()


@pytest.mark.parametrize(
    ("method", "settings", "sees"),
    [("sgd-uap", {}, "predictions"), ("sgd-uap", {"labels": "truth"}, "labels"), ("df-uap", {"target": 3}, "images"),
     ("cosine-uap", {}, "images"), ("fff", {}, "nothing"), ("uap", {}, "predictions")],
)  # fmt: skip
def test_settings_say_what_is_seen_of_the_data(method, settings, sees):
    assert Recipe(method, "resnet-mini", linf(24), settings=settings).sees == sees


def test_true_labels_reach_the_attack_and_are_part_of_the_identity(instead):
    instead("crafting", 20)
    short = {"images": 20, "max_gradients": 60, "batch_size": 10}
    by_truth, by_predictions = (
        Recipe("sgd-uap", "resnet-mini", linf(24), settings=short | more) for more in ({"labels": "truth"}, {})
    )
    found = by_truth.craft()
    assert by_truth.matches(found)
    assert not torch.equal(found.delta, by_predictions.craft().delta)
    assert found.parameters["truth_sha256"] == by_truth.identity()["parameters"]["truth_sha256"]
    assert "truth_sha256" not in by_predictions.identity()["parameters"]


@pytest.mark.parametrize("method", ["sgd-uap", "sga", "df-uap", "cosine-uap", "dm-uap", "sv-uap", "fourier-search"])
def test_what_a_method_since_2018_crafts_is_what_its_recipe_asks_for(method, instead):
    instead("crafting", 12)
    row = METHODS[method]
    known = row.settings(linf(24))
    short = {
        k: v for k, v in {"max_gradients": 40, "batch_size": 12, "trials": 4, "max_iterations": 2}.items() if k in known
    }
    recipe = Recipe(method, "resnet-mini", linf(24), seed=2, settings={"images": 12} | short)
    assert recipe.matches(recipe.craft())
