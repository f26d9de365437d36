"""`python -m uaplib.pipeline`: what `make data`, `make book` and `make update` run, from the root of a checkout."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from uaplib import recipes
from uaplib.data import fashion_mnist
from uaplib.files import write_text
from uaplib.pipeline import status
from uaplib.pipeline.execute import ExecutionError, chapters, execute
from uaplib.pipeline.fetch import fetch_with_apt
from uaplib.pipeline.hero import make_hero

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
ROOT = Path.cwd()
BUILD = ROOT / "_build"


@app.command()
def data() -> None:
    """Make sure that Fashion-MNIST is there: data folder, system copy, download, or Debian's package."""
    try:
        fashion_mnist.load("test", 1)
    except FileNotFoundError as error:
        if not fetch_with_apt("dataset-fashion-mnist", fashion_mnist.SYSTEM_FOLDER, fashion_mnist.folder()):
            raise
        failure, *_ = str(error).splitlines()
        print(f"{failure}\nDebian's package was unpacked into {fashion_mnist.folder()} instead.")
    for split in fashion_mnist.SPLITS:
        print(f"fashion-mnist, {split}: {len(fashion_mnist.load(split).labels)} images")


@app.command()
def book() -> None:
    """Execute what changed, render the book from copies under _build, and print the page to open."""
    source = BUILD / "source"
    records = _execute_all()
    _copy_sources(source)
    _write_status(source / "book", records)
    for notebook in chapters(ROOT):
        _copy_if_changed(BUILD / "executed" / notebook.name, source / "notebooks" / notebook.name)
    build = [Path(sys.executable).with_name("jupyter-book"), "build", str(source), "-W", "-n", "--keep-going", "-q"]
    subprocess.run(build, check=True)
    page = source / "_build" / "html" / "index.html"
    if not page.exists():
        raise ExecutionError("the renderer ended well but wrote no page")
    print(f"\nThe book is ready. Open {page}")


@app.command()
def update(
    chapter: Annotated[list[str] | None, typer.Argument(help="For instance 01-fgsm; default: all.")] = None,
) -> None:
    """Execute what changed and write the outputs back into notebooks/ and the status page into book/."""
    known = [notebook.stem for notebook in chapters(ROOT)]
    wanted = chapter or known
    if unknown := set(wanted) - set(known):
        raise ValueError(f"no such chapter: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    file = ROOT / "book" / "status.json"
    records = {r["chapter"]: r for r in json.loads(file.read_text(encoding="utf-8"))} if file.exists() else {}
    for notebook in chapters(ROOT):
        if notebook.stem in wanted:
            result, records[notebook.stem] = execute(notebook, BUILD / "executed", ROOT)
            _copy_if_changed(result, notebook)
    _write_status(ROOT / "book", [records[stem] for stem in known if stem in records])


@app.command()
def hero() -> None:
    """Draw the picture on the front page anew, from the artifact it shows."""
    make_hero(ROOT / "book" / "_static" / "hero.png")


@app.command()
def images() -> None:
    """Write down anew which images the book's artifacts are made on, from those that are here."""
    recipes.keep_book_images(recipes.ARTIFACTS)


def _execute_all() -> list[dict]:
    return [execute(notebook, BUILD / "executed", ROOT)[1] for notebook in chapters(ROOT)]


def _write_status(folder: Path, records: list[dict]) -> None:
    kept = [{name: value for name, value in record.items() if name not in ("key", "sha256")} for record in records]
    write_text(folder / "status.json", json.dumps(kept, indent=2, sort_keys=True) + "\n")
    write_text(folder / "status.md", status.page(records))


def _copy_sources(target: Path) -> None:
    """Copy what the renderer reads; unchanged files keep their time, so that it renders only what changed."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "_config.yml", "_toc.yml", "book", "uaplib"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    for name in listed.stdout.splitlines():
        _copy_if_changed(ROOT / name, target / name)


def _copy_if_changed(file: Path, target: Path) -> None:
    if not (target.exists() and target.read_bytes() == file.read_bytes()):
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)


if __name__ == "__main__":
    try:
        app()
    except (ExecutionError, OSError, ValueError, subprocess.CalledProcessError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted; finished chapters are kept, the same command goes on from here")
