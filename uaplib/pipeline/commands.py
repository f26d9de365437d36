"""`uaplib book`: executing, writing back and rendering the chapters, in a checkout of the book.

Help is to come at once, so each command imports what it works with.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Annotated

import typer

from uaplib.files import checkout, write_text

app = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown")
NOT_ON_THE_PAGE = ("artifacts", "key", "sha256")  # what a record holds for the next run only


@app.command(epilog="Example: `uaplib book build`.")
def build() -> None:
    """Execute what changed, render the book from copies under _build, and print the page to open."""
    root = _root()
    execution = _execution()
    source, executed = root / "_build" / "source", root / "_build" / "executed"
    chapters = execution.chapters(root)
    records = [execution.execute(notebook, executed, root)[1] for notebook in chapters]
    _copy_sources(root, source)
    _write_status(source / "book", records)
    for notebook in chapters:
        _copy_if_changed(executed / notebook.name, source / "notebooks" / notebook.name)
    _render(source)
    page = source / "_build" / "html" / "index.html"
    if not page.exists():
        raise RuntimeError("the renderer ended well but wrote no page")
    print(f"\nThe book is ready. Open {page}")


@app.command(epilog="Example: `uaplib book update 01-fgsm`.")
def update(
    chapter: Annotated[list[str] | None, typer.Argument(help="For instance 01-fgsm; default: all.")] = None,
) -> None:
    """Execute what changed and write the outputs back into notebooks/ and the status page into book/."""
    root = _root()
    execution = _execution()
    known = [notebook.stem for notebook in execution.chapters(root)]
    wanted = chapter or known
    if unknown := set(wanted) - set(known):
        raise ValueError(f"no such chapter: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    file = root / "book" / "status.json"
    records = {r["chapter"]: r for r in json.loads(file.read_text(encoding="utf-8"))} if file.exists() else {}
    for notebook in execution.chapters(root):
        if notebook.stem in wanted:
            result, records[notebook.stem] = execution.execute(notebook, root / "_build" / "executed", root)
            _copy_if_changed(result, notebook)
    _write_status(root / "book", [records[stem] for stem in known if stem in records])


@app.command(epilog="Example: `uaplib book data`.")
def data() -> None:
    """Make sure that Fashion-MNIST is there: data folder, system copy, download, or Debian's package."""
    _root()
    from uaplib.data import fashion_mnist
    from uaplib.pipeline.fetch import fetch_with_apt

    try:
        fashion_mnist.load("test", 1)
    except FileNotFoundError as error:
        if not fetch_with_apt("dataset-fashion-mnist", fashion_mnist.SYSTEM_FOLDER, fashion_mnist.folder()):
            raise
        failure, *_ = str(error).splitlines()
        print(f"{failure}\nDebian's package was unpacked into {fashion_mnist.folder()} instead.")
    for split in fashion_mnist.SPLITS:
        print(f"fashion-mnist, {split}: {len(fashion_mnist.load(split).labels)} images")


@app.command(epilog="Example: `uaplib book hero`.")
def hero() -> None:
    """Draw the picture on the front page anew, from the artifact it shows."""
    root = _root()
    from uaplib.pipeline.hero import make_hero

    make_hero(root / "book" / "_static" / "hero.png")


@app.command(epilog="Example: `uaplib book images`.")
def images() -> None:
    """Write down anew which images the book's artifacts are made on, from those that are here."""
    _root()
    from uaplib.experiments import images, studies

    images.keep(studies.images_of_the_book())


@app.command(epilog="Example: `uaplib book leaderboard`.")
def leaderboard() -> None:
    """Write the page of the leaderboard anew, from the cells that the book keeps."""
    root = _root()
    from uaplib.experiments import leaderboard

    write_text(root / "book" / leaderboard.PAGE, leaderboard.page(leaderboard.entries()))


@app.command(epilog="Example: `uaplib book registry`.")
def registry() -> None:
    """Write down anew what an installed library may fetch: the artifacts, and which chapters read them."""
    root = _root()
    from uaplib.experiments import registry

    read = {int(notebook.stem[:2]): _read_by(notebook, root) for notebook in _execution().chapters(root)}
    registry.write(registry.make(root / "artifacts", read))


def _read_by(notebook: Path, root: Path) -> list[str] | None:
    """The artifacts that a chapter looked for when it was executed last; None where there is no record of it."""
    record = root / "_build" / "executed" / f"{notebook.stem}.json"
    if not record.exists():
        return None
    found = json.loads(record.read_text(encoding="utf-8"))["artifacts"]
    return [name.removeprefix("artifacts/") for name in found]


def _root() -> Path:
    """The working folder, which must be the root of the checkout that the library runs from."""
    root, here = checkout(), Path.cwd()
    if root is None:
        raise ValueError(
            "`uaplib book` works in a checkout of the book, and this library is installed without one; in its root: "
            "pip install --editable '.[book]'"
        )
    if not here.samefile(root):
        raise ValueError(f"`uaplib book` runs in the root of its checkout, {root}, not in {here}")
    return here


def _execution() -> ModuleType:
    """The module that executes chapters, which needs the packages of the extra `book`."""
    try:
        from uaplib.pipeline import execute
    except ModuleNotFoundError as error:
        raise ImportError(f"{error.name} is not installed: pip install 'uaplib[book]'") from error
    return execute


def _write_status(folder: Path, records: Iterable[dict]) -> None:
    from uaplib.pipeline import status

    kept = [{name: record[name] for name in record if name not in NOT_ON_THE_PAGE} for record in records]
    write_text(folder / "status.json", json.dumps(kept, indent=2, sort_keys=True) + "\n")
    write_text(folder / "status.md", status.page(kept))


def _render(source: Path) -> None:
    """Render the book with every warning an error."""
    program = Path(sys.executable).with_name("jupyter-book")
    if not program.exists():
        raise ImportError("jupyter-book is not installed: pip install 'uaplib[book]'")
    subprocess.run([program, "build", str(source), "-W", "-n", "--keep-going", "-q"], check=True)


def _copy_sources(root: Path, target: Path) -> None:
    """Copy what the renderer reads; unchanged files keep their time, so that it renders only what changed."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "_config.yml", "_toc.yml", "book", "uaplib"],
        cwd=root, capture_output=True, text=True, check=True,
    )  # fmt: skip
    for name in listed.stdout.splitlines():
        _copy_if_changed(root / name, target / name)


def _copy_if_changed(file: Path, target: Path) -> None:
    if not (target.exists() and target.read_bytes() == file.read_bytes()):
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
