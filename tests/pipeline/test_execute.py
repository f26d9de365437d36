import base64
import json
import os
import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from tests.pipeline.conftest import printed, write
from uaplib import files
from uaplib.pipeline import execute as execution
from uaplib.pipeline.execute import ExecutionError, chapters, content_key, execute
from uaplib.pipeline.status import page


def test_chapters_come_in_order_and_nothing_else(book):
    for stem in ("11-last", "02-second", "01-first", "draft", "1-short"):
        write(book, stem=stem)
    assert [path.stem for path in chapters(book)] == ["01-first", "02-second", "11-last"]


def test_a_chapter_is_executed_normalised_and_recorded(book):
    notebook = write(book, "print(2 * number)")
    before = notebook.read_bytes()
    result, record = execute(notebook, book / "out", book, progress=False)
    assert printed(result) == "4\n"
    assert nbformat.read(result, as_version=4).cells[-1].execution_count == 2
    assert record["chapter"] == "01-double"
    assert record["artifacts"] == {}
    assert notebook.read_bytes() == before


def test_executing_again_gives_the_same_bytes(book):
    notebook = write(book, "print(2 * number, object())")
    first, second = (execute(notebook, book / name, book, progress=False)[0] for name in ("a", "b"))
    assert first.read_bytes() == second.read_bytes()


def test_parameters_reach_the_chapter(book):
    notebook = write(book, "print(2 * number)")
    assert printed(execute(notebook, book / "out", book, {"number": 21}, progress=False)[0]) == "42\n"


def test_artifacts_that_a_chapter_looks_for_are_recorded_through_a_link_too(book):
    shutil.copyfile(files.__file__, book / "uaplib" / "files.py")
    looks = "from uaplib.files import note_read\nfrom pathlib import Path\n" + "\n".join(
        f"note_read(Path({name!r}))" for name in ("artifacts/a", "artifacts/no/file", str(book / "artifacts/a"), "book")
    )
    notebook = write(book, looks)
    (book / "artifacts").rename(book / "elsewhere")
    (book / "artifacts").symlink_to(book / "elsewhere")
    record = execute(notebook, book / "out", book, progress=False)[1]
    assert record["artifacts"] == {"artifacts/a": files.sha256(book / "artifacts" / "a"), "artifacts/no/file": None}


def test_an_unchanged_chapter_is_not_executed_again(book, runs):
    notebook = write(book)
    runs.reads = {"01-double": ["artifacts/a", "artifacts/none"]}
    done = execute(notebook, book / "out", book)
    assert execute(notebook, book / "out", book) == done
    assert runs == ["01-double"]


def alter_the_key(book):
    record = json.loads((book / "out" / "01-double.json").read_text())
    (book / "out" / "01-double.json").write_text(json.dumps(record | {"key": "0"}))


