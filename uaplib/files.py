"""Writing, finding and downloading files: atomic writes, SHA-256 digests and the data folder."""

import hashlib
import os
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path


def data_folder() -> Path:
    """Return the folder where data is looked for and stored: `UAPLIB_DATA`, or `~/.cache/uaplib`."""
    return Path(os.environ.get("UAPLIB_DATA") or "~/.cache/uaplib").expanduser()


def download(url: str, known_hash: str, path: Path) -> Path:
    """Download `url` to `path` and return it; known_hash: for instance "sha256:...", which the file must have.

    Raises FileNotFoundError that names both, whatever the network, the disk or a wrong checksum raised.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it looks for notebook widgets, and says so in every notebook without them
        import pooch
    try:
        return Path(pooch.retrieve(url, known_hash, path.name, path.parent))
    except Exception as error:
        raise FileNotFoundError(f"{path} is not there, and {url} could not be downloaded ({error})") from error


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Call `write` on a temporary file beside `path`, then move it there: a reader sees all of it or nothing.

    Raises OSError when the folder cannot be written or the disk is full; `path` is then as it was before.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        with open(temporary, "rb+") as stream:
            os.fsync(stream.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp makes private files; a result is for everyone
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def save_checkpoint(path: str | Path, write: Callable[[Path], object]) -> None:
    """Call `write` on `path`; when that fails, warn and go on: the run itself is worth more than its checkpoint."""
    try:
        write(Path(path))
    except OSError as error:
        warnings.warn(f"no checkpoint was written: {error}", stacklevel=3)
