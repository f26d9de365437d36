"""Where results are looked for, how the book's are fetched, and that whatever looks for an artifact notes it."""

import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

from tests.experiments.conftest import FILES
from uaplib import __version__, files, transfer
from uaplib.balls import linf
from uaplib.experiments import Recipe, ablation, images, registry, store, studies
from uaplib.perturbation import UniversalPerturbation

BOOK = Path(__file__).parents[2] / "artifacts"
A, B, C = "net/a.safetensors", "net/b.json", "net/c.safetensors"

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


def tree(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_what_an_installed_library_looks_for_is_fetched_once(release, installed):
    path = store.find(A)
    assert path == installed / "book" / __version__ / A
    assert path.read_bytes() == FILES[A][0]
    assert store.find(A) == store.fetched(A) == store.here(A) == path
    assert release.asked == [A]
    assert store.failure(A) is None


def test_what_readers_keep_comes_first(release, installed):
    own = installed / "artifacts" / A
    files.write_text(own, "own")
    assert store.find(A) == own
    assert release.asked == []
    assert [path.read_bytes() for path in store.places(A)] == [b"own", FILES[A][0]]


def test_what_the_registry_does_not_list_is_not_asked_for(release):
    assert store.find("net/d.json") is None
    assert store.failure("net/d.json") is None
    assert release.asked == []


def test_a_copy_that_was_damaged_is_fetched_again(release):
    path = store.find(A)
    path.write_bytes(FILES[A][0][:-1] + b"!")
    os.utime(path, (0, 0))
    assert store.here(A) is None
    assert store.find(A).read_bytes() == FILES[A][0]
    assert release.asked == [A, A]


FAILURES = {  # what is wrong, the words for it, and whether other files are still asked for
    "404": ("404 Not Found", True),
    "cut off": ("the connection broke off", True),
    "wrong bytes": ("wrong checksum", True),
    "slow": ("no answer in time", False),
    "none": ("no network", False),
}


@pytest.mark.parametrize("wrong", FAILURES)
def test_what_cannot_be_had_leaves_nothing_and_is_asked_for_once(release, installed, monkeypatch, wrong):
    why, goes_on = FAILURES[wrong]
    release.wrong[A] = wrong
    monkeypatch.setattr(store, "TIMEOUT", 0.1)
    if wrong == "none":
        monkeypatch.setenv("UAPLIB_ARTIFACTS", "http://127.0.0.1:9/artifacts")
    assert store.find(A) is store.find(A) is None
    assert store.failure(A) == why
    assert tree(installed.parent) == ["registry.csv"]
    assert bool(store.find(B)) == goes_on
    assert store.failure(B) == (None if goes_on else why)
    assert release.asked == ([] if wrong == "none" else [A, B] if goes_on else [A])


def test_a_source_that_fails_says_nothing_of_another(release, monkeypatch):
    monkeypatch.setenv("UAPLIB_ARTIFACTS", "http://127.0.0.1:9/")
    assert store.find(A) is None
    monkeypatch.setenv("UAPLIB_ARTIFACTS", release.address)
    assert store.failure(A) is None
    assert store.find(A)


def test_a_cache_that_cannot_be_written_is_a_reason(release, installed, monkeypatch):
    def refuse(self, *arguments, **keywords):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    assert store.find(A) is None
    assert store.failure(A) == "Permission denied"
    assert release.asked == []


def test_interrupted_it_leaves_nothing_half_and_the_next_call_fetches(release, installed, monkeypatch):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("shutil.move", interrupt)
        with pytest.raises(KeyboardInterrupt):
            store.find(A)
    assert tree(installed.parent) == ["registry.csv"]
    assert store.find(A).read_bytes() == FILES[A][0]


def test_two_processes_at_once_both_have_the_right_file(release, listed, installed):
    program = (
        "import sys\nfrom pathlib import Path\nfrom uaplib.experiments import registry, store\n"
        "store.ARTIFACTS, registry.FILE = None, Path(sys.argv[1])\nprint(store.find(sys.argv[2]).read_text())"
    )
    release.wrong[A] = "slow"  # so that the second asks while the first still waits
    command = [sys.executable, "-c", program, listed, A]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for process in both:
        out, err = process.communicate(timeout=120)
        assert (process.returncode, out) == (0, FILES[A][0].decode() + "\n"), err
    assert tree(installed / "book") == [__version__, f"{__version__}/net", f"{__version__}/{A}"]


def test_a_folder_is_looked_in_and_not_copied(listed, installed, tmp_path, monkeypatch):
    folder = tmp_path / "elsewhere"
    monkeypatch.setenv("UAPLIB_ARTIFACTS", str(folder))
    assert store.find(A) is None
    assert store.failure(A) == f"not in {folder}"
    files.write_text(folder / A, "other")
    assert store.find(A) is None
    (folder / A).write_bytes(FILES[A][0])
    assert store.find(A) == folder / A
    files.write_text(folder / B, "other")
    assert store.find(B) is None
    assert store.failure(B) == "wrong checksum"
    assert not installed.exists()


def test_what_was_fetched_is_found_beside_a_folder_too(release, installed, tmp_path, monkeypatch):
    path = store.find(A)
    monkeypatch.setenv("UAPLIB_ARTIFACTS", str(tmp_path / "elsewhere"))
    assert store.find(A) == path


def test_a_source_of_another_kind_is_refused(listed, installed, monkeypatch):
    monkeypatch.setenv("UAPLIB_ARTIFACTS", "ftp://host/artifacts")
    with pytest.raises(ValueError, match="UAPLIB_ARTIFACTS must be a folder or an address .*, not 'ftp://host/art"):
        store.find(A)


def test_an_installed_library_asks_the_release_that_it_is_of(installed, monkeypatch):
    monkeypatch.delenv("UAPLIB_ARTIFACTS", raising=False)
    assert store.source().endswith(f"/universal-perturbations/uap-book/v{__version__}/artifacts/")


def test_a_checkout_fetches_only_where_it_is_told_to(release, tmp_path, monkeypatch):
    monkeypatch.setattr(store, "ARTIFACTS", tmp_path / "artifacts")
    files.write_text(tmp_path / "artifacts" / B, "the checkout's")
    monkeypatch.delenv("UAPLIB_ARTIFACTS")
    assert store.source() == ""
    assert store.find(A) is store.failure(A) is None
    assert release.asked == []
    monkeypatch.setenv("UAPLIB_ARTIFACTS", release.address)
    assert store.find(A).read_bytes() == FILES[A][0]
    assert store.find(B) == store.here(B) == tmp_path / "artifacts" / B


def test_a_download_that_takes_long_shows_a_bar_that_goes_and_says_nothing_else(release, monkeypatch, capfd):
    store.find(B)
    assert capfd.readouterr() == ("", "")
    monkeypatch.setattr(store, "PATIENCE", 0.1)
    release.wrong[A] = "slow"
    store.find(A)
    shown = capfd.readouterr()
    assert shown.out == ""
    *bars, rest = shown.err.split("\r")
    assert rest == bars[-1].strip() == ""
    assert any(bar.strip() for bar in bars)
    assert all(bar.strip() == "" or bar.startswith("a.safetensors: ") for bar in bars)


@pytest.fixture
def crafted(monkeypatch):
    """Recipes that are crafted at once; everything that was said as it was done."""

    def craft(recipe, *arguments):
        return UniversalPerturbation(torch.zeros(1, 1, 28, 28), recipe.ball, recipe.method)

    monkeypatch.setattr(Recipe, "craft", craft)

    def said(recipe):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            recipe.load_or_craft(progress=False)
        return [str(warning.message) for warning in caught]

    return said


@pytest.mark.parametrize(
    ("seconds", "chapters", "time", "get"),
    [
        (0.5, (5, 6), "about 1 s", "--chapter 5"),
        (89, (11,), "about 89 s", "--chapter 11"),
        (300, (), "about 5 min", "--all"),
    ],
)
def test_what_could_not_be_fetched_is_crafted_and_one_line_says_how_long(
    release, crafted, monkeypatch, seconds, chapters, time, get
):
    recipe = Recipe("fff", "vgg16-mini", linf(8))
    monkeypatch.setattr(registry, "entries", lambda: {recipe.place: registry.Entry(1, "", seconds, chapters)})
    monkeypatch.setenv("UAPLIB_ARTIFACTS", "http://127.0.0.1:9")
    assert crafted(recipe) == [
        f"{recipe.name} could not be fetched (no network) and is crafted now, which took {time} on one core. To avoid "
        f"it: `uaplib get {get}` where there is a network, or UAPLIB_ARTIFACTS=FOLDER"
    ]


def test_of_an_ablation_the_record_is_missed(release, crafted, monkeypatch):
    recipe = ablation("gd-uap-none", "vgg16-mini", linf(8), "no-halving")
    monkeypatch.setattr(registry, "entries", lambda: {recipe.record_place: registry.Entry(1, "", 60, (6,))})
    monkeypatch.setenv("UAPLIB_ARTIFACTS", "http://127.0.0.1:9")
    assert recipe.find_record() is None
    (said,) = crafted(recipe)
    assert said.startswith(f"{recipe.name} could not be fetched (no network) and is crafted now, which took about 60 s")


def test_of_what_the_book_does_not_have_nothing_is_said(release, crafted, monkeypatch):
    monkeypatch.setenv("UAPLIB_ARTIFACTS", "http://127.0.0.1:9")
    assert crafted(Recipe("fff", "vgg16-mini", linf(8))) == []


@pytest.mark.usefixtures("checkout")
def test_every_artifact_is_in_the_registry_with_its_digest():
    there = {str(path.relative_to(BOOK)): path for path in BOOK.rglob("*") if path.is_file()}
    known = registry.entries()
    assert {name: (path.stat().st_size, files.sha256(path)) for name, path in there.items()} == {
        name: (entry.size, entry.sha256) for name, entry in known.items()
    }
    assert list(known) == sorted(known)


def test_the_registry_says_how_long_each_recipe_took():
    known = registry.entries()
    timed = {r.place if studies.keeps(r) else r.record_place for r in studies.book() if r.row.optimised}
    crafted = {name for name, entry in known.items() if entry.seconds}
    assert {name for name in crafted if not name.startswith(studies.SUBMISSIONS)} == timed


def test_the_registry_knows_the_chapters_that_ask_for_recipes(checkout):
    chapters = sorted((checkout / "notebooks").glob("*.ipynb"))
    asking = [each for each in chapters if "import Recipe" in each.read_text(encoding="utf-8")]
    assert registry.chapters() == [int(each.stem[:2]) for each in asking]
    assert registry.entries()[Recipe("uap", "resnet-mini", linf(24)).place].chapters[0] == 3


@pytest.mark.usefixtures("checkout")
def test_without_the_data_what_is_kept_is_shown(no_data, monkeypatch):
    monkeypatch.setattr(store, "ARTIFACTS", None)
    monkeypatch.setenv("UAPLIB_ARTIFACTS", str(BOOK))
    assert RECIPE.find().parameters["images"] == 100
    assert RECIPE.measured().evaluation.fooling_rate.n == 10_000
    study = studies.transfer_studies()["fashion-mnist"]
    few = no_data / "artifacts" / study.cells
    few.parent.mkdir(parents=True)
    few.write_bytes((BOOK / study.cells).read_bytes().splitlines(keepends=True)[0])
    assert len(study.kept().table) == len(study.rows) * len(study.victims)
