"""A release of the book on a server of this machine, and an installed library, which fetches from it."""

import hashlib
import http.server
import threading
import time

import pytest

from uaplib.experiments import images, recipes, registry, store

FILES = {
    "net/a.safetensors": (b"a" * 5000, 300.0, (3, 5)),
    "net/b.json": (b"b" * 3000, 20.0, (5,)),
    "images.json": (b"{}", None, (3, 5, 11)),
    "net/c.safetensors": (b"c" * 100, 1.0, ()),
}


class Release:
    """The files of a release, what is wrong with some of them, by name, and the names that were asked for."""

    def __init__(self, address):
        self.address, self.wrong, self.asked = address, {}, []
        self.files = {name: content for name, (content, *_) in FILES.items()}

    def answer(self, request):
        name = request.path.removeprefix("/artifacts/")
        self.asked.append(name)
        content, wrong = self.files[name], self.wrong.get(name)
        if wrong == "404":
            request.send_error(404)
            return
        time.sleep(0.4 if wrong == "slow" else 0)
        request.send_response(200)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        sent = {"cut off": content[:-1], "wrong bytes": b"x" * len(content)}
        request.wfile.write(sent.get(wrong, content))


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.release.answer(self)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def forgotten():
    """What was remembered of images, layers and weights does not count before or after."""
    remembered = (images.at_hand, images._load, recipes._layers, recipes.weights_sha256)

    def forget():
        for function in remembered:
            getattr(function, "cache_clear", lambda: None)()
        recipes._journals.clear()

    forget()
    yield forget
    forget()


@pytest.fixture
def listed(monkeypatch, tmp_path):
    """A registry of `FILES`, as a file; nothing has been asked for yet."""
    file = tmp_path / "registry.csv"
    monkeypatch.setattr(registry, "FILE", file)
    entries = registry.entries
    entries.cache_clear()
    registry.write(
        {
            name: registry.Entry(len(content), hashlib.sha256(content).hexdigest(), *rest)
            for name, (content, *rest) in FILES.items()
        }
    )
    monkeypatch.setattr(store, "_failures", {})
    monkeypatch.setattr(store, "_unreachable", {})
    yield file
    entries.cache_clear()


@pytest.fixture
def installed(monkeypatch, tmp_path):
    """The data folder, still empty, of a library without a checkout."""
    monkeypatch.setattr(store, "ARTIFACTS", None)
    monkeypatch.setenv("UAPLIB_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


@pytest.fixture
def release(listed, installed, monkeypatch):
    """A release on a server, the source of what is fetched."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.release = Release(f"http://127.0.0.1:{server.server_port}/artifacts/")
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        monkeypatch.setenv("UAPLIB_ARTIFACTS", server.release.address)
        yield server.release
        server.shutdown()


@pytest.fixture
def folders(monkeypatch, tmp_path):
    """Empty folders for artifacts: the checkout's, and that of the data."""
    checkout, kept = tmp_path / "checkout", tmp_path / "data" / "artifacts"
    monkeypatch.setattr(store, "ARTIFACTS", checkout)
    monkeypatch.setattr(store, "data_folder", lambda: tmp_path / "data")
    return checkout, kept
