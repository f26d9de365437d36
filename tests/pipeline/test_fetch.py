import subprocess
from pathlib import Path

import pytest

from uaplib.pipeline import __main__ as pipeline
from uaplib.pipeline import fetch


def test_without_apt_nothing_is_fetched(monkeypatch, tmp_path):
    monkeypatch.setattr(fetch.shutil, "which", lambda name: None)
    assert not fetch.fetch_with_apt("package", Path("/usr/share/data"), tmp_path)


def test_the_files_of_a_package_are_unpacked_without_root(monkeypatch, tmp_path):
    """apt-get is played by a function that makes a real package, which the real dpkg unpacks."""
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

    if not fetch.shutil.which("dpkg-deb"):
        pytest.skip("dpkg is not installed")
    monkeypatch.setattr(fetch.subprocess, "run", run)
    monkeypatch.setattr(fetch.shutil, "which", lambda name: name)
    assert fetch.fetch_with_apt("pictures", Path("/usr/share/data"), tmp_path / "data")
    assert (tmp_path / "data" / "pictures.gz").read_bytes() == b"content"


def test_an_unknown_chapter_is_refused():
    with pytest.raises(ValueError, match="no such chapter: 99-nothing"):
        pipeline.update(["99-nothing"])
