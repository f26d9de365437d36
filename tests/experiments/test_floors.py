"""Floors: what nobody optimised, measured or from kept cells."""

import pytest

from uaplib.experiments import images, recipes, studies
from uaplib.experiments.floors import Floor, floor
from uaplib.metrics import Proportion


def of(*hits):
    return [Proportion(each, 100) for each in hits]


def test_the_row_of_a_floor_has_the_mean_and_the_ends_of_the_draws_and_the_best_pattern():
    found = Floor(of(10, 40, 16), dict(zip(["chessboard", "stripes", "waves"], of(30, 60, 59), strict=True)))
    assert found.best == "stripes"
    assert found.row() == {
        "noise": pytest.approx(22), "noise, least": 10, "noise, most": 40, "best pattern": "stripes", "its rate": 60,
    }  # fmt: skip


@pytest.mark.parametrize("model", ["resnet-mini", "tiny-darknet"])
def test_a_floor_of_the_book_is_that_of_its_cells(model, monkeypatch):
    """Nothing is measured: the files of a network may not be here."""
    monkeypatch.setattr(recipes.Recipe, "measure", lambda *_: pytest.fail("something was measured"))
    found, study = floor(model), studies.floor_study()[model]
    assert [rate.value for rate in found.noise] == [r.measured().evaluation.fooling_rate.value for r in study["noise"]]
    assert list(found.patterns) == [studies.pattern_name(recipe) for recipe in study["patterns"]]
    for recipe, rate in zip(study["patterns"], found.patterns.values(), strict=True):
        assert rate == recipe.measured().evaluation.fooling_rate


@pytest.mark.usefixtures("clothes", "folders")
def test_what_is_not_kept_is_measured(monkeypatch):
    monkeypatch.setattr(recipes, "images_for", lambda model, role: [t[:20] for t in images.images_for(model, role)])
    found = floor("resnet-mini")
    assert {rate.n for rate in (*found.noise, *found.patterns.values())} == {20}
    assert len(found.noise) == len(found.patterns) == 10


def test_a_network_without_a_floor_is_refused():
    with pytest.raises(ValueError, match="model='resnet-min' is unknown. Did you mean 'resnet-mini'"):
        floor("resnet-min")
