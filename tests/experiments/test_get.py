"""`uaplib get`: what a chapter reads is fetched once, and what is missing is said in one line."""

import sys

import pytest

from tests.experiments.conftest import FILES
from uaplib import __version__, cli, files
from uaplib.experiments import store

OF_CHAPTER = {3: ["images.json", "net/a.safetensors"], 5: ["images.json", "net/a.safetensors", "net/b.json"]}


@pytest.fixture
def get(monkeypatch, capsys):
    """A function that runs the command; returns its exit code, what it prints and its errors, without the bar."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["uaplib", "get", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        shown = capsys.readouterr()
        return ended.value.code or 0, shown.out, shown.err.rpartition("\r")[2]

    return run


@pytest.mark.parametrize("chapter", OF_CHAPTER)
def test_what_a_chapter_reads_is_fetched_and_where_it_is_is_said(release, installed, get, chapter):
    folder = installed / "book" / __version__
    assert get("--chapter", chapter) == (0, f"{folder}\n", "")
    assert sorted(release.asked) == OF_CHAPTER[chapter]
    assert all((folder / name).read_bytes() == FILES[name][0] for name in OF_CHAPTER[chapter])


def test_a_second_run_fetches_nothing(release, installed, get):
    get("--chapter", 5)
    asked = list(release.asked)
    said = (0, f"{installed / 'book' / __version__}\n", "uaplib: all of it is there already\n")
    assert get("--chapter", 5) == get("--chapter", 3) == said
    assert release.asked == asked


def test_several_chapters_and_all_of_them(release, get):
    get("--chapter", 3, "--chapter", 5)
    assert sorted(release.asked) == OF_CHAPTER[5]
    get("--all")
    assert sorted(release.asked) == sorted(FILES)


def test_there_is_one_bar_in_all(release, monkeypatch, capfd):
    store.fetch_all(OF_CHAPTER[5])
    bars = [bar.strip() for bar in capfd.readouterr().err.split("\r") if bar.strip()]
    assert bars
    assert all("8.00k" in bar and not bar.startswith(("a.", "b.", "images")) for bar in bars)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ((), "name a chapter, or say --all"),
        (("--all", "--chapter", 3), "name a chapter, or say --all"),
        (("--chapter", 3, "--chapter", 1), "chapter=1 reads no kept result; those that do are 3, 5, 11"),
    ],
)
def test_what_cannot_be_meant_is_refused(release, get, arguments, why):
    assert get(*arguments) == (2, "", f"uaplib: {why}\n")
    assert release.asked == []


def test_what_is_missing_is_one_line_and_the_rest_is_fetched(release, get):
    release.wrong["net/a.safetensors"] = "404"
    why = f"1 of 3 files could not be had from {release.address}, net/a.safetensors: 404 Not Found"
    assert get("--chapter", 5) == (2, "", f"uaplib: {why}\n")
    assert sorted(release.asked) == OF_CHAPTER[5]
    assert store.here("net/b.json")


def test_without_a_network_it_gives_up_at_once(release, get, monkeypatch):
    monkeypatch.setenv("UAPLIB_ARTIFACTS", "http://127.0.0.1:9")
    why = "4 of 4 files could not be had from http://127.0.0.1:9, net/a.safetensors: no network"
    assert get("--all") == (2, "", f"uaplib: {why}\n")


def test_interrupted_it_goes_on_from_there(release, get, monkeypatch):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    store.fetched("net/a.safetensors")
    with monkeypatch.context() as patched:
        patched.setattr("shutil.move", interrupt)
        assert get("--chapter", 5) == (130, "", "uaplib: interrupted; the same command goes on from here\n")
    assert get("--chapter", 5)[0] == 0
    assert release.asked.count("net/a.safetensors") == 1


def test_in_a_checkout_all_is_there_already(release, get, monkeypatch, tmp_path):
    folder = tmp_path / "artifacts"
    for name in FILES:
        files.write_text(folder / name, "the checkout's")
    monkeypatch.setattr(store, "ARTIFACTS", folder)
    monkeypatch.delenv("UAPLIB_ARTIFACTS")
    assert get("--all") == (0, f"{folder}\n", "uaplib: all of it is there already\n")
    (folder / "net" / "b.json").unlink()
    assert get("--all") == (2, "", f"uaplib: 1 of 4 files are not in {folder}, for instance net/b.json\n")
    assert release.asked == []


def test_in_a_folder_that_was_brought_along_all_is_there(listed, installed, get, monkeypatch, tmp_path):
    for name, (content, *_) in FILES.items():
        files.write_text(tmp_path / "stick" / name, content.decode())
    monkeypatch.setenv("UAPLIB_ARTIFACTS", str(tmp_path / "stick"))
    assert get("--all") == (0, f"{tmp_path / 'stick'}\n", "uaplib: all of it is there already\n")
