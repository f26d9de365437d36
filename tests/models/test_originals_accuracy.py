"""The networks that are read from their authors' files say what they should, and have the right gradients."""

import csv
import re
from importlib import resources

import pytest
import torch

from tests.conftest import or_skip
from tests.models.test_originals import load
from uaplib import metrics, models
from uaplib.data import pictures
from uaplib.models.spec import ORIGINALS

SETS = {"imagenet-samples": pictures.all_samples, "nips2017": pictures.nips2017}
every = pytest.mark.parametrize("name", ORIGINALS)
# Top-1 of all 1,000 in per cent, of the samples and of NIPS 2017, as another reading of the same files gave it.
KNOWN = {
    "googlenet-caffe": (73.7, 65.0),
    "squeezenet1_1-caffe": (61.7, 51.2),
    "tiny-darknet": (65.2, 67.9),
    "mobilenet-v1": (86.2, 81.3),
    "mobilenet-v1-0.75": (79.0, 76.3),
    "mobilenet-v1-0.5": (66.6, 65.2),
    "mobilenet-v1-0.25": (44.5, 42.2),
    "mobilenet-v2": (87.5, 82.4),
}


def table():
    """Top-1 in per cent by network, set, kind of files and number of pictures."""
    text = (resources.files("uaplib") / "tables" / "network-accuracy.csv").read_text(encoding="utf-8")
    rows = csv.DictReader(text.splitlines())
    return {(row["network"], row["set"], row["files"], int(row["n"])): float(row["top1"]) for row in rows}


@every
def test_the_table_agrees_with_another_reading_of_the_files(name):
    samples, nips = KNOWN[name]
    assert table()[name, "imagenet-samples", "jpeg", 1000] == pytest.approx(samples, abs=0.3)
    assert table()[name, "nips2017", "png", 1000] == pytest.approx(nips, abs=0.3)
    assert table()[name, "nips2017", "jpg", 1000] == pytest.approx(nips, abs=1)  # a lossy copy


def test_the_table_has_every_network_and_nothing_else():
    sets = (("imagenet-samples", "jpeg"), ("nips2017", "png"), ("nips2017", "jpg"))
    assert {*table()} == {(name, *of, n) for name in ORIGINALS for of in sets for n in (50, 1000)}


@every
def test_the_front_page_says_what_the_table_says(checkout, name):
    page = (checkout / "README.md").read_text(encoding="utf-8")
    samples, nips = (table()[name, *of, 1000] for of in (("imagenet-samples", "jpeg"), ("nips2017", "png")))
    row = models.find(name)
    assert re.search(rf"\| `{name}` \| .* \| {row.resize} → {row.size} \| {samples} \| {nips} \|", page)


@every
@pytest.mark.parametrize("of", SETS)
def test_fifty_pictures_are_recognised_as_the_table_says(name, of):
    model, found = load(name), or_skip(SETS[of])[::20]
    images, labels = found.load(models.preprocessing(name))
    right = metrics.accuracy(metrics.predict(model, images, batch_size=10), labels).value
    known = table()[name, of, found.files[0].suffix[1:].lower(), 50]
    assert 100 * right == pytest.approx(known, abs=2)  # another decoder of pictures may tip one of them


@every
def test_gradients_are_those_of_finite_differences(name):
    model, generator = load(name).double(), torch.Generator().manual_seed(3)
    image = torch.rand(1, 3, 64, 64, generator=generator, dtype=torch.float64).requires_grad_()
    direction = torch.randn(1000, generator=generator, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((model(image) @ direction).sum(), image)
    step = 1e-6
    with torch.no_grad():
        for place in [(0, 0, 20, 30), (0, 1, 31, 32), (0, 2, 45, 17), (0, 0, 63, 63)]:
            change = torch.zeros_like(image)
            change[place] = step
            difference = ((model(image + change) - model(image - change)) @ direction).item() / (2 * step)
            assert gradient[place].item() == pytest.approx(difference, rel=1e-4, abs=1e-5)
