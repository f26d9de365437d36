"""The rendered book, built once for all tests of this folder from a copy of the working files."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from bs4 import BeautifulSoup
from filelock import FileLock

ROOT = Path(__file__).parents[2]
SOURCES = ("_config.yml", "_toc.yml", "book", "notebooks")


def table_of_contents() -> list[str]:
    """The book's pages in order, without ending."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    return [toc["root"], *(chapter["file"] for part in toc["parts"] for chapter in part["chapters"])]


def working_files(*paths: str) -> list[str]:
    """Tracked and new files, without those that git ignores."""
    command = ["git", "ls-files", "-co", "--exclude-standard", "-z", "--", *paths]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    return [name for name in names if name and (ROOT / name).is_file()]


PAGES = table_of_contents()
CHAPTERS = [page for page in PAGES if page.startswith("notebooks/")]


@pytest.fixture(scope="session")
def build(tmp_path_factory) -> Path:
    """The folder of the build: the sources, _build/html, and `build.log` with the exit code in its first line."""
    pytest.importorskip("jupyter_book", reason="the extra `book` is not installed")
    shared = tmp_path_factory.getbasetemp()
    if shared.name.startswith("popen-"):
        shared = shared.parent  # several processes of pytest-xdist share one build
    source = shared / "book"
    with FileLock(shared / "book.lock"):
        if not (source / "build.log").exists():
            _build(source)
    return source


def _build(source: Path) -> None:
    for name in working_files(*SOURCES):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((ROOT / name).read_bytes())
    program = Path(sys.executable).with_name("jupyter-book")  # the package cannot be run with `python -m`
    command = [program, "build", "-W", "-n", "--keep-going", str(source)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    (source / "build.log").write_text(f"{result.returncode}\n{result.stderr}", encoding="utf-8")


@pytest.fixture(scope="session")
def html(build) -> Path:
    """The folder with the rendered book."""
    folder = build / "_build" / "html"
    if not (folder / "index.html").exists():
        pytest.fail("no book was built: test_builds_without_a_warning says why", pytrace=False)
    return folder


@pytest.fixture(scope="session")
def soups(html) -> dict[Path, BeautifulSoup]:
    """Every HTML page, parsed."""
    return {path: BeautifulSoup(path.read_text(encoding="utf-8"), "lxml") for path in sorted(html.rglob("*.html"))}
