"""Executing chapters with papermill, once per content key."""

import base64
import json
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nbformat
import papermill

from uaplib import provenance
from uaplib.devices import best_device, device_name
from uaplib.files import sha256, write_atomically, write_text
from uaplib.pipeline.normalise import normalise, problems

CELL_TIMEOUT = 600  # seconds


class ExecutionError(RuntimeError):
    """A notebook did not run to its end."""


def chapters(root: Path) -> list[Path]:
    """Return the chapters' notebooks in order."""
    return sorted((root / "notebooks").glob("[0-9][0-9]-*.ipynb"))


def source_digest(notebook: Path) -> str:
    """Return a digest of a notebook's cells: their types and sources, without outputs and metadata."""
    cells = nbformat.read(notebook, as_version=4).cells
    return provenance.digest([[cell.cell_type, cell.source] for cell in cells])


def content_key(notebook: Path, parameters: dict[str, Any], root: Path) -> str:
    """Return the key of a run, which changes whenever its result might.

    It covers the notebook's cells, the parameters, every file of the library (weights included) and of `artifacts/`,
    the lock file and the version of Python. Outputs and metadata of the notebook do not count.
    """
    folders = [root / "uaplib", root / "artifacts"]
    files = [f for folder in folders for f in sorted(folder.rglob("*")) if f.is_file() and f.suffix != ".pyc"]
    content = {str(file.relative_to(root)): sha256(file) for file in [*files, root / "requirements.lock"]}
    return provenance.digest([source_digest(notebook), parameters, content, sys.version])


def check_parameters(notebook: Path, parameters: dict[str, Any]) -> None:
    """Raise ValueError for a parameter that the notebook does not have: papermill would only warn."""
    known = papermill.inspect_notebook(notebook)
    for name in parameters:
        if name not in known:
            raise ValueError(f"{notebook.name} has no parameter {name!r}; it has {', '.join(known)}")


def execute(
    notebook: Path, folder: Path, root: Path, parameters: dict[str, Any] | None = None, progress: bool = True
) -> tuple[Path, dict]:
    """Execute a notebook into `folder`, normalised, unless this very run is there; return its path and record.

    The record is written last and names the SHA-256 of the notebook, so that an interrupted run counts as none.
    Raises ValueError for an unknown parameter and ExecutionError when a cell fails.
    """
    parameters = parameters or {}
    check_parameters(notebook, parameters)
    key = content_key(notebook, parameters, root)
    result, record_file = folder / notebook.name, folder / f"{notebook.stem}.json"
    record = _finished(result, record_file, key)
    if record:
        print(f"{notebook.stem}: unchanged, took {record['seconds']:.0f} s on {record['date']}", flush=True)
        return result, record
    print(f"{notebook.stem}: executing", flush=True)
    started = time.perf_counter()
    executed = _run(notebook, parameters, root, progress)
    seconds = time.perf_counter() - started
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(result, lambda temporary: nbformat.write(normalise(executed, root), temporary))
    record = {
        "chapter": notebook.stem,
        "key": key,
        "source": source_digest(notebook),
        "sha256": sha256(result),
        "parameters": parameters,
        "date": datetime.now(UTC).date().isoformat(),
        "seconds": round(seconds, 1),
        "device": device_name(best_device()),
        "versions": provenance.versions(),
    }
    write_text(record_file, json.dumps(record, indent=2, sort_keys=True) + "\n")
    print(f"{notebook.stem}: done in {seconds:.0f} s", flush=True)
    return result, record


def _finished(result: Path, record_file: Path, key: str) -> dict | None:
    """The record of this run, if it was finished and its result is whole."""
    if not (result.exists() and record_file.exists()):
        return None
    record = json.loads(record_file.read_text(encoding="utf-8"))
    return record if record["key"] == key and record["sha256"] == sha256(result) else None


def _run(notebook: Path, parameters: dict[str, Any], root: Path, progress: bool) -> nbformat.NotebookNode:
    """Run papermill in a process of its own and return what it wrote."""
    # Base64 keeps the values' types; without saves between cells, a dead kernel leaves no file that looks whole.
    encoded = base64.b64encode(json.dumps(parameters).encode()).decode()
    with tempfile.TemporaryDirectory() as temporary:
        output = Path(temporary) / notebook.name
        command = [
            sys.executable, "-m", "papermill", str(notebook), str(output), "--kernel", "python3",
            "--parameters_base64", encoded, "--no-request-save-on-cell-execute",
            "--execution-timeout", str(CELL_TIMEOUT), "--progress-bar" if progress else "--no-progress-bar",
        ]  # fmt: skip
        finished = subprocess.run(command, cwd=root, stdin=subprocess.DEVNULL, stderr=None if progress else -1)
        executed = nbformat.read(output, as_version=4) if output.exists() else None
    if executed is None or finished.returncode or problems(executed):
        reasons = "; ".join(problems(executed)) if executed else "the kernel died, or a cell ran out of time"
        raise ExecutionError(f"{notebook.name} did not run to its end (exit code {finished.returncode}): {reasons}")
    return executed
