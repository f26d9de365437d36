import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from uaplib.pipeline import execute as module
from uaplib.pipeline.execute import ExecutionError, check_parameters, content_key, execute
from uaplib.pipeline.status import page


@pytest.fixture
def book(tmp_path):
    """A checkout with one chapter, which doubles its parameter."""
    for folder in ("uaplib", "artifacts", "notebooks"):
        (tmp_path / folder).mkdir()
    (tmp_path / "uaplib" / "code.py").write_text("a = 1")
    (tmp_path / "requirements.lock").write_text("torch==1")
    return tmp_path


def write(book, *sources):
    cells = [new_code_cell("number: int = 2", metadata={"tags": ["parameters"]})]
    cells += [new_code_cell(source) for source in sources]
    notebook = new_notebook(cells=[new_markdown_cell("# Title"), *cells])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    path = book / "notebooks" / "01-double.ipynb"
    nbformat.write(notebook, path)
    return path


def printed(path):
    return nbformat.read(path, as_version=4).cells[-1].outputs[0].text


def test_a_chapter_is_executed_normalised_and_recorded(book):
    notebook = write(book, "print(2 * number)")
    before = notebook.read_bytes()
    result, record = execute(notebook, book / "out", book, progress=False)
    assert printed(result) == "4\n"
    assert nbformat.read(result, as_version=4).cells[-1].execution_count == 2
    assert record["chapter"] == "01-double"
    assert record["seconds"] > 0
    assert notebook.read_bytes() == before


def test_executing_again_gives_the_same_bytes(book):
    notebook = write(book, "print(2 * number, object())")
    first, second = (execute(notebook, book / name, book, progress=False)[0] for name in ("a", "b"))
    assert first.read_bytes() == second.read_bytes()


def test_parameters_reach_the_chapter(book):
    notebook = write(book, "print(2 * number)")
    assert printed(execute(notebook, book / "out", book, {"number": 21}, progress=False)[0]) == "42\n"


def test_an_unchanged_chapter_is_not_executed_again(book, monkeypatch):
    notebook = write(book, "print(2 * number)")
    done = execute(notebook, book / "out", book, progress=False)
    monkeypatch.setattr(module, "_run", lambda *arguments: pytest.fail("executed again"))
    assert execute(notebook, book / "out", book, progress=False) == done


@pytest.mark.parametrize("damage", [lambda result: result.write_text("{}"), lambda result: result.unlink()])
def test_a_damaged_result_counts_as_none(book, damage):
    notebook = write(book, "print(2 * number)")
    result, record = execute(notebook, book / "out", book, progress=False)
    damage(result)
    assert execute(notebook, book / "out", book, progress=False)[1]["sha256"] == record["sha256"]
    assert printed(result) == "4\n"


def test_a_failing_cell_is_named_and_leaves_nothing(book):
    notebook = write(book, "1 / 0")
    with pytest.raises(ExecutionError, match="01-double.ipynb.*ZeroDivisionError"):
        execute(notebook, book / "out", book, progress=False)
    assert not (book / "out").exists()


def test_a_dead_kernel_is_an_error(book):
    notebook = write(book, "import os; os._exit(1)")
    with pytest.raises(ExecutionError, match="kernel died"):
        execute(notebook, book / "out", book, progress=False)


def test_an_unknown_parameter_is_refused(book):
    with pytest.raises(ValueError, match="no parameter 'nmber'; it has number"):
        check_parameters(write(book), {"nmber": 3})


@pytest.mark.parametrize(
    "changed", ["uaplib/code.py", "uaplib/weights.safetensors", "artifacts/a", "requirements.lock"]
)
def test_the_key_changes_with_everything_that_a_result_depends_on(book, changed):
    notebook = write(book, "print(2 * number)")
    before = content_key(notebook, {}, book)
    (book / changed).write_text("another")
    assert content_key(notebook, {}, book) != before


def test_the_key_changes_with_cells_and_parameters_but_not_with_outputs(book):
    notebook = write(book, "print(2 * number)")
    keys = {content_key(notebook, {}, book), content_key(notebook, {"number": 3}, book)}
    executed = nbformat.read(notebook, as_version=4)
    executed.cells[-1].execution_count = 5
    nbformat.write(executed, notebook)
    assert content_key(notebook, {}, book) in keys
    keys.add(content_key(write(book, "print(3 * number)"), {}, book))
    assert len(keys) == 3


def test_the_status_page_has_a_row_for_each_chapter(book):
    record = execute(write(book, "print(number)"), book / "out", book, progress=False)[1]
    row = page([record]).splitlines()[-1]
    assert "01-double" in row
    assert record["date"] in row
    assert record["versions"]["torch"] in row