CHANGES = {
    "its result is altered": lambda book: (book / "out" / "01-double.ipynb").write_text("{}"),
    "its result is gone": lambda book: (book / "out" / "01-double.ipynb").unlink(),
    "its record is gone": lambda book: (book / "out" / "01-double.json").unlink(),
    "its record is of another run": alter_the_key,
    "its source": lambda book: write(book, "print(3)"),
    "an artifact that it read": lambda book: (book / "artifacts" / "net" / "b").write_text("2"),
    "an artifact that it read is gone": lambda book: (book / "artifacts" / "net" / "b").unlink(),
    "an artifact that it missed": lambda book: (book / "artifacts" / "none").write_text("2"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_chapter_is_executed_again_once_after(book, runs, change):
    notebook = write(book, "print(2)")
    runs.reads = {"01-double": ["artifacts/net/b", "artifacts/none"]}
    execute(notebook, book / "out", book)
    CHANGES[change](book)
    for _ in range(2):
        result, record = execute(notebook, book / "out", book)
        assert printed(result) == "run 2 of 01-double"
        assert record["sha256"] == files.sha256(result)
    assert len(runs) == 2


def test_other_parameters_are_another_run(book, runs):
    notebook = write(book)
    for parameters in ({}, {"number": 3}, {"number": 3}, {}):
        assert execute(notebook, book / "out", book, parameters)[1]["parameters"] == parameters
    assert len(runs) == 3


def test_an_artifact_that_only_another_chapter_reads_executes_that_one(book, runs):
    notebooks = [write(book, stem=stem) for stem in ("01-a", "02-b", "03-c")]
    runs.reads = {"01-a": ["artifacts/a"], "03-c": ["artifacts/net/b"]}
    for notebook in notebooks:
        execute(notebook, book / "out", book)
    (book / "artifacts" / "net" / "b").write_text("2")
    (book / "artifacts" / "net" / "new").write_text("2")
    for notebook in notebooks:
        execute(notebook, book / "out", book)
    assert runs[3:] == ["03-c"]


def test_an_artifact_that_changes_during_the_run_was_perhaps_not_seen(book, runs, monkeypatch):
    notebook = write(book)
    runs.reads = {"01-double": ["artifacts/a"]}

    def run(*arguments):
        done = runs.run(*arguments)
        (book / "artifacts" / "a").write_text("2")
        return done

    monkeypatch.setattr("uaplib.pipeline.execute._run", run)
    for _ in range(3):
        execute(notebook, book / "out", book)
    assert len(runs) == 2


def test_a_failing_cell_is_named_and_leaves_nothing(book):
    notebook = write(book, "1 / 0")
    with pytest.raises(ExecutionError, match=r"01-double.ipynb.*ZeroDivisionError"):
        execute(notebook, book / "out", book, progress=False)
    assert not (book / "out").exists()


def test_a_dead_kernel_is_an_error(book):
    notebook = write(book, "import os; os._exit(1)")
    with pytest.raises(ExecutionError, match="kernel died"):
        execute(notebook, book / "out", book, progress=False)


@pytest.fixture
def papermill(monkeypatch):
    """In place of papermill: what it was asked; its exit code; the notebook that it writes, or None; what it reads."""
    played = SimpleNamespace(code=0, written=None, asked=[])

    def run(command, **options):
        played.asked.append((command, options))
        reads = Path(options["env"]["UAPLIB_READS"])
        reads.write_text("".join(f"{path}\n" for path in played.reads), encoding="utf-8")
        if played.written:
            nbformat.write(played.written, command[4])
        return subprocess.CompletedProcess(command, played.code)

    monkeypatch.setattr(subprocess, "run", run)
    return played


def executed(*outputs):
    """A notebook as papermill leaves it, with a cell for each output."""
    cells = [new_code_cell("1", execution_count=1, outputs=[output] if output else []) for output in outputs]
    return new_notebook(cells=cells)


@pytest.mark.parametrize(
    ("progress", "bar", "stderr"), [(True, "--progress-bar", None), (False, "--no-progress-bar", -1)]
)
def test_papermill_is_asked_in_a_process_of_its_own(book, papermill, monkeypatch, progress, bar, stderr):
    monkeypatch.setenv("KEPT", "1")
    papermill.written, notebook = executed(None), book / "notebooks" / "a.ipynb"
    papermill.reads = [book / "artifacts" / "net" / "b", book / "artifacts" / "a", book / "book" / "intro.md"]
    found, artifacts = execution._run(notebook, {"number": 3.5}, book, progress)
    assert found.cells[0].source == "1"
    assert artifacts == ["artifacts/a", "artifacts/net/b"]
    ((command, options),) = papermill.asked
    assert command[:4] == [sys.executable, "-m", "papermill", str(notebook)]
    assert Path(command[4]).name == "a.ipynb"
    assert command[5:8] == ["--kernel", "python3", "--parameters_base64"]
    assert json.loads(base64.b64decode(command[8])) == {"number": 3.5}
    assert command[9:] == ["--no-request-save-on-cell-execute", "--execution-timeout", "600", bar]
    assert (options["cwd"], options["stdin"], options["stderr"]) == (book, subprocess.DEVNULL, stderr)
    assert options["env"] == os.environ | {"UAPLIB_READS": options["env"]["UAPLIB_READS"]}
    assert not Path(command[4]).parent.exists()


ERRORS = [new_output("error", ename=name, evalue="why", traceback=[]) for name in ("OneError", "OtherError")]


@pytest.mark.parametrize(
    ("code", "written", "why"),
    [
        (3, executed(None), r"\(exit code 3\): $"),
        (0, None, r"\(exit code 0\): the kernel died, or a cell ran out of time$"),
        (1, executed(*ERRORS), r"\(exit code 1\): cell 0 raised OneError: why; cell 1 raised OtherError: why$"),
        (0, executed(ERRORS[0]), r"\(exit code 0\): cell 0 raised OneError: why$"),
    ],
)
def test_what_went_wrong_is_told(book, papermill, code, written, why):
    papermill.code, papermill.written, papermill.reads = code, written, []
    with pytest.raises(ExecutionError, match=rf"^a.ipynb did not run to its end {why}"):
        execution._run(book / "a.ipynb", {}, book, False)


def test_an_unknown_parameter_is_refused_before_anything_runs(book, runs):
    with pytest.raises(ValueError, match="no parameter 'nmber'; it has number"):
        execute(write(book), book / "out", book, {"nmber": 3})
    assert runs == []


def test_the_record_says_when_and_how_long(book, runs, monkeypatch):
    clock = iter([100.0, 112.34])
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock, 200.0))
    days = {datetime.now(UTC).date().isoformat()}
    record = execute(write(book), book / "out", book)[1]
    days.add(datetime.now(UTC).date().isoformat())
    assert record["date"] in days
    assert record["seconds"] == 12.3


