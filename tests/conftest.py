"""Fixtures shared by the tests: a small trained network in double precision, and the data sets, or a skipped test."""

import copy

import pooch
import pytest
import torch
from hypothesis import settings
from torch import nn
from torch.nn import functional as F

from uaplib import files, models, published
from uaplib.data import fashion_mnist

CLASSES = 5
settings.register_profile("repeatable", derandomize=True, deadline=None, max_examples=50)
settings.load_profile("repeatable")

ABOUT_THE_CHECKOUT = [
    "book", "notebooks", "pipeline/test_dependencies.py", "test_additions.py", "test_artifacts.py", "test_wheel.py",
]  # fmt: skip
collect_ignore = [] if files.checkout() else ABOUT_THE_CHECKOUT


def pytest_report_header():
    return f"uaplib is no checkout, left out: {', '.join(collect_ignore)}" if collect_ignore else []


@pytest.fixture
def checkout():
    """The root of the checkout that the library runs from; elsewhere, what is about a checkout is skipped."""
    if not (root := files.checkout()):
        pytest.skip("uaplib does not run from a checkout")
    return root


@pytest.fixture(scope="session")
def blobs():
    """120 float64 images (1, 12, 12) well inside [0, 1] and their labels: five patterns under noise."""
    generator = torch.Generator().manual_seed(1)
    patterns = torch.rand(CLASSES, 1, 12, 12, generator=generator, dtype=torch.float64)
    labels = torch.arange(CLASSES).repeat(24)
    noise = torch.rand(len(labels), 1, 12, 12, generator=generator, dtype=torch.float64)
    return 0.2 + 0.6 * (0.35 * patterns[labels] + 0.65 * noise), labels


@pytest.fixture(scope="session")
def trained(blobs):
    """The network that `model` copies; tests that use it must leave it as it is."""
    images, labels = blobs
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Conv2d(1, 6, 3, stride=2, padding=1), nn.Softplus(),
            nn.Conv2d(6, 8, 3, stride=2, padding=1), nn.Softplus(),
            nn.Flatten(), nn.Linear(72, CLASSES),
        )  # fmt: skip
        model = models.Normalized(network, [0.5], [0.25]).double()
        for _ in range(150):
            loss = F.cross_entropy(model(images), labels)
            gradients = torch.autograd.grad(loss, list(model.parameters()))
            with torch.no_grad():
                for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                    parameter -= 0.1 * gradient
    return model.eval()


@pytest.fixture
def model(trained):
    """A smooth network for `blobs`, in evaluation mode; its parameters still require gradients."""
    return copy.deepcopy(trained)


def or_skip(load, *arguments):
    """What a loader returns, or a skipped test where it does not find its files: the loader knows which it needs."""
    try:
        return load(*arguments)
    except FileNotFoundError as error:
        why, *_ = str(error).splitlines()
        pytest.skip(why)


@pytest.fixture(scope="session")
def clothes():
    """The first 2000 test images of Fashion-MNIST and their labels."""
    return or_skip(fashion_mnist.load, "test", 2000)


@pytest.fixture(scope="session")
def crafting_clothes():
    """The first 100 training images of Fashion-MNIST and their labels, for tests that craft on such."""
    return or_skip(fashion_mnist.load, "train", 100)


@pytest.fixture(scope="session")
def released():
    """A function from a name to the file of a released perturbation, which is not downloaded for a test."""

    def find(name):
        file = published.file_of(name)
        if not file.is_file():
            pytest.skip(f"{file} is not there")
        if file.suffix == ".h5":
            pytest.importorskip("h5py")
        return file

    return find


@pytest.fixture
def no_data(monkeypatch, tmp_path):
    """No source of Fashion-MNIST: empty folders, no network."""

    def unreachable(*arguments, **keywords):
        raise OSError("the network is unreachable")

    monkeypatch.setenv("UAPLIB_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(fashion_mnist, "SYSTEM_FOLDER", tmp_path / "system")
    monkeypatch.setattr(pooch, "retrieve", unreachable)
    return tmp_path / "data"
