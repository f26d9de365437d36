import gzip
import hashlib
import http.server
import threading

import pooch
import pytest
import torch

from uaplib import files, models
from uaplib.data import DATASETS, fashion_mnist


def test_shapes_types_and_range(clothes):
    assert clothes.images.shape == (2000, 1, 28, 28)
    assert clothes.images.dtype == torch.float32
    assert (clothes.images.min(), clothes.images.max()) == (0, 1)
    assert clothes.labels.dtype == torch.int64
    assert sorted(clothes.labels.unique().tolist()) == list(range(len(fashion_mnist.CLASSES)))


def test_the_whole_splits_and_their_statistics(clothes, crafting_clothes):
    train, test = fashion_mnist.load("train"), fashion_mnist.load("test")
    assert (len(train.images), len(train.labels), len(test.images), len(test.labels)) == (60000, 60000, 10000, 10000)
    assert train.images.double().mean().item() == pytest.approx(models.find("resnet-mini").mean[0], abs=5e-5)
    assert train.images.double().std().item() == pytest.approx(models.find("resnet-mini").std[0], abs=5e-5)
    assert train.labels.bincount().tolist() == [6000] * 10
    assert torch.equal(test.images[:2000], clothes.images)


def test_the_first_test_image_is_an_ankle_boot(clothes):
    assert fashion_mnist.CLASSES[clothes.labels[0]] == "Ankle boot"


def test_the_data_set_is_registered():
    assert DATASETS["fashion-mnist"] is fashion_mnist


def test_an_unknown_split():
    with pytest.raises(ValueError, match=r"split must be one of \('train', 'test'\), not 'val'"):
        fashion_mnist.load("val")


@pytest.mark.parametrize("installed", [False, True])
def test_without_any_source_the_message_says_where_why_and_what_to_do(
    no_data, monkeypatch, tmp_path, request, installed
):
    remedy = "Run `make data`, which asks Debian's archive too; or put the four files there, or install"
    if installed:
        monkeypatch.setattr(files, "__file__", str(tmp_path / "site-packages" / "uaplib" / "files.py"))
        remedy = (
            f"Get the four files from {fashion_mnist.URL} and put them into {no_data / 'fashion-mnist'}, or install"
        )
    else:
        request.getfixturevalue("checkout")
    with pytest.raises(FileNotFoundError) as caught:
        fashion_mnist.load("test")
    name = "t10k-images-idx3-ubyte.gz"
    assert str(caught.value).splitlines() == [
        f"{no_data / 'fashion-mnist' / name} is not there, and {fashion_mnist.URL + name} could not be downloaded: "
        "the network is unreachable.",
        f"{remedy} Debian's package dataset-fashion-mnist.",
    ]


def test_without_any_source_the_first_twenty_are_foolboxs_and_a_warning_says_so(no_data):
    pytest.importorskip("foolbox")
    with pytest.warns(
        UserWarning, match="only the first 20 test images, which foolbox carries: .*is not there"
    ) as warned:
        found = fashion_mnist.load_or_twenty(1000)
    assert len(warned) == 1
    assert isinstance(found, fashion_mnist.Images)
    assert found.images.shape == (20, 1, 28, 28)
    assert found.labels[:4].tolist() == [9, 2, 1, 1]
    with pytest.warns(UserWarning, match="foolbox"):
        assert torch.equal(fashion_mnist.load_or_twenty(3).images, found.images[:3])


def test_foolboxs_are_the_first_twenty_to_the_bit(clothes, request):
    pytest.importorskip("foolbox")
    assert torch.equal(fashion_mnist.load_or_twenty(2000).images, clothes.images)
    request.getfixturevalue("no_data")
    with pytest.warns(UserWarning, match="foolbox"):
        images, labels = fashion_mnist.load_or_twenty(20)
    assert images.dtype == clothes.images.dtype
    assert torch.equal(images, clothes.images[:20])
    assert torch.equal(labels, clothes.labels[:20])


def test_without_foolbox_the_images_are_asked_for(no_data, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match="t10k-images-idx3-ubyte.gz is not there"):
        fashion_mnist.load_or_twenty(5)


@pytest.fixture
def copies(monkeypatch, tmp_path):
    """A tiny data set in place of the real one: the content of the test split by file name."""
    images, labels = bytes(16) + bytes(range(256)) * 49 + bytes(1 * 784), bytes(8) + bytes(range(17))
    files, contents = {}, {}
    for kind, content in {"images": images, "labels": labels}.items():
        name, packed = f"{kind}.gz", gzip.compress(content, mtime=0)
        files["test", kind] = fashion_mnist._File(
            name, hashlib.md5(packed).hexdigest(), hashlib.sha256(content).hexdigest()
        )
        contents[name] = packed
    monkeypatch.setattr(fashion_mnist, "_FILES", files)
    monkeypatch.setattr(fashion_mnist, "SYSTEM_FOLDER", tmp_path / "system")
    monkeypatch.setenv("UAPLIB_DATA", str(tmp_path / "data"))
    return contents


