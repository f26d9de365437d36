import errno
import functools
import hashlib
import http.server
import os
import ssl
import stat
import threading
import urllib.error
from pathlib import Path

import pytest
import requests

from uaplib import files


def test_the_data_folder_is_the_variables(monkeypatch, tmp_path):
    monkeypatch.setenv("UAPLIB_DATA", str(tmp_path))
    assert files.data_folder() == tmp_path


def test_the_data_folder_may_start_at_home(monkeypatch):
    monkeypatch.setenv("UAPLIB_DATA", "~/pictures")
    assert files.data_folder() == Path.home() / "pictures"


@pytest.mark.parametrize("value", [None, ""])
def test_the_data_folder_is_in_the_cache_by_default(monkeypatch, value):
    monkeypatch.delenv("UAPLIB_DATA", raising=False)
    if value is not None:
        monkeypatch.setenv("UAPLIB_DATA", value)
    assert files.data_folder() == Path.home() / ".cache" / "uaplib"


def test_sha256(tmp_path):
    (tmp_path / "f").write_bytes(b"abc")
    assert files.sha256(tmp_path / "f") == hashlib.sha256(b"abc").hexdigest()


def test_text_is_written_in_utf8_and_missing_folders_are_made(tmp_path):
    files.write_text(tmp_path / "a" / "b" / "f.txt", "ℓ∞ ≤ ε")
    assert (tmp_path / "a" / "b" / "f.txt").read_bytes().decode() == "ℓ∞ ≤ ε"


def test_a_new_file_replaces_the_old_and_nothing_else_is_left(tmp_path):
    for text in ("old", "new"):
        files.write_text(tmp_path / "f", text)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("f", "new")]


def test_the_file_has_the_permissions_that_the_umask_gives(tmp_path):
    before = os.umask(0o027)
    try:
        files.write_text(tmp_path / "f", "x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == 0o640


def no_space(*arguments, **keywords):
    raise OSError(errno.ENOSPC, "No space left on device")


def killed(*arguments, **keywords):
    raise KeyboardInterrupt


@pytest.mark.usefixtures("checkout")
def test_the_checkout_is_the_folder_with_the_notebooks():
    assert files.checkout() == Path(__file__).parents[1]


@pytest.mark.parametrize("there", [(), ("pyproject.toml",), ("notebooks",)])
def test_an_installed_library_has_no_checkout(monkeypatch, tmp_path, there):
    monkeypatch.setattr(files, "__file__", str(tmp_path / "uaplib" / "files.py"))
    for name in there:
        (tmp_path / name).touch() if "." in name else (tmp_path / name).mkdir()
    assert files.checkout() is None
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "notebooks").mkdir(exist_ok=True)
    assert files.checkout() == tmp_path


CONTENT = b"what the server has"


@pytest.fixture
def url(tmp_path_factory, monkeypatch):
    """The address of a file that a server on this machine has."""
    folder = tmp_path_factory.mktemp("served")
    (folder / "f").write_bytes(CONTENT)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
    monkeypatch.setattr(http.server.SimpleHTTPRequestHandler, "log_message", lambda *arguments: None)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/f"
        server.shutdown()


