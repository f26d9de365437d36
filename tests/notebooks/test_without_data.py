"""Chapters that load Fashion-MNIST are skipped where it is nowhere to be had; the others run."""

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

CONFTEST = Path(__file__).parents[2] / "notebooks" / "conftest.py"
NOWHERE = "http://127.0.0.1:9"


@pytest.fixture
def chapters(tmp_path):
    """Three chapters beside a copy of conftest.py, without a system copy of the data."""
    sources = {
        "loads": ["from uaplib.data import fashion_mnist", "x = fashion_mnist.load('test', 3)", "x.images"],
        "names": ["names = 'fashion_mnist.CLASSES'", "print(names)"],
        "fails": ["1 / 0"],
    }
    for name, cells in sources.items():
        text = new_markdown_cell("See `fashion_mnist.load(...)`.")
        nbformat.write(new_notebook(cells=[text, *map(new_code_cell, cells)]), tmp_path / f"{name}.ipynb")
    no_system_copy = "fashion_mnist.SYSTEM_FOLDER = Path('nowhere')\n"
    (tmp_path / "conftest.py").write_text(CONFTEST.read_text(encoding="utf-8") + no_system_copy)
    return tmp_path


def test_only_what_loads_the_images_is_skipped(chapters):
    (chapters / "data" / "fashion-mnist").mkdir(parents=True)  # a folder is no file
    proxies = {name: NOWHERE for each in ("http_proxy", "https_proxy", "all_proxy") for name in (each, each.upper())}
    environment = {**os.environ, **proxies, "UAPLIB_DATA": str(chapters / "data")}
    command = [sys.executable, "-m", "pytest", "-ra", "-p", "no:cacheprovider", "--nbval-lax", "--nbval-current-env"]
    run = subprocess.run([*command, chapters], env=environment, cwd=chapters, capture_output=True, text=True)
    assert "1 failed, 2 passed, 3 skipped" in run.stdout
    assert "fails.ipynb::Cell 0" in run.stdout
    assert f"{chapters / 'data' / 'fashion-mnist' / 'train-images-idx3-ubyte.gz'} is not there" in run.stdout