def put(folder, contents):
    folder.mkdir(parents=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)


@pytest.fixture
def server(monkeypatch):
    """A server on this machine in place of the public download; maps file names to contents."""
    served = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            content = served.get(self.path.lstrip("/"))
            self.send_response(404 if content is None else 200)
            self.end_headers()
            self.wfile.write(content or b"")

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        monkeypatch.setattr(fashion_mnist, "URL", f"http://127.0.0.1:{listening.server_port}/")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        yield served
        listening.shutdown()


@pytest.fixture
def no_network(monkeypatch):
    monkeypatch.setattr(pooch, "retrieve", lambda *a, **k: pytest.fail("the network was asked"))


def check_tiny(data):
    assert data.images.shape == (17, 1, 28, 28)
    assert data.images[0].flatten()[:256].tolist() == pytest.approx([k / 255 for k in range(256)])
    assert data.labels.tolist() == list(range(17))


@pytest.mark.parametrize("place", ["data/fashion-mnist", "system"])
def test_a_local_copy_is_used_without_the_network(copies, no_network, tmp_path, place):
    put(tmp_path / place, copies)
    check_tiny(fashion_mnist.load("test"))
    assert len(fashion_mnist.load("test", 3).images) == len(fashion_mnist.load("test", 3).labels) == 3


def test_the_data_folder_comes_before_the_systems(copies, no_network, tmp_path):
    put(tmp_path / "data" / "fashion-mnist", copies)
    put(tmp_path / "system", dict.fromkeys(copies, b"damaged"))
    check_tiny(fashion_mnist.load("test"))


def test_a_download_is_checked_and_kept(copies, server, tmp_path, monkeypatch):
    server.update(copies)
    check_tiny(fashion_mnist.load("test"))
    assert {p.name: p.read_bytes() for p in (tmp_path / "data" / "fashion-mnist").iterdir()} == copies
    server.clear()
    check_tiny(fashion_mnist.load("test"))


OTHER = gzip.compress(b"other", mtime=0)  # without the time of day, which would make the name of the test vary


@pytest.mark.parametrize("content", [b"<html>log in to the hotel's network</html>", b"", OTHER])
@pytest.mark.usefixtures("checkout")
def test_a_corrupted_download_is_refused_and_nothing_is_left(copies, server, tmp_path, content):
    server.update(dict.fromkeys(copies, content))
    with pytest.raises(FileNotFoundError, match=r"images.gz could not be downloaded: wrong checksum\.\n.*`make data`"):
        fashion_mnist.load("test")
    assert not (tmp_path / "data").exists()


@pytest.mark.usefixtures("checkout")
def test_a_missing_download_is_told(copies, server):
    with pytest.raises(FileNotFoundError, match=r"downloaded: 404 Not Found\.\n.*`make data`"):
        fashion_mnist.load("test")


DAMAGES = {
    "end cut": lambda content: content[:-9],
    "half": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "text": lambda content: b"text",
    "another file": lambda content: gzip.compress(b"x"),
    "one bit": lambda content: content[:30] + bytes([content[30] ^ 1]) + content[31:],
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_file_in_the_data_folder_is_named(copies, no_network, tmp_path, damage):
    put(tmp_path / "data" / "fashion-mnist", {name: damage(content) for name, content in copies.items()})
    with pytest.raises(
        ValueError, match=r"data/fashion-mnist/images.gz is damaged: .*SHA-256. Delete it and try again"
    ):
        fashion_mnist.load("test")


def test_a_full_disk_while_downloading_is_told_and_nothing_is_left(copies, server, tmp_path, monkeypatch):
    def full(*arguments, **keywords):
        raise OSError(28, "No space left on device")

    server.update(copies)
    monkeypatch.setattr("shutil.move", full)
    with pytest.raises(FileNotFoundError, match=r"downloaded: No space left on device\.\n"):
        fashion_mnist.load("test")
    assert not (tmp_path / "data").exists()


def test_a_data_folder_that_cannot_be_made_is_told(copies, server, tmp_path, monkeypatch):
    server.update(copies)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("UAPLIB_DATA", str(tmp_path / "file" / "data"))
    with pytest.raises(FileNotFoundError, match=r"downloaded: Not a directory\.\n"):
        fashion_mnist.load("test")
