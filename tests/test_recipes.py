import math

import pytest
import torch

from uaplib import recipes
from uaplib.balls import NormBall
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


def test_linf_is_in_255ths():
    assert linf(10) == NormBall(math.inf, 10 / 255)


@pytest.mark.parametrize(
    ("recipe", "name"),
    [
        (Recipe("uap", "vgg16-mini", linf(28)), "uap-vgg16-mini-linf28-n100-p5-s0"),
        (Recipe("uap", "resnet-mini", NormBall(2, 2.5), 50, 3, 2), "uap-resnet-mini-l2_2.5-n50-p2-s3"),
        (Recipe("noise", "vgg16-mini", linf(8), seed=1), "noise-linf8-s1"),
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
    with pytest.raises(ValueError, match="model='vgg16' is unknown. Did you mean 'vgg16-mini'"):
        Recipe("uap", "vgg16", linf(8))


def test_noise_needs_no_data(no_data):
    found = Recipe("noise", "vgg16-mini", linf(8), seed=4).craft()
    assert found.delta.shape == (1, 1, 28, 28)
    assert (found.method, found.seed) == ("noise", 4)


def test_a_crafted_uap_keeps_its_budget_and_says_where_it_is_from(clothes, folders):
    recipe = Recipe("uap", "vgg16-mini", linf(28), seed=2, **SMALL)
    found = recipe.craft()
    assert recipe.ball.contains(found.delta)
    assert (found.method, found.source, found.seed, found.parameters["images"]) == ("uap", "vgg16-mini", 2, 6)
    assert found.history[-1].keys() >= {"crafting_fooling_rate", "held_out_fooling_rate", "held_out_accuracy"}


def test_what_was_crafted_is_kept_and_found_again(clothes, folders, monkeypatch):
    recipe = Recipe("uap", "vgg16-mini", linf(28), **SMALL)
    crafted = recipe.load_or_craft()
    assert [p.name for p in folders[1].iterdir()] == [f"{recipe.name}.safetensors"]
    monkeypatch.setattr(Recipe, "craft", lambda *a, **k: pytest.fail("it was crafted again"))
    assert torch.equal(recipe.load_or_craft().delta, crafted.delta)


def test_the_checkouts_artifact_comes_first(folders):
    recipe = Recipe("noise", "vgg16-mini", linf(8))
    special = UniversalPerturbation(torch.zeros(1, 1, 28, 28), linf(8), "noise")
    special.save(folders[0] / f"{recipe.name}.safetensors")
    assert (recipe.load_or_craft().delta == 0).all()


def test_an_artifact_of_other_weights_is_crafted_anew(clothes, folders):
    recipe = Recipe("uap", "vgg16-mini", linf(28), **SMALL)
    stale = UniversalPerturbation(torch.zeros(1, 1, 28, 28), linf(28), "uap", source_sha256="0" * 64)
    stale.save(folders[0] / f"{recipe.name}.safetensors")
    assert recipe.find(folders[0]) is None
    assert (recipe.load_or_craft().delta != 0).any()


def test_a_missing_artifact_is_none(folders):
    assert Recipe("noise", "vgg16-mini", linf(8)).find(folders[0]) is None


def test_where_nothing_can_be_kept_there_is_a_warning_and_the_result(folders, monkeypatch):
    def refused(*arguments):
        raise PermissionError("read-only file system")

    monkeypatch.setattr(UniversalPerturbation, "save", refused)
    with pytest.warns(UserWarning, match="could not be kept for the next run: read-only file system"):
        assert Recipe("noise", "vgg16-mini", linf(8)).load_or_craft().method == "noise"


def test_the_books_recipes_are_listed_once():
    listed = recipes.book()
    assert len(listed) == len(set(listed)) == len({recipe.name for recipe in listed}) > 10
