import errno
import hashlib
import os
import stat
from pathlib import Path

import pytest

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


def no_space(*arguments):
    raise OSError(errno.ENOSPC, "No space left on device")


def killed(*arguments):
    raise KeyboardInterrupt


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


def test_a_full_device_raises_oserror(tmp_path):
    if not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full")
    with pytest.raises(OSError, match="No space left"):
        files.write_atomically(tmp_path / "f", lambda _: Path("/dev/full").write_bytes(b"x"))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_raises_oserror(tmp_path, monkeypatch):
    def refused(*arguments, **keywords):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(files.tempfile, "mkstemp", refused)
    with pytest.raises(PermissionError):
        files.write_text(tmp_path / "f", "x")
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_place_of_a_folder_raises_oserror(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        files.write_text(tmp_path / "file" / "f", "x")
