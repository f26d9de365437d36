"""Writing, finding and downloading files: atomic writes, SHA-256 digests and the data folder."""

import contextlib
import errno
import hashlib
import os
import socket
import ssl
import tempfile
import urllib.error
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from logging import Logger

    from tqdm import tqdm

# What `reason` says where the server itself cannot be had, so that its other files cannot be, either.
UNREACHABLE = ("its certificate is not trusted", "no answer in time", "no network")


def data_folder() -> Path:
    """Return the folder where data is looked for and stored: `UAPLIB_DATA`, or `~/.cache/uaplib`."""
    return Path(os.environ.get("UAPLIB_DATA") or "~/.cache/uaplib").expanduser()


def checkout() -> Path | None:
    """Return the root of the checkout that the library runs from, None where it is installed as a package."""
    root = Path(__file__).parents[1]
    return root if (root / "pyproject.toml").is_file() and (root / "notebooks").is_dir() else None


def note_read(path: Path) -> Path:
    """Return `path`, which is about to be read or looked for; note it in the file that `UAPLIB_READS` names, if any.

    So `uaplib book` learns which artifacts a chapter depends on, and which it has looked for in vain.
    """
    if notes := os.environ.get("UAPLIB_READS"):
        with open(notes, "a", encoding="utf-8") as stream:
            stream.write(f"{path.absolute()}\n")
    return path