def digest(content):
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def tree(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_a_download_is_written_into_folders_that_it_makes(url, tmp_path):
    path = tmp_path / "a" / "b" / "f"
    assert files.download(url, digest(CONTENT), path) == path
    assert path.read_bytes() == CONTENT
    assert tree(tmp_path) == ["a", "a/b", "a/b/f"]


FAILURES = {  # what is asked for, what breaks, and the reason that is told
    "no such file": ("{url}2", CONTENT, None, "404 File not found"),
    "another file": ("{url}", b"another", None, "wrong checksum"),
    "no network": ("http://127.0.0.1:9/f", CONTENT, None, "no network"),
    "a full disk": ("{url}", CONTENT, no_space, "No space left on device"),
}


@pytest.mark.parametrize("before", ["nothing", "the folder", "an older file"])
@pytest.mark.parametrize("failure", FAILURES)
def test_a_failed_download_leaves_what_was_there_and_says_why_once(url, tmp_path, monkeypatch, failure, before):
    asked, content, breaks, why = FAILURES[failure]
    path = tmp_path / "data" / "set" / "f"
    if before != "nothing":
        path.parent.mkdir(parents=True)
    if before == "an older file":
        path.write_bytes(b"older")
    if breaks:
        monkeypatch.setattr("shutil.move", breaks)
    asked, known = asked.format(url=url), tree(tmp_path)
    with pytest.raises(FileNotFoundError) as caught:
        files.download(asked, digest(content), path, "Do this.")
    assert str(caught.value) == f"{path} is not there, and {asked} could not be downloaded: {why}.\nDo this."
    assert tree(tmp_path) == known
    if before == "an older file":
        assert path.read_bytes() == b"older"


@pytest.mark.parametrize("before", [(), ("data",), ("data/set",)])
def test_an_interrupted_download_leaves_nothing(url, tmp_path, monkeypatch, before):
    for name in before:
        (tmp_path / name).mkdir(parents=True)
    known = tree(tmp_path)
    monkeypatch.setattr("shutil.move", killed)
    with pytest.raises(KeyboardInterrupt):
        files.download(url, digest(CONTENT), tmp_path / "data" / "set" / "f")
    assert tree(tmp_path) == known


def test_folders_that_somebody_else_uses_meanwhile_stay(tmp_path, monkeypatch):
    def meanwhile(*arguments, **keywords):
        (tmp_path / "a" / "other").write_text("")
        no_space()

    monkeypatch.setattr("pooch.retrieve", meanwhile)
    with pytest.raises(FileNotFoundError, match="No space"):
        files.download("http://127.0.0.1:9/f", digest(CONTENT), tmp_path / "a" / "b" / "f")
    assert tree(tmp_path) == ["a", "a/other"]


def wrapped(error, cause):
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (requests.ConnectionError("HTTPSConnectionPool(host='a', port=443): Max retries exceeded"), "no network"),
        (requests.exceptions.ProxyError("Cannot connect to proxy."), "no network"),
        (requests.exceptions.SSLError("certificate verify failed"), "its certificate is not trusted"),
        (requests.ConnectTimeout("HTTPSConnectionPool"), "no answer in time"),
        (requests.exceptions.ChunkedEncodingError("Connection broken: IncompleteRead"), "the connection broke off"),
        (urllib.error.URLError(ConnectionRefusedError(111, "Connection refused")), "no network"),
        (urllib.error.URLError(ssl.SSLError(1, "CERTIFICATE_VERIFY_FAILED")), "its certificate is not trusted"),
        (urllib.error.HTTPError("http://a", 404, "Not Found", None, None), "404 Not Found"),
        (RuntimeError('invalid hash value (expected "1", got "2")'), "wrong checksum"),
        (PermissionError(13, "Permission denied", "/x/tmp1"), "Permission denied"),
        (wrapped(PermissionError("[Errno 13] '/x/tmp1' | Pooch could"), OSError(13, "Permission denied")),
         "Permission denied"),
        (RuntimeError("one thing.\nand another"), "one thing"),
        (RuntimeError(), "RuntimeError"),
    ],
)  # fmt: skip
def test_a_reason_is_short(error, words):
    assert files.reason(error) == words


@pytest.mark.parametrize("fails", ["write", "os.fsync", "os.replace"])
@pytest.mark.parametrize("failure", [no_space, killed])
def test_a_failure_leaves_the_old_file_and_nothing_half_written(tmp_path, monkeypatch, fails, failure):
    files.write_text(tmp_path / "f", "old")

    def write(temporary):
        temporary.write_text("half of the ne")
        if fails == "write":
            failure()

    if fails != "write":
        monkeypatch.setattr(fails, failure)
    with pytest.raises((OSError, KeyboardInterrupt)):
        files.write_atomically(tmp_path / "f", write)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("f", "old")]


def write_x(path):
    files.write_text(path, "x")


WRITERS = pytest.mark.parametrize("write", [write_x, files.check_writable], ids=["write", "check"])


def refused(write, path, kind, why):
    """The error must be of this kind, and say in one line which file, why and what to do, without temporary names."""
    folder = Path(path).parent
    before = os.listdir(folder) if folder.is_dir() else None
    with pytest.raises(kind) as caught:
        write(path)
    assert type(caught.value) is kind
    assert str(caught.value) == f"{Path(path)} cannot be written: {why}"
    assert before is None or os.listdir(folder) == before
    return caught.value.errno


