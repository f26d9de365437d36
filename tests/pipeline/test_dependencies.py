import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from uaplib.pipeline.dependencies import library_files
from uaplib.pipeline.execute import chapters, content_key

ROOT = Path(__file__).parents[2]


def reached(book, *cells, **options):
    """The modules that cells reach, without the packages above them, which always come along."""
    names = {file.relative_to(book / "uaplib").as_posix() for file in library_files(cells, book, **options)}
    return sorted(name for name in names if name.endswith(".py") and not name.endswith("__init__.py"))


@pytest.mark.parametrize(
    ("cell", "modules"),
    [
        ("import numpy, os", []),
        ("import uaplib", []),
        ("import uaplib.top", ["parts/deep.py", "top.py"]),
        ("import uaplib.parts.deep as d, uaplib.alone", ["alone.py", "parts/deep.py"]),
        ("from uaplib import top", ["parts/deep.py", "top.py"]),
        ("from uaplib import (alone as a,\n    top)", ["alone.py", "parts/deep.py", "top.py"]),
        ("from uaplib.parts import deep, NUMBER", ["parts/deep.py"]),
        ("from uaplib.parts.deep import NUMBER", ["parts/deep.py"]),
        ("from uaplib.parts import *", ["parts/deep.py", "parts/later.py"]),
        ("def f():\n    if True:\n        from uaplib import alone", ["alone.py"]),
        ("from uaplib import late", ["late.py", "parts/later.py"]),
        ("import importlib\nimportlib.import_module('uaplib.alone')", ["alone.py"]),
        ("%pip install uaplib\n!ls\nfrom uaplib import alone", ["alone.py"]),
        ("if True:\n    %pip install uaplib\nfrom uaplib import alone", ["alone.py"]),
        ("import uaplib_of_another, uaplib.no, another.top", []),
        ("text = 'import uaplib.alone'  # import uaplib.top", []),
        ("from uaplib import", []),
    ],
)
def test_what_a_cell_imports_is_reached_and_what_that_imports(book, cell, modules):
    assert reached(book, cell) == modules


def test_all_cells_count_and_what_is_named_besides(book):
    assert reached(book, "import uaplib.alone", "import uaplib.late") == ["alone.py", "late.py", "parts/later.py"]
    assert reached(book, also=["uaplib.pipeline.normalise"]) == ["pipeline/normalise.py"]


@pytest.mark.parametrize(
    "source",
    [
        "from importlib import import_module\ndef __getattr__(name):\n    return import_module(f'{__name__}.{name}')",
        "import importlib\nHERE = importlib.import_module(name='.deep', package=__name__)",
        "from . import deep, later",
        "from .deep import a\nfrom ..parts.later import b",
        "from importlib import import_module\nimport_module('.deep', __name__), import_module('.later', __name__)",
    ],
)
def test_a_package_reaches_its_modules_by_relative_and_by_computed_names(book, source):
    (book / "uaplib" / "parts" / "__init__.py").write_text(source)
    assert reached(book, "from uaplib.parts import NUMBER") == ["parts/deep.py", "parts/later.py"]


def test_a_computed_name_in_a_module_may_be_any_of_its_package_and_no_other(book):
    (book / "uaplib" / "parts" / "deep.py").write_text("from importlib import import_module\nimport_module(name)")
    assert reached(book, "from uaplib.parts import deep") == ["parts/deep.py", "parts/later.py"]


def test_a_computed_name_in_a_chapter_may_be_any_module(book):
    assert len(reached(book, "importlib.import_module(name)")) == 6


def test_modules_that_import_each_other_are_no_endless_way(book):
    (book / "uaplib" / "alone.py").write_text("from uaplib import top")
    (book / "uaplib" / "top.py").write_text("from uaplib import alone")
    assert reached(book, "import uaplib.top") == ["alone.py", "top.py"]


def test_what_is_no_code_belongs_to_the_package_in_whose_folder_it_lies(book):
    (book / "uaplib" / "parts" / "__pycache__").mkdir()
    for name in ("__pycache__/deep.cpython-311.pyc", "weights/.net.part", "weights/card.json"):
        (book / "uaplib" / "parts" / name).write_text("")

    def data(cell):
        return {file.name for file in library_files([cell], book) if file.suffix != ".py"}

    assert data("import os") == set()
    assert data("import uaplib.alone") == {"table.csv"}
    assert data("import uaplib.parts") == {"table.csv", "net.safetensors", "card.json"}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of the book itself, without outputs, and the keys of its chapters."""
    root = tmp_path_factory.mktemp("checkout")
    shutil.copytree(ROOT / "uaplib", root / "uaplib", ignore=shutil.ignore_patterns("__pycache__", "*.safetensors"))
    shutil.copyfile(ROOT / "requirements.lock", root / "requirements.lock")
    (root / "notebooks").mkdir()
    for path in chapters(ROOT):
        notebook = nbformat.read(path, as_version=4)
        for cell in notebook.cells:
            cell.update({"outputs": []} if cell.cell_type == "code" else {})
        nbformat.write(notebook, root / "notebooks" / path.name)
    return root, keys(root)


def keys(root):
    return {notebook.stem: content_key(notebook, {}, root) for notebook in chapters(root)}


ALL = {path.stem for path in chapters(ROOT)}
CLASSIFIERS = {"01-fgsm", "02-deepfool"}


@pytest.mark.parametrize(
    ("changed", "executed"),
    [
        ("train.py", set()),
        ("cli.py", set()),
        ("pipeline/commands.py", set()),
        ("experiments/studies.py", ALL - CLASSIFIERS),
        ("experiments/registry.py", ALL - CLASSIFIERS),
        ("experiments/registry.csv", set()),
        ("segmentation.py", set()),
        ("balls.py", ALL),
        ("attacks/_uap.py", ALL),
        ("models/minis.py", ALL),
        ("models/weights/lite0-scenes.json", ALL),
        ("pipeline/normalise.py", ALL),
    ],
)
def test_a_change_in_the_library_executes_the_chapters_that_reach_it(checkout, changed, executed):
    root, before = checkout
    file = root / "uaplib" / changed
    content = file.read_bytes()
    file.write_bytes(content + b'\n"""Another docstring."""\n')
    after = keys(root)
    file.write_bytes(content)
    assert {stem for stem in before if before[stem] != after[stem]} == executed


def test_what_a_chapter_really_imports_is_among_what_it_reaches():
    cells = [c.source for c in nbformat.read(ROOT / "notebooks/01-fgsm.ipynb", 4).cells if c.cell_type == "code"]
    imports = next(cell for cell in cells if "from uaplib import" in cell)
    program = f"{imports}\nimport sys\nprint(*(m.__file__ for n, m in sys.modules.items() if n.startswith('uaplib')))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    loaded = {Path(name) for name in done.stdout.split()}
    assert len(loaded) > 10
    assert loaded <= set(library_files(cells, ROOT))