def download(
    url: str,
    known_hash: str,
    path: Path,
    remedy: str = "Fetch it yourself, and put it there.",
    bar: "tqdm | None" = None,
    timeout: float = 30,
) -> Path:
    """Download `url` to `path` and return it; known_hash: for instance "sha256:...", which the file must have.

    bar: shows the progress, in place of pooch's lines. timeout: seconds without an answer after which it is given up.

    Raises FileNotFoundError, whatever the network, the disk or a wrong checksum raised: it names both, says why in a
    few words, and what to do (`remedy`); what was raised is its `__context__`. What was there before stays, and nothing
    else: no file, no new folder.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it looks for notebook widgets, and says so in every notebook without them
        import pooch
    try:
        with new_folders(path.parent), _silent(pooch.get_logger(), bar is not None):
            downloader = pooch.HTTPDownloader(progressbar=bar, timeout=timeout)
            return Path(pooch.retrieve(url, known_hash, path.name, path.parent, downloader=downloader))
    except Exception as error:
        raise FileNotFoundError(
            f"{path} is not there, and {url} could not be downloaded: {reason(error)}.\n{remedy}"
        ) from None  # a chapter shows this message, not a hundred lines of the network's libraries above it


@contextlib.contextmanager
def _silent(logger: "Logger", wanted: bool) -> Iterator[None]:
    logger.disabled = wanted
    try:
        yield
    finally:
        logger.disabled = False


def reason(error: BaseException) -> str:
    """Return in a few words why a download failed, for instance "no network" or "404 Not Found"."""
    from requests import exceptions as requests  # pooch's; only needed when something went wrong

    if isinstance(error, requests.RequestException) and error.response is not None:
        return f"{error.response.status_code} {error.response.reason}"
    if isinstance(error, urllib.error.HTTPError):
        return f"{error.code} {error.reason}"
    untrusted, late, offline = UNREACHABLE
    for kinds, words in (
        ((requests.SSLError, ssl.SSLError), untrusted),
        ((requests.Timeout, TimeoutError), late),
        ((requests.ConnectionError, ConnectionError, socket.gaierror), offline),
        (requests.ChunkedEncodingError, "the connection broke off"),
    ):
        if isinstance(error, kinds):
            return words
    if isinstance(error, ValueError | RuntimeError) and "hash" in str(error):
        return "wrong checksum"
    return _first_words(error)


def _first_words(error: BaseException) -> str:
    """What an error says, without numbers and file names; of an error around another, what the inner one says."""
    inner = getattr(error, "reason", None) or error.__cause__  # urllib and pooch wrap errors of the system
    if isinstance(inner, OSError) and not getattr(error, "strerror", None):
        return reason(inner)
    text = getattr(error, "strerror", None) or str(error).strip() or type(error).__name__
    return text.splitlines()[0][:120].rstrip(".")


@contextlib.contextmanager
def new_folders(folder: Path, keep: bool = True) -> Iterator[None]:
    """Make a folder and its parents; when the block fails, those that were not there before go, if they are empty.

    Without `keep` they go in any case. Raises OSError when they cannot be made.
    """
    missing = [each for each in (folder, *folder.parents) if not each.exists()]  # the innermost comes first
    done = False
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
        done = keep
    finally:
        for each in missing if not done else ():
            with contextlib.suppress(OSError):
                each.rmdir()


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Call `write` on a temporary file beside `path`, then move it there: a reader sees all of it or nothing.

    Raises OSError when `path` is a folder, when its folder cannot be written, or when the disk is full: in one line,
    `path`, why, and what to do. What was there is then as it was before.
    """
    path = Path(path)
    with _beside(path) as temporary:
        write(temporary)
        with open(temporary, "rb+") as stream:
            os.fsync(stream.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp makes private files; a result is for everyone
        os.replace(temporary, path)


def check_writable(path: Path, size: int = 0) -> None:
    """Try, before long work begins, that a file of `size` bytes can be written to `path`.

    `size` bytes are written to a temporary file there, which is removed, as is every folder that had to be made.
    Raises OSError as `write_atomically` does.
    """
    with _beside(Path(path), keep_folders=False) as temporary, open(temporary, "wb") as stream:
        block = os.urandom(2**20)  # not zeros, which some file systems store as nothing
        for start in range(0, size, len(block)):
            stream.write(block[: size - start])
        stream.flush()
        os.fsync(stream.fileno())  # some file systems say only now that the disk is full


@contextlib.contextmanager
def _beside(path: Path, keep_folders: bool = True) -> Iterator[Path]:
    """An empty temporary file beside `path`, removed at the end. An OSError of the block is told as one of `path`."""
    temporary = None
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        with new_folders(path.parent, keep_folders):
            handle, name = tempfile.mkstemp(prefix=f".{path.name[:40]}.", dir=path.parent)  # long names have a limit
            os.close(handle)
            temporary = Path(name)
            try:
                yield temporary
            finally:
                temporary.unlink(missing_ok=True)
    except OSError as error:
        if not _is_about(error, path):
            raise
        raise _explained(error, path, temporary) from error


def _is_about(error: OSError, path: Path) -> bool:
    """Whether an error can be one of writing `path`: it names no file, or one beside it, or a folder above."""
    path, named = path.absolute(), error.filename
    if not isinstance(named, str | os.PathLike):
        return True
    named = Path(named).absolute()
    return named.parent == path.parent or named in path.parents


_ELSEWHERE = "name a place where you may write"
_REMEDIES = {
    errno.ENOSPC: "free some space, or write elsewhere",
    errno.EDQUOT: "free some space, or write elsewhere",
    errno.EFBIG: "write elsewhere, or raise the limit (ulimit -f)",
    errno.EACCES: _ELSEWHERE,
    errno.EPERM: _ELSEWHERE,
    errno.EROFS: _ELSEWHERE,
    errno.EISDIR: "name a file",
    errno.ENAMETOOLONG: "name it shorter",
    errno.EEXIST: "a part of its path is a file; name another folder",
    errno.ENOTDIR: "a part of its path is a file; name another folder",
}


def _explained(error: OSError, path: Path, temporary: Path | None) -> OSError:
    """The same error with a text for people: the file that was to be written, why it was not, and what to do."""
    why = error.strerror or str(error)
    if temporary is not None:
        why = why.replace(str(temporary), str(path))
    remedy = _REMEDIES.get(error.errno, "write elsewhere")
    told = type(error)(f"{path} cannot be written: {why}; {remedy}")
    told.errno = error.errno  # given to the constructor, it would begin the text
    return told


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def save_checkpoint(path: str | Path, write: Callable[[Path], object]) -> None:
    """Call `write` on `path`; when that fails, warn and go on: the run itself is worth more than its checkpoint."""
    try:
        write(Path(path))
    except OSError as error:
        warnings.warn(f"no checkpoint was written: {error}", stacklevel=3)
