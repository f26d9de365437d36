"""Every chapter keeps the house template, and was executed from its first cell to its last."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import nbformat
import papermill
import pytest
import yaml

ROOT = Path(__file__).parents[2]
CONFIG = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
NOTEBOOKS = subprocess.run(
    ["git", "ls-files", "-co", "--exclude-standard", "notebooks/*.ipynb"],
    cwd=ROOT, capture_output=True, text=True, check=True,
).stdout.splitlines()  # fmt: skip

HEADINGS = (
    "Objectives", "Before you start", "Setup",
    "Where implementations go wrong", "Exercises", "Summary", "Recall", "References",
)  # fmt: skip
LARGEST = 2_000_000  # bytes
ABSOLUTE_PATH = re.compile(r"(?<![\w./~:-])/(?:home|root|tmp|work|mnt|Users|private)/[\w.-]+|\b[A-Z]:\\\w")
LABEL = r"\s*\n(?::[a-z-]+:.*\n)*?:label:\s*(\S+)"  # after an opening line, maybe behind other options


@pytest.fixture(params=NOTEBOOKS, ids=[Path(name).stem for name in NOTEBOOKS])
def name(request) -> str:
    return request.param


@pytest.fixture
def notebook(name) -> nbformat.NotebookNode:
    return nbformat.read(ROOT / name, as_version=nbformat.NO_CONVERT)


@pytest.fixture
def markdown(notebook) -> str:
    return "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def code_cells(notebook) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def outputs(notebook) -> Iterator[nbformat.NotebookNode]:
    for cell in code_cells(notebook):
        yield from cell.outputs


def tags(cell) -> list[str]:
    return cell.metadata.get("tags", [])


def draws(cell) -> bool:
    """Whether a cell put out an image."""
    return any(kind.startswith("image/") for output in cell.outputs for kind in output.get("data", {}))


def cells_with_place(notebook) -> Iterator[tuple[bool, nbformat.NotebookNode]]:
    """Each code cell, and whether it stands inside a solution."""
    inside = False
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            for gate in re.findall(r"\{solution-(start|end)\}", cell.source):
                inside = gate == "start"
        else:
            yield inside, cell


def test_there_are_chapters():
    assert NOTEBOOKS


def test_file_name(name):
    assert re.fullmatch(r"notebooks/\d{2}-[a-z0-9-]+\.ipynb", name)


def in_the_table_of_contents() -> list[str]:
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    files = [chapter["file"] for part in toc["parts"] for chapter in part["chapters"]]
    return [file for file in files if file.startswith("notebooks/")]


def test_the_table_of_contents_has_every_chapter_in_order():
    assert [f"{file}.ipynb" for file in in_the_table_of_contents()] == sorted(NOTEBOOKS)


@pytest.mark.parametrize(
    ("page", "link"),
    [
        ("README.md", r"\[[^]]+\]\((notebooks/[\w-]+)\.ipynb\)"),
        ("book/intro.md", r"\{doc\}`[^`]+ <\.\./(notebooks/[\w-]+)>`"),
    ],
)
def test_lists_of_chapters_are_the_table_of_contents(page, link):
    rows = re.findall(rf"^\| (\d+) \| {link}", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE)
    assert [file for _, file in rows] == in_the_table_of_contents()
    assert all(file.startswith(f"notebooks/{int(number):02d}-") for number, file in rows)


def test_valid_format(notebook):
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) >= (4, 5)
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)


def test_kernel_is_the_one_that_every_machine_has(notebook):
    assert notebook.metadata.kernelspec.name == "python3"


def test_no_empty_cell(notebook):
    assert all(cell.source.strip() for cell in notebook.cells)


def test_executed_once_in_order(notebook):
    counts = [cell.execution_count for cell in code_cells(notebook)]
    assert counts == list(range(1, len(counts) + 1))


def test_no_error(notebook):
    assert [output.ename for output in outputs(notebook) if output.output_type == "error"] == []


def test_no_stderr(notebook):
    assert [output.text for output in outputs(notebook) if output.get("name") == "stderr"] == []


def test_no_progress_bar(notebook):
    texts = [output.text for output in outputs(notebook) if output.output_type == "stream"]
    assert [text for text in texts if "\r" in text or "it/s]" in text] == []


def test_no_absolute_path(notebook):
    texts = [cell.source for cell in notebook.cells]
    for output in outputs(notebook):
        texts.append(output.get("text", ""))
        texts += [str(value) for kind, value in output.get("data", {}).items() if not kind.startswith("image/")]
    assert [found for text in texts for found in ABSOLUTE_PATH.findall(text)] == []


def test_no_widget(notebook):
    assert "widgets" not in notebook.metadata
    assert [kind for output in outputs(notebook) for kind in output.get("data", {}) if "widget" in kind] == []


def test_images_are_png(notebook):
    kinds = {kind for output in outputs(notebook) for kind in output.get("data", {}) if kind.startswith("image/")}
    assert kinds <= {"image/png"}


def test_no_trace_of_papermill(notebook):
    assert "papermill" not in notebook.metadata
    assert "jupytext" not in notebook.metadata
    for cell in notebook.cells:
        assert "papermill" not in cell.metadata
        assert "injected-parameters" not in tags(cell)


def test_one_parameters_cell_and_its_check(notebook):
    cells = code_cells(notebook)
    places = [place for place, cell in enumerate(cells) if "parameters" in tags(cell)]
    assert len(places) == 1
    assert cells[places[0] + 1].source.startswith("parameters.check(globals())\n")


def test_every_parameter_is_typed_and_explained(name, notebook):
    (cell,) = [cell for cell in code_cells(notebook) if "parameters" in tags(cell)]
    lines = cell.source.splitlines()
    odd = [line for line in lines if not re.fullmatch(r"\w+: \w+ = .+?  # .+", line)]
    assert odd == [], "not of the form 'name: Type = value  # what it is'"
    found = papermill.inspect_notebook(ROOT / name).values()
    assert [f"{p['name']}: {p['inferred_type_name']} = {p['default']}  # {p['help']}" for p in found] == lines


def test_every_figure_has_alt_text(notebook):
    for cell in code_cells(notebook):
        if draws(cell):
            alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
            assert len(alt.split()) >= 5, f"no description of the image: {cell.source[:80]}"


def test_every_figure_has_caption_and_name(notebook):
    names = []
    for inside, cell in cells_with_place(notebook):
        figure = cell.metadata.get("mystnb", {}).get("figure", {})
        if inside:
            assert not figure, "no captions in solutions: LaTeX does not take them"
        elif draws(cell):
            assert figure.get("caption", "").strip()
            assert figure.get("name", "").startswith("fig-")
            names.append(figure["name"])
    assert names, "a chapter without a figure"
    assert len(set(names)) == len(names)


def test_size(name):
    assert (ROOT / name).stat().st_size <= LARGEST


def test_begins_with_badge_of_this_very_file(name, notebook):
    path = CONFIG["repository"]["url"].removeprefix("https://github.com/")
    link = f"https://colab.research.google.com/github/{path}/blob/{CONFIG['repository']['branch']}/{name}"
    badge = "https://colab.research.google.com/assets/colab-badge.svg"
    assert notebook.cells[0].source.strip() == f"[![Open in Colab]({badge})]({link})"


def test_label_and_title_come_next(notebook):
    assert re.match(r"\(chap-[a-z0-9-]+\)=\n# \S.*\n\n\S", notebook.cells[1].source)


def test_one_title(markdown):
    assert len(re.findall(r"^# ", markdown, re.MULTILINE)) == 1


def test_headings_in_order(markdown):
    headings = re.findall(r"^## (.+?)\s*$", markdown, re.MULTILINE)
    assert [heading for heading in headings if heading in HEADINGS] == list(HEADINGS)
    assert headings[:3] == list(HEADINGS[:3])
    assert headings[-4:] == list(HEADINGS[-4:])


def test_says_time_hardware_and_earlier_chapters(markdown):
    before = markdown.split("## Before you start")[1].split("## Setup")[0]
    for word in ("Concept", "Needed?", "Notes", "ime", "ardware", "hapters"):
        assert word in before


def test_install_cell(notebook):
    first = code_cells(notebook)[0]
    assert "hide-input" in tags(first)
    assert f"git+{CONFIG['repository']['url']}" in first.source
    assert 'if "google.colab" in sys.modules:' in first.source
    for cell in code_cells(notebook):
        assert not re.search(r"pip install.*\b(torch|numpy|torchvision)\b", cell.source)


def test_algorithm_in_a_box(markdown):
    assert re.search(r":{3,}\{prf:algorithm\}.*" + LABEL, markdown)
    assert "```{prf:algorithm}" not in markdown, "a backtick fence hides the text from readers on Colab"


def test_every_exercise_has_a_solution(markdown):
    exercises = re.findall(r"^:{3,}\{exercise(?:-start)?\}.*" + LABEL, markdown, re.MULTILINE)
    solutions = re.findall(r"^:{3,}\{solution(?:-start)?\}\s+(\S+)", markdown, re.MULTILINE)
    assert exercises
    assert solutions == exercises
    assert markdown.count("{solution-start}") == markdown.count("{solution-end}")


def test_solutions_are_folded_and_check_themselves(notebook, markdown):
    for _, options in re.findall(r"\{solution-start\}\s+(\S+)\n((?::.*\n)*)", markdown):
        assert re.search(r":class:.*\bdropdown\b", options)
    sources = [cell.source for inside, cell in cells_with_place(notebook) if inside]
    assert len([source for source in sources if re.search(r"^\s*assert\b", source, re.MULTILINE)]) >= 1


def test_recall_has_questions(markdown):
    recall = markdown.split("## Recall")[1].split("\n## ")[0]
    assert recall.count("?") >= 3


def test_cites_what_the_bibliography_has(markdown):
    bibliography = (ROOT / "book" / "references.bib").read_text(encoding="utf-8")
    known = set(re.findall(r"^@\w+\{(\S+),$", bibliography, re.MULTILINE))
    cited = {key.strip() for keys in re.findall(r"\{cite(?::\w+)?\}`([^`]+)`", markdown) for key in keys.split(",")}
    assert cited
    assert cited <= known
    assert "{bibliography}" not in markdown


def test_some_text_is_compared_when_executed_again(notebook):
    compared = [cell for cell in code_cells(notebook) if "nbval-check-output" in tags(cell)]
    assert compared
    assert all(cell.outputs and not draws(cell) for cell in compared)


def test_no_saved_state_of_an_editor(name):
    metadata = json.loads((ROOT / name).read_text(encoding="utf-8"))["metadata"]
    assert set(metadata) <= {"kernelspec", "language_info"}
