"""A small checkout of a book, and a stand-in for kernels, which take seconds to start."""

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from uaplib.pipeline import execute

LIBRARY = {
    "uaplib/__init__.py": "",
    "uaplib/top.py": "from uaplib.parts import deep",
    "uaplib/late.py": "def f():\n    import uaplib.parts.later",
    "uaplib/alone.py": "",
    "uaplib/parts/__init__.py": "",
    "uaplib/parts/deep.py": "",
    "uaplib/parts/later.py": "",
    "uaplib/parts/weights/net.safetensors": "1",
    "uaplib/tables/table.csv": "1",
    "uaplib/pipeline/__init__.py": "",
    "uaplib/pipeline/normalise.py": "",
    "artifacts/a": "1",
    "artifacts/net/b": "1",
    "book/intro.md": "# Intro",
    "requirements.lock": "torch==1",
    "_config.yml": "title: small",
    "_toc.yml": "root: book/intro",
}


@pytest.fixture
def book(tmp_path):
    """The root of a checkout with a small library and no chapter."""
    root = tmp_path / "book of chapters"
    for name, text in LIBRARY.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    (root / "notebooks").mkdir()
    return root


def write(book, *sources, stem="01-double"):
    """Write a chapter that has a parameter and these cells."""
    cells = [new_code_cell("number: int = 2", metadata={"tags": ["parameters"]})]
    cells += [new_code_cell(source) for source in sources]
    notebook = new_notebook(cells=[new_markdown_cell("# Title"), *cells])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    path = book / "notebooks" / f"{stem}.ipynb"
    nbformat.write(notebook, path)
    return path


def printed(path):
    """What the last cell of a notebook has printed; None where it was not executed."""
    outputs = nbformat.read(path, as_version=4).cells[-1].outputs
    return outputs[0].text if outputs else None


class Runs(list):
    """The names of the chapters that were run. What each looks for is in `reads`; those in `failing` fail."""

    def __init__(self):
        self.reads, self.failing = {}, set()

    def run(self, notebook, parameters, root, progress):
        self.append(notebook.stem)
        if notebook.stem in self.failing:
            raise execute.ExecutionError(f"{notebook.name} did not run to its end")
        executed = nbformat.read(notebook, as_version=4)
        for cell in executed.cells:
            if cell.cell_type == "code":
                cell.execution_count = 1
                cell.outputs = [new_output("stream", name="stdout", text=f"run {len(self)} of {notebook.stem}")]
        return executed, sorted(self.reads.get(notebook.stem, ()))


@pytest.fixture
def runs(monkeypatch):
    """No kernel runs; each output says which run it is of."""
    found = Runs()
    monkeypatch.setattr(execute, "_run", found.run)
    return found