@WRITERS
def test_a_folder_is_no_file(write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder")
    for path in (tmp_path / "folder", tmp_path / "link", "", ".", "/"):
        assert refused(write, path, IsADirectoryError, "Is a directory; name a file") == errno.EISDIR


@WRITERS
@pytest.mark.parametrize(
    ("number", "kind", "remedy"),
    [
        (errno.ENOSPC, OSError, "free some space, or write elsewhere"),
        (errno.EACCES, PermissionError, "name a place where you may write"),
        (errno.EROFS, OSError, "name a place where you may write"),
        (errno.EIO, OSError, "write elsewhere"),
    ],
)
@pytest.mark.parametrize("fails", ["mkstemp", "fsync"])
def test_what_the_system_refuses_is_told_of_the_file_itself(write, tmp_path, monkeypatch, fails, number, kind, remedy):
    def fail(*arguments, **keywords):
        name = (str(tmp_path / ".f.abcdefgh"),) if fails == "mkstemp" else ()
        raise OSError(number, os.strerror(number), *name)

    monkeypatch.setattr(*{"mkstemp": (files.tempfile, "mkstemp"), "fsync": (os, "fsync")}[fails], fail)
    assert refused(write, tmp_path / "f", kind, f"{os.strerror(number)}; {remedy}") == number
    monkeypatch.chdir(tmp_path)
    refused(write, "f", kind, f"{os.strerror(number)}; {remedy}")
    with pytest.raises(kind):
        write(tmp_path / "a" / "b" / "f")
    assert tree(tmp_path) == []


@WRITERS
def test_a_file_in_the_place_of_a_folder(write, tmp_path):
    (tmp_path / "file").write_text("")
    remedy = "a part of its path is a file; name another folder"
    assert refused(write, tmp_path / "file" / "f", FileExistsError, f"File exists; {remedy}") == errno.EEXIST
    refused(write, tmp_path / "file" / "a" / "f", NotADirectoryError, f"Not a directory; {remedy}")


@WRITERS
def test_a_name_may_be_as_long_as_the_system_allows(write, tmp_path):
    write(tmp_path / ("f" * 255))
    refused(write, tmp_path / ("f" * 256), OSError, "File name too long; name it shorter")


def test_a_full_device_raises_oserror(tmp_path):
    if not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full")
    with pytest.raises(OSError, match=r"/f cannot be written: No space left on device; free some space"):
        files.write_atomically(tmp_path / "f", lambda _: Path("/dev/full").write_bytes(b"x"))
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_the_writer_tells_is_the_files(tmp_path):
    def write(temporary):
        raise OSError(f"cannot encode {temporary}")

    with pytest.raises(OSError, match="written: cannot encode") as caught:
        files.write_atomically(tmp_path / "f", write)
    assert f"cannot encode {tmp_path / 'f'};" in str(caught.value)


def test_an_error_about_another_file_stays_as_it_is(tmp_path):
    (tmp_path / "to").mkdir()
    missing = tmp_path / "from" / "missing"
    with pytest.raises(FileNotFoundError) as caught:
        files.write_atomically(tmp_path / "to" / "f", lambda _: missing.read_bytes())
    assert str(caught.value) == f"[Errno 2] No such file or directory: '{missing}'"
    assert list((tmp_path / "to").iterdir()) == []


@pytest.mark.parametrize("size", [0, 1, 2**20, 2**20 + 1])
def test_what_can_be_written_passes_and_nothing_is_left(tmp_path, monkeypatch, size):
    written = []
    monkeypatch.setattr(os, "fsync", lambda handle: written.append(os.fstat(handle).st_size))
    files.check_writable(tmp_path / "a" / "f", size)
    assert written == [size]
    assert tree(tmp_path) == []


def test_checking_leaves_a_file_that_is_there_as_it_is(tmp_path):
    (tmp_path / "f").write_text("old")
    files.check_writable(tmp_path / "f", 100)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("f", "old")]


def test_a_file_larger_than_there_is_room_for_is_noticed(tmp_path):
    resource = pytest.importorskip("resource", reason="this system has no limit on the size of files")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20 + 100, limits[1]))
    try:
        files.check_writable(tmp_path / "a" / "f", 2**20)
        with pytest.raises(OSError, match="/b/f cannot be written: File too large; write elsewhere, or raise"):
            files.check_writable(tmp_path / "b" / "f", 2**20 + 101)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert tree(tmp_path) == []


def test_what_is_read_is_noted_where_somebody_asks_for_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("UAPLIB_READS", raising=False)
    assert files.note_read(Path("a")) == Path("a")
    monkeypatch.setenv("UAPLIB_READS", str(tmp_path / "reads"))
    assert files.note_read(Path("b")) == Path("b")
    assert files.note_read(tmp_path / "c" / "d") == tmp_path / "c" / "d"
    assert (tmp_path / "reads").read_text().splitlines() == [str(tmp_path / "b"), str(tmp_path / "c" / "d")]
