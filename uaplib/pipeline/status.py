"""The book's status page: when, where and how fast each chapter ran."""

from collections.abc import Iterable

_HEAD = """# Status

Each chapter below was executed from its first cell to its last, with the parameters that it shows. This page is
written by `make update` (and, for a local build, by `make book`); nobody edits it.

| chapter | executed on | wall time | device | Python | torch | torchvision | numpy |
|---|---|---|---|---|---|---|---|
"""


def page(records: Iterable[dict]) -> str:
    """Return the page as Markdown, a row for each execution record."""
    return _HEAD + "".join(_row(record) for record in records)


def _row(record: dict) -> str:
    versions = record["versions"]
    cells = [
        f"[{record['chapter']}](../notebooks/{record['chapter']}.ipynb)",
        record["date"],
        f"{record['seconds']:.0f} s",
        record["device"],
        *(versions[name] for name in ("python", "torch", "torchvision", "numpy")),
    ]
    return "| " + " | ".join(cells) + " |\n"
