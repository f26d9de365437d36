"""Making an executed notebook the same file every time the same run is repeated."""

import os
import re
from pathlib import Path

from nbformat import NotebookNode

_CELL = re.compile(r"\S*[/\\]ipykernel_\d+[/\\]\d+\.py:\d+")  # where a warning says that it comes from
_ADDRESS = re.compile(r"\b0x[0-9a-f]{6,}\b")
_KEPT_CELL_METADATA = ("tags", "mystnb", "jupyter")

# Where a path may begin: after file://, a terminal's colour code or an escaped line break, else not inside a word or a
# longer path. Where a whole folder's name may end: not before what continues the name, as in book-old, book2, book.bak.
_PATH_BEGINS = r"(file://|\x1b\[[\d;]*m|\\[nrt]|(?<![\w./~+%@)\]}\\-]))"
_NAME_ENDS = r"(?![\w~+%@#$-]|\.+[\w~+-]|\\ )"


def normalise(notebook: NotebookNode, root: Path) -> NotebookNode:
    """Strip what differs between runs or machines, in place, and return the notebook.

    Timings and papermill's notes, the injected parameters, widget state, absolute paths, the places of warnings, memory
    addresses and the chunks in which text arrived go; execution counts become 1, 2, 3, ...
    """
    notebook.cells = [cell for cell in notebook.cells if "injected-parameters" not in cell.metadata.get("tags", [])]
    notebook.metadata = NotebookNode(
        kernelspec={"display_name": "Python 3", "language": "python", "name": "python3"},
        language_info={"name": "python"},
    )
    count = 0
    for cell in notebook.cells:
        cell.metadata = NotebookNode({k: cell.metadata[k] for k in _KEPT_CELL_METADATA if k in cell.metadata})
        if cell.cell_type != "code":
            continue
        count += bool(cell.source.strip())
        cell.execution_count = count if cell.source.strip() else None
        cell.outputs = _merge_streams(cell.outputs)
        for output in cell.outputs:
            _clean_output(output, count, root)
    return notebook


def _merge_streams(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Join neighbouring pieces of the same stream: how text is cut into messages depends on timing."""
    merged: list[NotebookNode] = []
    for output in outputs:
        if merged and output.output_type == "stream" == merged[-1].output_type and output.name == merged[-1].name:
            merged[-1].text += output.text
        else:
            merged.append(output)
    return merged


def _clean_output(output: NotebookNode, count: int, root: Path) -> None:
    if "execution_count" in output:
        output.execution_count = count
    if "text" in output:
        output.text = _clean_text(output.text, root)
    for kind in [kind for kind in output.get("data", {}) if "widget" in kind]:
        del output.data[kind]
    for kind, value in output.get("data", {}).items():
        if kind.startswith("text/"):
            output.data[kind] = _clean_text(value, root)


def _clean_text(text: str, root: Path) -> str:
    text = _replace_folder(text, root, ".")
    text = _replace_folder(text, Path(os.path.expanduser("~")), "~")  # Path.home() fails where there is no user
    return _ADDRESS.sub("0x...", _CELL.sub("this cell", text))


def _replace_folder(text: str, folder: Path, short: str) -> str:
    """Write `short` for a folder wherever its path stands alone or begins a longer one."""
    if not folder.is_absolute() or folder == folder.parent:  # the root of all paths is no folder of somebody's
        return text
    return re.sub(_PATH_BEGINS + re.escape(str(folder)) + _NAME_ENDS, rf"\g<1>{short}", text)


def problems(notebook: NotebookNode) -> list[str]:
    """Return what shows that a notebook did not run to its end; an empty list when all is well."""
    found = []
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type != "code" or not cell.source.strip():
            continue
        if cell.execution_count is None:
            found.append(f"cell {number} was not executed")
        found += [
            f"cell {number} raised {output.ename}: {output.evalue}"
            for output in cell.outputs
            if output.output_type == "error"
        ]
    return found
