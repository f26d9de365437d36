from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from uaplib.pipeline.normalise import normalise, problems

ROOT = Path("/somewhere/book")


def code(source="1 + 1", outputs=(), **metadata):
    return new_code_cell(source, outputs=list(outputs), execution_count=7, metadata=metadata)


def text(value):
    return new_output("stream", name="stdout", text=value)


def normalised(*cells, **metadata):
    for number, cell in enumerate(cells):
        cell.id = f"cell-{number}"  # otherwise random, and never equal
    return normalise(new_notebook(cells=list(cells), metadata=metadata), ROOT)


def test_timings_and_notes_of_papermill_go():
    notebook = normalised(code(papermill={"duration": 1}, tags=["kept"]), papermill={"start_time": "today"})
    assert "papermill" not in notebook.metadata
    assert notebook.cells[0].metadata == {"tags": ["kept"]}


def test_figure_metadata_stays():
    figure = {"figure": {"caption": "A figure", "name": "fig-a"}}
    assert normalised(code(mystnb=figure)).cells[0].metadata.mystnb == figure


def test_injected_parameters_go():
    notebook = normalised(code("a = 1", tags=["parameters"]), code("a = 2", tags=["injected-parameters"]))
    assert [cell.source for cell in notebook.cells] == ["a = 1"]


def test_the_notebook_says_of_its_kernel_what_every_machine_says():
    notebook = new_notebook(cells=[new_code_cell(" ", execution_count=3), new_code_cell("1", execution_count=4)])
    notebook.metadata = {
        "kernelspec": {"name": "mine"},
        "papermill": {"duration": 3},
        "language_info": {"version": "3.9"},
    }
    found = normalise(notebook, ROOT)
    assert found.metadata == {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    assert [cell.execution_count for cell in found.cells] == [None, 1]


def test_cells_are_counted_from_one():
    output = new_output("execute_result", {"text/plain": "2"}, execution_count=7)
    notebook = normalised(code(), new_markdown_cell("between"), code(outputs=[output]))
    assert [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"] == [1, 2]
    assert notebook.cells[2].outputs[0].execution_count == 2


def test_how_text_was_cut_does_not_matter():
    assert normalised(code(outputs=[text("a"), text("b\n")])) == normalised(code(outputs=[text("ab\n")]))


def test_two_streams_stay_apart():
    error = new_output("stream", name="stderr", text="b")
    assert len(normalised(code(outputs=[text("a"), error])).cells[0].outputs) == 2


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (f"wrote {ROOT}/artifacts/a", "wrote ./artifacts/a"),
        (f"{Path.home()}/.cache", "~/.cache"),
        ("<object at 0x7f3a12345678>", "<object at 0x...>"),
    ],
)
def test_paths_and_addresses_go(before, after):
    result = new_output("execute_result", {"text/plain": before}, execution_count=1)
    first, second = normalised(code(outputs=[text(before)]), code(outputs=[result])).cells
    assert first.outputs[0].text == after
    assert second.outputs[0].data["text/plain"] == after


def cleaned(monkeypatch, before, root="/x/book", home="/home/me"):
    """What becomes of a text, which must be the same in a stream, a plain result and HTML."""
    monkeypatch.setenv("HOME", home)
    result = new_output("execute_result", {"text/plain": before, "text/html": before}, execution_count=1)
    cells = normalise(new_notebook(cells=[code(outputs=[text(before)]), code(outputs=[result])]), Path(root)).cells
    stream, data = cells[0].outputs[0].text, cells[1].outputs[0].data
    assert stream == data["text/plain"] == data["text/html"]
    return stream


@pytest.mark.parametrize("root", ["/x/book", "/"])
@pytest.mark.parametrize("home", ["/", "", "//"])
@pytest.mark.parametrize("whole", ["24/255", "<td>1</td>", "/", "https://a.b/c", "wrote /data/v", "a / b"])
def test_the_root_of_all_paths_is_nobodys_folder(monkeypatch, whole, home, root):
    assert cleaned(monkeypatch, whole, root, home) == whole


