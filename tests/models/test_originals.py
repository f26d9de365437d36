"""Files that others published: where they are found, how they are fetched, and that nothing else passes for them."""

import functools
import hashlib
import http.server
import re
import shutil
import threading

import pooch
import pytest

from tests.conftest import or_skip
from uaplib import models
from uaplib.files import data_folder
from uaplib.models import originals
from uaplib.models.originals import Original
from uaplib.models.spec import ORIGINALS

CONTENTS = {"a/one.bin": b"one" * 500, "a/two.bin": b"two" * 500}


def load(name):
    """A network, or a skipped test where its files or the package that reads them are missing."""
    if name.startswith("mobilenet"):
        pytest.importorskip("tflite")
    return or_skip(models.load, name)


@pytest.fixture
def served(monkeypatch, tmp_path):
    """A folder that a server on this machine shows; the registry lists two files of it, and no data is there yet."""
    folder = tmp_path / "served"
    for name, content in CONTENTS.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
    monkeypatch.setattr(http.server.SimpleHTTPRequestHandler, "log_message", lambda *arguments: None)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("UAPLIB_DATA", str(tmp_path / "data"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        rows = {name: Original(hashlib.sha256(content).hexdigest(), f"{address}/{name}")
                for name, content in CONTENTS.items()}  # fmt: skip
        monkeypatch.setattr(originals, "registry", lambda: rows)
        yield folder
        server.shutdown()


@pytest.fixture
def offline(monkeypatch):
    def unreachable(*arguments, **keywords):
        raise OSError("the network is unreachable")

    monkeypatch.setattr(pooch, "retrieve", unreachable)


def left(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_every_file_has_a_digest_and_an_address_that_names_a_commit():
    rows = originals.registry()
    assert len(rows) == 2 * 58 + 2 * 26 + 2 + 6  # two of each layer of GoogLeNet and SqueezeNet; Darknet; MobileNets
    for place, row in rows.items():
        assert re.fullmatch(r"[0-9a-f]{64}", row.sha256), place
        assert re.match(r"https://raw\.githubusercontent\.com/[\w-]+/[\w-]+/[0-9a-f]{40}/", row.url), place


def test_files_are_fetched_once_and_checked(served, tmp_path, capsys):
    found = originals.find(*CONTENTS)
    assert [path.read_bytes() for path in found] == [*CONTENTS.values()]
    assert left(tmp_path / "data") == ["networks", "networks/a", "networks/a/one.bin", "networks/a/two.bin"]
    assert "downloading a network:   0%|          | 0/2 [" in capsys.readouterr().err
    shutil.rmtree(served)
    assert originals.find(*CONTENTS) == found
    assert capsys.readouterr().err == ""


def test_what_cannot_be_had_is_named_with_its_folder_and_address(served, tmp_path):
    (served / "a/two.bin").unlink()
    with pytest.raises(FileNotFoundError, match="404") as caught:
        originals.find(*CONTENTS)
    for text in (str(tmp_path / "data/networks/a/two.bin"), originals.registry()["a/two.bin"].url):
        assert text in str(caught.value)
    assert left(tmp_path / "data") == ["networks", "networks/a", "networks/a/one.bin"]  # need not be fetched again


def test_wrong_bytes_of_a_server_are_not_kept(served, tmp_path):
    (served / "a/one.bin").write_bytes(b"something else")
    with pytest.raises(FileNotFoundError, match=r"one\.bin.*wrong checksum"):
        originals.find("a/one.bin")
    assert not (tmp_path / "data").exists()


def truncate(folder):
    file = folder / "squeezenet/weights/conv10_filter.bin"
    file.write_bytes(file.read_bytes()[:1000])


def swap(folder):
    """Exchange two files of the same size."""
    first, second = (folder / f"squeezenet/weights/fire2/expand{size}_bias.bin" for size in ("1x1", "3x3"))
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)


def replace(folder):
    (folder / "squeezenet/weights/conv1_filter.bin").write_bytes(b"TFL3" * 1728)


@pytest.mark.parametrize(
    ("damage", "file"), [(truncate, "conv10_filter"), (swap, "expand1x1_bias"), (replace, "conv1_filter")]
)
def test_a_network_with_a_damaged_file_is_refused(monkeypatch, tmp_path, damage, file):
    load("squeezenet1_1-caffe")
    shutil.copytree(data_folder() / "networks" / "squeezenet", tmp_path / "networks" / "squeezenet")
    monkeypatch.setenv("UAPLIB_DATA", str(tmp_path))
    damage(tmp_path / "networks")
    with pytest.raises(ValueError, match=rf"{file}\.bin is damaged or another file than https.*delete it"):
        models.load("squeezenet1_1-caffe")


@pytest.mark.parametrize("name", ORIGINALS)
def test_a_network_without_its_files_names_the_first_of_them(monkeypatch, tmp_path, offline, name):
    if name.startswith("mobilenet"):
        pytest.importorskip("tflite")
    monkeypatch.setenv("UAPLIB_DATA", str(tmp_path / "nothing"))
    with pytest.raises(
        FileNotFoundError, match="https://raw.githubusercontent.com/.*the network is unreachable"
    ) as got:
        models.load(name)
    assert str(tmp_path / "nothing" / "networks") in str(got.value)
    assert not (tmp_path / "nothing").exists()
