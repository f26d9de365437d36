"""Where results are looked for, and that whatever looks for an artifact notes it, there or not."""

import pytest

from uaplib import transfer
from uaplib.balls import linf
from uaplib.experiments import Recipe, images, store

RECIPE = Recipe("uap", "resnet-mini", linf(24))


@pytest.fixture
def noted(tmp_path, monkeypatch):
    """A function that returns the names of the files that were looked for below the test's folder."""
    monkeypatch.setenv("UAPLIB_READS", str(tmp_path / "reads"))
    monkeypatch.setattr(store, "ARTIFACTS", tmp_path / "artifacts")
    monkeypatch.setenv("UAPLIB_DATA", str(tmp_path / "data"))
    return lambda: {line.removeprefix(f"{tmp_path}/") for line in (tmp_path / "reads").read_text().splitlines()}


def test_the_checkout_comes_before_the_data_folder(noted, tmp_path):
    for folder in (tmp_path / "data" / "artifacts", tmp_path / "artifacts"):
        assert store.find("a/b.json") is None or folder == tmp_path / "artifacts"
        (folder / "a").mkdir(parents=True)
        (folder / "a" / "b.json").write_text("{}")
        assert store.find("a/b.json") == folder / "a" / "b.json"


def test_a_perturbation(noted):
    assert RECIPE.find() is None
    assert noted() == {f"artifacts/{RECIPE.place}", f"data/artifacts/{RECIPE.place}"}


def test_what_it_does(noted):
    assert RECIPE.find_measured() is None
    record = RECIPE.place.replace(".safetensors", ".json")
    assert {f"artifacts/{RECIPE.place}", f"artifacts/{record}"} <= noted()


def test_cells_and_the_digests_of_the_images(noted):
    assert Recipe("noise", "resnet-mini", linf(24)).find_measured() is None
    assert {"artifacts/cells/fashion-mnist.jsonl", "artifacts/images.json"} <= noted()
    with pytest.raises(KeyError):
        images.of_the_book("resnet-mini", "crafting", 100)


def test_the_cells_of_a_matrix(noted, tmp_path):
    with pytest.raises(FileNotFoundError):
        transfer.load(tmp_path / "artifacts" / "cells.jsonl")
    assert noted() == {"artifacts/cells.jsonl"}