def test_a_machine_without_users_has_no_home_folder(monkeypatch):
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    assert cleaned(monkeypatch, "24/255 in /x/book/a ~/b") == "24/255 in ./a ~/b"


@pytest.mark.parametrize(
    "other",
    ["/x/book-old/a", "/x/book2", "/x/book.bak", "/x/book_2/a", "/x/books", "/x/book~", "/x/book+1", "/x/book%20a",
     "/x/book\\ 2", "/mnt/x/book/a", "../x/book/a", "~/x/book", "a/x/book", "https://a.b/x/book", "lib-/x/book",
     "/usr/c++/x/book", "{folder}/x/book", "/home/me2", "/home/me-too/a", "/home/me.old", "/mnt/home/me/a"],
)  # fmt: skip
@pytest.mark.parametrize("around", ["{}", "in {} now", "'{}'", "<td>{}</td>"])
def test_another_folder_with_a_like_name_stays(monkeypatch, around, other):
    assert cleaned(monkeypatch, around.format(other)) == around.format(other)


@pytest.mark.parametrize(
    "around",
    ["{}", "in {} now", "in {}.", "in {}, and", "({})", "[{}]", "'{}'", '"{}"', "`{}`", "out={}", "a\n{}\nb", "a:{}:3",
     "file://{}", 'File "{}", line 3', "<td>{}</td>", "&quot;{}&quot;", "\x1b[34m{}\x1b[0m", "'a\\n{}\\nb'", "{0}:{0}",
     "in {}...", "in {}!"],
)  # fmt: skip
@pytest.mark.parametrize(
    ("before", "after"),
    [("/x/book", "."), ("/x/book/", "./"), ("/x/book/a.py", "./a.py"), ("/home/me", "~"), ("/home/me/v", "~/v")],
)
def test_whole_folders_are_shortened_wherever_a_path_may_stand(monkeypatch, around, before, after):
    assert cleaned(monkeypatch, around.format(before)) == around.format(after)


def test_a_checkout_inside_the_home_folder_comes_first(monkeypatch):
    before = "/home/me/book/a /home/me/book-old/a /home/me/v"
    assert cleaned(monkeypatch, before, root="/home/me/book") == "./a ~/book-old/a ~/v"


def test_widgets_go():
    widget = new_output("display_data", {"application/vnd.jupyter.widget-view+json": {}, "text/plain": "bar"})
    notebook = normalised(code(outputs=[widget]), widgets={"state": {}})
    assert list(notebook.cells[0].outputs[0].data) == ["text/plain"]
    assert "widgets" not in notebook.metadata


@pytest.mark.parametrize("place", ["/tmp/ipykernel_1375/339859707.py:2", "/var/folders/x1/ipykernel_9/1.py:40"])
def test_a_warnings_place_in_a_temporary_folder_goes(monkeypatch, place):
    assert cleaned(monkeypatch, f"{place}: UserWarning: look\n") == "this cell: UserWarning: look\n"
    assert cleaned(monkeypatch, "/x/kernel_1/1.py:2: look") == "/x/kernel_1/1.py:2: look"


def test_normalising_twice_changes_nothing():
    once = normalised(code(outputs=[text(f"{ROOT} 0x7f3a12345678"), text("b")]), code())
    written = nbformat.writes(once)
    assert nbformat.writes(normalise(once, ROOT)) == written


def test_problems_names_errors_and_cells_that_did_not_run():
    failed = code(outputs=[new_output("error", ename="ValueError", evalue="no", traceback=[])])
    unrun = new_code_cell("2 + 2")
    assert problems(new_notebook(cells=[code(), failed, unrun])) == [
        "cell 1 raised ValueError: no",
        "cell 2 was not executed",
    ]
