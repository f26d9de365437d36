"""Executing chapters with papermill, once per content key."""

import base64
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nbformat
import papermill

from uaplib import provenance
from uaplib.devices import best_device, device_name
from uaplib.files import sha256, write_atomically, write_text
from uaplib.pipeline.dependencies import library_files
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
    """Return the key of a run: a digest of all that its result depends on and that is known before it runs.

    That is the notebook's cells, the parameters, the files of the library that its imports reach, the module that
    normalises the result, the lock file and the version of Python. Outputs and metadata of the notebook do not count.
    """
    cells = [cell.source for cell in nbformat.read(notebook, as_version=4).cells if cell.cell_type == "code"]
    files = library_files(cells, root, also=["uaplib.pipeline.normalise"])
    content = _digests([*files, root / "requirements.lock"], root)
    return provenance.digest([source_digest(notebook), parameters, content, sys.version])


def _digests(files: Iterable[Path], root: Path) -> dict[str, str | None]:
    """The SHA-256 of files by their paths below `root`; None for one that is missing."""
    return {file.relative_to(root).as_posix(): sha256(file) if file.is_file() else None for file in files}


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

    The record is written last and names the SHA-256 of the notebook, so that an interrupted run counts as none. It
    lists the artifacts that the run read, or looked for in vain, with their SHA-256: when one of them is another file
    now, is gone or has appeared, the run counts as none.
    Raises ValueError for an unknown parameter and ExecutionError when a cell fails.
    """
    parameters = parameters or {}
    check_parameters(notebook, parameters)
    key = content_key(notebook, parameters, root)
    result, record_file = folder / notebook.name, folder / f"{notebook.stem}.json"
    record = _finished(result, record_file, key, root)
    if record:
        print(f"{notebook.stem}: unchanged, took {record['seconds']:.0f} s on {record['date']}", flush=True)
        return result, record
    print(f"{notebook.stem}: executing", flush=True)
    before = _digests((root / "artifacts").rglob("*"), root)
    started = time.perf_counter()
    executed, artifacts = _run(notebook, parameters, root, progress)
    seconds = time.perf_counter() - started
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(result, lambda temporary: nbformat.write(normalise(executed, root), temporary))
    record = {
        "chapter": notebook.stem,
        "key": key,
        "source": source_digest(notebook),
        "sha256": sha256(result),
        "artifacts": {name: before.get(name) for name in artifacts},
        "parameters": parameters,
        "date": datetime.now(UTC).date().isoformat(),
        "seconds": round(seconds, 1),
        "device": device_name(best_device()),
        "versions": provenance.versions(),
    }
    write_text(record_file, json.dumps(record, indent=2, sort_keys=True) + "\n")
    print(f"{notebook.stem}: done in {seconds:.0f} s", flush=True)
    return result, record


def _finished(result: Path, record_file: Path, key: str, root: Path) -> dict | None:
    """The record of this run, if it was finished, its result is whole, and what it read is as it was."""
    if not (result.exists() and record_file.exists()):
        return None
    record = json.loads(record_file.read_text(encoding="utf-8"))
    if record["key"] != key or record["sha256"] != sha256(result):
        return None
    now = _digests((root / name for name in record["artifacts"]), root)
    return record if now == record["artifacts"] else None


def _run(
    notebook: Path, parameters: dict[str, Any], root: Path, progress: bool
) -> tuple[nbformat.NotebookNode, list[str]]:
    """Run papermill in a process of its own; return what it wrote, and the artifacts that the chapter looked for."""
    # Base64 keeps the values' types; without saves between cells, a dead kernel leaves no file that looks whole.
    encoded = base64.b64encode(json.dumps(parameters).encode()).decode()
    with tempfile.TemporaryDirectory() as temporary:
        output, reads = Path(temporary) / notebook.name, Path(temporary) / "reads"
        command = [
            sys.executable, "-m", "papermill", str(notebook), str(output), "--kernel", "python3",
            "--parameters_base64", encoded, "--no-request-save-on-cell-execute",
            "--execution-timeout", str(CELL_TIMEOUT), "--progress-bar" if progress else "--no-progress-bar",
        ]  # fmt: skip
        environment = {**os.environ, "UAPLIB_READS": str(reads)}
        finished = subprocess.run(
            command, cwd=root, env=environment, stdin=subprocess.DEVNULL, stderr=None if progress else -1
        )
        executed = nbformat.read(output, as_version=4) if output.exists() else None
        artifacts = _artifacts(reads, root)
    if executed is None or finished.returncode or problems(executed):
        reasons = "; ".join(problems(executed)) if executed else "the kernel died, or a cell ran out of time"
        raise ExecutionError(f"{notebook.name} did not run to its end (exit code {finished.returncode}): {reasons}")
    return executed, artifacts


def _artifacts(reads: Path, root: Path) -> list[str]:
    """The artifacts of the book among the paths that `uaplib.files.note_read` noted, as paths below `root`."""
    noted = {Path(line) for line in reads.read_text(encoding="utf-8").splitlines()} if reads.exists() else ()
    folder = (root / "artifacts").resolve()
    places = {path.parent.resolve() / path.name for path in noted}  # the folder may be reached through a link
    return sorted(
        f"artifacts/{place.relative_to(folder).as_posix()}" for place in places if place.is_relative_to(folder)
    )
