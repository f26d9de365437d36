import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

import uaplib.pipeline
from tests.pipeline.conftest import printed, write
from uaplib import cli, files
from uaplib.data import fashion_mnist
from uaplib.experiments import images, registry, studies
from uaplib.pipeline import commands, fetch
from uaplib.pipeline import hero as hero_module
from uaplib.pipeline.execute import ExecutionError

COMMANDS = ["build", "update", "data", "hero", "images", "registry"]
STEMS = ["01-a", "02-b", "03-c"]


@pytest.fixture
def root(book, monkeypatch):
    """A checkout of three chapters that were never executed, as the working folder."""
    for stem in STEMS:
        write(book, stem=stem)
    monkeypatch.setattr(commands, "checkout", lambda: book)
    monkeypatch.chdir(book)
    return book


def outputs(root):
    """What each chapter shows."""
    return [printed(root / "notebooks" / f"{stem}.ipynb") for stem in STEMS]


def status(root):
    return json.loads((root / "book" / "status.json").read_text())


def refused(monkeypatch, capsys, *arguments):
    """What the command says as it ends with exit code 2."""
    monkeypatch.setattr(sys, "argv", ["uaplib", "book", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_every_command_has_help_with_an_example_everywhere(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(cli.app, ["book", *command.split(), "--help"], terminal_width=200)
    assert result.exit_code == 0
    assert f"Example: uaplib book {command}".rstrip() in " ".join(result.output.replace("`", "").split())


@pytest.mark.parametrize("command", COMMANDS)
def test_outside_a_checkout_nothing_runs(root, runs, monkeypatch, capsys, command):
    monkeypatch.chdir(root / "book")
    assert f"runs in the root of its checkout, {root}, not in {root / 'book'}" in refused(monkeypatch, capsys, command)
    monkeypatch.setattr(commands, "checkout", lambda: None)
    assert "installed without one" in refused(monkeypatch, capsys, command)
    assert runs == []


@pytest.mark.parametrize("command", ["build", "update"])
def test_without_the_extra_it_is_named(root, monkeypatch, capsys, command):
    monkeypatch.setitem(sys.modules, "papermill", None)
    monkeypatch.delitem(sys.modules, "uaplib.pipeline.execute")
    monkeypatch.delattr(uaplib.pipeline, "execute")
    assert refused(monkeypatch, capsys, command) == "uaplib: papermill is not installed: pip install 'uaplib[book]'\n"


def test_update_writes_all_chapters_back(root, runs):
    commands.update()
    assert outputs(root) == ["run 1 of 01-a", "run 2 of 02-b", "run 3 of 03-c"]
    assert [record["chapter"] for record in status(root)] == STEMS
    assert [row.split("]")[0] for row in page_rows(root)] == [f"| [{stem}" for stem in STEMS]


def test_update_writes_only_the_wanted_chapter_back(root, runs):
    before = (root / "notebooks" / "01-a.ipynb").read_bytes()
    commands.update(["02-b"])
    assert runs == ["02-b"]
    assert outputs(root) == [None, "run 1 of 02-b", None]
    assert (root / "notebooks" / "01-a.ipynb").read_bytes() == before


def test_the_records_of_the_others_are_kept_in_the_order_of_the_chapters(root, runs):
    commands.update(["03-c", "02-b"])
    kept = status(root)
    kept[0]["seconds"] = 123.0
    (root / "book" / "status.json").write_text(json.dumps(kept))
    write(root, "print(3)", stem="03-c")
    commands.update(["03-c", "01-a"])
    assert [record["chapter"] for record in status(root)] == STEMS
    assert status(root)[1] == kept[0]
    assert "| 123 s |" in page_rows(root)[1]
    assert status(root)[2]["source"] != kept[1]["source"]


def test_records_of_chapters_that_are_gone_go(root, runs):
    commands.update()
    (root / "notebooks" / "02-b.ipynb").unlink()
    commands.update(["01-a"])
    assert [record["chapter"] for record in status(root)] == ["01-a", "03-c"]


def test_the_status_shows_nothing_that_is_for_the_next_run_only(root, runs):
    runs.reads["01-a"] = ["artifacts/a"]
    commands.update(["01-a"])
    (record,) = status(root)
    assert set(record) == {"chapter", "date", "device", "parameters", "seconds", "source", "versions"}
    text = (root / "book" / "status.json").read_text(encoding="utf-8")
    assert text == json.dumps([record], indent=2, sort_keys=True) + "\n"  # lines, so that versions can be compared


def test_a_second_update_executes_and_writes_nothing(root, runs):
    commands.update()
    files = [*(root / "notebooks").iterdir(), *(root / "book").iterdir()]
    before = {file: file.read_bytes() for file in files}
    for file in (root / "notebooks").iterdir():
        os.utime(file, (0, 0))
    commands.update()
    assert len(runs) == 3
    assert {file: file.read_bytes() for file in files} == before
    assert {file.stat().st_mtime for file in (root / "notebooks").iterdir()} == {0}


def test_unknown_chapters_are_refused_before_anything_runs(root, runs, monkeypatch, capsys):
    said = refused(monkeypatch, capsys, "update", "01-a", "99-z", "98-y")
    assert said == "uaplib: no such chapter: 98-y, 99-z; there are 01-a, 02-b, 03-c\n"
    assert runs == []


def test_a_chapter_that_fails_keeps_its_outputs(root, runs, monkeypatch, capsys):
    commands.update()
    before = (root / "book" / "status.json").read_bytes()
    for stem in STEMS:
        (root / "_build" / "executed" / f"{stem}.json").unlink()
    runs.failing = {"02-b"}
    assert refused(monkeypatch, capsys, "update") == "uaplib: 02-b.ipynb did not run to its end\n"
    assert outputs(root) == ["run 4 of 01-a", "run 2 of 02-b", "run 3 of 03-c"]
    assert (root / "book" / "status.json").read_bytes() == before


def page_rows(root):
    return [row for row in (root / "book" / "status.md").read_text().splitlines() if row.startswith("| [")]


@pytest.fixture
def rendered(root, monkeypatch):
    """The renderer is a function that writes a page; returns the folders that it was given."""
    folders = []

    def render(source):
        folders.append(source)
        (source / "_build" / "html").mkdir(parents=True, exist_ok=True)
        (source / "_build" / "html" / "index.html").write_text("")

    monkeypatch.setattr(commands, "_render", render)
    (root / ".gitignore").write_text("_build/\n*.tmp\n")
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    return folders


def test_the_rendered_copy_has_the_executed_chapters_and_the_checkout_stays(root, runs, rendered, capsys):
    (root / "book" / "note.tmp").write_text("ignored")
    commands.build()
    source = root / "_build" / "source"
    assert rendered == [source]
    assert outputs(source) == ["run 1 of 01-a", "run 2 of 02-b", "run 3 of 03-c"]
    assert outputs(root) == [None, None, None]
    assert [record["chapter"] for record in status(source)] == STEMS
    assert len(page_rows(source)) == 3
    assert sorted(path.name for path in (root / "book").iterdir()) == ["intro.md", "note.tmp"]
    assert sorted(path.name for path in (source / "book").iterdir()) == ["intro.md", "status.json", "status.md"]
    for name in ("_config.yml", "_toc.yml", "book/intro.md", "uaplib/parts/deep.py"):
        assert (source / name).read_bytes() == (root / name).read_bytes()
    assert capsys.readouterr().out.endswith(f"Open {source / '_build' / 'html' / 'index.html'}\n")


def test_a_second_build_touches_only_what_changed(root, runs, rendered):
    commands.build()
    source = root / "_build" / "source"
    copies = [path for path in source.rglob("*") if path.is_file() and "status" not in path.name]
    for path in copies:
        os.utime(path, (0, 0))
    (root / "book" / "intro.md").write_text("# Another")
    write(root, "print(3)", stem="02-b")
    commands.build()
    assert runs[3:] == ["02-b"]
    changed = sorted(path.relative_to(source).as_posix() for path in copies if path.stat().st_mtime)
    assert changed == ["_build/html/index.html", "book/intro.md", "notebooks/02-b.ipynb"]
    assert (source / "book" / "intro.md").read_text() == "# Another"
    assert outputs(source) == ["run 1 of 01-a", "run 4 of 02-b", "run 3 of 03-c"]


def test_a_chapter_that_fails_is_not_rendered(root, runs, rendered):
    runs.failing = {"02-b"}
    with pytest.raises(ExecutionError):
        commands.build()
    assert rendered == []


def test_a_renderer_that_writes_no_page_is_an_error(root, runs, rendered, monkeypatch, capsys):
    monkeypatch.setattr(commands, "_render", lambda source: None)
    assert "wrote no page" in refused(monkeypatch, capsys, "build")


def test_a_warning_of_the_renderer_is_an_error(tmp_path, monkeypatch):
    program = tmp_path / "jupyter-book"
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(ImportError, match=r"jupyter-book is not installed: pip install 'uaplib\[book\]'"):
        commands._render(tmp_path / "source")
    program.write_text('#!/bin/sh\necho "$@" > "$(dirname "$0")/given"\nexit 1\n')
    program.chmod(0o755)
    with pytest.raises(subprocess.CalledProcessError):
        commands._render(tmp_path / "source")
    assert (tmp_path / "given").read_text() == f"build {tmp_path}/source -W -n --keep-going -q\n"


def test_a_program_that_fails_is_one_line(root, runs, rendered, monkeypatch, capsys):
    def fail(source):
        subprocess.run(["false"], check=True)

    monkeypatch.setattr(commands, "_render", fail)
    said = refused(monkeypatch, capsys, "build")
    assert said == "uaplib: Command '['false']' returned non-zero exit status 1.\n"


@pytest.fixture
def state(root, monkeypatch, tmp_path):
    """Whether the images are at hand, whether Debian's package can be had, and what was asked of it."""
    found = SimpleNamespace(here=True, package=True, asked=[])

    def load(split, first=None):
        if not found.here:
            raise FileNotFoundError("the images are not there.\nFetch them.")
        return fashion_mnist.Images(None, range({"train": 60, "test": 10}[split]))

    def fetch_with_apt(*arguments):
        found.asked.append(arguments)
        found.here = found.package
        return found.package

    monkeypatch.setenv("UAPLIB_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(fashion_mnist, "load", load)
    monkeypatch.setattr(fetch, "fetch_with_apt", fetch_with_apt)
    return found


def test_images_that_are_there_are_counted(state, capsys):
    commands.data()
    assert capsys.readouterr().out == "fashion-mnist, train: 60 images\nfashion-mnist, test: 10 images\n"
    assert state.asked == []


def test_images_that_are_nowhere_else_are_debians(state, capsys, tmp_path):
    state.here = False
    commands.data()
    folder = tmp_path / "data" / "fashion-mnist"
    assert state.asked == [("dataset-fashion-mnist", fashion_mnist.SYSTEM_FOLDER, folder)]
    first, second, *counts = capsys.readouterr().out.splitlines()
    assert first == "the images are not there."
    assert str(folder) in second
    assert len(counts) == 2


def test_images_that_are_nowhere_are_an_error(state, capsys):
    state.here = state.package = False
    with pytest.raises(FileNotFoundError, match="the images are not there"):
        commands.data()
    assert capsys.readouterr().out == ""


def test_the_hero_is_drawn_into_the_book(root, monkeypatch):
    drawn = []
    monkeypatch.setattr(hero_module, "make_hero", drawn.append)
    commands.hero()
    assert drawn == [root / "book" / "_static" / "hero.png"]


def test_the_digests_of_the_images_are_written_into_artifacts(root, monkeypatch):
    kept, parts = [], {("resnet-mini", "crafting", 100)}
    monkeypatch.setattr(images, "keep", kept.append)
    monkeypatch.setattr(studies, "images_of_the_book", lambda: parts)
    commands.images()
    assert kept == [parts]


def test_the_registry_says_what_each_chapter_read_and_keeps_its_word_where_that_is_not_known(root, runs, monkeypatch):
    file = root / "registry.csv"
    monkeypatch.setattr(registry, "FILE", file)
    before = {"a": registry.Entry(9, "old", 5.0, (1, 2, 7)), "gone": registry.Entry(1, "", None, (2,))}
    monkeypatch.setattr(registry, "entries", lambda: before)
    runs.reads = {"01-a": ["artifacts/net/b", "artifacts/none"], "03-c": ["artifacts/a"]}
    commands.update(["01-a", "03-c"])
    (root / "artifacts" / "net" / "half.safetensors.part").write_text("a checkpoint")
    (root / "artifacts" / "net" / "r.json").write_text('{"run": {"seconds": 1.5}}')
    commands.registry()
    one = "1,6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b"  # the digest of "1"
    lines = file.read_text().splitlines()
    assert lines[:3] == ["name,size,sha256,seconds,chapters", f"a,{one},,2 3", f"net/b,{one},,1"]
    name, size, digest, *rest = lines[3].split(",")
    assert (name, size, rest) == ("net/r.json", "25", ["1.5", ""])
    assert digest == files.sha256(root / "artifacts" / "net" / "r.json")
    assert len(lines) == 4
