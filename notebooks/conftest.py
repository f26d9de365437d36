"""Chapters as tests: where the images of Fashion-MNIST are nowhere to be had, those that load them are skipped.

The others run on what the library has itself: rendered scenes, and the twenty pictures of the package foolbox.
"""

from functools import cache
from pathlib import Path

import nbformat
import pytest

from uaplib.data import fashion_mnist


@cache
def missing() -> str:
    """Why Fashion-MNIST cannot be loaded, or nothing."""
    try:
        for split in fashion_mnist.SPLITS:
            fashion_mnist.load(split, 1)
    except FileNotFoundError as error:
        why, *_ = str(error).splitlines()
        return why
    return ""


@cache
def loads_fashion_mnist(notebook: Path) -> bool:
    """Whether a cell of the chapter loads Fashion-MNIST; then its later cells stand on it."""
    cells = nbformat.read(notebook, as_version=4).cells
    return any(
        cell.cell_type == "code" and "fashion_mnist.load(" in cell.source for cell in cells
    )


@pytest.hookimpl(tryfirst=True)  # before a kernel is started
def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.path.suffix == ".ipynb" and loads_fashion_mnist(item.path) and missing():
        pytest.skip(missing())
