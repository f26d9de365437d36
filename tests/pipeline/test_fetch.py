import subprocess
from pathlib import Path

import pytest

from uaplib.pipeline import fetch


def test_without_apt_nothing_is_fetched(monkeypatch, tmp_path):
    monkeypatch.setattr(fetch.shutil, "which", lambda name: None)
    assert not fetch.fetch_with_apt("package", Path("/usr/share/data"), tmp_path)


@pytest.fixture
def package(monkeypatch, tmp_path):
    """apt-get is played by a function that makes a real package, which the real dpkg unpacks."""
    if not fetch.shutil.which("dpkg-deb"):
        pytest.skip("dpkg is not installed")
    tree = tmp_path / "tree"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN" / "control").write_text(
        "Package: pictures\nVersion: 1\nArchitecture: all\nMaintainer: a <a@b.c>\nDescription: pictures\n"
    )
    (tree / "usr/share/data").mkdir(parents=True)
    (tree / "usr/share/data/pictures.gz").write_bytes(b"content")
    real = subprocess.run

    def run(command, **options):
        if command[0] != "apt-get":
            return real(command, **options)
        if command[1] == "download":
            package = Path(options["cwd"]) / "pictures.deb"
            real(["dpkg-deb", "--build", "--root-owner-group", str(tree), str(package)], check=True)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(fetch.subprocess, "run", run)
    monkeypatch.setattr(fetch.shutil, "which", lambda name: name)


def test_the_files_of_a_package_are_unpacked_without_root(package, tmp_path):
    assert fetch.fetch_with_apt("pictures", Path("/usr/share/data"), tmp_path / "data")
    assert (tmp_path / "data" / "pictures.gz").read_bytes() == b"content"


def test_the_archive_is_asked_for_the_package_where_it_is_unpacked(monkeypatch, tmp_path):
    asked = []

    def run(command, **options):
        asked.append((command, options))
        return subprocess.CompletedProcess(command, len(asked) - 1)  # the lists come, the package does not

    monkeypatch.setattr(fetch.subprocess, "run", run)
    monkeypatch.setattr(fetch.shutil, "which", lambda name: name)
    assert fetch.fetch_with_apt("pictures", Path("/usr/share/data"), tmp_path) is False
    update, (download, options) = asked
    assert update == (["apt-get", "update", "-qq"], {"check": False})
    assert download == ["apt-get", "download", "-qq", "pictures"]
    assert options["check"] is False
    assert not Path(options["cwd"]).exists()  # it was a temporary folder


@pytest.mark.parametrize("missing", ["apt-get", "dpkg"])
def test_both_programs_are_needed(monkeypatch, tmp_path, missing):
    monkeypatch.setattr(fetch.shutil, "which", lambda name: None if name == missing else name)
    monkeypatch.setattr(fetch.subprocess, "run", lambda *a, **k: pytest.fail("it was tried"))
    assert fetch.fetch_with_apt("package", Path("/usr/share/data"), tmp_path) is False


def half(source, target):
    target.write_bytes(b"con")
    raise OSError(28, "No space left on device")


def killed(source, target):
    target.write_bytes(b"con")
    raise KeyboardInterrupt


@pytest.mark.parametrize(("copy", "error"), [(half, OSError), (killed, KeyboardInterrupt)])
def test_a_package_that_cannot_be_unpacked_leaves_nothing(package, monkeypatch, tmp_path, copy, error):
    monkeypatch.setattr(fetch.shutil, "copyfile", copy)
    with pytest.raises(error):
        fetch.fetch_with_apt("pictures", Path("/usr/share/data"), tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_another_package_leaves_nothing(package, tmp_path):
    with pytest.raises(FileNotFoundError):
        fetch.fetch_with_apt("pictures", Path("/usr/share/other"), tmp_path / "data")
    assert not (tmp_path / "data").exists()
