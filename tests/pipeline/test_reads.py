"""Whatever looks for an artifact notes it, there or not."""

import pytest

from uaplib import recipes, transfer
from uaplib.recipes import Recipe, linf

RECIPE = Recipe("uap", "resnet-mini", linf(24))


@pytest.fixture
def noted(tmp_path, monkeypatch):
    """A function that returns the names of the files that were looked for below the test's folder."""
    monkeypatch.setenv("UAPLIB_READS", str(tmp_path / "reads"))
    return lambda: {line.removeprefix(f"{tmp_path}/") for line in (tmp_path / "reads").read_text().splitlines()}


def test_a_perturbation(noted, tmp_path):
    assert RECIPE.find(tmp_path / "artifacts") is None
    assert noted() == {f"artifacts/{RECIPE.name}.safetensors"}


def test_what_it_does(noted, tmp_path):
    assert RECIPE.find_measured(tmp_path / "artifacts") is None
    assert noted() == {f"artifacts/{RECIPE.name}.json"}


def test_the_digests_of_the_images(noted, tmp_path, monkeypatch):
    monkeypatch.setattr(recipes, "ARTIFACTS", tmp_path / "artifacts")
    with pytest.raises(KeyError):
        recipes.book_images("resnet-mini", "crafting-100")
    assert noted() == {"artifacts/images.json"}


def test_the_cells_of_a_matrix(noted, tmp_path):
    with pytest.raises(FileNotFoundError):
        transfer.load(tmp_path / "artifacts" / "cells.jsonl")
    assert noted() == {"artifacts/cells.jsonl"}