REACHED = ["top.py", "__init__.py", "parts/__init__.py", "parts/deep.py", "parts/weights/net.safetensors",
           "tables/table.csv", "pipeline/normalise.py"]  # fmt: skip


@pytest.mark.parametrize("changed", [*(f"uaplib/{name}" for name in REACHED), "requirements.lock"])
def test_the_key_changes_with_what_a_chapter_reaches(book, changed):
    notebook = write(book, "from uaplib import top")
    before = content_key(notebook, {}, book)
    (book / changed).write_text("# another")
    assert content_key(notebook, {}, book) != before


@pytest.mark.parametrize("changed", ["uaplib/alone.py", "uaplib/parts/later.py", "uaplib/late.py", "book/intro.md"])
def test_the_key_does_not_change_with_what_it_does_not_reach(book, changed):
    notebook = write(book, "from uaplib import top")
    before = content_key(notebook, {}, book)
    (book / changed).write_text("# another")
    assert content_key(notebook, {}, book) == before


def test_the_key_changes_with_the_version_of_python(book, monkeypatch):
    before = content_key(write(book), {}, book)
    monkeypatch.setattr(sys, "version", "3.99")
    assert content_key(write(book), {}, book) != before


def test_the_key_changes_with_cells_and_parameters_but_not_with_outputs(book):
    notebook = write(book, "print(2 * number)")
    keys = {content_key(notebook, {}, book), content_key(notebook, {"number": 3}, book)}
    executed = nbformat.read(notebook, as_version=4)
    executed.cells[-1].execution_count = 5
    nbformat.write(executed, notebook)
    assert content_key(notebook, {}, book) in keys
    keys.add(content_key(write(book, "print(3 * number)"), {}, book))
    executed.cells[0].cell_type = "raw"
    nbformat.write(executed, notebook)
    keys.add(content_key(notebook, {}, book))
    assert len(keys) == 4


def test_the_status_page_has_a_row_for_each_chapter():
    versions = {"python": "3.11", "torch": "2.9", "torchvision": "0.24", "numpy": "2.4", "uaplib": "1"}
    record = {"chapter": "01-double", "date": "2026-01-02", "seconds": 12.6, "device": "a GPU", "versions": versions}
    rows = page([record, record | {"chapter": "02-next"}]).splitlines()[-2:]
    assert rows == [
        f"| [{stem}](../notebooks/{stem}.ipynb) | 2026-01-02 | 13 s | a GPU | 3.11 | 2.9 | 0.24 | 2.4 |"
        for stem in ("01-double", "02-next")
    ]
